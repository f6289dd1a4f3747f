//! Opening a store by outlines, and telling that it is as it was: what is remembered spares reading,
//! and changes nothing that is found.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use slos::{Epoch, Keep, Store, fingerprint};
use workbench::outlines::Kept;
use workbench::{Bench, Content, Op, PageOp, SimDevice, script};

const SMALL: usize = 4 << 20;

/// A store of several segments, closed, and the outlines of an opening.
fn kept_bench(rounds: u64) -> (Bench, Arc<Kept>) {
    let mut bench = Bench::on_device(SMALL);
    let kept = Arc::new(Kept::default());
    bench.outlines = Some(Arc::clone(&kept));
    for op in &script(rounds) {
        bench.apply(op);
    }
    bench.reopen();
    (bench, kept)
}

/// All that can be asked of a store: histories with their settings, each record and page, or that it
/// cannot be read.
fn answers(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    for info in store.partitions().unwrap() {
        all.push(format!("{} {:?}", info.name, info.settings));
        let part = store.partition(&info.name).unwrap();
        for checkpoint in part.history().unwrap() {
            all.push(format!("{checkpoint:?}"));
            all.extend(contents(&part, checkpoint.epoch));
        }
    }
    all
}

fn contents(part: &slos::Partition, epoch: Epoch) -> Vec<String> {
    let mut all = vec![match part.record(epoch) {
        Ok(record) => format!("{record:?}"),
        Err(_) => "unreadable".to_owned(),
    }];
    let mut page = [0; slos::PAGE];
    for space in part.spaces(epoch).unwrap() {
        for index in part.page_map(epoch, space).unwrap() {
            let read = part.read_page(epoch, space, index, &mut page);
            let sum = read.map(|_| {
                page.iter()
                    .fold(0u64, |s, b| s * 31 % 0xffff_fffb + u64::from(*b))
            });
            all.push(match sum {
                Ok(sum) => format!("{space} {index} {sum}"),
                Err(_) => "unreadable".to_owned(),
            });
        }
    }
    all
}

fn plainly(image: &[u8]) -> (Vec<String>, bool) {
    let device = SimDevice::of(image.to_vec()).device();
    let (store, report) = Store::open_device(device, Path::new("plain")).unwrap();
    (answers(&store), report.is_clean())
}

fn by(image: &[u8], kept: &Kept) -> (Vec<String>, u64) {
    let device = SimDevice::of(image.to_vec()).device();
    let (store, report) = Store::open_device_by(device, Path::new("by"), kept).unwrap();
    (answers(&store), report.skimmed)
}

#[test]
fn a_history_is_there_after_each_opening_by_outlines() {
    let mut bench = Bench::on_device(SMALL);
    bench.outlines = Some(Arc::default());
    let mut skimmed = 0;
    for (n, op) in script(60).iter().enumerate() {
        bench.apply(op);
        if n % 5 == 0 {
            skimmed += bench.recover().skimmed;
        }
    }
    assert!(skimmed > 20, "{skimmed}");
    bench.check_all();
    bench.reopen();
    bench.check_all();
    assert!(bench.store().verify().unwrap().is_clean());
}

/// A copy of a store goes its own way: same numbers, same places, other records.
#[test]
fn outlines_of_a_copy_that_went_another_way_change_nothing() {
    let (mut bench, kept) = kept_bench(20);
    bench.close();
    let image = bench.device.as_ref().unwrap().image();
    let other = SimDevice::of(image.clone());
    let mut copy = Bench::on_device(SMALL);
    copy.device = Some(other.clone());
    copy.model = bench.model.clone();
    copy.recover();
    bench.recover();
    for bench in [&mut bench, &mut copy] {
        bench.apply(&Op::Settle(Keep::All));
    }
    let newest = bench.model.keys().next_back().copied();
    bench.commit(newest, &[(0, PageOp::Write(1, Content::Noise(77)))]);
    copy.commit(newest, &[(0, PageOp::Write(1, Content::Noise(78)))]);
    bench.recover();
    copy.close();
    let image = other.image();
    let (found, skimmed) = by(&image, &kept);
    assert!(skimmed > 0, "what both have is known");
    assert_eq!(found, plainly(&image).0);
}

#[test]
fn a_fingerprint_is_of_one_log() {
    let (mut bench, _) = kept_bench(12);
    bench.close();
    let device = bench.device.clone().unwrap();
    let first = fingerprint(&device.device()).unwrap().unwrap();
    assert_eq!(fingerprint(&device.device()).unwrap(), Some(first));
    let image = device.image();
    bench.recover();
    bench.close();
    let opened = fingerprint(&device.device()).unwrap().unwrap();
    assert_eq!(first.store, opened.store);
    assert_ne!(first.log, opened.log, "an opening is told");
    // The same opening, with more in it.
    bench.recover();
    bench.commit_noise(5);
    let during = device.image();
    bench.commit_noise(6);
    bench.close();
    let of = |image: &[u8]| fingerprint(&SimDevice::of(image.to_vec()).device()).unwrap();
    assert_ne!(
        of(&during),
        of(&device.image()),
        "an image of before its end is told"
    );
    assert_eq!(of(&image), Some(first));
    assert_eq!(of(&vec![0; SMALL]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 24 } else { 128 }))]

    /// Whatever is made of outlines, the store is the same.
    #[test]
    fn scribbled_outlines_change_nothing(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8u32), 1..6), swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3)) {
        let (mut bench, kept) = kept_bench(10);
        bench.close();
        let image = bench.device.as_ref().unwrap().image();
        let (plain, clean) = plainly(&image);
        prop_assert!(clean);
        kept.scribble(&flips, &swaps);
        prop_assert_eq!(by(&image, &kept).0, plain.clone());
        // What was learnt on the way is right again.
        let (found, skimmed) = by(&image, &kept);
        prop_assert_eq!(found, plain);
        prop_assert!(skimmed > 0);
    }

    /// A bit flips on the device: by outlines the same checkpoints are there, and of their pages at
    /// least those that are without; none is another one.
    #[test]
    fn damage_is_no_other_answer(at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let (mut bench, kept) = kept_bench(10);
        bench.close();
        let image = bench.device.as_ref().unwrap().image();
        let (whole, _) = plainly(&image);
        let mut damaged = image.clone();
        damaged[at.index(image.len())] ^= 1 << bit;
        let (plain, _) = plainly(&damaged);
        let (found, _) = by(&damaged, &kept);
        prop_assert_eq!(found.len(), plain.len());
        for (found, plain) in found.iter().zip(&plain) {
            prop_assert!(found == plain || plain == "unreadable");
        }
        if found.len() == whole.len() {
            let readable = found.iter().zip(&whole).filter(|(f, _)| *f != "unreadable");
            for (found, whole) in readable {
                prop_assert_eq!(found, whole);
            }
        }
        // The listing of a store that looks the same is the same.
        let same = fingerprint(&SimDevice::of(image).device()).unwrap();
        if fingerprint(&SimDevice::of(damaged).device()).unwrap() == same {
            let listed = |answers: &[String]| -> Vec<String> {
                let lines = answers.iter().filter(|l| l.starts_with("CheckpointInfo"));
                lines.cloned().collect()
            };
            prop_assert_eq!(listed(&plain), listed(&whole));
        }
    }
}
