//! The fuzz targets for a few seconds each, and every input that once broke one. `./x fuzz` is the
//! long way.
#![allow(clippy::unwrap_used)] // Tests fail by panicking.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use testkit::fuzz::{TARGETS, mutated, regressions};
use testkit::{Dice, rounds, seed};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// However slow the machine.
const SHARE: Duration = Duration::from_secs(4);

fn drive(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for (path, bytes) in regressions(name) {
        println!("{}", path.display());
        (target.run)(&bytes);
    }
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| (target.run)(seed));
    let seed = seed(1);
    let mut dice = Dice::new(seed);
    let until = Instant::now() + SHARE;
    let mut done = 0;
    while done < rounds(200_000) && Instant::now() < until {
        let input = mutated(&seeds, &mut dice);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let kept = std::env::temp_dir().join(format!("sls-fuzz-{name}-{seed}-{done}"));
            std::fs::write(&kept, &input).unwrap();
            panic!(
                "{name}: kept as {0}; try it again: ./x fuzz {name} {0}",
                kept.display()
            );
        }
        done += 1;
    }
    println!("{name}: {done} inputs");
    assert!(done > 20, "{name}: only {done} inputs in {SHARE:?}");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { drive(stringify!($name)); })*

        #[test]
        fn all_are_driven() {
            let driven = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), driven);
        }
    };
}

targets! { request answer view record plan segment log expr elf core }
