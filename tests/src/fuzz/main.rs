//! `./x fuzz`: one target under libFuzzer, guided by coverage.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use testkit::fuzz::{TARGETS, Target};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The target that SLS_FUZZ names; its seeds go to the folder SLS_SEEDS.
fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("SLS_FUZZ").expect("SLS_FUZZ names a target");
        let found = TARGETS.iter().find(|target| target.name == name);
        let target =
            found.unwrap_or_else(|| panic!("there is no target {name}; ./x fuzz lists them"));
        if let Some(folder) = std::env::var_os("SLS_SEEDS").map(PathBuf::from) {
            for (n, seed) in (target.seeds)().iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{n}")), seed).expect("a folder for seeds");
            }
        }
        target
    })
}

fuzz_target!(
    init: {
        chosen();
    },
    |bytes: &[u8]| (chosen().run)(bytes)
);
