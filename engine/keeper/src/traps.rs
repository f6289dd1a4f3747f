//! Breakpoints: the byte of an instruction that traps, in the place of the program's own.
//!
//! - **Invariant**: they are in the text only while the target runs. Whoever reads its memory under a
//!   stop, a checkpoint or a rewind, finds the program as it was made; and if the keeper is killed while
//!   all stand still, they run on unharmed.
//! - Nobody but a thread that is traced may meet one. A child of fork has its copy cleaned before its
//!   first instruction; as long as a child of vfork has the memory itself, they are out of it.

use std::collections::BTreeMap;
use std::io;

use sls_keeper::Trap;
use sls_sys::ptrace::{Stopped, Why};
use sls_sys::{RemoteMemory, fd};

/// si_code of a SIGTRAP by int3.
pub const SI_KERNEL: i32 = 0x80;
/// By a single step; after a system call the first.
pub const TRAP_BRKPT: i32 = 1;
/// See [`TRAP_BRKPT`].
pub const TRAP_TRACE: i32 = 2;
/// By a debug register.
pub const TRAP_HWBKPT: i32 = 4;

/// All of one process's.
#[derive(Debug, Default)]
pub struct Traps {
    all: BTreeMap<u64, Trap>,
    inserted: bool,
}

/// Where si_code is in a siginfo.
pub fn code_of(info: &[u8; 128]) -> i32 {
    i32::from_ne_bytes([info[8], info[9], info[10], info[11]])
}

impl Traps {
    /// These and no others, from the next time it runs.
    pub fn set(&mut self, traps: &[Trap], memory: &RemoteMemory) {
        self.lift(memory);
        self.all = traps.iter().map(|&trap| (trap.address, trap)).collect();
    }

    /// Are there any?
    pub fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// The text is another one's now.
    pub fn forget(&mut self) {
        self.all.clear();
        self.inserted = false;
    }

    /// Puts them in.
    pub fn insert(&mut self, memory: &RemoteMemory) {
        if !std::mem::replace(&mut self.inserted, true) {
            self.all.values().for_each(|trap| trap.insert(memory));
        }
    }

    /// Takes them out.
    pub fn lift(&mut self, memory: &RemoteMemory) {
        if std::mem::take(&mut self.inserted) {
            self.clean(memory);
        }
    }

    fn clean(&self, memory: &RemoteMemory) {
        self.all.values().for_each(|trap| trap.remove(memory));
    }

    /// Before a process that the target has made runs: it must not meet them.
    pub fn spare(&mut self, pid: i32, child: i32) {
        if self.all.is_empty() {
            return;
        }
        let Ok(memory) = RemoteMemory::open(child) else {
            return; // It has ended.
        };
        self.clean(&memory);
        if fd::same_memory(pid, child).unwrap_or(false) {
            self.inserted = false;
        }
    }

    /// A thread that has just met one stands before its instruction again, as if it had not: it will
    /// when it runs. Whether it had.
    pub fn set_back(&self, stopped: &Stopped) -> io::Result<bool> {
        if !self.any() || stopped.why() != Why::Signal(libc::SIGTRAP) {
            return Ok(false);
        }
        if code_of(&stopped.siginfo()?) != SI_KERNEL {
            return Ok(false);
        }
        let mut regs = stopped.regs()?;
        let at = regs.rip.wrapping_sub(1);
        if !self.all.contains_key(&at) {
            return Ok(false);
        }
        regs.rip = at;
        stopped.set_regs(&regs)?;
        Ok(true)
    }
}
