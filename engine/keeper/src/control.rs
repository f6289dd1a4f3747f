//! Forward control: the target stands still until it is told to go on, one instruction, one thread, or
//! all of it.

use std::io;
use std::time::{Duration, Instant};

use sls_keeper::{EventKind, Stepped, Words};
use sls_sys::ptrace::{self, Stopped, Waited, Why, event, option};

use crate::collect;
use crate::debug::DebugRegisters;
use crate::group::{Children, Refused, STOP_OPTIONS};
use crate::hold::{HOLD_OPTIONS, is_fatal};
use crate::target::Target;
use crate::traps::{TRAP_BRKPT, TRAP_TRACE, code_of};

/// An instruction that takes longer is a call that waits.
const STEP_PATIENCE: Duration = Duration::from_millis(20);
/// Stops that are none of the instruction's, before it counts as one that waits.
const TRIES: usize = 8;

/// What a thread met that stopped for a reason of ours.
pub enum Met {
    /// None.
    Nothing(Stopped),
    /// One to be told of.
    Told(EventKind, Stopped),
}

impl Target {
    /// Stays seized, or no longer; the latter while all stand still.
    pub fn seize(&mut self, on: bool) {
        if on {
            self.hold = true;
            self.group.options = HOLD_OPTIONS | option::VFORK_DONE;
        } else if !self.attached_held {
            self.hold = false;
            self.group.options = STOP_OPTIONS;
            self.group.traps.set(&[], &self.memory);
            self.group.debug.watch(Vec::new());
        }
    }

    /// Stops everything until it is told to go on; registers of each thread.
    pub fn halt(
        &mut self,
        within: Duration,
        children: &Children,
    ) -> Result<Vec<(i32, Words)>, Refused> {
        self.await_stop(within)?;
        self.stop_all(children, Instant::now() + within)?;
        self.end_steps(children)?;
        self.settle_all()?;
        let mut threads = Vec::with_capacity(self.group.stopped.len());
        for (&tid, stopped) in &self.group.stopped {
            // If this keeper is killed while they stand still, they must not meet one.
            DebugRegisters::disarm(stopped)?;
            threads.push((tid, collect::words(&stopped.regs()?)));
        }
        Ok(threads)
    }

    /// Lets one thread run, or all. Those to be let past their breakpoint execute its instruction first,
    /// while everybody stands still and it is not in the text. Who could not, and who shares the memory.
    pub fn go(
        &mut self,
        only: Option<i32>,
        pass: &[i32],
        children: &Children,
    ) -> Result<(Vec<i32>, Option<i32>), Refused> {
        let mut left = Vec::new();
        for &tid in pass {
            match self.step(tid, children)? {
                Stepped::Signal(_) => left.push(tid),
                Stepped::Done { slots, regs } if slots != 0 => {
                    self.group
                        .untold
                        .push(EventKind::Watch { tid, slots, regs });
                }
                _ => {}
            }
        }
        let shared = self.siblings.pids().first().copied();
        self.run(only)?;
        Ok((left, shared))
    }

    /// One instruction of one thread.
    pub fn step(&mut self, tid: i32, children: &Children) -> Result<Stepped, Refused> {
        let Some(mut stopped) = self.group.stopped.remove(&tid) else {
            return Ok(Stepped::Ended);
        };
        if let Why::Signal(_) = stopped.why() {
            return self.met_signal(stopped);
        }
        self.group.debug.arm(&stopped)?;
        for _ in 0..TRIES {
            stopped.step()?;
            stopped = match children.next(tid, Instant::now() + STEP_PATIENCE)? {
                None => break,
                Some(Waited::Ended(tid, status)) => {
                    self.group.bury(tid, status);
                    return Ok(Stepped::Ended);
                }
                Some(Waited::Stopped(stopped)) => stopped,
            };
            match stopped.why() {
                Why::Signal(libc::SIGTRAP) if is_step(&stopped)? => {
                    let slots = self.group.debug.hits(&stopped)?;
                    DebugRegisters::disarm(&stopped)?;
                    let regs = Box::new(collect::words(&stopped.regs()?));
                    self.group.stopped.insert(tid, stopped.without_signal());
                    self.group.stepped.insert(tid);
                    return Ok(Stepped::Done { regs, slots });
                }
                Why::Signal(_) => {
                    DebugRegisters::disarm(&stopped)?;
                    return self.met_signal(stopped);
                }
                Why::Event(event::EXEC) => {
                    self.reload()?;
                    self.group.traps.forget();
                }
                _ => {} // An interrupt that was late, a child that was made: the step goes on.
            }
        }
        self.group.stepping.insert(tid);
        self.group.stepped.insert(tid);
        self.group.running.push(tid);
        Ok(Stepped::Blocked)
    }

    /// Who stands behind a single step would take another one, and end by its trap, if this keeper were
    /// killed: the kernel takes that back only when a tracer lets it go on. So they go on, to the next stop,
    /// which they meet before they come to their programs.
    pub fn end_steps(&mut self, children: &Children) -> io::Result<()> {
        for tid in std::mem::take(&mut self.group.stepped) {
            let Some(stopped) = self.group.stopped.remove(&tid) else {
                continue;
            };
            ptrace::interrupt(tid)?;
            stopped.cont(0)?;
            match children.next(tid, Instant::now() + STEP_PATIENCE)? {
                Some(Waited::Stopped(stopped)) => {
                    self.group.stopped.insert(tid, stopped);
                }
                Some(Waited::Ended(tid, status)) => self.group.bury(tid, status),
                None => self.group.running.push(tid),
            }
        }
        Ok(())
    }

    /// A signal comes before the instruction.
    fn met_signal(&mut self, stopped: Stopped) -> Result<Stepped, Refused> {
        let tid = stopped.tid();
        let Some(stopped) = self.send_off(stopped)? else {
            self.group.running.push(tid);
            return Ok(Stepped::Blocked);
        };
        let signal = crate::group::signal_of(&stopped);
        self.group.stopped.insert(tid, stopped);
        Ok(Stepped::Signal(signal))
    }

    /// Does a signal end the process, of which slsd is not told yet? It is from now on.
    pub fn is_news(&mut self, tid: i32, signal: i32) -> bool {
        let told = self.doomed == Some((tid, signal));
        if told || !is_fatal(self.group.pid, signal) {
            return false;
        }
        self.doomed = Some((tid, signal));
        true
    }

    /// Delivers the signal that ends the process, if slsd was told of it.
    pub fn send_off(&mut self, stopped: Stopped) -> io::Result<Option<Stopped>> {
        let Why::Signal(signal) = stopped.why() else {
            return Ok(Some(stopped));
        };
        if self
            .doomed
            .take_if(|d| *d == (stopped.tid(), signal))
            .is_none()
        {
            return Ok(Some(stopped));
        }
        stopped.cont(signal)?;
        Ok(None)
    }

    /// Lets one of the stopped threads run, or all, with the breakpoints in the text.
    pub fn run(&mut self, only: Option<i32>) -> io::Result<()> {
        // Nobody would catch a process that shares the memory.
        if !self.siblings.any() {
            self.group.traps.insert(&self.memory);
        }
        if only.is_none() {
            self.siblings.release();
        }
        let go = |tid: &i32| only.is_none_or(|only| only == *tid);
        let tids: Vec<i32> = self.group.stopped.keys().copied().filter(go).collect();
        for tid in tids {
            let Some(stopped) = self.group.stopped.remove(&tid) else {
                continue;
            };
            let signal = crate::group::signal_of(&stopped);
            if self.hold
                && signal != 0
                && let Ok(info) = stopped.siginfo() // ESRCH: killed, as below.
                && self.is_news(tid, signal)
            {
                // It came while they were made to stand still.
                let info = info.to_vec();
                self.group.untold.push(EventKind::Fatal { tid, info });
                self.group.stopped.insert(tid, stopped);
                continue;
            }
            let listens = matches!(stopped.why(), Why::Group(_));
            // The program's own filter is on again. ESRCH: killed, which the next call finds too.
            let _ = stopped.set_options(self.group.options);
            if !matches!(stopped.why(), Why::Event(event::EXIT)) {
                // ESRCH: as above.
                let _ = self.group.debug.arm(&stopped);
            }
            let gone = if listens {
                stopped.listen()
            } else {
                stopped.cont(signal)
            };
            if gone.is_ok() {
                self.group.running.push(tid);
            }
        }
        Ok(())
    }

    /// Judges a stop of a held thread by what was set for it.
    pub fn meet(&mut self, stopped: Stopped) -> io::Result<Met> {
        let tid = stopped.tid();
        if self.group.traps.set_back(&stopped)? {
            let regs = Box::new(collect::words(&stopped.regs()?));
            let event = EventKind::Trap { tid, regs };
            return Ok(Met::Told(event, stopped.without_signal()));
        }
        let slots = self.group.debug.hits(&stopped)?;
        if slots != 0 {
            let regs = Box::new(collect::words(&stopped.regs()?));
            let event = EventKind::Watch { tid, slots, regs };
            return Ok(Met::Told(event, stopped.without_signal()));
        }
        if self.group.is_late_step(&stopped)? {
            let regs = Box::new(collect::words(&stopped.regs()?));
            let event = EventKind::Trap { tid, regs };
            return Ok(Met::Told(event, stopped.without_signal()));
        }
        match stopped.why() {
            Why::Event(event::VFORK_DONE) if self.group.stopped.is_empty() => {
                self.group.traps.insert(&self.memory);
            }
            _ => {}
        }
        Ok(Met::Nothing(stopped))
    }
}

/// Is it the end of a single step?
pub fn is_step(stopped: &Stopped) -> io::Result<bool> {
    let code = code_of(&stopped.siginfo()?);
    Ok(matches!(code, TRAP_BRKPT | TRAP_TRACE))
}

/// A SIGTRAP of ours that a thread has yet to be told of: the kernel tells of an interrupt first.
pub fn awaits_trap(stopped: &Stopped) -> io::Result<bool> {
    let pending = stopped.pending(false)?;
    Ok(pending
        .iter()
        .any(|info| i32::from(info[0]) == libc::SIGTRAP && code_of(info) > 0))
}
