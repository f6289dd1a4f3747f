//! How the target is stopped and let go: all of it or nothing, and no call harmed by either.

use std::io;
use std::time::{Duration, Instant};

use sls_keeper::{EventKind, Refusal};
use sls_sys::ptrace::{self, Waited};
use sls_sys::{monotonic, procfs};

use crate::control::Met;
use crate::debug::DebugRegisters;
use crate::group::{Children, Refused};
use crate::hold::{Seen, judge};
use crate::limits::Place;
use crate::target::Target;
use crate::{collect, group};

/// For a stop that slsd gave no deadline for.
pub const ATTACH_DEADLINE: Duration = Duration::from_millis(2000);
/// Between two looks whether a thread still is in vfork.
const VFORK_LOOKS: Duration = Duration::from_micros(200);

impl Target {
    /// Stops every thread and whoever else shares the memory; on refusal all run on, their calls
    /// unharmed.
    pub fn stop_all(&mut self, children: &Children, deadline: Instant) -> Result<(), Refused> {
        self.stop_threads(children, deadline)?;
        let one = self.group.anyone();
        let result = self.siblings.stop(one, children, deadline);
        let result = result.and_then(|()| Ok(self.siblings.settle(&self.memory)?));
        result.or_else(|refused| self.give_up(refused))
    }

    pub fn stop_threads(&mut self, children: &Children, deadline: Instant) -> Result<(), Refused> {
        let result = self.group.stop(children, deadline);
        result.or_else(|refused| self.give_up(refused))?;
        self.group.traps.lift(&self.memory);
        Ok(())
    }

    /// Prepares a stop, while everything runs: who was born is looked at, and vforks are waited for.
    pub fn await_stop(&mut self, within: Duration) -> Result<(), Refused> {
        self.siblings.prepare(self.group.anyone());
        if self.siblings.any() {
            self.wait_for_vforks(within)?;
        }
        self.kicks.sample();
        self.siblings.sample();
        Ok(())
    }

    /// A thread in vfork comes to its stop when the child is gone, and all others would stand still
    /// for as long. Worse, once asked to stop it cannot be let go of, and a signal which the program
    /// ignores is then delivered all the same: the kernel wakes another thread for it, whose call
    /// ends with EINTR.
    pub fn wait_for_vforks(&self, within: Duration) -> Result<(), Refused> {
        let deadline = Instant::now() + within;
        let pid = self.group.pid;
        loop {
            let pids = self.siblings.pids().into_iter();
            let Some(&tid) = procfs::in_vfork(pids.chain([pid])).first() else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(Refused::new(
                    Refusal::Deadline,
                    format!(
                        "process {pid} did not stop in time: thread {tid} is in vfork, until the child executes or ends; nothing was touched, try later"
                    ),
                ));
            }
            std::thread::sleep(VFORK_LOOKS);
        }
    }

    /// Who did stop goes on with the call it was in.
    fn give_up(&mut self, refused: Refused) -> Result<(), Refused> {
        // What cannot be settled or let go has ended, which the next stop finds out.
        let _ = self.siblings.settle(&self.memory);
        let _ = self.settle_all();
        let _ = self.resume();
        Err(refused)
    }

    /// Earliest time at which a call must be ended.
    pub fn next_deadline(&self) -> Option<u64> {
        let own = self.kicks.next_deadline();
        own.into_iter().chain(self.siblings.next_deadline()).min()
    }

    /// Stops everything for `act`, and lets go again, unless it stood still before.
    pub fn stopped<T>(
        &mut self,
        children: &Children,
        act: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let stays = !self.group.stopped.is_empty();
        self.wait_for_vforks(ATTACH_DEADLINE)?;
        self.kicks.sample();
        self.stop_threads(children, Instant::now() + ATTACH_DEADLINE)?;
        let result = match self.settle_all() {
            Ok(()) => act(self),
            Err(error) => Err(error.into()),
        };
        if !stays {
            self.resume()?;
        }
        result
    }

    fn settle(&mut self, stopped: &ptrace::Stopped) -> io::Result<()> {
        let shared = collect::shared_pending(stopped)?;
        let caught = self.caught()?;
        let place = Place::new(&self.memory, &self.pidfd);
        collect::thread(stopped, &shared, caught, &mut self.kicks, place).map(|_| ())
    }

    /// Makes sure that a stop which takes no checkpoint harms no call either.
    pub fn settle_all(&mut self) -> io::Result<()> {
        let mut shared = None;
        let caught = self.caught()?;
        for stopped in self.group.stopped.values() {
            let shared = match &shared {
                Some(shared) => shared,
                None => shared.insert(collect::shared_pending(stopped)?),
            };
            let place = Place::new(&self.memory, &self.pidfd);
            collect::thread(stopped, shared, caught, &mut self.kicks, place)?;
        }
        Ok(())
    }

    /// Signals with a handler.
    fn caught(&mut self) -> io::Result<u64> {
        Ok(procfs::caught_in(self.status.read()?))
    }

    /// Lets everything run; ns since the first interrupt.
    pub fn resume(&mut self) -> Result<u64, Refused> {
        self.unborn = None;
        self.kicks.stopped_at(monotonic());
        if !self.hold {
            self.siblings.release();
            self.group.release();
            return Ok(monotonic().saturating_sub(self.group.since));
        }
        self.run(None)?;
        Ok(monotonic().saturating_sub(self.group.since))
    }

    /// Ends tracing for good. A held target must be stopped once more to be let go; one that never
    /// ran ends.
    pub fn let_go(&mut self, children: &Children) -> io::Result<()> {
        match &self.unborn {
            Some(unborn) if !unborn.is_born() => return self.end(),
            _ => self.unborn = None,
        }
        if self.hold {
            self.hold = false;
            self.kicks.sample();
            // Dead or late: what can be let go has been.
            let _ = self.group.stop(children, Instant::now() + ATTACH_DEADLINE);
            for stopped in self.group.stopped.values() {
                let _ = DebugRegisters::disarm(stopped); // ESRCH: killed meanwhile.
            }
            self.group.debug = DebugRegisters::default();
            self.settle_all()?;
        }
        self.group.traps.set(&[], &self.memory);
        self.siblings.release();
        self.group.release();
        Ok(())
    }

    pub fn sort_out(&mut self, waited: Waited) -> io::Result<Option<EventKind>> {
        let pid = self.group.pid;
        match waited {
            Waited::Ended(tid, status) => {
                self.group.forget(tid);
                Ok((tid == pid && self.hold).then_some(EventKind::Gone { status }))
            }
            Waited::Stopped(stopped) => {
                let tid = stopped.tid();
                let ours = self.hold && procfs::status(tid).is_ok_and(|s| s.tgid == pid);
                if !ours {
                    // A child of the target, or a thread that came late to a stop that was given
                    // up: its interrupted call is not to suffer for it.
                    if procfs::status(tid).is_ok_and(|s| s.tgid == pid) {
                        self.settle(&stopped)?;
                    } else {
                        self.siblings.settle_late(&stopped, &self.memory)?;
                        self.group.traps.spare(pid, tid);
                    }
                    let signal = group::signal_of(&stopped);
                    stopped.detach(signal)?;
                    return Ok(None);
                }
                if !self.group.running.contains(&tid) {
                    self.group.running.push(tid);
                }
                let executed = stopped.why() == ptrace::Why::Event(ptrace::event::EXEC);
                let controlled = !self.attached_held || self.group.is_set();
                if executed {
                    self.reload()?;
                }
                // As above. A call whose time has come is ended in a group stop as well.
                let settles = match stopped.why() {
                    ptrace::Why::Interrupt => true,
                    ptrace::Why::Group(_) => self.kicks.is_due(tid, monotonic()),
                    _ => false,
                };
                if settles {
                    self.settle(&stopped)?;
                }
                let stopped = match self.meet(stopped)? {
                    Met::Nothing(stopped) => stopped,
                    Met::Told(event, stopped) => {
                        self.group.running.retain(|&t| t != tid);
                        self.group.stopped.insert(tid, stopped);
                        return Ok(Some(event));
                    }
                };
                if executed && controlled {
                    self.group.running.clear();
                    self.group.stopped.insert(tid, stopped);
                    return Ok(Some(EventKind::Replaced { tid }));
                }
                let Some(stopped) = self.send_off(stopped)? else {
                    return Ok(None);
                };
                match judge(pid, stopped, &self.group.debug)? {
                    Seen::Passed | Seen::Listening => Ok(None),
                    Seen::Tell(event, stopped) => {
                        if let (EventKind::Fatal { .. }, ptrace::Why::Signal(signal)) =
                            (&event, stopped.why())
                        {
                            self.doomed = Some((tid, signal));
                        }
                        self.group.running.retain(|&t| t != tid);
                        self.group.stopped.insert(tid, stopped);
                        Ok(Some(event))
                    }
                }
            }
        }
    }
}
