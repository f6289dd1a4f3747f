//! The one process: what is known of it, and the calls that are made inside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use serde_bytes::ByteBuf;
use sls_keeper::{Collected, Facts, Refusal, journal};
use sls_sys::descriptors::Folders;
use sls_sys::filters::{self, Program};
use sls_sys::frame::Gadgets;
use sls_sys::procfs::Reread;
use sls_sys::ptrace::option;
use sls_sys::{RemoteMemory, fault, fd, missing, procfs, uffd};

use crate::birth::Unborn;
use crate::collect;
use crate::debug::DebugRegisters;
use crate::execute::{AwaitOthers, Executor};
use crate::facts::{self, Means, PerThread};
use crate::group::{Children, Group, Refused, STOP_OPTIONS};
use crate::hold::HOLD_OPTIONS;
use crate::inject::Borrowed;
use crate::kicks::Kicks;
use crate::limits::Place;
use crate::numbers::Numbers;
use crate::siblings::Siblings;
use crate::stopping::ATTACH_DEADLINE;

/// The process that was adopted.
pub struct Target {
    pub group: Group,
    pub siblings: Siblings,
    pub gadgets: Option<Gadgets>,
    pub memory: RemoteMemory,
    pub pidfd: OwnedFd,
    pub folders: Folders,
    pub status: Reread,
    pub maps: Reread,
    pub kicks: Kicks,
    /// Threads that told what is their own.
    pub asked: BTreeSet<i32>,
    /// It stays seized between stops.
    pub hold: bool,
    /// It was attached to so; else it is seized only as long as it is controlled.
    pub attached_held: bool,
    /// A thread, and the signal that ends the process of which slsd was told: once it goes on it gets it. A
    /// call that was injected meanwhile has queued it again.
    pub doomed: Option<(i32, i32)>,
    pub suspend_seccomp: bool,
    /// What is known of the seccomp filters of each thread.
    filters: BTreeMap<i32, Vec<Program>>,
    /// Made anew and not let go yet: it must not outlive this keeper.
    pub unborn: Option<Unborn>,
}

fn no_gadgets(pid: i32) -> Refused {
    Refused::new(
        Refusal::Injection,
        format!(
            "process {pid} has no `syscall; ret` or sigreturn trampoline in its text, so no call can be injected safely"
        ),
    )
}

impl Target {
    pub fn adopt(
        pid: i32,
        suspend_seccomp: bool,
        sched_debug: bool,
        hold: bool,
        children: &Children,
    ) -> Result<Self, Refused> {
        procfs::status(pid)
            .map_err(|_| Refused::new(Refusal::Dead, format!("there is no process {pid}")))?;
        let options = if hold { HOLD_OPTIONS } else { STOP_OPTIONS };
        let mut target = Self::of(
            Group::new(pid, options)?,
            suspend_seccomp,
            sched_debug,
            hold,
        )?;
        // Stop once: whoever may not be traced is refused now, not at the first checkpoint.
        target.wait_for_vforks(ATTACH_DEADLINE)?;
        target.stop_all(children, Instant::now() + ATTACH_DEADLINE)?;
        target.settle_all()?;
        // What a keeper that was killed has left would kill whoever meets it.
        for stopped in target.group.stopped.values() {
            DebugRegisters::disarm(stopped)?;
        }
        target.resume()?;
        Ok(target)
    }

    /// What is to be known of the process of a group.
    pub fn of(
        group: Group,
        suspend_seccomp: bool,
        sched_debug: bool,
        hold: bool,
    ) -> io::Result<Self> {
        let pid = group.pid;
        let memory = RemoteMemory::open(pid)?;
        let maps = procfs::maps(pid)?;
        let mut target = Self {
            group,
            siblings: Siblings::new(pid, sched_debug)?,
            gadgets: Gadgets::find(&memory, &maps),
            pidfd: fd::pidfd_open(pid)?,
            folders: Folders::open(pid)?,
            status: Reread::open(pid, "status")?,
            maps: Reread::open(pid, "maps")?,
            kicks: Kicks::new(pid, sched_debug),
            asked: BTreeSet::new(),
            memory,
            hold,
            attached_held: hold,
            doomed: None,
            suspend_seccomp,
            filters: BTreeMap::new(),
            unborn: None,
        };
        target.group.debug = target.exec_sites();
        Ok(target)
    }

    /// Where calls can be injected into the stopped threads, if they can: a filter, which each
    /// thread may have set at any time, may kill for one. It is suspended until the thread is let
    /// go.
    pub fn may_inject(&self) -> Result<Gadgets, Refused> {
        let pid = self.group.pid;
        let options = self.group.options | option::SUSPEND_SECCOMP;
        for (&tid, stopped) in &self.group.stopped {
            let suspended = self.suspend_seccomp && stopped.set_options(options).is_ok();
            if !suspended && procfs::status(tid).is_ok_and(|s| s.seccomp != 0) {
                let why = "a seccomp filter that this user may not suspend";
                let message = format!("thread {tid} of process {pid} runs under {why}");
                return Err(Refused::new(Refusal::Injection, message));
            }
        }
        self.gadgets.ok_or_else(|| no_gadgets(pid))
    }

    pub fn executor<'a>(
        &'a mut self,
        read: &journal::Read,
        journal: &'a File,
        children: &'a Children,
        await_others: &'a mut AwaitOthers<'a>,
    ) -> Result<Executor<'a>, Refused> {
        let gadgets = self.may_inject()?;
        if read.plans.pid != self.group.pid {
            let message = "the journal is for another process";
            return Err(Refused::new(Refusal::Other, message));
        }
        self.doomed = None; // It becomes another one, who has yet to get there.
        Ok(Executor {
            numbers: Numbers::of(self.group.pid, self.group.stopped.keys()),
            group: &mut self.group,
            gadgets,
            memory: &self.memory,
            children,
            kicks: &mut self.kicks,
            pidfd: &self.pidfd,
            journal,
            await_others,
            begun: false,
        })
    }

    /// One that is made anew stands still already.
    pub fn make_userfaultfd(
        &mut self,
        brings: bool,
        children: &Children,
    ) -> Result<OwnedFd, Refused> {
        let flags = if brings {
            missing::CREATE_FLAGS
        } else {
            uffd::CREATE_FLAGS
        };
        let make = |target: &mut Self| {
            let pidfd = target.pidfd.try_clone()?;
            target.in_any_thread("userfaultfd", children, |thread| {
                take_userfaultfd(thread, pidfd.as_fd(), flags)
            })
        };
        if self.unborn.is_some() {
            return make(self);
        }
        self.stopped(children, make)
    }

    pub fn close(&mut self, fds: &[i32], children: &Children) -> Result<(), Refused> {
        self.stopped(children, |target| {
            target.in_any_thread("close a descriptor", children, |thread| {
                fds.iter().try_for_each(|&fd| {
                    thread.expect(libc::SYS_close, &[u64::from(fd.cast_unsigned())])?;
                    Ok(())
                })
            })
        })
    }

    /// Calls in the first thread that has room on its stack.
    pub fn in_any_thread<T>(
        &mut self,
        what: &str,
        children: &Children,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<T>,
    ) -> Result<T, Refused> {
        let gadgets = self.may_inject()?;
        let pid = self.group.pid;
        let tids: Vec<i32> = self.group.stopped.keys().copied().collect();
        for tid in tids {
            let Some(stopped) = self.group.stopped.remove(&tid) else {
                continue;
            };
            let nr = self.kicks.number_of(tid);
            let mut borrowed = match Borrowed::new(stopped, nr, gadgets, &self.memory, children) {
                Ok(borrowed) => borrowed,
                Err((stopped, _)) => {
                    self.group.stopped.insert(tid, stopped);
                    continue;
                }
            };
            let result = act(&mut borrowed);
            let stopped = borrowed.finish()?;
            self.group.stopped.insert(tid, stopped);
            return result.map_err(|error| {
                let message = format!("{what} in process {pid}: {error}");
                Refused::new(Refusal::Injection, message)
            });
        }
        let message =
            format!("no thread of process {pid} has room on its stack for a signal frame");
        Err(Refused::new(Refusal::Injection, message))
    }

    /// Asks what only injected calls tell: everything, or what threads never asked before have of
    /// their own.
    pub fn ask(
        &mut self,
        everything: bool,
        children: &Children,
    ) -> Result<(Option<Facts>, PerThread), Refused> {
        let stopped = &self.group.stopped;
        self.asked.retain(|tid| stopped.contains_key(tid));
        let new = |tid: &i32| everything || !self.asked.contains(tid);
        let tids: Vec<i32> = stopped.keys().copied().filter(new).collect();
        if tids.is_empty() {
            return Ok((None, PerThread::new()));
        }
        let Ok(gadgets) = self.may_inject() else {
            return Ok((None, PerThread::new())); // Left unknown.
        };
        // An interrupted call must be known before its registers are borrowed: a thread that heals
        // itself makes it again.
        self.settle_all()?;
        let means = Means {
            gadgets,
            memory: &self.memory,
            children,
            kicks: &self.kicks,
        };
        let mut told = facts::ask(&mut self.group, &tids, everything, means)?;
        if let Some(facts) = &mut told.0 {
            facts.filters = self.read_filters();
        }
        self.asked.extend(told.1.keys());
        for &tid in &tids {
            self.kicks.ran(tid);
        }
        Ok(told)
    }

    /// Those that cannot be read are missing.
    fn read_filters(&mut self) -> Vec<(i32, Vec<Program>)> {
        let stopped = &self.group.stopped;
        self.filters.retain(|tid, _| stopped.contains_key(tid));
        for (&tid, stopped) in stopped {
            let known = self.filters.entry(tid).or_default();
            if filters::read(stopped, known).is_err() {
                self.filters.remove(&tid);
            }
        }
        if self.filters.values().all(Vec::is_empty) {
            return Vec::new();
        }
        let known = self.filters.iter();
        known
            .map(|(&tid, filters)| (tid, filters.clone()))
            .collect()
    }

    pub fn collect(
        &mut self,
        full: bool,
        (facts, per_thread): (Option<Facts>, PerThread),
    ) -> io::Result<Collected> {
        let mut states = Vec::with_capacity(self.group.stopped.len());
        let mut shared = None;
        let status = ByteBuf::from(self.status.read()?.to_vec());
        let caught = procfs::caught_in(&status);
        let own_numbers = procfs::has_own_numbers(&status);
        for stopped in self.group.stopped.values() {
            let shared = match &shared {
                Some(shared) => shared,
                None => shared.insert(collect::shared_pending(stopped)?),
            };
            let mut state = collect::thread(
                stopped,
                shared,
                caught,
                &mut self.kicks,
                Place::new(&self.memory, &self.pidfd),
            )?;
            state.own = per_thread.get(&state.tid).copied();
            if own_numbers {
                state.own_tid = procfs::status(state.tid)?.own.tid;
            }
            states.push(state);
        }
        let pending = shared.unwrap_or_default();
        let pid = self.group.pid;
        Ok(Collected {
            facts,
            threads: states,
            siblings: self.siblings.pids(),
            pending: pending.into_iter().map(ByteBuf::from).collect(),
            files: self.folders.read(self.pidfd.as_fd(), full)?,
            status,
            cwd: procfs::link(pid, "cwd"),
            root: procfs::link(pid, "root"),
        })
    }

    /// Before what others have read is: what is on its way to them.
    pub fn look_ahead(&mut self) {
        self.folders.look_ahead(self.pidfd.as_fd());
    }

    pub fn look_at(&mut self, connections: &[u64]) {
        self.folders.look_at(connections);
    }

    /// Where an exec is seen coming, of one that is attached to for that.
    fn exec_sites(&self) -> DebugRegisters {
        if self.attached_held {
            DebugRegisters::at_execs(&self.memory, self.group.pid)
        } else {
            DebugRegisters::default()
        }
    }

    /// After exec: another address space, other text.
    pub fn reload(&mut self) -> io::Result<()> {
        let pid = self.group.pid;
        self.memory = RemoteMemory::open(pid)?;
        self.maps = Reread::open(pid, "maps")?;
        self.gadgets = Gadgets::find(&self.memory, &procfs::maps(pid)?);
        self.group.traps.forget();
        self.group.debug = self.exec_sites();
        self.group.running = vec![pid];
        self.kicks.clear();
        self.asked.clear();
        Ok(())
    }
}

fn take_userfaultfd(
    borrowed: &mut Borrowed<'_>,
    pidfd: BorrowedFd<'_>,
    flags: u64,
) -> Result<OwnedFd, io::Error> {
    let number = fault::step("make a userfaultfd", || {
        borrowed.expect(libc::SYS_userfaultfd, &[flags])
    })?;
    let taken = i32::try_from(number)
        .map_err(io::Error::other)
        .and_then(|number| fd::pidfd_getfd(pidfd, number));
    borrowed.expect(libc::SYS_close, &[number])?;
    taken
}
