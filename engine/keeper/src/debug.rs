//! The four debug registers of each thread: places where libc calls execve, and watchpoints.
//!
//! A thread has its own, also from its birth none. They outlive their tracer, and whoever meets one then
//! is killed by SIGTRAP: so they are armed only in threads that run, and taken away from all that an
//! earlier keeper left when it was killed.

use std::io;

use sls_keeper::Watch;
use sls_sys::ptrace::{Stopped, Why};
use sls_sys::{RemoteMemory, frame, procfs};

use crate::traps::{TRAP_HWBKPT, code_of};

const STATUS: usize = 6;
const CONTROL: usize = 7;
/// Exec sites take the first of them.
const MOST_SITES: usize = 2;
const SLOTS: u64 = 0xf;

/// What is in them.
#[derive(Debug, Default)]
pub struct DebugRegisters {
    sites: Vec<u64>,
    watches: Vec<Watch>,
}

impl DebugRegisters {
    /// The places where an exec is seen coming: in debug registers, no code is changed.
    pub fn at_execs(memory: &RemoteMemory, pid: i32) -> Self {
        let maps = procfs::maps(pid).unwrap_or_default();
        let mut sites = frame::exec_sites(memory, &maps);
        sites.truncate(MOST_SITES);
        Self {
            sites,
            watches: Vec::new(),
        }
    }

    /// These watchpoints and no others.
    pub fn watch(&mut self, watches: Vec<Watch>) {
        self.watches = watches;
    }

    /// Are there watchpoints?
    pub fn watches(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Exec sites are not armed where a watchpoint has their register.
    fn words(&self) -> ([Option<u64>; 4], u64) {
        let mut addresses = [None; 4];
        let mut control = 0;
        for (slot, &site) in self.sites.iter().enumerate() {
            addresses[slot] = Some(site);
            control |= enable(slot);
        }
        for watch in &self.watches {
            let slot = usize::from(watch.slot & 3);
            addresses[slot] = Some(watch.address);
            let kind = if watch.reads { 0b11 } else { 0b01 };
            let len = match watch.len {
                1 => 0b00,
                2 => 0b01,
                4 => 0b11,
                _ => 0b10,
            };
            let field = 16 + 4 * slot;
            control = control & !(0xf << field) | enable(slot) | (kind | len << 2) << field;
        }
        (addresses, control)
    }

    /// Arms them in one thread.
    pub fn arm(&self, thread: &Stopped) -> io::Result<()> {
        let (addresses, control) = self.words();
        if control == 0 {
            return Ok(());
        }
        thread.set_debug_register(CONTROL, 0)?;
        for (slot, address) in addresses.into_iter().enumerate() {
            if let Some(address) = address {
                thread.set_debug_register(slot, address)?;
            }
        }
        thread.set_debug_register(CONTROL, control)
    }

    /// Takes them away, whoever put them there.
    pub fn disarm(thread: &Stopped) -> io::Result<()> {
        if thread.debug_register(CONTROL)? == 0 {
            return Ok(());
        }
        thread.set_debug_register(CONTROL, 0)
    }

    /// Is the thread about to call execve?
    pub fn is_exec(&self, thread: &Stopped) -> io::Result<bool> {
        if self.sites.is_empty() {
            return Ok(false);
        }
        Ok(code_of(&thread.siginfo()?) == TRAP_HWBKPT && self.sites.contains(&thread.regs()?.rip))
    }

    /// Watchpoints that were hit since this was asked last, a bit each; 0: it stopped for another
    /// reason.
    pub fn hits(&self, thread: &Stopped) -> io::Result<u8> {
        if !self.watches() || !matches!(thread.why(), Why::Signal(libc::SIGTRAP)) {
            return Ok(0);
        }
        let status = thread.debug_register(STATUS)?;
        let ours = self
            .watches
            .iter()
            .fold(0, |all, w| all | 1 << (w.slot & 3));
        let hits = u8::try_from(status & SLOTS).unwrap_or(0) & ours;
        if hits != 0 {
            thread.set_debug_register(STATUS, status & !SLOTS)?;
        }
        Ok(hits)
    }
}

/// Local enable bit of a slot; as an execution breakpoint of one byte unless more is said.
fn enable(slot: usize) -> u64 {
    1 << (2 * slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_words() {
        let watch = |slot, len, reads| Watch {
            address: 0x1000,
            len,
            reads,
            slot,
        };
        let registers = |sites: &[u64], watches: Vec<Watch>| DebugRegisters {
            sites: sites.to_vec(),
            watches,
        };
        assert_eq!(registers(&[], vec![]).words().1, 0);
        assert_eq!(registers(&[1, 2], vec![]).words().1, 0b101);
        // Intel's manual, volume 3, section 18.2.4: R/W 01 writes, 11 both; LEN 10 eight bytes.
        assert_eq!(registers(&[], vec![watch(0, 8, false)]).words().1, 0x9_0001);
        assert_eq!(
            registers(&[], vec![watch(3, 4, true)]).words().1,
            0xf000_0040
        );
        let mixed = registers(&[7], vec![watch(3, 1, false)]);
        assert_eq!(
            mixed.words(),
            ([Some(7), None, None, Some(0x1000)], 0x1000_0041)
        );
    }
}
