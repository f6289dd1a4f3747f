//! A process that stands still, as `introspect` looks at it.

use introspect::{Frame, Mapping, Perms, Program, Registers, ThreadView, Unavailable, View};
use sls_engine::control::{Threads, Words};
use sls_engine::{Target, procfs};

/// Position of registers in user_regs_struct.
pub const RIP: usize = 16;
pub const RSP: usize = 19;

/// What was read of it at its last stop.
#[derive(Debug, Default)]
pub struct Seen {
    pub threads: Threads,
    pub maps: Vec<Mapping>,
    pub auxv: Vec<(u64, u64)>,
}

impl Seen {
    /// Its mappings, which only change when it runs.
    pub fn look(&mut self, pid: i32) {
        let mapping = |m: procfs::MapLine| Mapping {
            start: m.start,
            end: m.end,
            offset: m.offset,
            perms: Perms {
                read: m.read,
                write: m.write,
                execute: m.exec,
                shared: m.shared,
            },
            path: m.path,
        };
        // One that cannot be read has ended, which is found out by its threads.
        let maps = procfs::maps(pid).unwrap_or_default();
        self.maps = maps.into_iter().map(mapping).collect();
        self.auxv = procfs::auxv(pid).unwrap_or_default();
    }

    pub fn words(&self, tid: i32) -> Option<&Words> {
        let thread = self.threads.iter().find(|thread| thread.0 == tid);
        thread.map(|thread| &thread.1)
    }

    pub fn pc(&self, tid: i32) -> Option<u64> {
        self.words(tid).map(|words| words[RIP])
    }

    pub fn set(&mut self, tid: i32, words: Words) {
        match self.threads.iter_mut().find(|thread| thread.0 == tid) {
            Some(thread) => thread.1 = words,
            None => self.threads.push((tid, words)),
        }
    }
}

/// A view of it.
pub struct Live<'a> {
    pub target: &'a Target,
    pub seen: &'a Seen,
}

impl Live<'_> {
    /// The innermost frames of a thread.
    pub fn frames(&self, program: &Program, tid: i32, most: usize) -> Vec<Frame> {
        let Some(words) = self.seen.words(tid) else {
            return Vec::new();
        };
        program.unwind(self, tid.cast_unsigned(), Registers::from_user(words), most)
    }

    pub fn u64_at(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

impl View for Live<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let read = self.target.memory().read_at(address, buf);
        read.map_err(|_| Unavailable::not_mapped(address))
    }

    fn threads(&self) -> Vec<ThreadView> {
        let mut threads: Vec<ThreadView> = (self.seen.threads.iter())
            .map(|(tid, words)| ThreadView {
                tid: tid.cast_unsigned(),
                name: String::new(),
                registers: Registers::from_user(words),
            })
            .collect();
        let main = self.target.pid().cast_unsigned();
        threads.sort_by_key(|thread| (thread.tid != main, thread.tid));
        threads
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.seen.maps.clone()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.seen.auxv.clone()
    }
}
