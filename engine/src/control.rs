//! Forward control: processes that stand still where they are, and go on thread by thread or together.
//!
//! - **Invariant**: breakpoints are in the text only while a process runs (the keeper sees to it), so no
//!   checkpoint and no rewind ever meets one.
//! - What is to be where is decided by the caller, who knows the program; here it is only done.

use std::collections::BTreeSet;

use sls_keeper::Refusal;
pub use sls_keeper::{EventKind, Stepped, Watch, Words};
use sls_sys::RemoteMemory;

use crate::error::{CaptureError, KeeperError};
use crate::group::Group;
use crate::target::Target;

const HALT_DEADLINE_MS: u32 = 1000;

/// Registers of each thread of one process, in the order of user_regs_struct.
pub type Threads = Vec<(i32, Words)>;

/// Who runs.
#[derive(Debug, Default)]
pub struct Went {
    /// Threads that a signal kept from getting past their breakpoint: they meet it again.
    pub left: Vec<i32>,
    /// A process that shares the memory: as long as it does, no breakpoint is in the text.
    pub shared: Option<i32>,
}

impl Group {
    /// Stops all without a checkpoint. They stand still until [`Target::go`], or [`Group::go_on`].
    ///
    /// # Errors
    /// Of the member with this number; all of the others may stand still.
    pub fn halt(&mut self) -> Result<Vec<(i32, Threads)>, (i32, KeeperError)> {
        let mut asked = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            member.be_seized().map_err(|e| (member.pid, e))?;
            let sent = member.keeper.ask_to_halt(HALT_DEADLINE_MS);
            sent.map_err(|e| (member.pid, e))?;
            asked.push(at);
        }
        let mut all = Vec::with_capacity(asked.len());
        let mut failed = None;
        for at in asked {
            let member = &mut self.members[at];
            match member.keeper.halted() {
                Ok(threads) => {
                    member.stopped = true;
                    all.push((member.pid, threads));
                }
                Err(error) => failed = failed.or(Some((member.pid, error))),
            }
        }
        failed.map_or(Ok(all), Err)
    }

    /// One of its processes.
    pub fn member(&mut self, pid: i32) -> Option<&mut Target> {
        self.members.iter_mut().find(|m| m.pid == pid)
    }

    /// Is there an event that was taken off a channel already?
    #[must_use]
    pub fn has_event(&self) -> bool {
        self.members.iter().any(|m| m.keeper.has_event())
    }
}

impl Target {
    /// Stays seized from the next stop on.
    fn be_seized(&mut self) -> Result<(), KeeperError> {
        if !self.traps.is_seized() {
            self.keeper.seize(true)?;
            self.traps.seized(true);
        }
        Ok(())
    }

    /// It does not, and nobody would catch who meets a breakpoint, where its keeper was killed: then another
    /// has it, which has not seized it.
    fn stands(&self) -> Result<(), KeeperError> {
        if self.traps.is_seized() {
            return Ok(());
        }
        let why = "runs: its keeper was killed, which let it go; stop it again: slsctl pause";
        Err(KeeperError::Refused {
            refusal: Refusal::Other,
            message: format!("process {} {why}", self.pid),
        })
    }

    /// Is it seized because it is controlled?
    #[must_use]
    pub fn is_controlled(&self) -> bool {
        self.traps.is_seized()
    }

    /// Another program has taken its place: what was known of the old one is void, and its breakpoints
    /// are gone. While it stands still.
    ///
    /// # Errors
    /// It has ended, or cannot be tracked.
    pub fn begin_anew(&mut self) -> Result<(), CaptureError> {
        self.start_over()
    }

    /// Its memory; while all stand still it is as the program made it.
    #[must_use]
    pub fn memory(&self) -> &RemoteMemory {
        &self.memory
    }

    /// Breakpoints at these addresses whenever it runs, and no others. While it stands still. Those that
    /// could not be set come back: nothing is mapped there.
    ///
    /// # Errors
    /// It cannot be written down what belongs there, or the keeper is gone.
    pub fn set_breakpoints(&mut self, addresses: &BTreeSet<u64>) -> Result<Vec<u64>, KeeperError> {
        if self.traps.are(addresses) {
            return Ok(Vec::new());
        }
        let traps = self.traps.look(self.pid, &self.memory, addresses)?;
        // What is taken away is noted until it has been.
        if !traps.is_empty() {
            self.stands()?;
            self.notes.trap(&traps)?;
        }
        self.keeper.set_traps(traps.clone())?;
        if traps.is_empty() {
            self.notes.trap(&[])?;
        }
        self.traps.set(&traps);
        let missing = addresses.iter().copied();
        Ok(missing
            .filter(|a| !traps.iter().any(|t| t.address == *a))
            .collect())
    }

    /// Watchpoints in all threads whenever they run, and no others. While it stands still.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn set_watchpoints(&mut self, watches: Vec<Watch>) -> Result<(), KeeperError> {
        if !self.traps.are_watched(&watches) {
            self.keeper.set_watches(watches.clone())?;
            self.traps.watched(watches);
        }
        Ok(())
    }

    /// Executes one instruction of one thread, with everybody else standing still.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn step(&mut self, tid: i32) -> Result<Stepped, KeeperError> {
        self.keeper.step(tid)
    }

    /// Lets one thread run, or all; `pass`: these get past the breakpoint that they stand at.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn go(&mut self, only: Option<i32>, pass: Vec<i32>) -> Result<Went, KeeperError> {
        self.stands()?;
        let (left, shared) = self.keeper.go(only, pass)?;
        self.stopped = only.is_some();
        Ok(Went { left, shared })
    }

    /// Nothing is set any more, and it is not seized; it runs on when it is let go.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn end_control(&mut self) -> Result<(), KeeperError> {
        if !self.traps.is_seized() {
            return Ok(());
        }
        self.keeper.ask_to_halt(HALT_DEADLINE_MS)?;
        self.keeper.halted()?;
        self.stopped = true;
        self.set_breakpoints(&BTreeSet::new())?;
        self.set_watchpoints(Vec::new())?;
        self.keeper.seize(false)?;
        self.traps.seized(false);
        self.keeper.resume()?;
        self.stopped = false;
        Ok(())
    }
}
