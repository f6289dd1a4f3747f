//! The keeper's loop: one target, one slsd, requests in order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_bytes::ByteBuf;
use sls_keeper::rendezvous::{self, Verdict};
use sls_keeper::{Ask, BOARD_BYTES, Channel, Collected, EventKind, Facts, Refusal, Say, journal};
use sls_sys::descriptors::Folders;
use sls_sys::frame::Gadgets;
use sls_sys::procfs::Reread;
use sls_sys::ptrace::{self, Waited, option};
use sls_sys::shared::Board;
use sls_sys::urgent::Urgent;
use sls_sys::{RemoteMemory, fd, monotonic, procfs, uffd};

use crate::execute::Executor;
use crate::facts::{self, Means, PerThread};
use crate::group::{Children, Group, Refused, STOP_OPTIONS};
use crate::hold::{ExecSites, HOLD_OPTIONS, Seen, judge};
use crate::inject::Borrowed;
use crate::kicks::Kicks;
use crate::limits::Place;
use crate::{collect, group};

/// How long to look for the next request before sleeping, with a target that stands still.
const SPIN: Duration = Duration::from_micros(2000);
const ATTACH_DEADLINE: Duration = Duration::from_millis(2000);

struct Target {
    group: Group,
    gadgets: Option<Gadgets>,
    memory: RemoteMemory,
    pidfd: OwnedFd,
    folders: Folders,
    status: Reread,
    maps: Reread,
    kicks: Kicks,
    /// Threads that told what is their own.
    asked: BTreeSet<i32>,
    hold: bool,
    sites: ExecSites,
    suspend_seccomp: bool,
}

pub struct Server {
    channel: Channel,
    children: Children,
    board: Option<Board>,
    target: Option<Target>,
    /// As long as a target may stand still.
    urgent: Option<Urgent>,
    /// slsd is gone or said Leave: only calls that wait for their timeout keep us.
    leaving: bool,
}

impl Server {
    pub fn start(stdin: BorrowedFd<'_>) -> io::Result<Self> {
        // A session of its own: no terminal's signals, no shell's job.
        let _ = nix::unistd::setsid(); // EPERM: it leads one already.
        let channel = Channel::from(stdin.try_clone_to_owned()?);
        Ok(Self {
            channel,
            children: Children::new()?,
            board: None,
            target: None,
            urgent: None,
            leaving: false,
        })
    }

    pub fn run(mut self) -> io::Result<()> {
        loop {
            if self.leaving && self.idle() {
                return Ok(());
            }
            if self.wait()? {
                self.request()?;
            }
            self.children.drain()?;
            self.sort_out_stops()?;
            self.kick()?;
        }
    }

    fn idle(&self) -> bool {
        self.target
            .as_ref()
            .is_none_or(|t| t.kicks.next_deadline().is_none() || procfs::is_dead(t.group.pid))
    }

    /// Waits for a request (true), a child or a deadline.
    fn wait(&self) -> io::Result<bool> {
        let timeout = self
            .target
            .as_ref()
            .and_then(|t| t.kicks.next_deadline())
            .map_or(PollTimeout::NONE, |at| {
                let ns = at.saturating_sub(monotonic());
                PollTimeout::try_from(Duration::from_nanos(ns + 999_999))
                    .unwrap_or(PollTimeout::MAX)
            });
        // Who is leaving stays for the target's calls only, and not beyond its end.
        let other = match &self.target {
            Some(target) if self.leaving => target.pidfd.as_fd(),
            _ => self.channel.as_fd(),
        };
        let mut fds =
            [self.children.fd().as_fd(), other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(!self.leaving && fds[1].any().unwrap_or(false)),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn request(&mut self) -> io::Result<()> {
        let Some((ask, fd)) = self.channel.receive::<Ask>()? else {
            return self.leave();
        };
        self.urgent = Some(Urgent::begin());
        self.obey(ask, fd)?;
        // What follows a stop is not long in coming, and the target waits for it.
        while self
            .target
            .as_ref()
            .is_some_and(|t| !t.group.stopped.is_empty() && !t.hold)
        {
            let Some((ask, fd)) = self.channel.receive_soon::<Ask>(SPIN)? else {
                return self.leave();
            };
            self.obey(ask, fd)?;
        }
        self.urgent = None;
        Ok(())
    }

    fn obey(&mut self, ask: Ask, fd: Option<OwnedFd>) -> io::Result<()> {
        if matches!(ask, Ask::Leave) {
            return self.leave();
        }
        if let Err(refused) = self.answer(ask, fd) {
            let message = refused.message;
            self.say(
                &Say::Failed {
                    refusal: refused.refusal,
                    message,
                },
                None,
            )?;
        }
        Ok(())
    }

    /// A send that fails means slsd is gone, which the next receive finds out.
    fn say(&self, say: &Say, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        match self.channel.send(say, fd) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    fn leave(&mut self) -> io::Result<()> {
        self.leaving = true;
        if let Some(target) = &mut self.target {
            target.let_go(&self.children)?;
        }
        Ok(())
    }

    fn answer(&mut self, ask: Ask, fd: Option<OwnedFd>) -> Result<(), Refused> {
        match ask {
            Ask::Adopt {
                pid,
                suspend_seccomp,
                sched_debug,
                hold,
            } => {
                let fd = fd.ok_or_else(|| io::Error::other("adopt without a board"))?;
                self.board = Some(Board::map(fd, BOARD_BYTES)?);
                self.target = Some(Target::adopt(
                    pid,
                    suspend_seccomp,
                    sched_debug,
                    hold,
                    &self.children,
                )?);
                self.say(&Say::Adopted, None)?;
            }
            Ask::MakeUserfaultfd => {
                let (children, target) = self.target()?;
                let fd = target.make_userfaultfd(children)?;
                self.say(&Say::Userfaultfd, Some(fd.as_fd()))?;
            }
            Ask::Stop { deadline_ms, facts } => self.stop(deadline_ms, facts)?,
            Ask::Resume => {
                let stop_ns = self.target()?.1.resume()?;
                self.say(&Say::Resumed { stop_ns }, None)?;
            }
            Ask::Execute => {
                let fd = fd.ok_or_else(|| io::Error::other("execute without a journal"))?;
                self.execute(&File::from(fd))?;
            }
            Ask::PutRight => {
                let fd = fd.ok_or_else(|| io::Error::other("put right without a journal"))?;
                self.put_right(&File::from(fd))?;
            }
            Ask::Close { fds } => {
                let (children, target) = self.target()?;
                target.close(&fds, children)?;
                self.say(&Say::Closed, None)?;
            }
            Ask::Leave => {}
        }
        Ok(())
    }

    fn target(&mut self) -> Result<(&Children, &mut Target), Refused> {
        match &mut self.target {
            Some(target) => Ok((&self.children, target)),
            None => Err(Refused::new(Refusal::Other, "no process was adopted")),
        }
    }

    fn stop(&mut self, deadline_ms: u32, facts: bool) -> Result<(), Refused> {
        let deadline = Duration::from_millis(u64::from(deadline_ms));
        let (children, target) = self.target()?;
        target.kicks.sample();
        target.group.stop(children, Instant::now() + deadline)?;
        let since_ns = target.group.since;
        let told = target.ask(facts, children).inspect_err(|_| {
            target.group.release();
        })?;
        self.say(
            &Say::Stopped {
                quiesce_ns: monotonic() - since_ns,
                since_ns,
            },
            None,
        )?;
        self.hand_over_maps();
        let (_, target) = self.target()?;
        let states = target.collect(facts, told)?;
        let stop_ns = self.await_verdict()?;
        let bytes = postcard::to_stdvec(&states).map_err(io::Error::other)?;
        if let Some(board) = &mut self.board {
            rendezvous::put_states(board, &bytes)?;
        }
        self.say(
            &Say::Collected {
                bytes: bytes.len() as u64,
                stop_ns,
            },
            None,
        )?;
        Ok(())
    }

    /// A list that cannot be read is slsd's to find out about.
    fn hand_over_maps(&mut self) {
        if let (Some(board), Some(target)) = (&mut self.board, &mut self.target)
            && let Ok(list) = target.maps.read()
        {
            rendezvous::hand_over(board, list);
        }
    }

    /// Lets go when slsd says so soon; the length of the stop.
    fn await_verdict(&mut self) -> Result<Option<u64>, Refused> {
        let (Some(board), Some(target)) = (&self.board, &mut self.target) else {
            return Ok(None);
        };
        if rendezvous::decided(board, SPIN) == Verdict::Stay {
            return Ok(None);
        }
        let stop_ns = target.resume()?;
        self.urgent = None; // What was let go may want this very CPU.
        Ok(Some(stop_ns))
    }

    fn execute(&mut self, file: &File) -> Result<(), Refused> {
        let read = journal::read(file)?;
        let (children, target) = self.target()?;
        let outcome = target.executor(&read, file, children)?.run(&read);
        self.say(&Say::Executed(outcome), None)?;
        Ok(())
    }

    fn put_right(&mut self, file: &File) -> Result<(), Refused> {
        let read = journal::read(file)?;
        let (children, target) = self.target()?;
        let deadline = Instant::now() + ATTACH_DEADLINE;
        let outcome = loop {
            let done = target.stopped(children, |target| {
                Ok(target.executor(&read, file, children)?.put_right(&read))
            });
            match done? {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                done => break done?,
            }
        };
        self.say(&Say::Executed(outcome), None)?;
        Ok(())
    }

    /// Stops that arrive on their own: threads that were late for a stop that was given up, and
    /// everything a held target does.
    fn sort_out_stops(&mut self) -> io::Result<()> {
        loop {
            let waited = match ptrace::wait(-1, false) {
                Ok(Some(waited)) => waited,
                Ok(None) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(error) => return Err(error),
            };
            let Some(target) = &mut self.target else {
                return Ok(());
            };
            match target.sort_out(waited) {
                Ok(Some(event)) => self.say(&Say::Event(event), None)?,
                Ok(None) => {}
                // Killed in its stop: nothing is left to be sorted out.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn kick(&mut self) -> io::Result<()> {
        let Some(target) = &mut self.target else {
            return Ok(());
        };
        if !target.group.stopped.is_empty() {
            return Ok(()); // Settled at the stop.
        }
        for tid in target.kicks.due(monotonic()) {
            let seized = target.group.running.contains(&tid);
            // ESRCH or EPERM: it ended or somebody else traces it; its call is then not ours.
            let place = Place::new(&target.memory, &target.pidfd);
            let _ = target.kicks.kick(tid, seized, &self.children, place);
        }
        Ok(())
    }
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
    fn adopt(
        pid: i32,
        suspend_seccomp: bool,
        sched_debug: bool,
        hold: bool,
        children: &Children,
    ) -> Result<Self, Refused> {
        procfs::status(pid)
            .map_err(|_| Refused::new(Refusal::Dead, format!("there is no process {pid}")))?;
        let memory = RemoteMemory::open(pid)?;
        let maps = procfs::maps(pid)?;
        let options = if hold { HOLD_OPTIONS } else { STOP_OPTIONS };
        let mut target = Self {
            group: Group::new(pid, options)?,
            gadgets: Gadgets::find(&memory, &maps),
            pidfd: fd::pidfd_open(pid)?,
            folders: Folders::open(pid)?,
            status: Reread::open(pid, "status")?,
            maps: Reread::open(pid, "maps")?,
            kicks: Kicks::new(pid, sched_debug),
            asked: BTreeSet::new(),
            sites: ExecSites::find(&memory, pid),
            memory,
            hold,
            suspend_seccomp,
        };
        // Stop once: whoever may not be traced is refused now, not at the first checkpoint.
        target
            .group
            .stop(children, Instant::now() + ATTACH_DEADLINE)?;
        target.settle_all()?;
        target.resume()?;
        Ok(target)
    }

    /// Where calls can be injected into the stopped threads, if they can: a filter, which each
    /// thread may have set at any time, may kill for one. It is suspended until the thread is let
    /// go.
    fn may_inject(&self) -> Result<Gadgets, Refused> {
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

    fn executor<'a>(
        &'a mut self,
        read: &journal::Read,
        journal: &'a File,
        children: &'a Children,
    ) -> Result<Executor<'a>, Refused> {
        let gadgets = self.may_inject()?;
        if read.plans.pid != self.group.pid {
            let message = "the journal is for another process";
            return Err(Refused::new(Refusal::Other, message));
        }
        Ok(Executor {
            group: &mut self.group,
            gadgets,
            memory: &self.memory,
            children,
            kicks: &mut self.kicks,
            pidfd: &self.pidfd,
            journal,
        })
    }

    fn make_userfaultfd(&mut self, children: &Children) -> Result<OwnedFd, Refused> {
        self.stopped(children, |target| {
            let pidfd = target.pidfd.try_clone()?;
            target.in_any_thread("userfaultfd", children, |thread| {
                take_userfaultfd(thread, pidfd.as_fd())
            })
        })
    }

    fn close(&mut self, fds: &[i32], children: &Children) -> Result<(), Refused> {
        self.stopped(children, |target| {
            target.in_any_thread("close a descriptor", children, |thread| {
                fds.iter().try_for_each(|&fd| {
                    thread.expect(libc::SYS_close, &[u64::from(fd.cast_unsigned())])?;
                    Ok(())
                })
            })
        })
    }

    /// Stops everything for `act`, and lets go again.
    fn stopped<T>(
        &mut self,
        children: &Children,
        act: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.kicks.sample();
        self.group
            .stop(children, Instant::now() + ATTACH_DEADLINE)?;
        let result = match self.settle_all() {
            Ok(()) => act(self),
            Err(error) => Err(error.into()),
        };
        self.resume()?;
        result
    }

    /// Calls in the first thread that has room on its stack.
    fn in_any_thread<T>(
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
    fn ask(
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
        let told = facts::ask(&mut self.group, &tids, everything, means)?;
        self.asked.extend(told.1.keys());
        for &tid in &tids {
            self.kicks.ran(tid);
        }
        Ok(told)
    }

    fn collect(
        &mut self,
        full: bool,
        (facts, per_thread): (Option<Facts>, PerThread),
    ) -> io::Result<Collected> {
        let mut states = Vec::with_capacity(self.group.stopped.len());
        let mut shared = None;
        let status = ByteBuf::from(self.status.read()?.to_vec());
        let caught = procfs::caught_in(&status);
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
            if let Some((altstack, clear_tid)) = per_thread.get(&state.tid) {
                state.altstack = Some(*altstack);
                state.clear_tid = Some(*clear_tid);
            }
            states.push(state);
        }
        let pending = shared.unwrap_or_default();
        let pid = self.group.pid;
        Ok(Collected {
            facts,
            threads: states,
            pending: pending.into_iter().map(ByteBuf::from).collect(),
            files: self.folders.read(self.pidfd.as_fd(), full)?,
            status,
            cwd: procfs::link(pid, "cwd"),
            root: procfs::link(pid, "root"),
        })
    }

    fn settle(&mut self, stopped: &ptrace::Stopped) -> io::Result<()> {
        let shared = collect::shared_pending(stopped)?;
        let caught = self.caught()?;
        let place = Place::new(&self.memory, &self.pidfd);
        collect::thread(stopped, &shared, caught, &mut self.kicks, place).map(|_| ())
    }

    /// Makes sure that a stop which takes no checkpoint harms no call either.
    fn settle_all(&mut self) -> io::Result<()> {
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
    fn resume(&mut self) -> Result<u64, Refused> {
        self.kicks.stopped_at(monotonic());
        if !self.hold {
            self.group.release();
            return Ok(monotonic().saturating_sub(self.group.since));
        }
        for (tid, stopped) in std::mem::take(&mut self.group.stopped) {
            let signal = group::signal_of(&stopped);
            let listens = matches!(stopped.why(), ptrace::Why::Group(_));
            // The program's own filter is on again. ESRCH: killed, which the next call finds too.
            let _ = stopped.set_options(self.group.options);
            if !matches!(stopped.why(), ptrace::Why::Event(ptrace::event::EXIT)) {
                self.sites.arm(&stopped)?;
            }
            // The trap of an exec breakpoint is ours, not the program's.
            let signal = if signal == libc::SIGTRAP { 0 } else { signal };
            let gone = if listens {
                stopped.listen()
            } else {
                stopped.cont(signal)
            };
            if gone.is_ok() {
                self.group.running.push(tid);
            }
        }
        Ok(monotonic().saturating_sub(self.group.since))
    }

    /// After exec: another address space, other text.
    fn reload(&mut self) -> io::Result<()> {
        let pid = self.group.pid;
        self.memory = RemoteMemory::open(pid)?;
        self.maps = Reread::open(pid, "maps")?;
        self.gadgets = Gadgets::find(&self.memory, &procfs::maps(pid)?);
        self.sites = ExecSites::find(&self.memory, pid);
        self.group.running = vec![pid];
        self.kicks.clear();
        self.asked.clear();
        Ok(())
    }

    /// Ends tracing for good. A held target must be stopped once more to be let go.
    fn let_go(&mut self, children: &Children) -> io::Result<()> {
        if self.hold {
            self.hold = false;
            self.kicks.sample();
            // Dead or late: what can be let go has been.
            let _ = self.group.stop(children, Instant::now() + ATTACH_DEADLINE);
            for stopped in self.group.stopped.values() {
                let _ = self.sites.disarm(stopped); // ESRCH: killed meanwhile.
            }
            self.settle_all()?;
        }
        self.group.release();
        Ok(())
    }

    fn sort_out(&mut self, waited: Waited) -> io::Result<Option<EventKind>> {
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
                    }
                    let signal = group::signal_of(&stopped);
                    stopped.detach(signal)?;
                    return Ok(None);
                }
                if !self.group.running.contains(&tid) {
                    self.group.running.push(tid);
                }
                if stopped.why() == ptrace::Why::Event(ptrace::event::EXEC) {
                    self.reload()?;
                }
                match judge(pid, stopped, &self.sites)? {
                    Seen::Passed | Seen::Listening => Ok(None),
                    Seen::Tell(event, stopped) => {
                        self.group.running.retain(|&t| t != tid);
                        self.group.stopped.insert(tid, stopped);
                        Ok(Some(event))
                    }
                }
            }
        }
    }
}

fn take_userfaultfd(
    borrowed: &mut Borrowed<'_>,
    pidfd: BorrowedFd<'_>,
) -> Result<OwnedFd, io::Error> {
    let number = borrowed.expect(libc::SYS_userfaultfd, &[uffd::CREATE_FLAGS])?;
    let taken = i32::try_from(number)
        .map_err(io::Error::other)
        .and_then(|number| fd::pidfd_getfd(pidfd, number));
    borrowed.expect(libc::SYS_close, &[number])?;
    taken
}
