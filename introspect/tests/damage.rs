//! Damaged ELF and DWARF: an error or a wrong answer of the file's own making, never a panic, a hang or a flood of memory.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use std::time::{Duration, Instant};

use introspect::{
    Context, CoreView, Finder, Limits, Mapping, Program, ThreadView, Unavailable, View,
};
use proptest::prelude::*;

/// A core whose program file is another's bytes.
struct Swapped<'a> {
    core: &'a CoreView,
    path: String,
    file: Vec<u8>,
}

impl View for Swapped<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        self.core.read(address, buf)
    }
    fn threads(&self) -> Vec<ThreadView> {
        self.core.threads()
    }
    fn mappings(&self) -> Vec<Mapping> {
        self.core.mappings()
    }
    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        match mapping.file_path() {
            Some(path) if path == self.path => Ok(self.file.clone().into()),
            // Libraries are not what is tried here.
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

fn exercise(view: &dyn View) {
    let program = Program::load(view, &Finder::new([]));
    for thread in view.threads() {
        for frame in program.backtrace(view, thread.tid, 50) {
            program.locals(view, &frame, Limits { elements: 50 });
        }
    }
    for expr in [
        "counter",
        "pk",
        "head->next->next",
        "matrix[1][2]",
        "frame(inner).where->x",
        "(struct node*)head",
        "mask",
        "greeting",
        "per_thread",
        "plain.c::hidden",
    ] {
        let context = Context {
            limits: Limits { elements: 50 },
            ..Context::default()
        };
        // Whatever it says, it must say something.
        let answer = program.evaluate(view, &context, expr);
        assert!(answer.map_or_else(
            |error| error.column > 0,
            |answer| answer.text.len() < 1 << 20
        ));
    }
    program.addresses_of_line("plain.c", 60);
    program.functions_named("inner");
}

#[test]
fn mutated_files_are_survived() {
    let fixture = support::Fixture::c("plain.c", &["-g", "-O0"], &[]);
    let path = fixture.binary.to_str().unwrap().to_owned();
    let good = std::fs::read(&fixture.binary).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let len = good.len();
    let untouched = Swapped {
        core: &fixture.view,
        path: path.clone(),
        file: good.clone(),
    };
    let program = Program::load(&untouched, &Finder::new([]));
    let answer = program.evaluate(&untouched, &Context::default(), "counter");
    assert_eq!(
        answer.unwrap().text,
        "42",
        "the swapped file is not the one that is read"
    );
    // Code and data matter less than sections and headers, which fill most of a small file.
    let edits = proptest::collection::vec((0..len, any::<u8>()), 1..40);
    let cut = prop_oneof![4 => Just(len), 1 => 0..len];
    let slowest = std::cell::Cell::new(Duration::ZERO);
    runner
        .run(&(edits, cut), |(edits, cut)| {
            let mut file = good.clone();
            for (at, byte) in edits {
                // The build id stays, or the file would be set aside at once.
                if at > 0x400 {
                    file[at] = byte;
                }
            }
            file.truncate(cut);
            let started = Instant::now();
            exercise(&Swapped {
                core: &fixture.view,
                path: path.clone(),
                file,
            });
            slowest.set(slowest.get().max(started.elapsed()));
            prop_assert!(started.elapsed() < Duration::from_secs(20));
            Ok(())
        })
        .unwrap();
    eprintln!("slowest case {:?}", slowest.get());
}

#[test]
fn mutated_cores_are_survived() {
    let fixture = support::Fixture::c("plain.c", &["-g", "-O0"], &[]);
    let core = std::fs::read(fixture.folder.path().join("core")).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..60 {
        let mut damaged = core.clone();
        for _ in 0..20 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Headers and notes are at the front.
            let at = seed as usize % damaged.len().min(16 << 10);
            damaged[at] = (seed >> 32) as u8;
        }
        let path = fixture.folder.path().join("damaged");
        std::fs::write(&path, damaged).unwrap();
        if let Ok(view) = CoreView::open(&path) {
            exercise(&view);
        }
    }
    assert!(CoreView::open(&fixture.binary).is_err());
    assert!(CoreView::open("/nonexistent").is_err());
}

/// A process may map /dev/zero to run code in it, as some do; that file has no end.
#[test]
fn a_mapped_device_is_not_read() {
    struct Device;
    impl View for Device {
        fn read(&self, address: u64, _: &mut [u8]) -> Result<(), Unavailable> {
            Err(Unavailable::not_mapped(address))
        }
        fn threads(&self) -> Vec<ThreadView> {
            Vec::new()
        }
        fn mappings(&self) -> Vec<Mapping> {
            let perms = introspect::Perms::parse("r-xp");
            let path = "/dev/zero".to_owned();
            let (start, end, offset) = (0x1000, 0x2000, 0);
            vec![Mapping {
                start,
                end,
                offset,
                perms,
                path,
            }]
        }
    }
    assert!(Device.open_file(&Device.mappings()[0]).is_err());
    assert!(
        Program::load(&Device, &Finder::default())
            .modules()
            .is_empty()
    );
}
