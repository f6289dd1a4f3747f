//! Where the threads of a target wait while it is changed, and how they come out of there if this
//! process dies.
//!
//! Each thread gets registers that wait on one word of the scratch area, the gate, with a signal
//! frame behind the wait:
//!
//! - Gate open: the wait is over at once and the frame takes the thread where it leads. So it is
//!   until every thread is parked, with frames that lead home, and again when all is done, with
//!   frames that lead to the final states.
//! - Gate closed: whoever is let go waits, all signals blocked, until the next keeper comes.
//!
//! Turning the one from the other is one write, so at no time do some threads run and others wait.

use std::collections::BTreeMap;
use std::io;

use sls_sys::frame::{Gadgets, Home};
use sls_sys::ptrace::Stopped;
use sls_sys::{RemoteMemory, procfs};

use crate::inject::Borrowed;

/// The scratch area's parts: the gate, two for injected calls, one for each thread.
const SLOT: u64 = 16 << 10;
const FIRST_THREAD: u64 = 3;
/// At the scratch area's first address: nothing else that may lie there begins so.
const MAGIC: [u8; 8] = *b"SLS-GATE";
const GATE: u64 = 64;
const OPEN: u32 = 0;
const CLOSED: u32 = 1;

/// Who makes an injected call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Leader,
    Other,
}

/// The scratch area of one plan.
pub struct Parking<'a> {
    scratch: (u64, u64),
    gadgets: Gadgets,
    memory: &'a RemoteMemory,
    parked: BTreeMap<i32, Place>,
    slots: u64,
}

struct Place {
    top: u64,
    /// The wait, with the frame's address as stack pointer.
    wait: Home,
}

/// What is at the place of a scratch area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing of ours.
    Nothing,
    /// One whose gate is open, or that was just mapped.
    Open,
    /// One whose gate is closed.
    Closed,
}

/// Is a scratch area there?
pub fn is_there(memory: &RemoteMemory, scratch: (u64, u64)) -> bool {
    let mut magic = [0; MAGIC.len()];
    memory.read_at(scratch.0, &mut magic).is_ok() && magic == MAGIC
}

/// Looks for the scratch area that a journal names.
pub fn find(memory: &RemoteMemory, pid: i32, scratch: (u64, u64)) -> io::Result<Found> {
    if is_there(memory, scratch) {
        let mut gate = [0; 4];
        memory.read_at(scratch.0 + GATE, &mut gate)?;
        return Ok(match u32::from_le_bytes(gate) {
            CLOSED => Found::Closed,
            _ => Found::Open,
        });
    }
    // Mapped, and not marked yet: this very range, of nothing, at an address that the kernel gives
    // to nobody who does not ask for it.
    let just_mapped = procfs::maps(pid)?
        .iter()
        .any(|m| (m.start, m.end) == scratch && m.inode == 0 && m.path.is_empty() && !m.shared);
    if !just_mapped {
        return Ok(Found::Nothing);
    }
    let mut bytes = vec![0; sls_sys::size(scratch.1 - scratch.0)];
    memory.read_at(scratch.0, &mut bytes)?;
    Ok(if bytes.iter().all(|&b| b == 0) {
        Found::Open
    } else {
        Found::Nothing
    })
}

impl<'a> Parking<'a> {
    pub fn new(scratch: (u64, u64), gadgets: Gadgets, memory: &'a RemoteMemory) -> Self {
        Self {
            scratch,
            gadgets,
            memory,
            parked: BTreeMap::new(),
            slots: FIRST_THREAD,
        }
    }

    /// Nobody is parked.
    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Marks a scratch area that was just mapped; its gate is open.
    pub fn found(&self) -> io::Result<()> {
        self.memory.write_at(self.scratch.0, &MAGIC)
    }

    /// Parks a thread; its frame leads to where it is now. `nr` as in [`Borrowed::new`].
    pub fn park(&mut self, stopped: &Stopped, nr: Option<u64>) -> io::Result<()> {
        let home = Borrowed::home_of(stopped, nr)?;
        let top = self.slot(stopped.tid())?;
        let wait = self.wait(&home, top)?;
        self.lay(&home, top)?;
        // First the registers: with the mask alone it would go home deaf.
        stopped.set_regs(&wait.regs)?;
        stopped.set_sigmask(!0)?;
        self.parked.insert(stopped.tid(), Place { top, wait });
        Ok(())
    }

    /// From here on who is let go waits, and a wait that ends without reason begins again.
    pub fn close(&self) -> io::Result<()> {
        self.gate(CLOSED)?;
        self.parked
            .values()
            .try_for_each(|p| self.lay(&p.wait, p.top))
    }

    /// From here on who is let go follows its frame.
    pub fn open(&self) -> io::Result<()> {
        self.gate(OPEN)
    }

    /// Makes a parked thread's frame lead to `home`. What no frame carries, its bases, it is given
    /// here.
    pub fn lead(&mut self, stopped: &Stopped, home: &Home) -> io::Result<()> {
        let place = self.parked.get_mut(&stopped.tid()).ok_or_else(not_parked)?;
        place.wait.regs.fs_base = home.regs.fs_base;
        place.wait.regs.gs_base = home.regs.gs_base;
        let top = place.top;
        stopped.set_regs(&place.wait.regs)?;
        self.lay(home, top)
    }

    /// The state a parked thread is brought back to after an injected call, and the top of the part
    /// of the scratch area for such a call.
    pub fn loan(&self, tid: i32, caller: Caller) -> io::Result<(Home, u64)> {
        let place = self.parked.get(&tid).ok_or_else(not_parked)?;
        let slot = match caller {
            Caller::Leader => 1,
            Caller::Other => 2,
        };
        Ok((place.wait.clone(), self.scratch.0 + (slot + 1) * SLOT))
    }

    /// Room for a thread that is about to be made by `leader`; the stack pointer with which a `ret`
    /// takes it to its wait.
    pub fn expect(&mut self, tid: i32, leader: i32) -> io::Result<u64> {
        let like = self
            .parked
            .get(&leader)
            .ok_or_else(not_parked)?
            .wait
            .clone();
        let top = self.slot(tid)?;
        let wait = self.wait(&like, top)?;
        self.lay(&wait, top)?;
        let rsp = wait.regs.rsp;
        self.parked.insert(tid, Place { top, wait });
        Ok(rsp)
    }

    /// One that was expected under another number is there.
    pub fn rename(&mut self, expected: i32, tid: i32) {
        if let Some(place) = self.parked.remove(&expected) {
            self.parked.insert(tid, place);
        }
    }

    pub fn forget(&mut self, tid: i32) {
        self.parked.remove(&tid);
    }

    fn slot(&mut self, tid: i32) -> io::Result<u64> {
        if let Some(place) = self.parked.get(&tid) {
            return Ok(place.top);
        }
        self.slots += 1;
        let top = self.scratch.0 + self.slots * SLOT;
        if top > self.scratch.1 {
            let message = "the scratch area is too small for the threads";
            return Err(io::Error::other(message));
        }
        Ok(top)
    }

    fn gate(&self, state: u32) -> io::Result<()> {
        self.memory
            .write_at(self.scratch.0 + GATE, &state.to_le_bytes())
    }

    fn lay(&self, home: &Home, top: u64) -> io::Result<()> {
        let frame = home.frame(self.gadgets, top)?;
        self.memory.write_at(frame.address, &frame.bytes)
    }

    /// futex(gate, FUTEX_WAIT, CLOSED) without end, with every signal blocked.
    fn wait(&self, like: &Home, top: u64) -> io::Result<Home> {
        let mut wait = like.clone();
        wait.sigmask = !0;
        wait.nr = None;
        let regs = &mut wait.regs;
        regs.orig_rax = !0;
        regs.rip = self.gadgets.syscall;
        regs.rax = libc::SYS_futex.cast_unsigned();
        regs.rdi = self.scratch.0 + GATE;
        regs.rsi = 0; // FUTEX_WAIT
        regs.rdx = CLOSED.into();
        regs.r10 = 0;
        wait.regs.rsp = like.frame(self.gadgets, top)?.rsp;
        Ok(wait)
    }
}

fn not_parked() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "a thread is not there")
}
