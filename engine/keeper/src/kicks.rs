//! Calls that a stop interrupts for good: made again, and ended when their timeout ends.
//!
//! Some calls answer a stop with EINTR although no signal is there (sls_sys::blocking). They are
//! made again with their whole timeout and all registers as they were; the true deadline is kept
//! here, and when it comes the thread is stopped for a moment and given the call's own timeout
//! result. So a target stopped a hundred times a second still sees its timeouts on time.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use libc::user_regs_struct;
use sls_keeper::BlockedCall;
use sls_sys::blocking::{self, Interruptible, RESTART_SYSCALL, Timeout};
use sls_sys::ptrace::{self, Stopped, Waited, Why};
use sls_sys::{RemoteMemory, fd, monotonic, procfs};

use crate::collect::Signals;
use crate::group::{Children, signal_of};

/// Flags that no arithmetic gives: a result that is zero, negative and of odd parity. The kernel
/// keeps flags over a call and no program reads them after one, so a call that is made again is
/// marked by them and told from the next one at the same place.
const MARK: u64 = ZF | SF;
const MARK_BITS: u64 = ZF | SF | PF;
const PF: u64 = 1 << 2;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
/// Without a mark: runs of the scheduler between two stops that a call which is merely made again explains: to
/// make it, to come to the stop, and one preemption.
const RUNS_OF_ONE_CALL: u64 = 3;
/// Sleep starts are looked up for so many threads before each stop.
const SAMPLED_THREADS: usize = 16;
const KICK_DEADLINE: Duration = Duration::from_millis(50);

/// A call a thread was in when it was last let go.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    nr: u64,
    args: [u64; 6],
    rsp: u64,
    rip: u64,
    /// CLOCK_MONOTONIC ns.
    deadline: Option<u64>,
    /// How often the thread had run, where that must tell this call from the next one like it.
    runs: Option<u64>,
    /// Its flags carry the mark.
    marked: bool,
    /// Made again by us: nobody but us ends it on time.
    ours: bool,
}

/// All of them, by thread.
pub struct Kicks {
    pid: i32,
    sched_debug: bool,
    waiting: HashMap<i32, Waiting>,
    fell_asleep: HashMap<i32, u64>,
    /// Threads in a call whose number nobody saw, and the kernel function they sleep in.
    sleeps_in: HashMap<i32, String>,
    last_stop: u64,
}

fn args_of(regs: &user_regs_struct) -> [u64; 6] {
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]
}

impl Kicks {
    pub fn new(pid: i32, sched_debug: bool) -> Self {
        Self {
            pid,
            sched_debug,
            waiting: HashMap::new(),
            fell_asleep: HashMap::new(),
            sleeps_in: HashMap::new(),
            last_stop: 0,
        }
    }

    /// Looks up when each thread fell asleep. Before the stop: stopping wakes it.
    pub fn sample(&mut self) {
        self.fell_asleep.clear();
        let pid = self.pid;
        self.sleeps_in.retain(|&tid, place| {
            let now = procfs::sleeps_in(pid, tid);
            now.map(|now| *place = now).is_some()
        });
        if !self.sched_debug {
            return;
        }
        let Ok(tids) = procfs::tasks(self.pid) else {
            return;
        };
        if tids.len() > SAMPLED_THREADS {
            return;
        }
        let Some(shift) = scheduler_clock_shift() else {
            return;
        };
        for tid in tids {
            if let Some(at) = procfs::last_ran_ns(self.pid, tid) {
                self.fell_asleep
                    .insert(tid, at.saturating_add_signed(shift));
            }
        }
    }

    /// Call when a stop ends.
    pub fn stopped_at(&mut self, now: u64) {
        self.last_stop = now;
    }

    /// Judges the call a stopped thread is in, and changes `regs` so that it goes on unharmed.
    /// True when `regs` must be set.
    pub fn settle(
        &mut self,
        stopped: &Stopped,
        regs: &mut user_regs_struct,
        signals: Signals,
        memory: &RemoteMemory,
        pidfd: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> (Option<BlockedCall>, bool) {
        let tid = stopped.tid();
        let old = self.waiting.remove(&tid);
        if let Some(waiting) = old.filter(|w| is_about_to_repeat(w, regs)) {
            return self.before_repeat(tid, waiting, regs);
        }
        let interrupted = blocking::is_interrupted(regs.rax);
        if regs.orig_rax.cast_signed() < 0
            || !(interrupted || blocking::is_restart_code(regs.rax))
            || matches!(stopped.why(), Why::Event(_) | Why::Syscall)
        {
            return (None, false);
        }
        let now = monotonic();
        let same = old.filter(|w| self.is_same(w, regs, tid));
        let nr = match same {
            Some(w) => w.nr,
            None => self.number(tid, regs),
        };
        let row = blocking::interruptible(nr);
        let under = blocking::mask_argument(nr).map(|n| args_of(regs)[n]);
        let under = under.and_then(|at| memory.read_u64(at).ok());
        let handled = signals.run_a_handler(under);
        let deadline = match same {
            Some(w) => w.deadline,
            None => row.and_then(|row| self.deadline(tid, row, regs, now, memory, pidfd)),
        };
        let blocked = BlockedCall {
            nr,
            remaining_ns: deadline.map(|d| d.saturating_sub(now)),
        };
        let ours = interrupted || same.is_some_and(|w| w.ours);
        let mut changed = false;
        let mut marked = same.is_some_and(|w| w.marked);
        if let Some(row) = row.filter(|_| ours && !handled) {
            let late = deadline.is_some_and(|d| d <= now);
            if late {
                regs.orig_rax = !0;
                regs.rax = row.timed_out.cast_unsigned();
                return (None, true);
            }
            if interrupted {
                regs.orig_rax = nr;
                regs.rax = blocking::RESTART_UNLESS_HANDLED;
                mark(regs);
                (changed, marked) = (true, true);
            }
        } else if interrupted {
            return (None, false);
        }
        // A call with a restart block shows another number from now on, a marked one its mark, and
        // without a deadline it does not matter.
        let alike = deadline.is_some() && !marked && !blocking::is_restart_block(regs.rax);
        let runs = alike.then(|| procfs::times_run(self.pid, tid)).flatten();
        let args = args_of(regs);
        self.waiting.insert(
            tid,
            Waiting {
                nr,
                args,
                rsp: regs.rsp,
                rip: regs.rip,
                deadline,
                runs,
                marked,
                ours,
            },
        );
        (Some(blocked), changed)
    }

    /// Number of a call met for the first time. The kernel's own restart hides it; what such a
    /// thread sleeps in tells it, from the next stop on.
    fn number(&mut self, tid: i32, regs: &user_regs_struct) -> u64 {
        if regs.orig_rax != RESTART_SYSCALL {
            return regs.orig_rax;
        }
        let known = self.sleeps_in.remove(&tid);
        if let Some(nr) = known.and_then(|place| blocking::restarted_in(&place, &args_of(regs))) {
            return nr;
        }
        self.sleeps_in.insert(tid, String::new());
        RESTART_SYSCALL
    }

    /// The thread was stopped again before it came to make its call again.
    fn before_repeat(
        &mut self,
        tid: i32,
        waiting: Waiting,
        regs: &mut user_regs_struct,
    ) -> (Option<BlockedCall>, bool) {
        let left = waiting.deadline.map(|d| d.saturating_sub(monotonic()));
        let row = blocking::interruptible(waiting.nr);
        if let (Some(0), Some(row), true) = (left, row, waiting.ours) {
            regs.rip = waiting.rip;
            regs.rax = row.timed_out.cast_unsigned();
            return (None, true);
        }
        self.waiting.insert(tid, waiting);
        (
            Some(BlockedCall {
                nr: waiting.nr,
                remaining_ns: left,
            }),
            false,
        )
    }

    /// Is the thread still in the call it was last let go in?
    fn is_same(&self, w: &Waiting, regs: &user_regs_struct, tid: i32) -> bool {
        if w.rip != regs.rip || w.rsp != regs.rsp || w.args != args_of(regs) {
            return false;
        }
        if regs.orig_rax == RESTART_SYSCALL {
            return true; // Only a call that was interrupted before gets there.
        }
        w.nr == regs.orig_rax
            && if w.marked {
                regs.eflags & MARK_BITS == MARK
            } else {
                self.has_run_little(w, tid)
            }
    }

    fn has_run_little(&self, w: &Waiting, tid: i32) -> bool {
        let runs = w.runs.zip(procfs::times_run(self.pid, tid));
        runs.is_some_and(|(then, now)| now.saturating_sub(then) <= RUNS_OF_ONE_CALL)
    }

    /// When a call that is seen for the first time times out.
    fn deadline(
        &self,
        tid: i32,
        row: Interruptible,
        regs: &user_regs_struct,
        now: u64,
        memory: &RemoteMemory,
        pidfd: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> Option<u64> {
        let total = timeout_ns(row.timeout, regs, memory, pidfd)?;
        // It was not in this call at the last stop, so the call began after that. Without a sleep
        // start the timeout counts from now: late is allowed, early is not.
        let began = self
            .fell_asleep
            .get(&tid)
            .copied()
            .filter(|&at| at <= now && at >= self.last_stop)
            .unwrap_or(now);
        Some(began.saturating_add(total))
    }

    /// After a rewind: the thread goes on in `nr` with `remaining` ns. `regs` are marked.
    pub fn expect(&mut self, tid: i32, regs: &user_regs_struct, nr: u64, remaining: Option<u64>) {
        let Some(remaining) = remaining else { return };
        let waiting = Waiting {
            nr,
            args: args_of(regs),
            rsp: regs.rsp,
            rip: regs.rip
                + if regs.orig_rax.cast_signed() < 0 {
                    2
                } else {
                    0
                },
            deadline: Some(monotonic().saturating_add(remaining)),
            runs: None,
            marked: true,
            ours: true,
        };
        self.waiting.insert(tid, waiting);
    }

    /// Forgets all calls; they no longer describe the threads.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.sleeps_in.clear();
    }

    /// A stopped thread was run by us meanwhile.
    pub fn ran(&mut self, tid: i32) {
        if let Some(waiting) = self.waiting.get_mut(&tid).filter(|w| w.runs.is_some()) {
            waiting.runs = procfs::times_run(self.pid, tid);
        }
    }

    /// The call a thread is in, where its registers may not tell.
    pub fn number_of(&self, tid: i32) -> Option<u64> {
        self.waiting.get(&tid).map(|w| w.nr)
    }

    /// Earliest time at which a call must be ended.
    pub fn next_deadline(&self) -> Option<u64> {
        self.waiting
            .values()
            .filter(|w| w.ours)
            .filter_map(|w| w.deadline)
            .min()
    }

    /// Takes the calls whose time has come.
    pub fn due(&mut self, now: u64) -> Vec<i32> {
        let due: Vec<i32> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.ours && w.deadline.is_some_and(|d| d <= now))
            .map(|(&tid, _)| tid)
            .collect();
        due
    }

    /// Stops one thread for a moment and settles its call, as any stop does. `seized` threads stay
    /// so.
    pub fn kick(
        &mut self,
        tid: i32,
        seized: bool,
        children: &Children,
        memory: &RemoteMemory,
        pidfd: std::os::fd::BorrowedFd<'_>,
    ) -> std::io::Result<()> {
        if !seized {
            ptrace::seize(tid, ptrace::option::SYSGOOD)
                .inspect_err(|_| _ = self.waiting.remove(&tid))?;
        }
        ptrace::interrupt(tid)?;
        let Some(Waited::Stopped(stopped)) = children.next(tid, Instant::now() + KICK_DEADLINE)?
        else {
            return Ok(());
        };
        let mut regs = stopped.regs()?;
        let mask = stopped.sigmask()?;
        let (own, shared) = (stopped.pending(false)?, stopped.pending(true)?);
        let caught = procfs::status(self.pid)?.sig_caught;
        let (_, changed) = self.settle(
            &stopped,
            &mut regs,
            Signals::of(&stopped, &[&own, &shared], mask, caught),
            memory,
            Some(pidfd),
        );
        if changed {
            stopped.set_regs(&regs)?;
        }
        let signal = signal_of(&stopped);
        if seized {
            stopped.cont(signal)
        } else {
            stopped.detach(signal)
        }
    }
}

/// Marks the flags a call is made again with.
pub fn mark(regs: &mut user_regs_struct) {
    regs.eflags = regs.eflags & !MARK_BITS | MARK;
}

/// Was it stopped again before it came to make its call again?
fn is_about_to_repeat(w: &Waiting, regs: &user_regs_struct) -> bool {
    let repeats = w.ours && regs.rax == w.nr || regs.rax == RESTART_SYSCALL;
    // In user mode orig_rax is -1 by then; on the way there it is the interrupted call's still.
    repeats && regs.rip == w.rip - 2 && regs.rsp == w.rsp && args_of(regs) == w.args
}

/// The relative timeout a call was made with, None for ever or for an absolute one.
fn timeout_ns(
    timeout: Timeout,
    regs: &user_regs_struct,
    memory: &RemoteMemory,
    pidfd: Option<std::os::fd::BorrowedFd<'_>>,
) -> Option<u64> {
    const TIMER_ABSTIME: u64 = 1;
    const FUTEX_WAIT: u64 = 0;
    let args = args_of(regs);
    let timespec = |address: u64| {
        if address == 0 {
            return None;
        }
        let seconds = memory.read_u64(address).ok()?;
        let ns = memory.read_u64(address + 8).ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(ns)
    };
    let of_socket = |send| {
        let number = i32::try_from(args[0]).ok()?;
        let socket = fd::pidfd_getfd(pidfd?, number).ok()?;
        fd::socket_timeout(socket.as_fd(), send).ok()?
    };
    match timeout {
        Timeout::Never => None,
        Timeout::Millis(n) => {
            // An int: the upper half of the register is not part of it.
            let bytes = args[n].to_le_bytes();
            let millis = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            u64::try_from(millis).ok().map(|ms| ms * 1_000_000)
        }
        Timeout::Timespec(n) => timespec(args[n]),
        Timeout::SocketReceive => of_socket(false),
        Timeout::SocketSend => of_socket(true),
        Timeout::Futex => (args[1] & 0x7f == FUTEX_WAIT).then(|| timespec(args[3]))?,
        Timeout::ClockSleep => (args[1] & TIMER_ABSTIME == 0).then(|| timespec(args[2]))?,
    }
}

/// CLOCK_MONOTONIC minus the scheduler's clock. Yielding brings this process's own entry up to
/// the present, so that the two can be compared.
fn scheduler_clock_shift() -> Option<i64> {
    let me = std::process::id().cast_signed();
    std::thread::yield_now();
    let own = procfs::last_ran_ns(me, me)?;
    Some(monotonic().cast_signed() - own.cast_signed())
}
