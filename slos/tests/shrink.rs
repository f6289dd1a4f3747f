//! Stores that travel: made small, and read without being written to.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::path::Path;
use std::sync::Arc;

use slos::{Aside, Device, Epoch, Partition, Settings, Store};
use workbench::{Bench, SimDevice, script};

const ALL: (Epoch, Epoch) = (Epoch(1), Epoch(u64::MAX));

fn open(device: Arc<dyn Device>) -> Store {
    let (store, report) = Store::open_device(device, Path::new("d")).unwrap();
    assert!(report.is_clean(), "{report:?}");
    store
}

/// A store of 16 MiB in slots of 128 KiB with the history of `bench`, closed.
fn filled(bench: &Bench) -> SimDevice {
    let device = SimDevice::of(vec![0; 16 << 20]);
    slos::format_device_in_slots(&device, 128 << 10).unwrap();
    let store = open(device.device());
    let part = store.add_partition("p", Settings::default()).unwrap();
    part.take_over(&bench.partition(), ALL, |_| {}).unwrap();
    device.settle();
    device
}

fn bench() -> Bench {
    let mut bench = Bench::new(None);
    script(40).iter().for_each(|op| bench.apply(op));
    bench
}

fn assert_holds(part: &Partition, bench: &Bench) {
    let theirs = bench.partition();
    let epochs = |part: &Partition| -> Vec<Epoch> {
        let history = part.history().unwrap();
        history.iter().map(|info| info.epoch).collect()
    };
    assert_eq!(epochs(part), epochs(&theirs));
    for epoch in epochs(part) {
        for space in theirs.spaces(epoch).unwrap() {
            let pages = theirs.page_map(epoch, space).unwrap();
            let read = |part: &Partition| {
                let mut bytes = vec![0; pages.len() * slos::PAGE];
                part.read_pages(epoch, space, &pages, &mut bytes).unwrap();
                bytes
            };
            assert!(read(part) == read(&theirs), "{epoch} {space}");
        }
    }
}

#[test]
fn a_store_ends_behind_what_it_holds() {
    let bench = bench();
    let device = filled(&bench);
    let bytes = slos::shrink(&device).unwrap();
    assert!(bytes < 8 << 20, "{bytes} of a history of some pages");
    let cut = SimDevice::of(device.image()[..bytes as usize].to_vec());
    let store = open(cut.device());
    let part = store.partition("p").unwrap();
    assert_holds(&part, &bench);
    assert!(store.verify().unwrap().is_clean());
    // It can be written to, and is no smaller the second time.
    store.add_partition("more", Settings::default()).unwrap();
    drop((part, store));
    assert_eq!(slos::shrink(&cut).unwrap(), bytes);
    assert!(slos::fsck::fsck(&cut).unwrap().is_clean());
}

/// The power goes at any step, and any sectors of what was not flushed are there.
#[test]
fn a_cut_while_it_shrinks_harms_nothing() {
    let bench = bench();
    let device = filled(&bench);
    slos::shrink(&device).unwrap();
    for at in 0..=device.steps() {
        for half in 0..4u32 {
            let mut sector = 0;
            let image = device.cut(at, || {
                sector += 1;
                (sector >> half) % 2 == 0
            });
            let store = open(SimDevice::of(image).device());
            assert_holds(&store.partition("p").unwrap(), &bench);
        }
    }
}

#[test]
fn a_store_is_read_without_being_written_to() {
    let bench = bench();
    let device = filled(&bench);
    let before = device.image();
    device.fail_after(0);
    for _ in 0..3 {
        let store = open(Arc::new(Aside::new(device.clone())));
        assert_holds(&store.partition("p").unwrap(), &bench);
        // Whatever is written is forgotten.
        store.add_partition("q", Settings::default()).unwrap();
    }
    assert!(!device.has_failed() && device.image() == before);
}
