//! The log on a device: power cuts, failures, a full device, several partitions.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::collections::BTreeMap;
use std::path::Path;

use slos::{
    CommitError, DeviceMedium, Epoch, Medium, OpenError, SegmentId, Settings, Store, WriteError,
};
use workbench::{Bench, Content, Model, Op, PageOp, SimDevice, script};

const SMALL: usize = 4 << 20;

/// A small xorshift generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_history_is_there_after_each_opening() {
    let mut bench = Bench::on_device(SMALL);
    for (n, op) in script(60).iter().enumerate() {
        bench.apply(op);
        if n % 5 == 0 {
            bench.reopen();
        }
    }
    bench.check_all();
    bench.reopen();
    bench.check_all();
}

/// Each write and flush fails once, with all after it, and what was not flushed is mixed up: what
/// was acknowledged is there, and the log goes on.
#[test]
fn any_call_may_fail() {
    let ops = script(if cfg!(debug_assertions) { 8 } else { 20 });
    let stride = if cfg!(debug_assertions) { 11 } else { 1 };
    for n in (0..).step_by(stride) {
        let mut bench = Bench::on_device(SMALL);
        let device = bench.device.clone().unwrap();
        device.fail_after(n);
        let Some(failed) = ops.iter().find(|op| !bench.attempt(op)) else {
            assert!(n > ops.len() as u64);
            return;
        };
        assert!(bench.store().verify().is_err(), "the handle is dead");
        bench.close();
        device.heal();
        let mut random = Random(n + 1);
        let image = device.cut(device.steps(), || random.next().is_multiple_of(2));
        device.set_image(&image);
        let report = bench.recover();
        assert!(report.is_clean(), "after change {n}: {report:?}");
        bench.check_after_fault(failed);
        bench.check_it_goes_on();
    }
}

/// The power goes at every step of a history that also cleans; of what was not flushed any sectors
/// are there.
#[test]
fn the_power_may_go_at_any_step() {
    let mut bench = Bench::on_device(2 << 20);
    let device = bench.device.clone().unwrap();
    bench.close();
    device.settle();
    bench.recover();
    let mut acked: Vec<(usize, BTreeMap<Epoch, Model>)> = vec![(0, bench.model.clone())];
    let mut ops = script(if cfg!(debug_assertions) { 6 } else { 24 });
    ops.retain(|op| !matches!(op, Op::Settle(_)));
    for op in &ops {
        bench.apply(op);
        acked.push((device.steps(), bench.model.clone()));
    }
    let cleaned = bench.store().stats().unwrap().cleaned;
    assert!(
        cfg!(debug_assertions) || cleaned > 0,
        "the cleaner was at work"
    );
    bench.close();
    let steps = device.steps();
    let seeds = if cfg!(debug_assertions) { 1 } else { 4 };
    for at in 0..=steps {
        for seed in 0..seeds {
            let mut random = Random((at as u64) << 8 | seed | 1 << 40);
            // All of them, none, half, few.
            let one_in = [1, u64::MAX, 2, 5][seed as usize % 4];
            let image = device.cut(at, || random.next().is_multiple_of(one_in));
            let done = acked.partition_point(|(step, _)| *step <= at) - 1;
            check_cut(
                &image,
                &acked[done].1,
                acked.get(done + 1).map(|a| &a.1),
                at,
            );
        }
    }
}

/// After a cut: the acknowledged history, or what the operation in progress had made of it.
fn check_cut(
    image: &[u8],
    before: &BTreeMap<Epoch, Model>,
    after: Option<&BTreeMap<Epoch, Model>>,
    at: usize,
) {
    let mut bench = Bench::on_device(2 << 20);
    bench.device.as_ref().unwrap().set_image(image);
    let report = bench.recover();
    assert!(report.is_clean(), "cut at {at}: {report:?}");
    let parts = bench.store().partitions().unwrap();
    if parts.is_empty() {
        assert!(before.is_empty());
        return;
    }
    let history = bench.partition().history().unwrap();
    let listed: Vec<Epoch> = history.iter().map(|i| i.epoch).collect();
    let now = after.unwrap_or(before);
    for epoch in before.keys().filter(|e| now.contains_key(e)) {
        assert!(listed.contains(epoch), "cut at {at}: {epoch} is gone");
    }
    bench.model = before.clone();
    bench.model.extend(now.iter().map(|(e, m)| (*e, m.clone())));
    for epoch in &listed {
        // A chain of checkpoints, each dropped for the next, leaves some that no model has.
        if bench.model.contains_key(epoch) {
            bench.check(*epoch);
        }
    }
    let verified = bench.store().verify().unwrap();
    assert!(verified.is_clean(), "cut at {at}: {verified:?}");
    bench.model.retain(|epoch, _| listed.contains(epoch));
    bench.recover();
    let again = bench.partition().history().unwrap();
    assert_eq!(history, again, "cut at {at}: opening again changes nothing");
}

/// A full device says so; nothing goes that nobody dropped, and dropping makes room.
#[test]
fn a_full_device_loses_nothing() {
    let mut bench = Bench::on_device(SMALL);
    let part = bench.partition();
    let noise = |seed: u64| -> Vec<(u32, PageOp)> {
        (0..20)
            .map(|p| (0, PageOp::Write(p, Content::Noise(seed * 100 + p))))
            .collect()
    };
    let mut seed = 1;
    let error = loop {
        let last = bench.model.keys().next_back().copied();
        let before = part.history().unwrap().len();
        if let Err(error) = bench.try_commit(last, &noise(seed)) {
            assert_eq!(part.history().unwrap().len(), before);
            break error;
        }
        seed += 1;
        assert!(seed < 200, "it gets full");
    };
    assert!(
        matches!(error, CommitError::Write(WriteError::Full { .. })),
        "{error}"
    );
    bench.check_all();
    bench.reopen();
    bench.check_all();
    let part = bench.partition();
    let count = bench.model.len();
    for epoch in bench
        .model
        .keys()
        .copied()
        .take(count / 2)
        .collect::<Vec<_>>()
    {
        part.drop_epoch(epoch).unwrap();
        bench.forget(epoch);
    }
    for round in 0..4 {
        let last = bench.model.keys().next_back().copied();
        bench.try_commit(last, &noise(1000 + round)).unwrap();
    }
    bench.check_all();
    bench.reopen();
    bench.check_all();
}

#[test]
fn several_partitions_share_a_device() {
    let device = SimDevice::new(SMALL);
    let open = || {
        Store::open_device(device.device(), Path::new("d"))
            .unwrap()
            .0
    };
    let store = open();
    for name in ["a", "b", "c"] {
        store.add_partition(name, Settings::default()).unwrap();
    }
    drop(store);
    let store = open();
    store.remove_partition("b").unwrap();
    let names: Vec<String> = open_names(&store);
    assert_eq!(names, ["a", "c"]);
    drop(store);
    assert_eq!(open_names(&open()), ["a", "c"]);
}

fn open_names(store: &Store) -> Vec<String> {
    let parts = store.partitions().unwrap();
    parts.into_iter().map(|p| p.name).collect()
}

#[test]
fn what_is_no_store_is_refused() {
    let blank = SimDevice::of(vec![0; SMALL]);
    let refused = Store::open_device(blank.device(), Path::new("d"));
    assert!(matches!(refused, Err(OpenError::NoStore { .. })));
    let small = SimDevice::of(vec![0; 1 << 20]);
    assert!(slos::format_device(&small).is_err());
    assert!(!slos::holds_store(&blank).unwrap());
    assert!(slos::holds_store(&SimDevice::new(SMALL)).unwrap());
    // The end of the device is gone.
    let image = SimDevice::new(SMALL).image();
    let cut = SimDevice::of(image[..SMALL - 8192].to_vec());
    let refused = Store::open_device(cut.device(), Path::new("d"));
    assert!(matches!(refused, Err(OpenError::Device { .. })));
}

/// A slot that was given back is written over only once that lasts, and nobody reads it any more.
#[test]
fn a_slot_is_used_again_when_it_is_free_for_good() {
    let device = SimDevice::new(2 << 20);
    let medium = DeviceMedium::open(device.device(), Path::new("d")).unwrap();
    let slots = medium.layout().unwrap().slots;
    for n in 1..=slots {
        let file = medium.create(SegmentId(n)).unwrap();
        file.write_at(&[n as u8; 64], 64).unwrap();
    }
    let full = medium.create(SegmentId(100)).err().unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    medium.sync().unwrap();
    device.settle();
    let read = medium.open(SegmentId(3)).unwrap();
    medium.remove(SegmentId(3)).unwrap();
    medium.sync().unwrap();
    assert!(medium.create(SegmentId(100)).is_err(), "it is being read");
    let mut bytes = [0; 64];
    read.read_at(&mut bytes, 64).unwrap();
    assert_eq!(bytes, [3; 64]);
    drop(read);
    medium.remove(SegmentId(5)).unwrap();
    device.settle();
    medium.create(SegmentId(100)).unwrap();
    assert_eq!(device.steps(), 0, "that of 3 was flushed before");
    medium.create(SegmentId(101)).unwrap();
    assert_eq!(device.steps(), 1, "that of 5 is flushed first");
}

/// A store that layout version 1 made, as it was written then.
#[test]
fn the_golden_store_opens() {
    let packed = std::fs::read("tests/golden/device-1.lz4").unwrap();
    let image = lz4_flex::block::decompress_size_prepended(&packed).unwrap();
    let device = SimDevice::of(image);
    let report = slos::fsck::fsck(&device).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.slots, 12);
    let (store, report) = Store::open_device(device.device(), Path::new("d")).unwrap();
    assert!(report.is_clean());
    let mut bench = golden();
    let (written, wanted) = (store.partition("p").unwrap(), bench.partition());
    assert_eq!(written.history().unwrap(), wanted.history().unwrap());
    bench.device = Some(device);
    drop(store);
    bench.reopen();
    bench.check_all();
}

/// What is in the golden store; its bytes are kept, so this must not change.
fn golden() -> Bench {
    let mut bench = Bench::on_device(2 << 20);
    let text = |page, seed| (0, PageOp::Write(page, Content::Text(seed)));
    bench.apply(&Op::Commit(vec![
        text(1, 1),
        text(2, 2),
        (0, PageOp::Write(3, Content::Zero)),
    ]));
    let first = *bench.model.keys().next().unwrap();
    let edited = (0, PageOp::Write(4, Content::Noise(5)));
    bench.apply(&Op::Commit(vec![edited, (0, PageOp::Fork(0, 1))]));
    let edited = (0, PageOp::Write(4, Content::Edit(5, 77, 3)));
    bench.apply(&Op::Commit(vec![edited, (1, PageOp::Unmap(2, 1))]));
    bench.commit(Some(first), &[text(9, 9)]);
    bench
        .partition()
        .set_name(first, Some("first".to_owned()))
        .unwrap();
    bench.partition().pin(first).unwrap();
    let model = bench.model.get_mut(&first).unwrap();
    model.name = Some("first".to_owned());
    model.pinned = true;
    bench
}

/// Writes the golden file anew, for the next layout version: `cargo test -p slos --test device -- --ignored`.
#[test]
#[ignore = "writes a file into the repository"]
fn write_the_golden_store() {
    let mut bench = golden();
    bench.close();
    let image = bench.device.unwrap().image();
    let packed = lz4_flex::block::compress_prepend_size(&image);
    std::fs::create_dir_all("tests/golden").unwrap();
    std::fs::write("tests/golden/device-1.lz4", packed).unwrap();
}
