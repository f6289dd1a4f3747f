//! Faults: cuts at any byte, failures of any call, flipped bits.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::collections::BTreeMap;

use proptest::prelude::*;
use slos::{Epoch, PAGE, PageIndex, SegmentId, SpaceId};
use workbench::{Bench, Model, Op, script};

/// Every change of the medium fails once, with all after it: what was acknowledged is there.
#[test]
fn any_call_may_fail() {
    let ops = script(if cfg!(debug_assertions) { 12 } else { 30 });
    let stride = if cfg!(debug_assertions) { 7 } else { 1 };
    for n in (0..).step_by(stride) {
        let mut bench = Bench::new(None);
        bench.disk.fail_after(n);
        let Some(failed) = ops.iter().find(|op| !bench.attempt(op)) else {
            assert!(
                n > ops.len() as u64,
                "the script makes more changes than that"
            );
            return;
        };
        assert!(bench.store().verify().is_err(), "the handle is dead");
        bench.disk.heal();
        let report = bench.recover();
        assert!(report.is_clean(), "after change {n}: {report:?}");
        bench.check_after_fault(failed);
        bench.check_it_goes_on();
    }
}

/// The last segment ends at any byte: every checkpoint acknowledged before is there, and exact.
#[test]
fn the_log_may_end_anywhere() {
    let mut bench = Bench::sized(None, 1 << 20);
    let mut acked: Vec<(usize, BTreeMap<Epoch, Model>)> = Vec::new();
    for op in script(14) {
        if matches!(op, Op::Commit(_) | Op::Name(_)) {
            bench.apply(&op);
            acked.push((
                bench.disk.snapshot()[&SegmentId(1)].len(),
                bench.model.clone(),
            ));
        }
    }
    let whole = bench.disk.snapshot();
    assert_eq!(whole.len(), 1, "one segment holds it all");
    let last = whole[&SegmentId(1)].clone();
    let mut cuts: Vec<usize> = acked
        .iter()
        .flat_map(|(len, _)| [len - 1, *len, len + 1])
        .collect();
    let step = if cfg!(debug_assertions) { 4999 } else { 211 };
    cuts.extend((acked[0].0..last.len()).step_by(step));
    for cut in cuts
        .into_iter()
        .filter(|&c| c <= last.len() && c >= acked[0].0)
    {
        for garbage in [0usize, 40] {
            let mut bytes = last[..cut].to_vec();
            bytes.extend(std::iter::repeat_n(0x5a, garbage));
            bench.disk.restore(&BTreeMap::from([(SegmentId(1), bytes)]));
            let (_, model) = acked.iter().rev().find(|(len, _)| *len <= cut).unwrap();
            bench.model.clone_from(model);
            let report = bench.recover();
            // Bytes after the cut can pass for the rest of a record that was damaged.
            assert!(garbage > 0 || report.is_clean(), "cut at {cut}: {report:?}");
            let listed = bench.partition().history().unwrap();
            assert!(listed.len() - model.len() <= 1, "cut at {cut}");
            for &epoch in model.keys() {
                bench.check(epoch);
            }
        }
    }
}

/// Whatever bit is flipped: a page reads exactly as it was, or not at all.
#[test]
fn flipped_bits_never_read_as_pages() {
    let mut bench = Bench::new(None);
    for op in script(24) {
        bench.apply(&op);
    }
    bench.reopen();
    let whole = bench.disk.snapshot();
    let step = if cfg!(debug_assertions) { 9973 } else { 397 };
    let mut detected = 0;
    for (&segment, bytes) in &whole {
        let spots = (0..64).step_by(5).chain((64..bytes.len()).step_by(step));
        for at in spots {
            bench.disk.restore(&whole);
            bench.disk.scribble(segment, |b| b[at] ^= 1 << (at % 8));
            detected += usize::from(check_damaged(&mut bench, segment, at));
        }
    }
    assert!(detected > 10, "most flips hit something that lives");
}

/// Opens a damaged store and reads all of it; whether the damage showed.
fn check_damaged(bench: &mut Bench, segment: SegmentId, at: usize) -> bool {
    let report = bench.recover();
    let name = &bench.store().partitions().unwrap()[0].name;
    let part = bench.store().partition(name).unwrap();
    let mut faults = 0;
    for (&epoch, model) in &bench.model {
        for (&space, pages) in &model.spaces {
            for page in (0..30).map(PageIndex) {
                let mut out = [0; PAGE];
                match part.read_page(epoch, SpaceId(space), page, &mut out) {
                    Ok(_) => {
                        let zero = [0; PAGE];
                        let expected = pages.get(&page.0).map_or(&zero, |p| p);
                        assert!(out == *expected, "{segment} byte {at}: {epoch} {page}");
                    }
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains(&epoch.to_string()), "{error}");
                        faults += 1;
                    }
                }
            }
        }
        faults += usize::from(part.record(epoch).map_or(true, |r| r != model.record));
    }
    let noticed = !report.is_clean() || report.torn_bytes > 0;
    let verified = bench.store().verify().unwrap();
    assert!(
        faults == 0 || noticed || !verified.is_clean(),
        "{segment} byte {at}"
    );
    noticed || faults > 0
}

/// Damage beneath an open store shows as errors that name the checkpoint, and cleaning around
/// it loses nothing else.
#[test]
fn damage_beneath_an_open_store_is_named() {
    let mut bench = Bench::new(None);
    let first = bench.commit_noise(1);
    let second = bench.commit_noise(2);
    let segment = *bench.disk.snapshot().keys().next_back().unwrap();
    bench.disk.scribble(segment, |bytes| {
        let noise = workbench::noise(1);
        let at = bytes.windows(64).position(|w| w == &noise[..64]).unwrap();
        bytes[at + 100] ^= 4;
    });
    let part = bench.partition();
    let mut out = [0; PAGE];
    for epoch in [first, second] {
        let error = part
            .read_page(epoch, SpaceId(0), PageIndex(1), &mut out)
            .unwrap_err();
        assert!(error.to_string().contains(&epoch.to_string()), "{error}");
    }
    part.read_page(second, SpaceId(0), PageIndex(2), &mut out)
        .unwrap();
    assert!(out == *workbench::noise(2));
    let report = bench.store().verify().unwrap();
    let pages = report
        .faults
        .iter()
        .filter(|f| matches!(f, slos::Fault::Pages { .. }));
    assert_eq!(pages.count(), 2, "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 40 } else { 600 }, ..ProptestConfig::default() })]

    /// Arbitrary bytes as segments open, or fail to, without a panic.
    #[test]
    fn hostile_segments_do_no_harm(
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        fix_checksums in any::<bool>(),
    ) {
        let mut bench = Bench::new(None);
        for op in script(5) {
            bench.apply(&op);
        }
        let segment = *bench.disk.snapshot().keys().next_back().unwrap();
        bench.disk.scribble(segment, |bytes| {
            for (at, value) in &noise {
                let at = 64 + at.index(bytes.len() - 64);
                bytes[at] = *value;
            }
            if fix_checksums {
                mend_checksums(bytes);
            }
        });
        bench.recover();
        let mut out = [0; PAGE];
        let parts = bench.store().partitions().unwrap();
        let parts = parts.iter().map(|p| bench.store().partition(&p.name).unwrap());
        for (part, info) in parts.flat_map(|p| p.history().unwrap().into_iter().map(move |i| (p.clone(), i))) {
            for space in part.spaces(info.epoch).unwrap() {
                for page in part.page_map(info.epoch, space).unwrap() {
                    // What is read is hostile too: only that reading ends matters here.
                    part.read_page(info.epoch, space, page, &mut out).ok();
                }
            }
            part.record(info.epoch).ok();
        }
        bench.store().verify().unwrap();
    }
}

/// Makes every record whose length is sound pass its checksums, whatever its payload says.
fn mend_checksums(bytes: &mut [u8]) {
    let crc = |b: &[u8]| crc_fast::crc32_iscsi(b).to_le_bytes();
    let mut at = 64;
    while at + 48 <= bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 28..at + 32].try_into().unwrap()) as usize;
        let end = at + 48 + len.next_multiple_of(8);
        if end > bytes.len() {
            return;
        }
        let payload = crc(&bytes[at + 48..at + 48 + len]);
        bytes[at + 40..at + 44].copy_from_slice(&payload);
        let header = crc(&bytes[at..at + 44]);
        bytes[at + 44..at + 48].copy_from_slice(&header);
        at = end;
    }
}
