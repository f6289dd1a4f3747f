//! Processes that share the target's address space without being of it (CLONE_VM, vfork): they
//! would write on while the target stands still.
//!
//! - **Invariant**: nobody who shares the memory runs while a checkpoint is read. Who was born since
//!   the last stop is found by the ids given since (sls_sys::births); who was born before was found
//!   then, and by a look at every process when the target was adopted.
//! - The makers stand still when the last look is made, so an id that is given has its process by then.
//! - **Invariant**: who waits for its vfork child is stopped before that child: only the child's end
//!   or exec lets it come to its stop.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use sls_keeper::Refusal;
use sls_sys::births::{Births, is_thread_of};
use sls_sys::procfs::Reread;
use sls_sys::ptrace::Stopped;
use sls_sys::{RemoteMemory, fd, procfs};

use crate::collect;
use crate::group::{Children, Group, Refused, STOP_OPTIONS};
use crate::kicks::Kicks;
use crate::limits::Place;

/// More new ids than this are not asked for one by one.
const SINGLE_LOOKS: usize = 4096;

/// A process that shares the target's memory.
struct Sibling {
    group: Group,
    kicks: Kicks,
    pidfd: OwnedFd,
    status: Reread,
}

/// All of one target's.
pub struct Siblings {
    pid: i32,
    sched_debug: bool,
    births: Births,
    /// Everybody whose id was given until then was looked at, but for `unborn`. None: nobody was.
    seen: Option<i32>,
    /// Ids that were given, but had no process yet, or none any more.
    unborn: Vec<i32>,
    all: Vec<Sibling>,
}

impl Siblings {
    pub fn new(pid: i32, sched_debug: bool) -> io::Result<Self> {
        Ok(Self {
            pid,
            sched_debug,
            births: Births::open()?,
            seen: None,
            unborn: Vec::new(),
            all: Vec::new(),
        })
    }

    /// Process ids of those that are known.
    pub fn pids(&self) -> Vec<i32> {
        self.all.iter().map(|s| s.group.pid).collect()
    }

    /// Is there any?
    pub fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Off the clock: looks at who was born since the last stop, so that little is left for the
    /// next. `one` is any living thread of the target.
    pub fn prepare(&mut self, one: i32) {
        if self.seen.is_some() {
            // What cannot be told now is told by the stop.
            let _ = self.look(one);
        }
    }

    /// Looks up when their threads fell asleep, right before a stop.
    pub fn sample(&mut self) {
        for sibling in &mut self.all {
            sibling.kicks.sample();
        }
    }

    /// Stops them all, with every thread of the target stopped already, `one` of them. On refusal
    /// some stand still.
    pub fn stop(
        &mut self,
        one: i32,
        children: &Children,
        deadline: Instant,
    ) -> Result<(), Refused> {
        loop {
            let everybody = self.seen.is_none();
            let found = self.look(one)?;
            let Some(index) = self.next() else {
                // Nobody ran who could have made another.
                self.unborn.clear();
                return Ok(());
            };
            if everybody && found {
                self.seen = None; // One of those may have been making another one.
            }
            self.stop_one(index, one, children, deadline)?;
        }
    }

    /// One that still runs, and is not waited for by another one that does.
    fn next(&self) -> Option<usize> {
        let runs = |s: &Sibling| s.group.stopped.is_empty();
        let running: Vec<i32> = self
            .all
            .iter()
            .filter(|s| runs(s))
            .map(|s| s.group.pid)
            .collect();
        let first = self.all.iter().position(|s| {
            runs(s) && procfs::stat(s.group.pid).map_or(true, |stat| !running.contains(&stat.ppid))
        });
        first.or_else(|| self.all.iter().position(runs))
    }

    fn stop_one(
        &mut self,
        index: usize,
        one: i32,
        children: &Children,
        deadline: Instant,
    ) -> Result<(), Refused> {
        let sibling = &mut self.all[index];
        let pid = sibling.group.pid;
        // Its number may be somebody else's by now, or its memory another since its exec.
        let stopped = if shares(one, pid) {
            sibling.group.stop(children, deadline)
        } else {
            Err(Refused::dead(pid))
        };
        match stopped {
            Ok(()) if shares(one, pid) => Ok(()),
            Err(refused) if refused.refusal != Refusal::Dead => Err(Refused::new(
                refused.refusal,
                format!("its memory is shared by process {pid}: {}", refused.message),
            )),
            _ => {
                self.all.swap_remove(index).group.release();
                Ok(())
            }
        }
    }

    /// Looks at everybody who was not looked at yet. Was anybody found?
    fn look(&mut self, one: i32) -> io::Result<bool> {
        let now = self.births.last()?;
        if self.seen == Some(now) && self.unborn.is_empty() {
            return Ok(false);
        }
        let before = self.all.len();
        let unborn = std::mem::take(&mut self.unborn);
        let ids: Vec<i32> = match self.seen {
            Some(then) => self.births.between(then, now).collect(),
            None => procfs::processes()?,
        };
        if ids.len() > SINGLE_LOOKS {
            let old = &ids[..ids.len() - SINGLE_LOOKS];
            let there: HashSet<i32> = procfs::processes()?.into_iter().collect();
            self.judge_all(one, old.iter().copied().filter(|id| there.contains(id)));
        }
        let new = ids.len().saturating_sub(SINGLE_LOOKS);
        self.judge_all(one, unborn.into_iter().chain(ids[new..].iter().copied()));
        self.seen = Some(now);
        Ok(self.all.len() > before)
    }

    fn judge_all(&mut self, one: i32, ids: impl Iterator<Item = i32>) {
        for id in ids {
            match fd::same_memory(one, id) {
                Ok(true) if !is_thread_of(self.pid, id) => self.add(id),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => self.unborn.push(id),
                // Not ours to look at is not ours to stop either (docs/limits.md).
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Takes up the process of a thread, unless it is known or has ended.
    fn add(&mut self, id: i32) {
        if self.all.iter().any(|s| is_thread_of(s.group.pid, id)) {
            return;
        }
        let Ok(status) = procfs::status(id) else {
            return;
        };
        if matches!(status.state, 'Z' | 'X') {
            return;
        }
        // An error is its end.
        self.all.extend(Sibling::new(status.tgid, self.sched_debug));
    }

    /// Makes sure that no call of theirs is harmed by the stop.
    pub fn settle(&mut self, memory: &RemoteMemory) -> io::Result<()> {
        self.all.iter_mut().try_for_each(|s| s.settle(memory))
    }

    /// Settles a thread that was late for a stop, if it is of one of these.
    pub fn settle_late(&mut self, stopped: &Stopped, memory: &RemoteMemory) -> io::Result<()> {
        let of = |s: &&mut Sibling| is_thread_of(s.group.pid, stopped.tid());
        let sibling = self.all.iter_mut().find(of);
        sibling.map_or(Ok(()), |sibling| sibling.settle_thread(stopped, memory))
    }

    /// Lets all go.
    pub fn release(&mut self) {
        for sibling in &mut self.all {
            sibling.kicks.stopped_at(sls_sys::monotonic());
            sibling.group.release();
        }
    }

    /// Earliest time at which a call of theirs must be ended.
    pub fn next_deadline(&self) -> Option<u64> {
        self.all
            .iter()
            .filter_map(|s| s.kicks.next_deadline())
            .min()
    }

    /// Ends the calls whose time has come.
    pub fn kick(&mut self, now: u64, children: &Children, memory: &RemoteMemory) {
        for sibling in &mut self.all {
            for tid in sibling.kicks.due(now) {
                let place = Place::new(memory, &sibling.pidfd);
                // ESRCH or EPERM: it ended, or somebody else traces it.
                let _ = sibling.kicks.kick(tid, children, place);
            }
        }
    }
}

impl Sibling {
    fn new(pid: i32, sched_debug: bool) -> io::Result<Self> {
        Ok(Self {
            group: Group::new(pid, STOP_OPTIONS)?,
            kicks: Kicks::new(pid, sched_debug),
            pidfd: fd::pidfd_open(pid)?,
            status: Reread::open(pid, "status")?,
        })
    }

    fn settle(&mut self, memory: &RemoteMemory) -> io::Result<()> {
        let caught = procfs::caught_in(self.status.read()?);
        let mut shared = None;
        for stopped in self.group.stopped.values() {
            let shared = match &shared {
                Some(shared) => shared,
                None => shared.insert(collect::shared_pending(stopped)?),
            };
            let place = Place::new(memory, &self.pidfd);
            collect::thread(stopped, shared, caught, &mut self.kicks, place)?;
        }
        Ok(())
    }

    fn settle_thread(&mut self, stopped: &Stopped, memory: &RemoteMemory) -> io::Result<()> {
        let caught = procfs::caught_in(self.status.read()?);
        let shared = collect::shared_pending(stopped)?;
        let place = Place::new(memory, &self.pidfd);
        collect::thread(stopped, &shared, caught, &mut self.kicks, place).map(|_| ())
    }
}

fn shares(one: i32, pid: i32) -> bool {
    fd::same_memory(one, pid).unwrap_or(false)
}
