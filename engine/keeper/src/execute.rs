//! Carries a plan through: injected calls from a scratch mapping, threads made and ended, pages
//! written with every thread in ptrace-stop, final states.
//!
//! Every thread is parked first (parking.rs), so that if this process dies nothing runs on
//! half-changed memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use sls_keeper::journal::{self, Read};
use sls_keeper::{Arg, FinalState, MakeThread, Outcome, Plan, Step, Want};
use sls_sys::RemoteMemory;
use sls_sys::frame::{Gadgets, Home};
use sls_sys::ptrace::{Stopped, Waited};

use crate::collect;
use crate::group::{Children, Group, Refused};
use crate::inject::Borrowed;
use crate::kicks::{self, Kicks};
use crate::limits::Place;
use crate::parking::{self, Caller, Found, Parking};

const CHUNK: usize = 1 << 20;
/// A frame and the arguments below it.
const STACK_ROOM: u64 = 16 << 10;
const BIRTH_DEADLINE: Duration = Duration::from_secs(2);

/// Why a plan stopped half way.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
struct StepFailed {
    what: String,
    source: io::Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

/// Journal, target and what is borrowed of it.
pub struct Executor<'a> {
    pub group: &'a mut Group,
    pub gadgets: Gadgets,
    pub memory: &'a RemoteMemory,
    pub children: &'a Children,
    pub kicks: &'a mut Kicks,
    pub pidfd: &'a OwnedFd,
    pub journal: &'a File,
}

impl<'a> Executor<'a> {
    /// Forward, or back when a step of it fails.
    pub fn run(&mut self, Read { plans, data_at, .. }: &Read) -> Outcome {
        let mut parking = Parking::new(plans.forward.scratch, self.gadgets, self.memory);
        match self.carry_through(Way::Forward, &plans.forward, &mut parking, *data_at) {
            Ok(reports) => Outcome::Done { reports },
            // Nothing was touched yet.
            Err(forward) if parking.is_empty() => Outcome::PutBack {
                why: forward.to_string(),
            },
            Err(forward) => {
                match self.carry_through(Way::Back, &plans.back, &mut parking, *data_at) {
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

    /// What a keeper that was killed in the middle of [`Executor::run`] left behind: threads that
    /// wait are put back, and the scratch area goes.
    ///
    /// # Errors
    /// ResourceBusy: threads are on their way out of the scratch area; let go and try again.
    pub fn put_right(&mut self, read: &Read) -> io::Result<Outcome> {
        let plan = &read.plans.back;
        let why = "an earlier keeper was killed in the middle of a rewind";
        match parking::find(self.memory, self.group.pid, plan.scratch)? {
            Found::Nothing => {}
            Found::Open => self.clear_away(plan.scratch)?,
            Found::Closed => {
                let mut parking = Parking::new(plan.scratch, self.gadgets, self.memory);
                let back = self.carry_through(Way::Back, plan, &mut parking, read.data_at);
                return Ok(match back {
                    Ok(_) => Outcome::PutBack { why: why.into() },
                    Err(back) => Outcome::Halted {
                        why: format!("{why}; putting the present back failed: {back}"),
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
        plan: &Plan,
        parking: &mut Parking<'a>,
        data_at: u64,
    ) -> Result<Vec<String>, StepFailed> {
        let fail = |what: &str| {
            let what = what.to_owned();
            move |source: io::Error| StepFailed { what, source }
        };
        self.map_scratch(plan, parking)
            .map_err(fail("map the scratch area"))?;
        self.park_all(parking).map_err(fail("park the threads"))?;
        let mut run = Run {
            executor: self,
            plan,
            parking,
            saved: [0; 256],
            reports: Vec::new(),
        };
        for step in &plan.steps {
            run.step(step, data_at)?;
        }
        let mut reports = run.reports;
        let left = self.finish(way, plan, parking).map_err(|e| StepFailed {
            what: "bring the threads to their final state".into(),
            source: io::Error::other(e.to_string()),
        })?;
        reports.extend(left);
        Ok(reports)
    }

    fn map_scratch(&mut self, plan: &Plan, parking: &Parking<'_>) -> io::Result<()> {
        if parking::is_there(self.memory, plan.scratch) {
            return Ok(()); // A plan that stopped half way mapped it.
        }
        let (start, end) = plan.scratch;
        let mut refused = io::Error::from_raw_os_error(libc::ESRCH);
        let tids: Vec<i32> = self.group.stopped.keys().copied().collect();
        // The first that has room on its stack.
        for tid in std::iter::once(plan.leader).chain(tids) {
            match self.on_own_stack(tid, |thread| map_scratch_call(thread, start, end)) {
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
        let mut borrowed = Borrowed::new(stopped, nr, self.gadgets, self.memory, self.children)
            .map_err(|(stopped, error)| {
                self.group.stopped.insert(tid, stopped);
                error
            })?;
        let result = act(&mut borrowed);
        let stopped = borrowed.finish().map_err(io::Error::other)?;
        self.group.stopped.insert(tid, stopped);
        result
    }

    fn take(&mut self, tid: i32) -> io::Result<Stopped> {
        self.group.stopped.remove(&tid).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("thread {tid} is not there"),
            )
        })
    }

    fn park_all(&mut self, parking: &mut Parking<'_>) -> io::Result<()> {
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
            let stopped = self.take(state.tid)?;
            parking.lead(&stopped, &home_of(state))?;
            self.group.stopped.insert(state.tid, stopped);
        }
        if way == Way::Forward {
            journal::note_forward_done(self.journal)?;
        }
        parking.open()?;
        for state in finals().filter(|state| Some(state.tid) != last) {
            let stopped = self.take(state.tid)?;
            let home = home_of(state);
            stopped.set_xstate(&home.xstate)?;
            // First the mask, which its frame sets too: else it would go on deaf.
            stopped.set_sigmask(home.sigmask)?;
            stopped.set_regs(&home.regs)?;
            self.group.stopped.insert(state.tid, stopped);
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

    fn unmap_scratch(
        &mut self,
        (start, end): (u64, u64),
        state: &FinalState,
    ) -> Result<(), Refused> {
        let stopped = self.take(state.tid)?;
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
            self.group.stopped.insert(state.tid, stopped);
            error
        })?;
        borrowed.expect(libc::SYS_munmap, &[start, end - start])?;
        let stopped = borrowed.finish_as(&home)?;
        self.group.stopped.insert(state.tid, stopped);
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
        if self.memory.read_at(low, &mut room).is_ok() {
            return Ok(true);
        }
        const CLOCK_MONOTONIC: u64 = 1;
        let touched = self.borrow_parked(state.tid, plan, parking, |thread| {
            thread.call(libc::SYS_clock_gettime, &[CLOCK_MONOTONIC, low])
        })?;
        Ok(touched == 0 && self.memory.read_at(low, &mut room).is_ok())
    }

    /// Runs `act` with a parked thread on a frame of the scratch area.
    fn borrow_parked<T>(
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
        let (wait, top) = parking.loan(tid, caller)?;
        let stopped = self.take(tid)?;
        let mut borrowed = Borrowed::at(
            stopped,
            wait,
            top,
            false,
            self.gadgets,
            self.memory,
            self.children,
        )
        .map_err(|(stopped, error)| {
            self.group.stopped.insert(tid, stopped);
            error
        })?;
        let result = act(&mut borrowed);
        let stopped = borrowed.finish().map_err(io::Error::other)?;
        self.group.stopped.insert(tid, stopped);
        result
    }

    fn expect_calls(&mut self, plan: &Plan) {
        let place = Place::new(self.memory, self.pidfd);
        self.kicks.clear();
        for step in &plan.steps {
            if let Step::Final(state) = step
                && let Some(call) = state.blocked
            {
                let regs = collect::regs(&state.regs);
                self.kicks.expect(state.tid, &regs, call, place);
            }
        }
    }
}

fn map_scratch_call(borrowed: &mut Borrowed<'_>, start: u64, end: u64) -> io::Result<()> {
    const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
    let flags = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).cast_unsigned());
    let got = borrowed.expect(
        libc::SYS_mmap,
        &[
            start,
            end - start,
            3,
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

struct Run<'r, 'a> {
    executor: &'r mut Executor<'a>,
    plan: &'r Plan,
    parking: &'r mut Parking<'a>,
    saved: [u64; 256],
    reports: Vec<String>,
}

impl Run<'_, '_> {
    fn step(&mut self, step: &Step, data_at: u64) -> Result<(), StepFailed> {
        let (what, result) = match step {
            Step::Call {
                what,
                nr,
                args,
                want,
            } => (
                what.clone(),
                self.call(self.plan.leader, what, *nr, args, want),
            ),
            Step::CallIn {
                tid,
                what,
                nr,
                args,
                want,
            } => (
                format!("thread {tid}: {what}"),
                self.call(*tid, what, *nr, args, want),
            ),
            Step::Write {
                address,
                offset,
                len,
            } => (
                format!("write {len} bytes at {address:#x}"),
                self.write(data_at + offset, *address, *len),
            ),
            Step::End { tid } => (format!("end thread {tid}"), self.end(*tid)),
            Step::Make(thread) => (format!("make thread {}", thread.tid), self.make(thread)),
            Step::Final(_) => return Ok(()), // After all else, in `finish`.
        };
        result.map_err(|source| StepFailed { what, source })
    }

    fn call(&mut self, tid: i32, what: &str, nr: u64, args: &[Arg], want: &Want) -> io::Result<()> {
        let mut words = Vec::with_capacity(args.len());
        let saved = self.saved;
        let (result, first) = self.borrow(tid, |thread| {
            let mut offset = 0;
            for arg in args {
                words.push(match arg {
                    Arg::Value(v) => *v,
                    Arg::Saved(n) => saved[usize::from(*n)],
                    Arg::Bytes(bytes) => {
                        let at = thread.lay(offset, bytes)?;
                        offset += (bytes.len() as u64).next_multiple_of(16);
                        at
                    }
                });
            }
            let result = thread.call(nr.cast_signed(), &words)?;
            Ok((result, thread.fetch::<8>(0)?))
        })?;
        if let (Want::SavePair(n), true) = (want, result >= 0) {
            for (i, int) in first.chunks_exact(4).enumerate() {
                let int = i32::from_le_bytes(int.try_into().unwrap_or_default());
                self.saved[usize::from(*n) + i] = u64::from(int.cast_unsigned());
            }
        }
        self.judge(what, result, want)
    }

    fn judge(&mut self, what: &str, result: i64, want: &Want) -> io::Result<()> {
        let errno = (-4095..0)
            .contains(&result)
            .then(|| i32::try_from(-result).unwrap_or(0));
        match (want, errno) {
            (Want::Success | Want::Or(_) | Want::SavePair(_), None) => Ok(()),
            (Want::Or(fine), Some(errno)) if fine.contains(&errno) => Ok(()),
            (Want::Exactly(value), None) if *value == result.cast_unsigned() => Ok(()),
            (Want::Exactly(value), None) => Err(io::Error::other(format!(
                "gave {result:#x} instead of {value:#x}"
            ))),
            (Want::Save(n), None) => {
                self.saved[usize::from(*n)] = result.cast_unsigned();
                Ok(())
            }
            (Want::Report(_), None) => Ok(()),
            (Want::Report(name), Some(errno)) => {
                let cause = io::Error::from_raw_os_error(errno);
                self.reports.push(format!("{name}: {what}: {cause}"));
                Ok(())
            }
            (_, Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn borrow<T>(
        &mut self,
        tid: i32,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Self {
            executor,
            plan,
            parking,
            ..
        } = self;
        executor.borrow_parked(tid, plan, parking, act)
    }

    fn write(&self, mut offset: u64, mut address: u64, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK.min(sls_sys::size(len))];
        let end = address + len;
        while address < end {
            let n = buffer.len().min(sls_sys::size(end - address));
            let data = self.executor.journal;
            data.read_exact_at(&mut buffer[..n], offset)?;
            self.executor.memory.write_at(address, &buffer[..n])?;
            offset += n as u64;
            address += n as u64;
        }
        Ok(())
    }

    /// Ends a thread without a trace: its exit writes nothing and wakes nobody.
    fn end(&mut self, tid: i32) -> io::Result<()> {
        if !self.executor.group.stopped.contains_key(&tid) {
            return Ok(());
        }
        let rseq = self.executor.group.stopped[&tid].rseq()?;
        self.borrow(tid, |thread| {
            if let Some((addr, size, signature)) = rseq {
                const UNREGISTER: u64 = 1;
                thread.expect(
                    libc::SYS_rseq,
                    &[addr, u64::from(size), UNREGISTER, u64::from(signature)],
                )?;
            }
            thread.expect(libc::SYS_set_robust_list, &[0, 24])?;
            thread.expect(libc::SYS_set_tid_address, &[0])
        })?;
        self.parking.forget(tid);
        let ex = &mut *self.executor;
        let stopped = ex.take(tid)?;
        let mut regs = stopped.regs()?;
        regs.orig_rax = !0;
        regs.rip = ex.gadgets.syscall;
        regs.rax = libc::SYS_exit.cast_unsigned();
        regs.rdi = 0;
        stopped.set_regs(&regs)?;
        stopped.cont(0)?;
        let deadline = Instant::now() + BIRTH_DEADLINE;
        loop {
            match ex.children.next(tid, deadline)? {
                Some(Waited::Ended(..)) => return Ok(()),
                Some(Waited::Stopped(stopped)) => stopped.cont(0)?,
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Makes a thread under its old id, parked, then gives it what only it can set. One that is
    /// there may have lost that on its way to an end that did not come.
    fn make(&mut self, thread: &MakeThread) -> io::Result<()> {
        if self.executor.group.stopped.contains_key(&thread.tid) {
            return self.dress(thread);
        }
        let leader = self.plan.leader;
        let args = clone_args(self.parking.expect(thread.tid, leader)?);
        let made = self.borrow(leader, |leader| {
            let set_tid = leader.lay(0, &thread.tid.to_le_bytes())?;
            let mut bytes = args;
            bytes[64..72].copy_from_slice(&set_tid.to_le_bytes());
            let at = leader.lay(64, &bytes)?;
            leader.expect(libc::SYS_clone3, &[at, bytes.len() as u64])
        })?;
        if made != u64::from(thread.tid.cast_unsigned()) {
            return Err(io::Error::other(format!("the new thread is {made}")));
        }
        self.receive(thread.tid)?;
        self.dress(thread)
    }

    /// Waits for the auto-attached thread's first stop.
    fn receive(&mut self, tid: i32) -> io::Result<()> {
        let ex = &mut *self.executor;
        match ex.children.next(tid, Instant::now() + BIRTH_DEADLINE)? {
            Some(Waited::Stopped(stopped)) => {
                ex.group.stopped.insert(tid, stopped);
                Ok(())
            }
            Some(Waited::Ended(..)) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn dress(&mut self, thread: &MakeThread) -> io::Result<()> {
        let (head, len) = thread.robust;
        self.borrow(thread.tid, |made| {
            if thread.clear_tid != 0 {
                made.expect(libc::SYS_set_tid_address, &[thread.clear_tid])?;
            }
            if head != 0 {
                made.expect(libc::SYS_set_robust_list, &[head, len])?;
            }
            if let Some((addr, size, signature)) = thread.rseq {
                let args = [addr, u64::from(size), 0, u64::from(signature)];
                match made.expect(libc::SYS_rseq, &args) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {} // It has it.
                    other => drop(other?),
                }
            }
            Ok(())
        })
    }
}

/// struct clone_args for a thread that begins at the `ret` after the call, on `rsp`.
fn clone_args(rsp: u64) -> [u8; 88] {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    let stack_size = 4096;
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup
    let words = [
        u64::from(flags.cast_unsigned()),
        0,
        0,
        0,
        0,
        rsp - stack_size,
        stack_size,
        0,
        0,
        1,
        0,
    ];
    let mut out = [0; 88];
    for (slot, word) in out.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    out
}
