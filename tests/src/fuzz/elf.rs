//! ELF and DWARF that anybody may have written.

use std::io::Write;
use std::time::{Duration, Instant};

use introspect::{
    Context, CoreView, Finder, Limits, Mapping, Perms, Program, Registers, ThreadView, Unavailable,
    View,
};

use super::expr::Fixture;
use super::within;

/// Where the file is mapped, whole.
const BASE: u64 = 0x40_0000;
/// Sections may be compressed, and a value may be large.
const MEMORY: usize = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest input: a small program with its debug information.
const LONGEST: usize = 256 << 10;
const PATH: &str = "/fuzzed";

/// A process that has a file mapped and nothing else.
struct Mapped<'a>(&'a [u8]);

impl View for Mapped<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let from = address
            .checked_sub(BASE)
            .and_then(|n| usize::try_from(n).ok());
        let bytes = from.and_then(|from| self.0.get(from..from.checked_add(buf.len())?));
        buf.copy_from_slice(bytes.ok_or_else(|| Unavailable::not_mapped(address))?);
        Ok(())
    }

    fn threads(&self) -> Vec<ThreadView> {
        // The entry point is as good a place as any, and the file its own stack.
        let entry = self.0.get(24..32).map_or(0, |b| {
            u64::from_le_bytes(b.try_into().expect("eight bytes"))
        });
        let mut words = [BASE; 27];
        words[16] = entry.wrapping_add(BASE);
        vec![ThreadView {
            tid: 1,
            name: "fuzzed".into(),
            registers: Registers::from_user(&words),
        }]
    }

    fn mappings(&self) -> Vec<Mapping> {
        let perms = Perms {
            read: true,
            execute: true,
            ..Perms::default()
        };
        vec![Mapping {
            start: BASE,
            end: BASE + (self.0.len() as u64).next_multiple_of(4096),
            offset: 0,
            perms,
            path: PATH.into(),
        }]
    }

    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        match mapping.file_path() {
            Some(PATH) => Ok(self.0.into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// The bytes as a program file.
pub fn file(bytes: &[u8]) {
    explore(&Mapped(&bytes[..bytes.len().min(LONGEST)]));
}

/// The bytes as a core.
pub fn core(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
    file.write_all(&bytes[..bytes.len().min(LONGEST)])
        .expect("room in memory");
    if let Ok(view) = within(MEMORY, "a core", || CoreView::open(file.path())) {
        explore(&Own(view));
    }
}

/// A core without the files it names: they are this machine's, and no part of the input.
struct Own(CoreView);

impl View for Own {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        self.0.read(address, buf)
    }

    fn threads(&self) -> Vec<ThreadView> {
        self.0.threads()
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.0.mappings()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.0.auxv()
    }

    fn open_file(&self, _: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// Asks everything that can be asked of a program.
fn explore(view: &dyn View) {
    let started = Instant::now();
    within(MEMORY, "a program", || {
        let limits = Limits { elements: 20 };
        let program = Program::load(view, &Finder::new([]));
        for thread in view.threads().iter().take(8) {
            for frame in program.backtrace(view, thread.tid, 20) {
                program.locals(view, &frame, limits);
            }
        }
        for expr in [
            "counter",
            "head->next->next",
            "frame(inner).where->x",
            "per_thread",
        ] {
            let context = Context {
                limits,
                ..Context::default()
            };
            if let Err(error) = program.evaluate(view, &context, expr) {
                assert!(error.column > 0);
            }
        }
        program.addresses_of_line("plain.c", 60);
        program.lines_of("plain.c");
        program.functions_named("inner");
        let pc = BASE + 0x1100;
        let _ = (
            program.symbol_at(pc),
            program.line_at(pc),
            program.function_at(pc),
        );
    });
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

thread_local! {
    static PLAIN: Fixture = Fixture::new("plain.c", "gcc");
}

/// A small program.
pub fn files() -> Vec<Vec<u8>> {
    PLAIN.with(|plain| vec![std::fs::read(plain.binary()).expect("just compiled")])
}

/// The front of a core: headers and notes.
pub fn cores() -> Vec<Vec<u8>> {
    PLAIN.with(|plain| {
        let mut core = std::fs::read(plain.folder.path().join("core")).expect("just written");
        core.truncate(32 << 10);
        vec![core]
    })
}
