//! Checkpoints taken over from one store into another: numbers, names, parents, branches, bytes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::path::Path;

use slos::{Epoch, PAGE, Partition, Progress, Settings, SpaceId, Store, Taken, TransferError};
use workbench::{Bench, Content, Op, PageOp, SimDevice, script};

const ALL: (Epoch, Epoch) = (Epoch(1), Epoch(u64::MAX));

fn device_store(bytes: usize) -> (SimDevice, Store) {
    let device = SimDevice::new(bytes);
    let store = open(&device);
    (device, store)
}

fn open(device: &SimDevice) -> Store {
    let (store, report) = Store::open_device(device.device(), Path::new("d")).unwrap();
    assert!(report.is_clean(), "{report:?}");
    store
}

fn take(to: &Partition, from: &Partition) -> Taken {
    to.take_over(from, ALL, |_| {}).unwrap()
}

/// Every checkpoint with all that it has is the same in both.
fn assert_equal(a: &Partition, b: &Partition) {
    let strip = |part: &Partition| -> Vec<_> {
        let each = part.history().unwrap().into_iter();
        each.map(|i| slos::CheckpointInfo { bytes: 0, ..i })
            .collect()
    };
    assert_eq!(strip(a), strip(b));
    for info in a.history().unwrap() {
        let epoch = info.epoch;
        assert_eq!(a.record(epoch).unwrap(), b.record(epoch).unwrap());
        assert_eq!(a.ancestor(epoch).unwrap(), b.ancestor(epoch).unwrap());
        let spaces: Vec<SpaceId> = a.spaces(epoch).unwrap();
        assert_eq!(spaces, b.spaces(epoch).unwrap());
        for space in spaces {
            let pages = a.page_map(epoch, space).unwrap();
            assert_eq!(pages, b.page_map(epoch, space).unwrap(), "{epoch} {space}");
            let (mut left, mut right) = (vec![1; pages.len() * PAGE], vec![2; pages.len() * PAGE]);
            a.read_pages(epoch, space, &pages, &mut left).unwrap();
            b.read_pages(epoch, space, &pages, &mut right).unwrap();
            assert!(left == right, "{epoch} {space}");
        }
    }
}

#[test]
fn a_history_goes_out_and_comes_back() {
    let mut bench = Bench::new(None);
    for op in script(40) {
        bench.apply(&op);
    }
    let (device, store) = device_store(16 << 20);
    let out = store.add_partition("kept", Settings::default()).unwrap();
    let mut seen = Vec::new();
    let taken = out
        .take_over(&bench.partition(), ALL, |p| seen.push(p))
        .unwrap();
    let total = bench.model.len() as u64;
    assert_eq!((taken.checkpoints, &taken.passed[..]), (total, &[][..]));
    assert_eq!(seen.first(), Some(&Progress { done: 0, total }));
    assert_eq!(seen.last(), Some(&Progress { done: total, total }));
    assert_equal(&bench.partition(), &out);
    drop((out, store));
    let store = open(&device);
    let kept = store.partition("kept").unwrap();
    assert_equal(&bench.partition(), &kept);
    assert!(store.verify().unwrap().is_clean());
    let dir = tempfile::tempdir().unwrap();
    let back = Store::create(&dir.path().join("s"), slos::Options::default()).unwrap();
    let back_part = back.add_partition("p", Settings::default()).unwrap();
    take(&back_part, &kept);
    assert_equal(&bench.partition(), &back_part);
    assert!(back.verify().unwrap().is_clean());
}

/// After each step only what is new is taken; what was renamed, pinned or dropped since stays right.
#[test]
fn exporting_again_takes_what_is_new() {
    let mut bench = Bench::new(None);
    let (_device, store) = device_store(32 << 20);
    let out = store.add_partition("p", Settings::default()).unwrap();
    let mut known = 0;
    for op in script(50) {
        bench.apply(&op);
        let from = bench.partition();
        let newer = from
            .history()
            .unwrap()
            .iter()
            .filter(|i| i.epoch.0 > known)
            .count();
        let taken = take(&out, &from);
        assert_eq!((taken.checkpoints as usize, taken.passed.len()), (newer, 0));
        known = from.newest().unwrap().map_or(known, |e| e.0.max(known));
        assert_eq!(take(&out, &from), Taken::default());
        // What thinning took from the source stays in the store.
        for info in out.history().unwrap() {
            if from.info(info.epoch).is_err() {
                out.unpin(info.epoch).unwrap();
                out.drop_epoch(info.epoch).unwrap();
            }
        }
        assert_equal(&from, &out);
    }
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_part_of_a_history_stands_alone() {
    let mut bench = Bench::new(None);
    for op in script(30) {
        bench.apply(&op);
    }
    let from = bench.partition();
    let all: Vec<Epoch> = from.history().unwrap().iter().map(|i| i.epoch).collect();
    let (first, last) = (all[all.len() / 3], all[all.len() / 2]);
    let (_device, store) = device_store(16 << 20);
    let out = store.add_partition("p", Settings::default()).unwrap();
    out.take_over(&from, (first, last), |_| {}).unwrap();
    let got: Vec<Epoch> = out.history().unwrap().iter().map(|i| i.epoch).collect();
    let wanted: Vec<Epoch> = all
        .iter()
        .copied()
        .filter(|e| (first..=last).contains(e))
        .collect();
    assert_eq!(got, wanted);
    for &epoch in &wanted {
        for space in from.spaces(epoch).unwrap() {
            for page in from.page_map(epoch, space).unwrap() {
                let (mut left, mut right) = ([1; PAGE], [2; PAGE]);
                from.read_page(epoch, space, page, &mut left).unwrap();
                out.read_page(epoch, space, page, &mut right).unwrap();
                assert!(left == right);
            }
        }
    }
    // What is older cannot be put in any more, and is named; what is newer can.
    let taken = take(&out, &from);
    let older: Vec<Epoch> = all.iter().copied().filter(|e| *e < first).collect();
    assert_eq!(taken.passed, older);
    assert_eq!(
        taken.checkpoints as usize,
        all.len() - older.len() - wanted.len()
    );
}

#[test]
fn another_history_is_refused() {
    let mut bench = Bench::new(None);
    bench.commit_noise(1);
    bench.commit_noise(2);
    let (_device, store) = device_store(4 << 20);
    let out = store.add_partition("p", Settings::default()).unwrap();
    take(&out, &bench.partition());
    let mut other = Bench::new(None);
    other.commit_noise(3);
    other.apply(&Op::Commit(vec![(0, PageOp::Write(1, Content::Zero))]));
    other.commit(None, &[(0, PageOp::Write(1, Content::Zero))]);
    other.forget(Epoch(2));
    let before = out.history().unwrap();
    let root = other.commit(None, &[(0, PageOp::Write(2, Content::Zero))]);
    assert_eq!(root, Epoch(4));
    other.partition().drop_epoch(Epoch(2)).unwrap();
    // Checkpoint 2 has another parent there.
    let mut third = Bench::new(None);
    third.commit_noise(3);
    third.commit(None, &[(0, PageOp::Write(2, Content::Zero))]);
    let refused = out.take_over(&third.partition(), ALL, |_| {});
    assert!(matches!(refused, Err(TransferError::Strangers(Epoch(2)))));
    assert_eq!(out.history().unwrap(), before);
}

/// A full store says so; what was taken by then is whole.
#[test]
fn a_full_store_keeps_what_it_took() {
    let mut bench = Bench::new(None);
    for seed in 0..60 {
        let write = |p| (0, PageOp::Write(p, Content::Noise(seed * 50 + p)));
        bench.apply(&Op::Commit((0..20).map(write).collect()));
    }
    let (device, store) = device_store(4 << 20);
    let out = store.add_partition("p", Settings::default()).unwrap();
    let failed = out.take_over(&bench.partition(), ALL, |_| {}).unwrap_err();
    assert!(failed.is_full(), "{failed}");
    drop((out, store));
    let store = open(&device);
    let out = store.partition("p").unwrap();
    let got = out.history().unwrap().len();
    assert!(got > 10 && got < 60);
    let first = out.take_over(&bench.partition(), (Epoch(1), Epoch(got as u64)), |_| {});
    assert_eq!(first.unwrap().checkpoints, 0);
    assert!(store.verify().unwrap().is_clean());
}
