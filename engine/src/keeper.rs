//! The keeper of one target, as seen from slsd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sls_keeper::rendezvous::{self, Verdict};
use sls_keeper::{
    Ask, BOARD_BYTES, Channel, Collected, End, EventKind, Outcome, Say, Stepped, Trap, Watch,
    Within, Words,
};
use sls_sys::fault;
use sls_sys::probe::Probe;
use sls_sys::shared::Board;

use crate::error::KeeperError;

/// How long to look for an answer before sleeping, while a target stands still.
const SPIN: Duration = Duration::from_micros(2000);

/// What is about to happen to a held target.
pub type Event = EventKind;

/// A running keeper in charge of one process.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    /// There until it is reaped.
    child: Option<Child>,
    channel: Channel,
    board: Board,
    /// States are on their way that nobody has waited for yet.
    owes_states: bool,
    /// Events that arrived while an answer was awaited.
    events: Vec<EventKind>,
    /// Inodes of the TCP connections that are looked at.
    looks_at: Vec<u64>,
}

/// How far a plan has come.
#[derive(Debug)]
pub enum Progress {
    /// It awaits something.
    Awaits,
    /// It has ended.
    Ended(Outcome),
}

/// First half of a stop.
#[derive(Debug, Clone, Copy)]
pub struct Quiesced {
    /// ns from the first interrupt until the last thread stood still.
    pub quiesce_ns: u64,
    /// CLOCK_MONOTONIC ns of the first interrupt.
    pub since_ns: u64,
}

/// Second half of a stop.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// Length of the states on the board.
    pub bytes: u64,
    /// ns from the first interrupt to the last thread let go; None where all stand still.
    pub stop_ns: Option<u64>,
}

impl Keeper {
    /// Starts a keeper and puts it in charge of `pid`.
    pub fn start(program: &Path, pid: i32, probe: &Probe, hold: bool) -> Result<Self, KeeperError> {
        let mut keeper = Self::spawn(program, pid)?;
        keeper.adopt(probe, hold)?;
        Ok(keeper)
    }

    /// Starts a keeper that makes a process under the number `pid`, that of the namespace if there is
    /// one, with a page of code at `address`: it stands still, and ends with its keeper until it is let
    /// go. With the number that it has here.
    pub fn create(
        program: &Path,
        pid: i32,
        address: u64,
        within: Option<Within>,
        probe: &Probe,
    ) -> Result<(Self, i32), KeeperError> {
        let mut keeper = Self::spawn(program, pid)?;
        let ask = Ask::Create {
            pid,
            address,
            suspend_seccomp: probe.suspend_seccomp,
            sched_debug: probe.sched_debug,
            within,
        };
        keeper.send_with(&ask, Some(keeper.board.fd()))?;
        let outside = keeper.made()?;
        Ok((keeper, outside))
    }

    /// Starts a keeper that makes a PID namespace for `pid` and others: its init, whose number comes
    /// along, has the channel from then on.
    ///
    /// `apart`: what is done in it is not noticed outside; then also where nobody in it can write.
    pub fn begin_namespace(
        program: &Path,
        pid: i32,
        apart: bool,
    ) -> Result<(Self, i32, Vec<String>), KeeperError> {
        let mut keeper = Self::spawn(program, pid)?;
        match keeper.ask(&Ask::BeginNamespace { apart })? {
            (Say::Namespace { init, read_only }, _) => Ok((keeper, init, read_only)),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Tells the init of a namespace for whom it is there, by its own numbers.
    pub fn watch(&mut self, pids: Vec<i32>) -> Result<(), KeeperError> {
        self.have_done(&Ask::Watch { pids })
    }

    /// Takes up the process which [`Keeper::fork`] or [`Keeper::bear_again`] of its parent's has made, by
    /// the number it has here.
    pub fn take_up(&mut self, outside: i32, probe: &Probe) -> Result<(), KeeperError> {
        self.take_charge(&Ask::TakeUp {
            pid: outside,
            suspend_seccomp: probe.suspend_seccomp,
            sched_debug: probe.sched_debug,
        })
    }

    /// Has the process that was made make a child under this number, which ends when its parent does,
    /// until it is taken up; with `end` it ends at once. The number it has here comes back.
    pub fn fork(
        &mut self,
        pid: i32,
        exit_signal: i32,
        end: Option<End>,
    ) -> Result<i32, KeeperError> {
        self.send(&Ask::Fork {
            pid,
            exit_signal,
            end,
        })?;
        self.made()
    }

    /// While its plan awaits something: has the process make a child under this number, to be taken up. The
    /// number it has here comes back.
    pub fn bear_again(&mut self, pid: i32, address: u64) -> Result<i32, KeeperError> {
        self.send(&Ask::BearAgain { pid, address })?;
        self.made()
    }

    /// Has the process that was made begin a session.
    pub fn begin_session(&mut self, terminal: Option<String>) -> Result<(), KeeperError> {
        self.have_done(&Ask::BeginSession { terminal })
    }

    /// Starts one that is in charge of nobody yet, and is to be of `pid`.
    pub fn spawn(program: &Path, pid: i32) -> Result<Self, KeeperError> {
        let start = || {
            fault::point(format_args!(
                "start {} for process {pid}",
                program.display()
            ))?;
            let (channel, theirs) = Channel::pair()?;
            let board = Board::new(BOARD_BYTES)?;
            let mut command = Command::new(program);
            let child = command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
            Ok((child.spawn()?, channel, board))
        };
        let (child, channel, board) = start().map_err(|source| KeeperError::Start {
            path: program.display().to_string(),
            pid,
            source,
        })?;
        Ok(Self {
            pid,
            child: Some(child),
            channel,
            board,
            owes_states: false,
            events: Vec::new(),
            looks_at: Vec::new(),
        })
    }

    /// Puts it in charge anew: after exec the text and the memory are others.
    pub fn adopt(&mut self, probe: &Probe, hold: bool) -> Result<(), KeeperError> {
        let ask = Ask::Adopt {
            pid: self.pid,
            suspend_seccomp: probe.suspend_seccomp,
            sched_debug: probe.sched_debug,
            hold,
        };
        self.take_charge(&ask)
    }

    fn take_charge(&mut self, ask: &Ask) -> Result<(), KeeperError> {
        self.send_with(ask, Some(self.board.fd()))?;
        match self.answer()? {
            (Say::Adopted, _) => Ok(()),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// A userfaultfd of the target's own address space.
    ///
    /// `brings`: it is to bring missing pages, for which the target has to be root's; else it tracks
    /// writes.
    pub fn userfaultfd(&mut self, brings: bool) -> Result<OwnedFd, KeeperError> {
        match self.ask(&Ask::MakeUserfaultfd { brings })? {
            (Say::Userfaultfd, Some(fd)) => Ok(fd),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Asks for a stop of every thread. `alone`: nobody else stops with it, so that the keeper looks
    /// for what is to become of it rather than wait to be told.
    pub fn ask_to_stop(
        &mut self,
        deadline_ms: u32,
        facts: bool,
        alone: bool,
    ) -> Result<(), KeeperError> {
        rendezvous::open(&self.board);
        self.send(&Ask::Stop {
            deadline_ms,
            facts,
            alone,
        })?;
        self.owes_states = alone;
        Ok(())
    }

    /// Asks for the states of one that is not alone, now that everybody stands still.
    pub fn ask_to_collect(&mut self) -> Result<(), KeeperError> {
        self.send(&Ask::Collect)?;
        self.owes_states = true;
        Ok(())
    }

    /// Waits until every thread has stopped; their states follow by [`Keeper::collected`]. Asleep
    /// meanwhile: the target's threads need the CPUs to come to rest, and who sleeps is woken on an
    /// idle one.
    pub fn await_stop(&mut self) -> Result<Quiesced, KeeperError> {
        match self.answer()? {
            (
                Say::Stopped {
                    quiesce_ns,
                    since_ns,
                },
                _,
            ) => Ok(Quiesced {
                quiesce_ns,
                since_ns,
            }),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// The map list of the stopped target, where the keeper has read it.
    pub fn maps(&self) -> Option<Vec<u8>> {
        rendezvous::handed_over(&self.board, SPIN)
    }

    /// Second half of a stop: says what is to become of the target, and waits for the states. Where
    /// that took long it stands still nevertheless.
    pub fn collected(&mut self, verdict: Verdict) -> Result<Read, KeeperError> {
        self.owes_states = false;
        rendezvous::decide(&self.board, verdict);
        match self.answer_soon()? {
            (Say::Collected { bytes, stop_ns }, _) => Ok(Read { bytes, stop_ns }),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Decodes the states; off the clock, the board stays until the next stop.
    pub fn states(&self, bytes: u64) -> Result<Collected, KeeperError> {
        postcard::from_bytes(&rendezvous::states(&self.board, bytes))
            .map_err(|e| KeeperError::Talk(io::Error::other(e)))
    }

    /// Lets everything run; ns from the first interrupt to the last thread let go.
    pub fn resume(&mut self) -> Result<u64, KeeperError> {
        self.ask_to_resume()?;
        self.resumed()
    }

    /// Asks to let everything run; [`Keeper::resumed`] waits for it.
    pub fn ask_to_resume(&mut self) -> Result<(), KeeperError> {
        if self.owes_states {
            self.collected(Verdict::Stay)?; // The stop comes to nothing.
        }
        self.send(&Ask::Resume)
    }

    /// Waits until everything runs.
    pub fn resumed(&mut self) -> Result<u64, KeeperError> {
        match self.answer_soon()? {
            (Say::Resumed { stop_ns }, _) => Ok(stop_ns),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Has the target stay seized, or no longer.
    pub fn seize(&mut self, on: bool) -> Result<(), KeeperError> {
        self.have_done(&Ask::Seize { on })
    }

    /// Asks to stop every thread without a checkpoint; [`Keeper::halted`] waits for it.
    pub fn ask_to_halt(&mut self, deadline_ms: u32) -> Result<(), KeeperError> {
        self.send(&Ask::Halt { deadline_ms })
    }

    /// Registers of each thread, once all stand still.
    pub fn halted(&mut self) -> Result<Vec<(i32, Words)>, KeeperError> {
        match self.answer()? {
            (Say::Halted { threads }, _) => Ok(threads),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Breakpoints, for as long as it runs.
    pub fn set_traps(&mut self, traps: Vec<Trap>) -> Result<(), KeeperError> {
        self.have_done(&Ask::Traps { traps })
    }

    /// Watchpoints.
    pub fn set_watches(&mut self, watches: Vec<Watch>) -> Result<(), KeeperError> {
        self.have_done(&Ask::Watches { watches })
    }

    /// One instruction of one thread.
    pub fn step(&mut self, tid: i32) -> Result<Stepped, KeeperError> {
        match self.ask(&Ask::Step { tid })? {
            (Say::Stepped(stepped), _) => Ok(stepped),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Lets one thread run, or all, some of them past the breakpoint they stand at: those that could not
    /// get past it, and a process that shares the memory, for whose sake no breakpoint is in the text.
    pub fn go(
        &mut self,
        only: Option<i32>,
        pass: Vec<i32>,
    ) -> Result<(Vec<i32>, Option<i32>), KeeperError> {
        match self.ask(&Ask::Go { only, pass })? {
            (Say::Went { left, shared }, _) => Ok((left, shared)),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Is there an event that was taken off the channel already?
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Hands over a journal; [`Keeper::progress`] tells how far it comes.
    pub fn ask_to_execute(&mut self, journal: &OwnedFd) -> Result<(), KeeperError> {
        self.send_with(&Ask::Execute, Some(journal.as_fd()))
    }

    /// Waits until the plan awaits something, or has ended.
    pub fn progress(&mut self) -> Result<Progress, KeeperError> {
        match self.answer()? {
            (Say::Executed(outcome), _) => Ok(Progress::Ended(outcome)),
            (Say::Awaits, _) => Ok(Progress::Awaits),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// What the plan awaited has come; or it does not, and why.
    pub fn tell(&mut self, come: &Result<(), String>) -> Result<(), KeeperError> {
        self.send(&match come {
            Ok(()) => Ask::GoOn,
            Err(why) => Ask::GiveUp { why: why.clone() },
        })
    }

    /// Has put right what an earlier keeper left; the target runs on then. [`Keeper::progress`] tells.
    pub fn ask_to_put_right(&mut self, journal: &OwnedFd) -> Result<(), KeeperError> {
        self.send_with(&Ask::PutRight, Some(journal.as_fd()))
    }

    /// Closes descriptors of the target's.
    pub fn close(&mut self, fds: Vec<i32>) -> Result<(), KeeperError> {
        self.have_done(&Ask::Close { fds })
    }

    /// Are these what is looked at?
    pub fn looks_at(&self, connections: &[u64]) -> bool {
        self.looks_at == connections
    }

    /// From the next stop on these TCP connections are looked at, and no others.
    pub fn look_at(&mut self, connections: Vec<u64>) -> Result<(), KeeperError> {
        if !self.looks_at(&connections) {
            self.looks_at.clone_from(&connections);
            self.have_done(&Ask::LookAt { connections })?;
        }
        Ok(())
    }

    fn made(&mut self) -> Result<i32, KeeperError> {
        match self.answer()? {
            (Say::Made { pid }, _) => Ok(pid),
            other => Err(out_of_turn(&other.0)),
        }
    }

    fn have_done(&mut self, ask: &Ask) -> Result<(), KeeperError> {
        self.send(ask)?;
        match self.answer()? {
            (Say::Done, _) => Ok(()),
            other => Err(out_of_turn(&other.0)),
        }
    }

    /// Next thing that is about to happen to a held target, None when nothing is yet.
    pub fn event(&mut self) -> Result<Option<EventKind>, KeeperError> {
        if !self.events.is_empty() {
            return Ok(Some(self.events.remove(0)));
        }
        let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).map_err(io::Error::from)? == 0 {
            return Ok(None);
        }
        match self.channel.receive::<Say>()? {
            Some((Say::Event(event), _)) => Ok(Some(event)),
            Some((other, _)) => Err(out_of_turn(&other)),
            None => Err(KeeperError::Gone(self.pid)),
        }
    }

    /// Descriptor that becomes readable when there is an event.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Lets go; the keeper leaves when no call waits for its timeout any more.
    pub fn leave(self) {
        // It may be dead already, which is letting go too.
        let _ = self.channel.send(&Ask::Leave, None);
    }

    fn ask(&mut self, ask: &Ask) -> Result<(Say, Option<OwnedFd>), KeeperError> {
        self.send(ask)?;
        self.answer_soon()
    }

    fn send(&self, ask: &Ask) -> Result<(), KeeperError> {
        self.send_with(ask, None)
    }

    fn send_with(&self, ask: &Ask, fd: Option<BorrowedFd<'_>>) -> Result<(), KeeperError> {
        let told = fault::step(format_args!("process {}", self.pid), || {
            self.channel.send(ask, fd)
        });
        told.map_err(|e| self.gone(e))
    }

    fn answer(&mut self) -> Result<(Say, Option<OwnedFd>), KeeperError> {
        self.answer_within(Duration::ZERO)
    }

    /// An answer that a stopped target waits for.
    fn answer_soon(&mut self) -> Result<(Say, Option<OwnedFd>), KeeperError> {
        self.answer_within(SPIN)
    }

    fn answer_within(&mut self, spin: Duration) -> Result<(Say, Option<OwnedFd>), KeeperError> {
        loop {
            match self.channel.receive_soon::<Say>(spin)? {
                None => return Err(KeeperError::Gone(self.pid)),
                Some((Say::Event(event), _)) => self.events.push(event),
                Some((Say::Failed { refusal, message }, _)) => {
                    return Err(KeeperError::Refused { refusal, message });
                }
                Some(say) => return Ok(say),
            }
        }
    }

    fn gone(&self, error: io::Error) -> KeeperError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            KeeperError::Gone(self.pid)
        } else {
            KeeperError::Talk(error)
        }
    }
}

impl Drop for Keeper {
    /// Without its channel it lets go and leaves. It is waited for in the background, since it may
    /// stay for a call with a long timeout.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        std::thread::spawn(move || {
            // ECHILD cannot happen: nobody else waits for it.
            let _ = child.wait();
        });
    }
}

fn out_of_turn(say: &Say) -> KeeperError {
    KeeperError::OutOfTurn(format!("{say:?}"))
}
