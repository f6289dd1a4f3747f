//! Carries a plan through, forward or back: a scratch mapping, every thread parked, the steps
//! (steps.rs), final states.
//!
//! Every thread is parked first (parking.rs), so that if this process dies nothing runs on
//! half-changed memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use sls_keeper::journal::{self, Read};
use sls_keeper::{Agreement, FinalState, Outcome, Plan, Say, Step, Way};
use sls_sys::frame::{Gadgets, Home};
use sls_sys::ptrace::Stopped;
use sls_sys::{RemoteMemory, batch, fault, skeleton};

use crate::calls::Results;
use crate::collect;
use crate::group::{Children, Group, Refused};
use crate::inject::Borrowed;
use crate::kicks::{self, Kicks};
use crate::limits::Place;
use crate::numbers::Numbers;
use crate::parking::{self, Caller, Found, Parking};
use crate::steps::{Run, StepFailed};

/// In the scratch area, behind the gate: what [`Executor::bear`] injects calls by.
const CODE_AT: u64 = 2048;
/// And by which it makes batches of them.
pub const BATCH_CODE_AT: u64 = 3072;
/// A frame and the arguments below it.
const STACK_ROOM: u64 = 16 << 10;

/// What has a plan that awaits something go on.
#[derive(Debug)]
pub enum Come {
    /// It is there.
    All,
    /// Not yet: the process is to make this child first, with its code at that address.
    Bear { pid: i32, address: u64 },
}

/// Says something to slsd, and waits for what comes of a plan's wait.
pub type AwaitOthers<'a> = dyn FnMut(Way, &Say) -> Result<Come, NotCome> + 'a;

/// What a plan awaits does not come.
#[derive(Debug)]
pub enum NotCome {
    /// And why: the plan goes back.
    GivenUp(String),
    /// slsd is gone. The others may be anywhere by now: the threads stand still until the next slsd
    /// puts all of them right.
    Unknown,
}

/// How much of a plan is still to be done before the threads go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    /// Nothing was changed: the others are waited for.
    Waits,
    /// All of it was, and others may run by now: what is done once that is agreed.
    Last,
}

/// Journal, target and what is borrowed of it.
pub struct Executor<'a> {
    pub group: &'a mut Group,
    pub gadgets: Gadgets,
    pub memory: &'a RemoteMemory,
    pub children: &'a Children,
    /// Of its threads: those of a plan are its own.
    pub numbers: Numbers,
    pub kicks: &'a mut Kicks,
    pub pidfd: &'a OwnedFd,
    pub journal: &'a File,
    /// Has done what a plan awaits.
    pub await_others: &'a mut AwaitOthers<'a>,
    /// Of one of several: something may have been changed.
    pub begun: bool,
}

impl<'a> Executor<'a> {
    /// Forward, or back when a step of it fails.
    pub fn run(&mut self, Read { plans, data_at, .. }: &Read) -> Outcome {
        let Some(back) = &plans.back else {
            return self.bear(&plans.forward, *data_at);
        };
        let mut parking = Parking::new(plans.forward.scratch, self.gadgets, self.memory);
        let data_at = *data_at;
        let forward = &plans.forward;
        match self.carry_through(Way::Forward, Left::All, forward, &mut parking, data_at) {
            Ok(reports) => Outcome::Done { reports },
            // Nothing was touched yet.
            Err(forward) if parking.is_empty() => Outcome::PutBack {
                why: forward.to_string(),
            },
            Err(forward) if forward.stands => Outcome::Halted {
                why: forward.to_string(),
            },
            Err(forward) => {
                let left = match &plans.agreement {
                    Some(_) if !self.begun => Left::Waits,
                    _ => Left::All,
                };
                match self.carry_through(Way::Back, left, back, &mut parking, data_at) {
                    Ok(_) => Outcome::PutBack {
                        why: forward.to_string(),
                    },
                    Err(back) => Outcome::Halted {
                        why: format!("{forward}; putting the present back failed too: {back}"),
                    },
                }
            }
        }
    }

    /// Brings a process that was made anew to its state. It has no text of its own to come back to if
    /// this keeper dies, and needs none: it dies too.
    fn bear(&mut self, plan: &Plan, data_at: u64) -> Outcome {
        let parking = Parking::new(plan.scratch, self.gadgets, self.memory);
        let born = self.map_scratch(plan, &parking).and_then(|()| {
            let at = plan.scratch.0 + CODE_AT;
            self.memory.write_at(at, skeleton::code())?;
            self.memory
                .write_at(plan.scratch.0 + BATCH_CODE_AT, batch::code())?;
            self.gadgets = skeleton::gadgets(at);
            Ok(())
        });
        let mut parking = Parking::new(plan.scratch, self.gadgets, self.memory);
        let born = born
            .map_err(step_failed("map the scratch area"))
            .and_then(|()| {
                self.carry_through(Way::Forward, Left::All, plan, &mut parking, data_at)
            });
        match born {
            Ok(reports) => Outcome::Done { reports },
            Err(failed) => Outcome::PutBack {
                why: failed.to_string(),
            },
        }
    }

    /// What a keeper that was killed in the middle of [`Executor::run`] left behind: threads that
    /// wait are put back, and the scratch area goes.
    ///
    /// # Errors
    /// ResourceBusy: threads are on their way out of the scratch area; let go and try again.
    pub fn put_right(&mut self, read: &Read) -> io::Result<Outcome> {
        let Some(plan) = &read.plans.back else {
            return Err(io::Error::other("a process made anew ends with its keeper"));
        };
        let why = "an earlier keeper was killed in the middle of a rewind";
        match parking::find(self.memory, self.group.pid, plan.scratch)? {
            Found::Nothing => {}
            Found::Open => self.clear_away(plan.scratch)?,
            Found::Closed => {
                let mut parking = Parking::new(plan.scratch, self.gadgets, self.memory);
                let agreed = read.plans.agreement.as_ref().map(Agreement::reached);
                let forward = &read.plans.forward;
                let (way, left, plan) = match agreed {
                    Some(Some(Way::Forward)) => (Way::Forward, Left::Last, forward),
                    Some(Some(Way::Back)) => (Way::Back, Left::Last, plan),
                    Some(None) if !read.begun => (Way::Back, Left::Waits, plan),
                    _ => (Way::Back, Left::All, plan),
                };
                let done = self.carry_through(way, left, plan, &mut parking, read.data_at);
                return Ok(match (done, way) {
                    (Ok(reports), Way::Forward) => Outcome::Done { reports },
                    (Ok(_), Way::Back) => Outcome::PutBack { why: why.into() },
                    (Err(failed), _) => Outcome::Halted {
                        why: format!("{why}; putting it right failed: {failed}"),
                    },
                });
            }
        }
        Ok(if read.forward_done {
            let reports = vec![format!("{why}, at its very end; what it reported is lost")];
            Outcome::Done { reports }
        } else {
            Outcome::PutBack { why: why.into() }
        })
    }

    /// Unmaps a scratch area that nobody needs any more.
    fn clear_away(&mut self, (start, end): (u64, u64)) -> io::Result<()> {
        let inside =
            |stopped: &Stopped| stopped.regs().is_ok_and(|r| (start..end).contains(&r.rsp));
        if self.group.stopped.values().any(inside) {
            let message = "a thread has not left the scratch area yet";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        let any = self.group.stopped.keys().next().copied();
        let tid = any.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        self.on_own_stack(tid, |thread| {
            thread.expect(libc::SYS_munmap, &[start, end - start])?;
            Ok(())
        })
    }

    fn carry_through(
        &mut self,
        way: Way,
        left: Left,
        plan: &Plan,
        parking: &mut Parking<'a>,
        data_at: u64,
    ) -> Result<Vec<String>, StepFailed> {
        self.map_scratch(plan, parking)
            .map_err(step_failed("map the scratch area"))?;
        self.park_all(parking)
            .map_err(step_failed("park the threads"))?;
        let mut run = Run {
            executor: self,
            plan,
            parking,
            way,
            results: Results::default(),
        };
        match left {
            Left::All => run.steps(data_at)?,
            Left::Waits => run.waits(data_at)?,
            Left::Last => run.last(data_at)?,
        }
        let mut reports = run.results.reports;
        let left = self.finish(way, plan, parking).map_err(|e| StepFailed {
            what: "bring the threads to their final state".into(),
            source: io::Error::other(e.to_string()),
            stands: false,
        })?;
        reports.extend(left);
        Ok(reports)
    }

    fn map_scratch(&mut self, plan: &Plan, parking: &Parking<'_>) -> io::Result<()> {
        if parking::is_there(self.memory, plan.scratch) {
            return Ok(()); // A plan that stopped half way mapped it.
        }
        fault::point("map the scratch area")?;
        let prot = if plan.anew { 7 } else { 3 };
        let mut refused = io::Error::from_raw_os_error(libc::ESRCH);
        let tids: Vec<i32> = self.group.stopped.keys().copied().collect();
        // The first that has room on its stack.
        for tid in std::iter::once(self.numbers.here(plan.leader)).chain(tids) {
            match self.on_own_stack(tid, |thread| map_scratch_call(thread, plan.scratch, prot)) {
                Ok(()) => return parking.found(),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Calls with the frame on the thread's own stack.
    fn on_own_stack(
        &mut self,
        tid: i32,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let stopped = self.take(tid)?;
        let nr = self.kicks.number_of(tid);
        let borrowed = Borrowed::new(stopped, nr, self.gadgets, self.memory, self.children);
        self.act(tid, borrowed, act)
    }

    /// Runs `act` with a thread that was taken, and puts it back among the stopped.
    fn act<T>(
        &mut self,
        tid: i32,
        borrowed: Result<Borrowed<'_>, (Stopped, io::Error)>,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut borrowed = match borrowed {
            Ok(borrowed) => borrowed,
            Err((stopped, error)) => {
                self.group.stopped.insert(tid, stopped);
                return Err(error);
            }
        };
        let result = act(&mut borrowed);
        let stopped = borrowed.finish().map_err(io::Error::other)?;
        self.group.stopped.insert(tid, stopped);
        result
    }

    pub fn take(&mut self, tid: i32) -> io::Result<Stopped> {
        self.group.stopped.remove(&tid).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("thread {tid} is not there"),
            )
        })
    }

    fn park_all(&mut self, parking: &mut Parking<'_>) -> io::Result<()> {
        fault::point("park the threads")?;
        for (&tid, stopped) in &self.group.stopped {
            parking.park(stopped, self.kicks.number_of(tid))?;
        }
        parking.close()
    }

    /// Ends the rewind: every frame leads to the final state and the gate opens; from there on who
    /// is let go is where it shall be. What a frame does not carry is set by hand, and the last
    /// thread unmaps the scratch area with a frame on its own stack, which by now is as it shall be.
    fn finish(
        &mut self,
        way: Way,
        plan: &Plan,
        parking: &mut Parking<'_>,
    ) -> Result<Option<String>, Refused> {
        let finals = || {
            plan.steps.iter().filter_map(|step| match step {
                Step::Final(state) => Some(state),
                _ => None,
            })
        };
        let mut last = None;
        for state in finals() {
            if last.is_none() && self.makes_room(state, plan, parking)? {
                last = Some(state.tid);
            }
        }
        for state in finals() {
            let what = format_args!("lead thread {} to its state", state.tid);
            fault::step(what, || {
                let tid = self.numbers.here(state.tid);
                let stopped = self.take(tid)?;
                parking.lead(&stopped, &home_of(state))?;
                self.group.stopped.insert(tid, stopped);
                Ok(())
            })?;
        }
        if way == Way::Forward {
            journal::note_forward_done(self.journal)?;
        }
        fault::step("open the gate", || parking.open())?;
        for state in finals().filter(|state| Some(state.tid) != last) {
            let what = format_args!("set the registers of thread {}", state.tid);
            fault::step(what, || self.set(state))?;
        }
        let report = match finals().find(|state| Some(state.tid) == last) {
            Some(state) => {
                self.unmap_scratch(plan.scratch, state)?;
                None
            }
            None => {
                let (start, end) = plan.scratch;
                let what = "no thread has room on its stack to unmap the rewind's own memory at";
                Some(format!("{what} {start:#x}-{end:#x}"))
            }
        };
        self.expect_calls(plan);
        Ok(report)
    }

    fn set(&mut self, state: &FinalState) -> io::Result<()> {
        let tid = self.numbers.here(state.tid);
        let stopped = self.take(tid)?;
        let home = home_of(state);
        stopped.set_xstate(&home.xstate)?;
        // First the mask, which its frame sets too: else it would go on deaf.
        stopped.set_sigmask(home.sigmask)?;
        stopped.set_regs(&home.regs)?;
        self.group.stopped.insert(tid, stopped);
        Ok(())
    }

    fn unmap_scratch(
        &mut self,
        (start, end): (u64, u64),
        state: &FinalState,
    ) -> Result<(), Refused> {
        fault::step("unmap the scratch area", || Ok(()))?;
        let tid = self.numbers.here(state.tid);
        let stopped = self.take(tid)?;
        let home = home_of(state);
        let mut borrowed = Borrowed::at(
            stopped,
            home.clone(),
            home.regs.rsp,
            true,
            self.gadgets,
            self.memory,
            self.children,
        )
        .map_err(|(stopped, error)| {
            self.group.stopped.insert(tid, stopped);
            error
        })?;
        borrowed.expect(libc::SYS_munmap, &[start, end - start])?;
        let stopped = borrowed.finish_as(&home)?;
        self.group.stopped.insert(tid, stopped);
        Ok(())
    }

    /// Is there room for a frame below the stack pointer of a final state? A main stack grows when
    /// the thread itself touches what is below it, as a call does that writes there.
    fn makes_room(
        &mut self,
        state: &FinalState,
        plan: &Plan,
        parking: &Parking<'_>,
    ) -> io::Result<bool> {
        let rsp = collect::regs(&state.regs).rsp;
        let Some(low) = rsp.checked_sub(STACK_ROOM) else {
            return Ok(false);
        };
        let low = low & !63;
        let mut room = vec![0; sls_sys::size(STACK_ROOM)];
        if plan.anew {
            // They may be on their way. False: it has to grow first, as below.
            let _ = self.memory.await_pages(low, room.len());
        }
        if self.memory.read_at(low, &mut room).is_ok() {
            return Ok(true);
        }
        const CLOCK_MONOTONIC: u64 = 1;
        let touched = self.borrow_parked(state.tid, plan, parking, |thread| {
            thread.call(libc::SYS_clock_gettime, &[CLOCK_MONOTONIC, low])
        })?;
        Ok(touched == 0 && self.memory.read_at(low, &mut room).is_ok())
    }

    /// Runs `act` with a parked thread, by a plan's number, on a frame of the scratch area.
    pub fn borrow_parked<T>(
        &mut self,
        tid: i32,
        plan: &Plan,
        parking: &Parking<'_>,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let caller = if tid == plan.leader {
            Caller::Leader
        } else {
            Caller::Other
        };
        let tid = self.numbers.here(tid);
        let (wait, top) = parking.loan(tid, caller)?;
        let stopped = self.take(tid)?;
        let gadgets = self.gadgets;
        let borrowed = Borrowed::at(
            stopped,
            wait,
            top,
            false,
            gadgets,
            self.memory,
            self.children,
        );
        self.act(tid, borrowed, act)
    }

    fn expect_calls(&mut self, plan: &Plan) {
        let place = Place::new(self.memory, self.pidfd);
        self.kicks.clear();
        for step in &plan.steps {
            if let Step::Final(state) = step
                && let Some(call) = state.blocked
            {
                let regs = collect::regs(&state.regs);
                let tid = self.numbers.here(state.tid);
                self.kicks.expect(tid, &regs, call, place);
            }
        }
    }
}

fn step_failed(what: &'static str) -> impl Fn(io::Error) -> StepFailed {
    move |source| StepFailed {
        what: what.to_owned(),
        source,
        stands: false,
    }
}

fn map_scratch_call(
    borrowed: &mut Borrowed<'_>,
    (start, end): (u64, u64),
    prot: u64,
) -> io::Result<()> {
    const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
    let flags = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).cast_unsigned());
    let got = borrowed.expect(
        libc::SYS_mmap,
        &[
            start,
            end - start,
            prot,
            flags | MAP_FIXED_NOREPLACE,
            u64::MAX,
            0,
        ],
    )?;
    if got == start {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }
}

fn home_of(state: &FinalState) -> Home {
    let mut regs = collect::regs(&state.regs);
    if state.blocked.is_some() {
        kicks::mark(&mut regs);
    }
    Home {
        regs,
        xstate: state.xstate.clone(),
        sigmask: state.sigmask,
        nr: None,
    }
}
