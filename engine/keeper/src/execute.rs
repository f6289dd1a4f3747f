//! Carries a plan through: injected calls from a scratch mapping, threads made and ended, pages
//! written with every thread in ptrace-stop, final states.
//!
//! Every thread is parked first: its registers are set to a call that never returns, with all
//! signals blocked, so that if this process dies nothing runs on half-changed memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use libc::user_regs_struct;
use sls_keeper::{Arg, FinalState, Journal, MakeThread, Outcome, Plan, Step, Want};
use sls_sys::RemoteMemory;
use sls_sys::frame::{Gadgets, Home};
use sls_sys::ptrace::{Stopped, Waited};

use crate::collect;
use crate::group::{Children, Group, Refused};
use crate::inject::Borrowed;
use crate::kicks::{self, Kicks};
use crate::limits::Place;

/// Frame and arguments of one parked thread.
const SLOT: u64 = 16 << 10;
const CHUNK: usize = 1 << 20;
const BIRTH_DEADLINE: Duration = Duration::from_secs(2);

/// Why a plan stopped half way.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
struct StepFailed {
    what: String,
    source: io::Error,
}

/// Plan, target and what is borrowed of it.
pub struct Executor<'a> {
    pub group: &'a mut Group,
    pub gadgets: Gadgets,
    pub memory: &'a RemoteMemory,
    pub children: &'a Children,
    pub kicks: &'a mut Kicks,
    pub pidfd: &'a OwnedFd,
}

impl Executor<'_> {
    /// Forward, or back when a step of it fails.
    pub fn run(&mut self, journal: &Journal, data: &File, data_at: u64) -> Outcome {
        match self.carry_through(&journal.forward, data, data_at) {
            Ok(reports) => Outcome::Done { reports },
            Err(forward) => match self.carry_through(&journal.back, data, data_at) {
                Ok(_) => Outcome::PutBack {
                    why: forward.to_string(),
                },
                Err(back) => Outcome::Halted {
                    why: format!("{forward}; putting the present back failed too: {back}"),
                },
            },
        }
    }

    fn carry_through(
        &mut self,
        plan: &Plan,
        data: &File,
        data_at: u64,
    ) -> Result<Vec<String>, StepFailed> {
        let fail = |what: &str| {
            let what = what.to_owned();
            move |source: io::Error| StepFailed { what, source }
        };
        self.map_scratch(plan)
            .map_err(fail("map the scratch area"))?;
        self.park_all(plan).map_err(fail("park the threads"))?;
        let mut run = Run {
            executor: self,
            plan,
            saved: [0; 256],
            reports: Vec::new(),
        };
        for step in &plan.steps {
            run.step(step, data, data_at)?;
        }
        let reports = run.reports;
        self.finish(plan).map_err(|e| StepFailed {
            what: "bring the threads to their final state".into(),
            source: io::Error::other(e.to_string()),
        })?;
        Ok(reports)
    }

    /// Maps the scratch area by a call whose frame lies on the leader's own stack.
    fn map_scratch(&mut self, plan: &Plan) -> io::Result<()> {
        let (start, end) = plan.scratch;
        let mut probe = [0; 8];
        if self.memory.read_at(start, &mut probe).is_ok() {
            return Ok(()); // A plan that stopped half way mapped it.
        }
        let leader = self.take(plan.leader)?;
        let nr = self.kicks.number_of(plan.leader);
        let mut borrowed = Borrowed::new(leader, nr, self.gadgets, self.memory, self.children)
            .map_err(|(stopped, error)| {
                self.group.stopped.insert(plan.leader, stopped);
                error
            })?;
        let result = map_scratch_call(&mut borrowed, start, end);
        let stopped = borrowed.finish().map_err(io::Error::other)?;
        self.group.stopped.insert(plan.leader, stopped);
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

    /// Top of a thread's slot in the scratch area; the leader's is the first.
    fn slot_top(plan: &Plan, index: usize) -> io::Result<u64> {
        let top = plan.scratch.0 + (index as u64 + 1) * SLOT;
        if top > plan.scratch.1 {
            return Err(io::Error::other(
                "the scratch area is too small for the threads",
            ));
        }
        Ok(top)
    }

    fn park_all(&mut self, plan: &Plan) -> io::Result<()> {
        let mut index = 1;
        for (&tid, stopped) in &self.group.stopped {
            let top = if tid == plan.leader {
                Self::slot_top(plan, 0)?
            } else {
                index += 1;
                Self::slot_top(plan, index)?
            };
            let home = parking(stopped, self.gadgets)?;
            let regs = park_at(&home, self.gadgets, top, self.memory)?;
            stopped.set_sigmask(!0)?;
            stopped.set_regs(&regs)?;
        }
        Ok(())
    }

    /// Ends the rewind: the other threads are set already; the leader unmaps the scratch area with
    /// a frame on its own stack, which by now is as it shall be.
    fn finish(&mut self, plan: &Plan) -> Result<(), Refused> {
        let mut last = None;
        for step in &plan.steps {
            let Step::Final(state) = step else { continue };
            if state.tid == plan.leader {
                last = Some(state);
                continue;
            }
            let stopped = self.take(state.tid)?;
            let home = home_of(state);
            stopped.set_xstate(&home.xstate)?;
            stopped.set_sigmask(home.sigmask)?;
            stopped.set_regs(&home.regs)?;
            self.group.stopped.insert(state.tid, stopped);
        }
        let state = last.ok_or_else(|| io::Error::other("the plan has no state for its leader"))?;
        let leader = self.take(plan.leader)?;
        let home = home_of(state);
        let top = home.regs.rsp;
        let mut borrowed = Borrowed::at(
            leader,
            home.clone(),
            top,
            true,
            self.gadgets,
            self.memory,
            self.children,
        )
        .map_err(|(stopped, error)| {
            self.group.stopped.insert(plan.leader, stopped);
            error
        })?;
        let (start, end) = plan.scratch;
        borrowed.expect(libc::SYS_munmap, &[start, end - start])?;
        let stopped = borrowed.finish_as(&home)?;
        self.group.stopped.insert(plan.leader, stopped);
        self.expect_calls(plan);
        Ok(())
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

/// A state that waits for ever: pause() with every signal blocked, and its own frame behind it.
fn parking(stopped: &Stopped, gadgets: Gadgets) -> io::Result<Home> {
    let mut home = Borrowed::home_of(stopped, None)?;
    home.sigmask = !0;
    home.regs.orig_rax = !0;
    home.regs.rip = gadgets.syscall;
    home.regs.rax = libc::SYS_pause.cast_unsigned();
    Ok(home)
}

/// Writes the parking frame and gives the registers that run into it.
fn park_at(
    home: &Home,
    gadgets: Gadgets,
    top: u64,
    memory: &RemoteMemory,
) -> io::Result<user_regs_struct> {
    let mut home = home.clone();
    // The frame returns to the very stack pointer it was laid for: a loop without an end.
    home.regs.rsp = home.frame(gadgets, top)?.rsp;
    let frame = home.frame(gadgets, top)?;
    memory.write_at(frame.address, &frame.bytes)?;
    Ok(home.regs)
}

struct Run<'r, 'a> {
    executor: &'r mut Executor<'a>,
    plan: &'r Plan,
    saved: [u64; 256],
    reports: Vec<String>,
}

impl Run<'_, '_> {
    fn step(&mut self, step: &Step, data: &File, data_at: u64) -> Result<(), StepFailed> {
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
                self.write(data, data_at + offset, *address, *len),
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

    /// Runs `act` with the thread on a parking frame of the scratch area.
    fn borrow<T>(
        &mut self,
        tid: i32,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let ex = &mut *self.executor;
        let top = Executor::slot_top(self.plan, usize::from(tid != self.plan.leader))?;
        let stopped = ex.take(tid)?;
        let mut home = parking(&stopped, ex.gadgets)?;
        home.regs.rsp = home.frame(ex.gadgets, top)?.rsp;
        let mut borrowed = Borrowed::at(
            stopped,
            home,
            top,
            false,
            ex.gadgets,
            ex.memory,
            ex.children,
        )
        .map_err(|(stopped, error)| {
            ex.group.stopped.insert(tid, stopped);
            error
        })?;
        let result = act(&mut borrowed);
        let stopped = borrowed.finish().map_err(io::Error::other)?;
        ex.group.stopped.insert(tid, stopped);
        result
    }

    fn write(&self, data: &File, mut offset: u64, mut address: u64, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK.min(sls_sys::size(len))];
        let end = address + len;
        while address < end {
            let n = buffer.len().min(sls_sys::size(end - address));
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

    /// Makes a thread under its old id, parked, then gives it what only it can set.
    fn make(&mut self, thread: &MakeThread) -> io::Result<()> {
        if self.executor.group.stopped.contains_key(&thread.tid) {
            return Ok(());
        }
        let plan = self.plan;
        let ex = &mut *self.executor;
        let top = Executor::slot_top(plan, 1)?;
        let leader = ex.group.stopped.get(&plan.leader);
        let leader = leader.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        let home = parking(leader, ex.gadgets)?;
        let parked = park_at(&home, ex.gadgets, top, ex.memory)?;
        let args = clone_args(parked.rsp);
        let made = self.borrow(plan.leader, |leader| {
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
                made.expect(
                    libc::SYS_rseq,
                    &[addr, u64::from(size), 0, u64::from(signature)],
                )?;
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
