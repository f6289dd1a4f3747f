//! The single steps of a plan: calls in a thread's name, bytes written, threads ended and made.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use sls_keeper::{MakeThread, OWN, Plan, Say, Step, Way, journal};
use sls_sys::ptrace::Waited;
use sls_sys::{connections, fault, fd, unnamed};

use crate::calls::{Call, Results};
use crate::execute::{BATCH_CODE_AT, Come, Executor, NotCome};
use crate::faults;
use crate::group::Refused;
use crate::inject::Borrowed;
use crate::parking::Parking;

const CHUNK: usize = 1 << 20;
const BIRTH_DEADLINE: Duration = Duration::from_secs(2);

/// Why a plan stopped half way.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct StepFailed {
    pub what: String,
    pub source: io::Error,
    /// It is not known where to go from here.
    pub stands: bool,
}

/// A plan under way.
pub struct Run<'r, 'a> {
    pub executor: &'r mut Executor<'a>,
    pub plan: &'r Plan,
    pub parking: &'r mut Parking<'a>,
    pub way: Way,
    pub results: Results,
}

impl Run<'_, '_> {
    /// All of them, in order. Calls of one thread that follow each other are made on one loan of it.
    pub fn steps(&mut self, data_at: u64) -> Result<(), StepFailed> {
        let plan = self.plan;
        let caller = |step: &Step| Call::of(step).map(|call| call.tid.unwrap_or(plan.leader));
        let together = |a: &Step, b: &Step| caller(a).is_some() && caller(a) == caller(b);
        for steps in plan.steps.chunk_by(together) {
            match caller(&steps[0]) {
                Some(tid) => self.calls(tid, steps)?,
                None => self.step(&steps[0], data_at)?,
            }
        }
        Ok(())
    }

    /// Nothing but what it awaits, and what is left then.
    pub fn waits(&mut self, data_at: u64) -> Result<(), StepFailed> {
        let plan = self.plan;
        plan.steps.iter().try_for_each(|step| match step {
            Step::Await { what } => self.wait(what),
            _ => Ok(()),
        })?;
        self.last(data_at)
    }

    /// What is left once all have come as far as the last wait.
    pub fn last(&mut self, data_at: u64) -> Result<(), StepFailed> {
        let plan = self.plan;
        let is_last = |step: &&Step| matches!(step, Step::Unmake { .. });
        let mut last = plan.steps.iter().filter(is_last);
        last.try_for_each(|step| self.step(step, data_at))
    }

    fn wait(&mut self, what: &str) -> Result<(), StepFailed> {
        let mut say = Say::Awaits;
        loop {
            let come = (self.executor.await_others)(self.way, &say).map_err(|not| StepFailed {
                what: what.to_owned(),
                stands: matches!(not, NotCome::Unknown),
                source: io::Error::other(match not {
                    NotCome::GivenUp(why) => why,
                    NotCome::Unknown => "slsd is gone".to_owned(),
                }),
            })?;
            say = match come {
                Come::All => return Ok(()),
                Come::Bear { pid, address } => match self.bear_again(pid, address) {
                    Ok(pid) => Say::Made { pid },
                    Err(Refused { refusal, message }) => Say::Failed { refusal, message },
                },
            };
        }
    }

    /// One that is no call.
    fn step(&mut self, step: &Step, data_at: u64) -> Result<(), StepFailed> {
        let what = match step {
            Step::Write { address, len, .. } => format!("write {len} bytes at {address:#x}"),
            Step::Refill { what, .. } => what.clone(),
            Step::Fill { fd, len, .. } => format!("write {len} bytes to descriptor {fd}"),
            Step::End { tid } => format!("end thread {tid}"),
            Step::Make(thread) => format!("make thread {}", thread.tid),
            Step::Unmake { what, .. } => what.clone(),
            Step::Await { what } => return self.wait(what),
            Step::Begin => "note that it begins".to_owned(),
            // The last after all else, in `finish`; calls have been made.
            Step::Final(_) | Step::Call { .. } | Step::CallIn { .. } => return Ok(()),
        };
        let done = fault::point(&what).and_then(|()| self.act(step, data_at));
        done.map_err(|source| StepFailed {
            what,
            source,
            stands: false,
        })
    }

    fn act(&mut self, step: &Step, data_at: u64) -> io::Result<()> {
        match step {
            Step::Write {
                address,
                offset,
                len,
            } => self.write(data_at + offset, *address, *len),
            Step::Refill {
                what,
                reader,
                writer,
                bytes,
                messages,
            } => {
                if !self.refill(*reader, *writer, (bytes, messages))? {
                    let why = "it was shut down since, and stays as it is";
                    self.results.reports.push(format!("{what}: {why}"));
                }
                Ok(())
            }
            Step::Fill {
                fd,
                size,
                at,
                offset,
                len,
            } => self.fill((*fd, *size), *at, data_at + offset, *len),
            Step::End { tid } => self.end(*tid),
            Step::Make(thread) => self.make(thread),
            Step::Unmake {
                what,
                pid,
                known_as,
                which,
                signal,
            } => {
                // Nothing may fail any more: the others run already.
                if let Err(error) = self.unmake((*pid, *known_as), *which, *signal) {
                    self.results.reports.push(format!("{what}: {error}"));
                }
                Ok(())
            }
            Step::Begin => {
                self.executor.begun = true;
                journal::note_begun(self.executor.journal)
            }
            Step::Await { .. } | Step::Final(_) | Step::Call { .. } | Step::CallIn { .. } => Ok(()),
        }
    }

    fn calls(&mut self, tid: i32, steps: &[Step]) -> Result<(), StepFailed> {
        let Self {
            executor,
            plan,
            parking,
            results,
            ..
        } = self;
        let mut failed = None;
        let lent = fault::point(format_args!("borrow thread {tid}")).and_then(|()| {
            executor.borrow_parked(tid, plan, parking, |thread| {
                let code = plan.scratch.0 + BATCH_CODE_AT;
                let calls: Vec<Call<'_>> = steps.iter().filter_map(Call::of).collect();
                failed = match plan.batch {
                    None => results.one_by_one(thread, &calls).err(),
                    Some(at) => results.batches(thread, &calls, (at, code)).err(),
                };
                Ok(())
            })
        });
        lent.map_err(|source| StepFailed {
            what: format!("borrow thread {tid}"),
            source,
            stands: false,
        })?;
        failed.map_or(Ok(()), Err)
    }

    pub fn borrow<T>(
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
            match self.executor.memory.write_at(address, &buffer[..n]) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    let own = faults::own(self.executor.group.pid, self.executor.pidfd)?;
                    faults::write(self.executor.memory, &own, address, &buffer[..n])?;
                }
                written => written?,
            }
            offset += n as u64;
            address += n as u64;
        }
        Ok(())
    }

    fn fill(&self, (fd, size): (i32, u64), at: u64, offset: u64, len: u64) -> io::Result<()> {
        // Files whose content is kept are no longer than that (sls-sys, unnamed).
        let mut buffer = vec![0; sls_sys::size(len)];
        self.executor.journal.read_exact_at(&mut buffer, offset)?;
        unnamed::write((self.executor.pidfd.as_fd(), fd), size, at, &buffer)
    }

    fn refill(
        &self,
        reader: (i32, i32),
        writer: (i32, i32),
        waits: (&[u8], &[u32]),
    ) -> io::Result<bool> {
        let ours = |(pid, number): (i32, i32)| match pid {
            OWN => fd::pidfd_getfd(self.executor.pidfd.as_fd(), number),
            pid => fd::pidfd_getfd(fd::pidfd_open(pid)?.as_fd(), number),
        };
        connections::refill(ours(reader)?.as_fd(), ours(writer)?.as_fd(), waits)
    }

    /// Ends a thread without a trace: its exit writes nothing and wakes nobody.
    fn end(&mut self, own: i32) -> io::Result<()> {
        let tid = self.executor.numbers.here(own);
        if !self.executor.group.stopped.contains_key(&tid) {
            return Ok(());
        }
        let rseq = self.executor.group.stopped[&tid].rseq()?;
        self.borrow(own, |thread| {
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
        ex.numbers.forget(own);
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
        let numbers = &self.executor.numbers;
        let expected = numbers.here(thread.tid);
        if self.executor.group.stopped.contains_key(&expected) {
            return self.dress(thread);
        }
        let leader = self.plan.leader;
        let rsp = self.parking.expect(expected, numbers.here(leader))?;
        let args = clone_args(rsp);
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
        let tid = self.executor.numbers.meet(thread.tid)?;
        self.parking.rename(expected, tid);
        self.receive(tid)?;
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
        fault::point(format_args!("make thread {}", thread.tid))?;
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
