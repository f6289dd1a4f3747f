//! What strangers may write: parsers that must survive any bytes.
//!
//! Each [`Target`] is a plain function that panics when a promise is broken. `./x fuzz` drives one
//! with libFuzzer, guided by coverage; `./x test` drives all for a few seconds with [`mutate`], and
//! with every input that once broke one (`tests/fuzz/TARGET/`).

mod elf;
mod expr;
mod log;
mod memory;
mod mutate;
mod plan;
mod sample;
mod untrue;
mod wire;

use std::path::PathBuf;

use peak_alloc::PeakAlloc;

pub use mutate::mutated;

/// One parser.
#[derive(Debug)]
pub struct Target {
    /// As `./x fuzz` names it.
    pub name: &'static str,
    /// What it reads.
    pub what: &'static str,
    /// Reads one input; panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "request",
        what: "what a client sends to slsd",
        run: wire::request,
        seeds: wire::requests,
    },
    Target {
        name: "answer",
        what: "what slsd sends to a client",
        run: wire::answer,
        seeds: wire::answers,
    },
    Target {
        name: "view",
        what: "a whole conversation with slsd, as a view of a checkpoint has it",
        run: wire::view,
        seeds: wire::conversations,
    },
    Target {
        name: "record",
        what: "the record of a checkpoint",
        run: wire::record,
        seeds: wire::records,
    },
    Target {
        name: "plan",
        what: "the record of a checkpoint, as a restore plans by it",
        run: plan::plan,
        seeds: plan::records,
    },
    Target {
        name: "segment",
        what: "a segment of a store, as recovery reads it",
        run: log::raw,
        seeds: log::segments,
    },
    Target {
        name: "log",
        what: "the same, with checksums that are right",
        run: log::mended,
        seeds: log::segments,
    },
    Target {
        name: "expr",
        what: "an expression",
        run: expr::evaluate,
        seeds: expr::expressions,
    },
    Target {
        name: "elf",
        what: "an ELF file with DWARF, mapped by a process",
        run: elf::file,
        seeds: elf::files,
    },
    Target {
        name: "core",
        what: "an ELF core",
        run: elf::core,
        seeds: elf::cores,
    },
];

/// Inputs that once broke a target.
///
/// # Panics
/// The folder is there and cannot be read.
#[must_use]
pub fn regressions(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(target);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    paths
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a stored input");
            (path, bytes)
        })
        .collect()
}

/// Does something that may take no more than `limit` bytes of memory. Counts only where
/// [`PeakAlloc`] is the global allocator.
fn within<T>(limit: usize, what: &str, act: impl FnOnce() -> T) -> T {
    let before = PeakAlloc.current_usage();
    PeakAlloc.reset_peak_usage();
    let done = act();
    let taken = PeakAlloc.peak_usage().saturating_sub(before);
    assert!(
        taken <= limit,
        "{what} takes {taken} bytes, {limit} are allowed"
    );
    done
}
