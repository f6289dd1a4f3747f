//! Every thread of a process, stopped to a fixed point under a deadline.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sls_keeper::{EventKind, Refusal};
use sls_sys::ptrace::{self, Alarm, Stopped, Waited, Why, option};
use sls_sys::{monotonic, procfs};

use crate::collect;
use crate::control::{awaits_trap, is_step};
use crate::debug::DebugRegisters;
use crate::traps::Traps;

/// Why an act on the group was refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Kind, for the caller.
    pub refusal: Refusal,
    /// For people.
    pub message: String,
}

impl Refused {
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self {
            refusal,
            message: message.into(),
        }
    }

    pub fn dead(pid: i32) -> Self {
        Self::new(Refusal::Dead, format!("process {pid} has ended"))
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let refusal = match error.raw_os_error() {
            Some(libc::ESRCH) => Refusal::Dead,
            Some(libc::EPERM | libc::EACCES) => Refusal::Permission,
            _ => Refusal::Other,
        };
        Self::new(refusal, error.to_string())
    }
}

/// Waits for changes of children without losing those of other threads.
pub struct Children {
    signals: SignalFd,
    alarm: RefCell<Alarm>,
}

impl Children {
    /// Blocks SIGCHLD and takes it through a descriptor instead.
    pub fn new() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            signals,
            alarm: RefCell::new(Alarm::new()?),
        })
    }

    /// Descriptor to poll.
    pub fn fd(&self) -> &SignalFd {
        &self.signals
    }

    /// Takes what is queued; the stops themselves are read by waitpid.
    pub fn drain(&self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        Ok(())
    }

    /// Next change of `tid` (-1 any), None at the deadline.
    pub fn next(&self, tid: i32, deadline: Instant) -> io::Result<Option<Waited>> {
        match ptrace::wait(tid, false)? {
            Some(waited) => Ok(Some(waited)),
            None => self.until(deadline)?.next(tid),
        }
    }

    /// To wait several times under one deadline.
    fn until(&self, deadline: Instant) -> io::Result<Until<'_>> {
        let mut alarm = self.alarm.borrow_mut();
        alarm.arm(deadline.saturating_duration_since(Instant::now()))?;
        Ok(Until { alarm, deadline })
    }
}

struct Until<'a> {
    alarm: RefMut<'a, Alarm>,
    deadline: Instant,
}

impl Until<'_> {
    /// Next change of `tid` (-1 any), None at the deadline.
    fn next(&self, tid: i32) -> io::Result<Option<Waited>> {
        loop {
            match ptrace::wait_for(tid)? {
                None if Instant::now() < self.deadline => {}
                other => return Ok(other),
            }
        }
    }
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        // It has no reason to fail; a late alarm interrupts nothing but a wait.
        let _ = self.alarm.disarm();
    }
}

/// The threads of one process that this keeper traces.
pub struct Group {
    /// Process.
    pub pid: i32,
    /// Stopped threads.
    pub stopped: BTreeMap<i32, Stopped>,
    /// Seized threads that run (held targets).
    pub running: Vec<i32>,
    /// PTRACE_O_* of new seizures.
    pub options: usize,
    /// First interrupt of the last stop, CLOCK_MONOTONIC ns.
    pub since: u64,
    /// Breakpoints in the text.
    pub traps: Traps,
    /// What is armed in each thread.
    pub debug: DebugRegisters,
    /// What was met on the way to a stop, or comes after it, and slsd has yet to be told of.
    pub untold: Vec<EventKind>,
    /// Threads whose single step has not ended in time.
    pub stepping: BTreeSet<i32>,
    /// Threads that may still stand behind a single step that has.
    pub stepped: BTreeSet<i32>,
    /// Threads of the last stop, to be asked before anything is listed.
    known: Vec<i32>,
    tasks: procfs::Tasks,
}

impl Group {
    pub fn new(pid: i32, options: usize) -> io::Result<Self> {
        Ok(Self {
            pid,
            stopped: BTreeMap::new(),
            running: Vec::new(),
            options,
            since: 0,
            traps: Traps::default(),
            debug: DebugRegisters::default(),
            untold: Vec::new(),
            stepping: BTreeSet::new(),
            stepped: BTreeSet::new(),
            known: Vec::new(),
            tasks: procfs::Tasks::open(pid)?,
        })
    }

    /// Stops everything. On refusal some stand still, whose calls are to be settled before all is
    /// let go again.
    pub fn stop(&mut self, children: &Children, deadline: Instant) -> Result<(), Refused> {
        let known = self.still_there();
        self.since = monotonic();
        for &tid in &self.running {
            // ESRCH: it stopped or ended by itself, which the wait tells.
            let _ = ptrace::interrupt(tid);
        }
        self.ask(known)?;
        self.gather(children, deadline)?;
        // As many stopped as there are: nobody was missed. Else list, ask, and look again.
        while self.tasks.count().ok() != Some(self.stopped.len() as u64) {
            let tids = procfs::tasks(self.pid).map_err(|_| Refused::dead(self.pid))?;
            if self.ask(tids)? == 0 {
                break; // Only threads that are ending are left over.
            }
            self.gather(children, deadline)?;
        }
        if self.stopped.is_empty() {
            return Err(Refused::dead(self.pid));
        }
        self.known = self.stopped.keys().copied().collect();
        Ok(())
    }

    /// A thread that has not ended.
    pub fn anyone(&self) -> i32 {
        if let Some(&stopped) = self.stopped.keys().next() {
            return stopped;
        }
        let mut known = self.known.iter().copied();
        known.find(|&tid| !procfs::is_dead(tid)).unwrap_or(self.pid)
    }

    /// The threads of the last stop that still are this process's: a number may have been given
    /// to somebody else since.
    fn still_there(&mut self) -> Vec<i32> {
        let pid = self.pid;
        let mut known = std::mem::take(&mut self.known);
        known.retain(|tid| std::path::Path::new(&format!("/proc/{pid}/task/{tid}")).exists());
        known
    }

    /// Seizes what is not ours yet and interrupts what runs; number of threads newly asked.
    fn ask(&mut self, tids: Vec<i32>) -> Result<usize, Refused> {
        let mut asked = 0;
        for tid in tids {
            if self.stopped.contains_key(&tid) || self.running.contains(&tid) {
                continue;
            }
            match ptrace::seize(tid, self.options) {
                Ok(()) => {}
                Err(error) => {
                    if self.judge(tid, &error)? {
                        self.running.push(tid);
                        asked += 1;
                    }
                    continue;
                }
            }
            if ptrace::interrupt(tid).is_ok() {
                self.running.push(tid);
                asked += 1;
            }
        }
        Ok(asked)
    }

    /// A thread that cannot be seized is ending, not ours, or was attached by its birth a moment
    /// ago: true then, its stop is on the way.
    fn judge(&self, tid: i32, error: &io::Error) -> Result<bool, Refused> {
        let Ok(status) = procfs::status(tid) else {
            return Ok(false);
        };
        if matches!(status.state, 'Z' | 'X') {
            return Ok(false);
        }
        if status.tracer == std::process::id().cast_signed() {
            return Ok(true);
        }
        if status.tracer != 0 {
            let name = procfs::status(status.tracer)
                .map(|s| s.name)
                .unwrap_or_default();
            return Err(Refused::new(
                Refusal::Traced,
                format!(
                    "process {} is under another tracer, pid {} ({name}); let that one detach first",
                    self.pid, status.tracer
                ),
            ));
        }
        match error.raw_os_error() {
            Some(libc::ESRCH) => Ok(false),
            Some(libc::EPERM) => Err(Refused::new(
                Refusal::Permission,
                format!(
                    "thread {tid} of process {} may not be traced by this user (it belongs to uid {}); run slsd as root or as that user",
                    self.pid,
                    status.uid()
                ),
            )),
            _ => Err(Refused::new(
                Refusal::Other,
                format!("seize thread {tid}: {error}"),
            )),
        }
    }

    /// Waits until nothing that was asked still runs. For one thread at a time, the one asked last:
    /// the others will have stopped by then, and who is woken by each of them takes a CPU from those
    /// that have still to come to their stop.
    fn gather(&mut self, children: &Children, deadline: Instant) -> Result<(), Refused> {
        let wait = children.until(deadline)?;
        while let Some(&last) = self.running.last() {
            match wait.next(last) {
                Ok(Some(waited)) => self.note(waited)?,
                Ok(None) => {
                    // Nobody has looked at those that stopped while this one was waited for.
                    self.note_all()?;
                    if !self.running.is_empty() {
                        return Err(self.late());
                    }
                }
                // An exec in another thread has ended it; who is left is counted after this.
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.forget(last),
                Err(error) => return Err(error.into()),
            }
            self.note_all()?;
        }
        Ok(())
    }

    /// Takes what has changed already.
    fn note_all(&mut self) -> io::Result<()> {
        while !self.running.is_empty()
            && let Some(waited) = ptrace::wait(-1, false)?
        {
            self.note(waited)?;
        }
        Ok(())
    }

    fn note(&mut self, waited: Waited) -> io::Result<()> {
        match waited {
            Waited::Stopped(stopped) => self.note_stop(stopped)?,
            Waited::Ended(tid, status) => self.bury(tid, status),
        }
        Ok(())
    }

    /// Files a stop under stopped; a clone event's child comes on its own.
    fn note_stop(&mut self, stopped: Stopped) -> io::Result<()> {
        let tid = stopped.tid();
        let ours = self.running.contains(&tid)
            || procfs::status(tid).is_ok_and(|status| status.tgid == self.pid);
        self.running.retain(|&t| t != tid);
        if !ours {
            // A process that the target has just made: it runs on, untouched.
            self.traps.spare(self.pid, tid);
            let signal = signal_of(&stopped);
            return stopped.detach(signal);
        }
        let Some(stopped) = self.without_ours(stopped)? else {
            return Ok(());
        };
        match stopped.why() {
            // A thread or process that was just made: the maker must still reach its own stop,
            // and a new process is not part of this group.
            Why::Event(ptrace::event::CLONE) => {
                ptrace_again(&mut self.running, stopped)?;
            }
            Why::Event(ptrace::event::EXIT) => {
                // It leaves by itself; what it was is gone for a checkpoint.
                stopped.cont(0)?;
            }
            _ => {
                self.stopped.insert(tid, stopped);
            }
        }
        Ok(())
    }

    /// A stop, as it would be had we set nothing for the thread to meet. None: it has yet to be told of
    /// what it met, and comes again.
    fn without_ours(&mut self, stopped: Stopped) -> io::Result<Option<Stopped>> {
        if !self.is_set() {
            return Ok(Some(stopped));
        }
        let tid = stopped.tid();
        if stopped.why() == Why::Interrupt && awaits_trap(&stopped)? {
            stopped.cont(0)?;
            self.running.push(tid);
            return Ok(None);
        }
        if self.traps.set_back(&stopped)? {
            return Ok(Some(stopped.without_signal()));
        }
        if self.is_late_step(&stopped)? {
            return Ok(Some(stopped.without_signal()));
        }
        let slots = self.debug.hits(&stopped)?;
        if slots != 0 {
            let regs = Box::new(collect::words(&stopped.regs()?));
            self.untold.push(EventKind::Watch { tid, slots, regs });
            return Ok(Some(stopped.without_signal()));
        }
        Ok(Some(stopped))
    }

    /// Is there anything of ours that a thread may meet?
    pub fn is_set(&self) -> bool {
        self.traps.any() || self.debug.watches() || !self.stepping.is_empty()
    }

    /// Is it the end of a step that took long?
    pub fn is_late_step(&mut self, stopped: &Stopped) -> io::Result<bool> {
        let is_one = stopped.why() == Why::Signal(libc::SIGTRAP)
            && self.stepping.contains(&stopped.tid())
            && is_step(stopped)?;
        if is_one {
            self.stepping.remove(&stopped.tid());
        }
        Ok(is_one)
    }

    /// A thread has ended; with the first one the process has, and that is told with how.
    pub fn bury(&mut self, tid: i32, status: i32) {
        self.forget(tid);
        if tid == self.pid {
            self.untold.push(EventKind::Gone { status });
        }
    }

    pub fn forget(&mut self, tid: i32) {
        self.stepping.remove(&tid);
        self.running.retain(|&t| t != tid);
        self.stopped.remove(&tid);
    }

    fn late(&self) -> Refused {
        let who: Vec<String> = self
            .running
            .iter()
            .map(|tid| {
                let state = procfs::stat(*tid).map_or('?', |s| s.state);
                format!("{tid} (state {state})")
            })
            .collect();
        Refused::new(
            Refusal::Deadline,
            format!(
                "process {} did not stop in time: thread {} is in an uninterruptible wait (vfork, a device or a network file system); everything runs again, try later",
                self.pid,
                who.join(", ")
            ),
        )
    }

    /// Lets every thread go, with the signal that was on its way.
    pub fn release(&mut self) {
        for (_, stopped) in std::mem::take(&mut self.stopped) {
            let signal = signal_of(&stopped);
            // ESRCH: the thread was killed meanwhile, which is nobody's business here.
            let _ = stopped.detach(signal);
        }
        // Who was asked to stop and has not: only a stopped thread can be let go, and its call is to
        // be settled first. The server's loop does that when its stop arrives.
        self.running.clear();
    }
}

fn ptrace_again(running: &mut Vec<i32>, stopped: Stopped) -> io::Result<()> {
    let tid = stopped.tid();
    ptrace::interrupt(tid)?;
    stopped.cont(0)?;
    running.push(tid);
    Ok(())
}

/// The signal a stop holds back, 0 for none.
pub fn signal_of(stopped: &Stopped) -> i32 {
    match stopped.why() {
        Why::Signal(signal) => signal,
        _ => 0,
    }
}

/// Options while a stop is made: system call stops told apart, new threads caught at birth.
pub const STOP_OPTIONS: usize = option::SYSGOOD | option::CLONE;
