//! Damage: found, told by checkpoint, put right where there is a copy; and never a wrong byte.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::collections::BTreeSet;
use std::path::Path;

use slos::fsck::{Finding, FsckReport, Stage, fsck, fsck_watched, repair};
use slos::{Epoch, PAGE, PageIndex, SpaceId, Store};
use workbench::{Bench, Content, PageOp, SimDevice, script};

const SIZE: usize = 4 << 20;

fn history() -> Bench {
    let mut bench = Bench::on_device(SIZE);
    for op in script(24) {
        bench.apply(&op);
    }
    bench.close();
    bench
}

fn check(image: &[u8]) -> FsckReport {
    fsck(&SimDevice::of(image.to_vec())).unwrap()
}

#[test]
fn a_check_tells_how_far_it_has_come() {
    let bench = history();
    let image = bench.device.as_ref().unwrap().image();
    let told = std::cell::RefCell::new(Vec::new());
    let watcher = |stage, done, total| told.borrow_mut().push((stage, done, total));
    let report = fsck_watched(&SimDevice::of(image.clone()), &watcher).unwrap();
    assert_eq!(report, check(&image));
    let told = told.into_inner();
    let segments = u64::from(report.used);
    assert!(segments > 1);
    let expected = (0..segments).map(|n| (Stage::Segments, n, segments));
    let expected = expected.chain([(Stage::Pages, 0, report.versions)]);
    assert_eq!(told, expected.collect::<Vec<_>>());
}

/// Bytes that say nothing: most of a device, which a flip must not be wasted on.
fn used_bytes(image: &[u8]) -> Vec<usize> {
    let blocks = image.chunks(64).enumerate();
    let used = blocks.filter(|(_, block)| block.iter().any(|&b| b != 0));
    used.flat_map(|(n, _)| n * 64..n * 64 + 64).collect()
}

/// Opens a flipped image and reads everything; how many checkpoints could not be read whole.
fn read_all(bench: &mut Bench, image: &[u8]) -> BTreeSet<Epoch> {
    bench.device.as_ref().unwrap().set_image(image);
    bench.recover();
    let part = bench.partition();
    let mut faults = BTreeSet::new();
    for (&epoch, model) in &bench.model {
        for (&space, pages) in &model.spaces {
            for page in 0..30 {
                let mut out = [0; PAGE];
                let zero = [0; PAGE];
                let wanted = pages.get(&page).map_or(&zero, |p| p);
                match part.read_page(epoch, SpaceId(space), PageIndex(page), &mut out) {
                    Ok(_) => assert!(out == *wanted, "{epoch} {space} {page}: a wrong byte"),
                    Err(_) => {
                        faults.insert(epoch);
                    }
                }
            }
        }
        match part.record(epoch) {
            Ok(record) => assert_eq!(record, model.record),
            Err(_) => {
                faults.insert(epoch);
            }
        }
    }
    bench.close();
    faults
}

#[test]
fn a_whole_store_is_clean() {
    let bench = history();
    let report = check(&bench.device.as_ref().unwrap().image());
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(
        report.partitions,
        [("p".to_owned(), bench.model.len() as u64)]
    );
    assert_eq!(report.checkpoints, bench.model.len() as u64);
    assert!(report.versions > 20);
}

/// Two thousand single bits, each flipped alone: corrected, reported or harmless.
#[test]
fn no_flipped_bit_reads_as_another_byte() {
    let mut bench = history();
    let image = bench.device.as_ref().unwrap().image();
    let used = used_bytes(&image);
    let flips = if cfg!(debug_assertions) { 100 } else { 2000 };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut reported, mut lost) = (0, 0);
    for _ in 0..flips {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let at = used[(state >> 20) as usize % used.len()];
        let mut flipped = image.clone();
        flipped[at] ^= 1 << (state >> 61);
        let report = check(&flipped);
        let told: BTreeSet<Epoch> = report.damaged().iter().map(|(_, epoch)| *epoch).collect();
        let faults = read_all(&mut bench, &flipped);
        assert_eq!(told, faults, "byte {at}: {:?}", report.findings);
        reported += usize::from(!report.is_clean());
        lost += usize::from(!faults.is_empty());
    }
    assert!(reported > flips / 2, "{reported} of {flips} were told");
    assert!(lost > flips / 20, "{lost} of {flips} hit a checkpoint");
}

/// A repair leaves a store that is clean, with every checkpoint that was whole.
#[test]
fn a_repair_leaves_what_is_whole() {
    let mut bench = history();
    let image = bench.device.as_ref().unwrap().image();
    let used = used_bytes(&image);
    let step = used.len() / if cfg!(debug_assertions) { 10 } else { 120 };
    for (n, &at) in used.iter().step_by(step).enumerate() {
        let mut flipped = image.clone();
        flipped[at] ^= 1 << (n % 8);
        // A second hole, somewhere else.
        flipped[used[(n * 7919) % used.len()]] ^= 16;
        let device = SimDevice::of(flipped);
        let repaired = repair(&device.device(), Path::new("d")).unwrap();
        assert!(
            repaired.after.is_clean(),
            "{at}: {:?}",
            repaired.after.findings
        );
        let dropped: BTreeSet<Epoch> = repaired.dropped.iter().map(|(_, epoch)| *epoch).collect();
        let told: BTreeSet<Epoch> = repaired.before.damaged().iter().map(|d| d.1).collect();
        assert_eq!(dropped, told, "{at}");
        let faults = read_all(&mut bench, &device.image());
        assert_eq!(faults, dropped, "{at}");
    }
}

/// Where a page is damaged, exactly the checkpoints that read it are named.
#[test]
fn damage_is_told_by_checkpoint() {
    let mut bench = Bench::on_device(SIZE);
    let first = bench.commit_noise(1);
    let second = bench.commit_noise(2);
    let third = bench.commit(Some(second), &[(0, PageOp::Write(1, Content::Noise(9)))]);
    bench.close();
    let device = bench.device.clone().unwrap();
    let mut image = device.image();
    let page = workbench::noise(1);
    let at = image.windows(64).position(|w| w == &page[..64]).unwrap();
    image[at + 99] ^= 2;
    let report = check(&image);
    let epochs: Vec<Epoch> = report.damaged().iter().map(|d| d.1).collect();
    assert_eq!(
        epochs,
        [first, second],
        "not {third}: {:?}",
        report.findings
    );
    let text: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
    assert!(
        text.iter().any(|t| t == "p @1: 1 pages are damaged"),
        "{text:?}"
    );
}

/// Headers and superblocks have copies: each of them may go.
#[test]
fn copies_are_put_right() {
    let mut bench = history();
    let image = bench.device.as_ref().unwrap().image();
    let headers = (0..image.len()).step_by(512).filter(|&at| {
        let bytes = &image[at..at + 8];
        bytes == b"SLSSEG\r\n" || bytes == b"SLSDEV\r\n"
    });
    for at in headers.collect::<Vec<_>>() {
        let mut flipped = image.clone();
        flipped[at + 20] ^= 4;
        let report = check(&flipped);
        assert!(!report.is_clean() && report.damaged().is_empty(), "{at}");
        let device = SimDevice::of(flipped);
        let repaired = repair(&device.device(), Path::new("d")).unwrap();
        assert!(
            repaired.after.is_clean(),
            "{at}: {:?}",
            repaired.after.findings
        );
        assert!(repaired.dropped.is_empty());
        assert!(read_all(&mut bench, &device.image()).is_empty());
    }
}

/// Any bytes at all: an error or a report, never a panic.
#[test]
fn hostile_images_do_no_harm() {
    let bench = history();
    let image = bench.device.as_ref().unwrap().image();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        (state >> 33) as usize % below
    };
    for _ in 0..if cfg!(debug_assertions) { 10 } else { 150 } {
        let mut bad = image.clone();
        for _ in 0..random(60) + 1 {
            let at = random(bad.len() - 5000);
            let length = random(4096) + 1;
            let fill = random(256) as u8;
            bad[at..at + length].fill(fill);
        }
        let device = SimDevice::of(bad);
        if fsck(&device).is_err() {
            continue;
        }
        if let Ok((store, _)) = Store::open_device(device.device(), Path::new("d")) {
            store.verify().unwrap();
        }
    }
}
