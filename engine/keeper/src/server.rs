//! The keeper's loop: one target, one slsd, requests in order.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sls_keeper::rendezvous::{self, Verdict};
use sls_keeper::{
    Agreement, Ask, BOARD_BYTES, Channel, Facts, Outcome, Refusal, Say, Stepped, Way, journal,
};
use sls_sys::ptrace::{self, Waited};
use sls_sys::shared::Board;
use sls_sys::urgent::Urgent;
use sls_sys::{fault, monotonic, procfs};

use crate::execute::{Come, NotCome};
use crate::facts::PerThread;
use crate::group::{Children, Refused};
use crate::init;
use crate::kicks;
use crate::limits::Place;
use crate::stopping::ATTACH_DEADLINE;
use crate::target::Target;

/// How long to look for the next request before sleeping, with a target that stands still.
const SPIN: Duration = Duration::from_micros(2000);

pub struct Server {
    channel: Channel,
    children: Children,
    board: Option<Board>,
    target: Option<Target>,
    /// As long as a target may stand still.
    urgent: Option<Urgent>,
    /// What was asked of the stopped target for its states, and told; with whether it was all.
    told: Option<(bool, (Option<Facts>, PerThread))>,
    /// How long to look for what comes next while it does: not with many keepers on few CPUs.
    spin: Duration,
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
            told: None,
            spin: SPIN,
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
            .is_none_or(|t| t.next_deadline().is_none() || procfs::is_dead(t.group.pid))
    }

    /// Waits for a request (true), a child or a deadline.
    fn wait(&self) -> io::Result<bool> {
        // Those that stand still are settled when they go on.
        let runs = |target: &&Target| target.group.stopped.is_empty();
        let timeout = self
            .target
            .as_ref()
            .filter(runs)
            .and_then(Target::next_deadline)
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
            let Some((ask, fd)) = self.channel.receive_soon::<Ask>(self.spin)? else {
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
            self.tell()?;
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
            Ask::Create {
                pid,
                address,
                suspend_seccomp,
                sched_debug,
                within,
            } => {
                let fd = fd.ok_or_else(|| io::Error::other("create without a board"))?;
                self.board = Some(Board::map(fd, BOARD_BYTES)?);
                let children = &self.children;
                let means = (suspend_seccomp, sched_debug);
                let made = Target::create(pid, address, means, within, children)?;
                let pid = made.group.pid;
                self.target = Some(made);
                self.say(&Say::Made { pid }, None)?;
            }
            Ask::BeginNamespace { apart } => {
                let (init, read_only) = init::begin(&mut self.channel, apart)?;
                self.say(&Say::Namespace { init, read_only }, None)?;
                self.leaving = true;
            }
            Ask::TakeUp {
                pid,
                suspend_seccomp,
                sched_debug,
            } => {
                let fd = fd.ok_or_else(|| io::Error::other("take up without a board"))?;
                self.board = Some(Board::map(fd, BOARD_BYTES)?);
                let means = (suspend_seccomp, sched_debug);
                self.target = Some(Target::take_up(pid, means, &self.children)?);
                self.say(&Say::Adopted, None)?;
            }
            Ask::BeginSession { terminal } => {
                let (children, target) = self.target()?;
                target.begin_session(terminal.as_deref(), children)?;
                self.say(&Say::Done, None)?;
            }
            Ask::Fork {
                pid,
                exit_signal,
                end,
            } => {
                let (children, target) = self.target()?;
                let pid = target.fork(pid, exit_signal, end.as_ref(), children)?;
                self.say(&Say::Made { pid }, None)?;
            }
            Ask::MakeUserfaultfd { brings } => {
                let (children, target) = self.target()?;
                let fd = target.make_userfaultfd(brings, children)?;
                self.say(&Say::Userfaultfd, Some(fd.as_fd()))?;
            }
            Ask::LookAt { connections } => {
                self.target()?.1.look_at(&connections);
                self.say(&Say::Done, None)?;
            }
            Ask::Stop {
                deadline_ms,
                facts,
                alone,
            } => {
                self.spin = if alone { SPIN } else { Duration::ZERO };
                self.stop(deadline_ms, facts)?;
                if alone {
                    self.collect()?;
                }
            }
            Ask::Collect => self.collect()?,
            Ask::Resume => {
                let target = self.target()?.1;
                let what = format_args!("let process {} go", target.known_as());
                fault::step(what, || Ok(()))?;
                let stop_ns = target.resume()?;
                self.tell()?;
                self.say(&Say::Resumed { stop_ns }, None)?;
            }
            Ask::Seize { on } => {
                self.target()?.1.seize(on);
                self.say(&Say::Done, None)?;
            }
            Ask::Halt { deadline_ms } => {
                let within = Duration::from_millis(u64::from(deadline_ms));
                let (children, target) = self.target()?;
                let threads = target.halt(within, children)?;
                self.tell()?;
                self.say(&Say::Halted { threads }, None)?;
            }
            Ask::Traps { traps } => {
                let target = self.target()?.1;
                target.group.traps.set(&traps, &target.memory);
                self.say(&Say::Done, None)?;
            }
            Ask::Watches { watches } => {
                self.target()?.1.group.debug.watch(watches);
                self.say(&Say::Done, None)?;
            }
            Ask::Step { tid } => {
                let (children, target) = self.target()?;
                let stepped = target.step(tid, children)?;
                if let Stepped::Signal(signal) = stepped {
                    target.is_news(tid, signal); // No more once this is said.
                }
                self.tell()?;
                self.say(&Say::Stepped(stepped), None)?;
            }
            Ask::Go { only, pass } => {
                let (children, target) = self.target()?;
                let (left, shared) = target.go(only, &pass, children)?;
                self.tell()?;
                self.say(&Say::Went { left, shared }, None)?;
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
                self.say(&Say::Done, None)?;
            }
            Ask::GoOn
            | Ask::GiveUp { .. }
            | Ask::BearAgain { .. }
            | Ask::Leave
            | Ask::Watch { .. } => {}
        }
        Ok(())
    }

    fn target(&mut self) -> Result<(&Children, &mut Target), Refused> {
        match &mut self.target {
            Some(target) => Ok((&self.children, target)),
            None => Err(no_target()),
        }
    }

    fn stop(&mut self, deadline_ms: u32, facts: bool) -> Result<(), Refused> {
        let deadline = Duration::from_millis(u64::from(deadline_ms));
        let (children, target) = self.target()?;
        target.await_stop(deadline)?;
        target.stop_all(children, Instant::now() + deadline)?;
        target.end_steps(children)?;
        let since_ns = target.group.since;
        let told = target.ask(facts, children).inspect_err(|_| {
            target.siblings.release();
            target.group.release();
        })?;
        target.look_ahead();
        self.tell()?;
        self.say(
            &Say::Stopped {
                quiesce_ns: monotonic() - since_ns,
                since_ns,
            },
            None,
        )?;
        self.told = Some((facts, told));
        Ok(())
    }

    /// Tells of what was met on the way to a stop, or comes after it.
    fn tell(&mut self) -> io::Result<()> {
        let target = self.target.as_mut();
        let untold = target.map(|t| (t.hold, std::mem::take(&mut t.group.untold)));
        let mut events = untold
            .into_iter()
            .filter(|told| told.0)
            .flat_map(|told| told.1);
        events.try_for_each(|event| self.say(&Say::Event(event), None))
    }

    /// Reads what is to be known of the stopped target.
    fn collect(&mut self) -> Result<(), Refused> {
        self.hand_over_maps();
        let stopped = self.told.take();
        let Some((facts, told)) = stopped else {
            return Err(Refused::new(Refusal::Other, "nothing was stopped"));
        };
        let (_, target) = self.target()?;
        let states = target.collect(facts, told)?;
        let stop_ns = self.await_verdict()?;
        let bytes = postcard::to_stdvec(&states).map_err(io::Error::other)?;
        if let Some(board) = &mut self.board {
            rendezvous::put_states(board, &bytes)?;
        }
        self.tell()?;
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
        if rendezvous::decided(board, self.spin) == Verdict::Stay {
            return Ok(None);
        }
        let stop_ns = target.resume()?;
        self.urgent = None; // What was let go may want this very CPU.
        Ok(Some(stop_ns))
    }

    fn execute(&mut self, file: &File) -> Result<(), Refused> {
        let pid = self.target()?.1.known_as();
        let what = format_args!("read the plan of process {pid}");
        let read = fault::step(what, || journal::read(file))?;
        let mut await_others = awaits(&mut self.channel, read.plans.agreement.as_ref());
        let Some(target) = &mut self.target else {
            return Err(no_target());
        };
        let outcome = target
            .executor(&read, file, &self.children, &mut await_others)?
            .run(&read);
        if let Some(unborn) = &mut target.unborn {
            match outcome {
                Outcome::Done { .. } => unborn.agreement.clone_from(&read.plans.agreement),
                _ => target.end()?,
            }
        }
        drop(await_others);
        self.say(&Say::Executed(outcome), None)?;
        Ok(())
    }

    fn put_right(&mut self, file: &File) -> Result<(), Refused> {
        let read = journal::read(file)?;
        let mut await_others = awaits(&mut self.channel, read.plans.agreement.as_ref());
        let (Some(target), children) = (&mut self.target, &self.children) else {
            return Err(no_target());
        };
        let deadline = Instant::now() + ATTACH_DEADLINE;
        let outcome = loop {
            let done = target.stopped(children, |target| {
                let executor = target.executor(&read, file, children, &mut await_others);
                Ok(executor?.put_right(&read))
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
        drop(await_others);
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
            self.sort_out(waited)?;
        }
    }

    fn sort_out(&mut self, waited: Waited) -> io::Result<()> {
        let Some(target) = &mut self.target else {
            return Ok(());
        };
        match target.sort_out(waited) {
            Ok(Some(event)) => self.say(&Say::Event(event), None),
            Ok(None) => Ok(()),
            // Killed in its stop: nothing is left to be sorted out.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn kick(&mut self) -> io::Result<()> {
        let Some(target) = &mut self.target else {
            return Ok(());
        };
        if !target.group.stopped.is_empty() {
            return Ok(()); // Settled at the stop.
        }
        target
            .siblings
            .kick(monotonic(), &self.children, &target.memory);
        let due = target.kicks.due(monotonic());
        let (held, free): (Vec<i32>, Vec<i32>) = due
            .into_iter()
            .partition(|tid| target.group.running.contains(tid));
        for tid in free {
            let place = Place::new(&target.memory, &target.pidfd);
            // ESRCH or EPERM: it ended or somebody else traces it; its call is then not ours.
            let _ = target.kicks.kick(tid, &self.children, place);
        }
        for tid in held {
            // Whatever it stops for, it is judged as any stop of a held target is. ESRCH: ended.
            if let Ok(Some(waited)) = kicks::interrupt(tid, &self.children) {
                self.sort_out(waited)?;
            }
        }
        Ok(())
    }
}

/// Has slsd tell when what a plan awaits on its way has come. Where slsd is gone the agreement tells.
fn awaits<'a>(
    channel: &'a mut Channel,
    agreement: Option<&'a Agreement>,
) -> impl FnMut(Way, &Say) -> Result<Come, NotCome> + 'a {
    move |way, say| {
        let told = channel.send(say, None);
        match told.and_then(|()| channel.receive::<Ask>()) {
            Ok(Some((Ask::GoOn, _))) => Ok(Come::All),
            Ok(Some((Ask::BearAgain { pid, address }, _))) => Ok(Come::Bear { pid, address }),
            Ok(Some((Ask::GiveUp { why }, _))) => Err(NotCome::GivenUp(why)),
            _ if agreement.and_then(Agreement::reached) == Some(way) => Ok(Come::All),
            _ => Err(NotCome::Unknown),
        }
    }
}

fn no_target() -> Refused {
    Refused::new(Refusal::Other, "no process was adopted")
}
