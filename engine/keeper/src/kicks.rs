//! Calls that a stop interrupts for good: made again, and ended when their timeout ends.
//!
//! Some calls answer a stop with EINTR although no signal is there (sls_sys::blocking). They are
//! made again with their whole timeout and all registers as they were; the true deadline is kept
//! here, and when it comes the thread is stopped for a moment and given the call's own timeout
//! result. So a target stopped a hundred times a second still sees its timeouts on time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libc::user_regs_struct;
use sls_keeper::BlockedCall;
use sls_sys::blocking::{self, Mask, RESTART_SYSCALL};
use sls_sys::ptrace::{self, Stopped, Waited, Why};
use sls_sys::{monotonic, procfs};

use crate::asleep::Asleep;
use crate::collect::Signals;
use crate::group::{Children, signal_of};
use crate::limits::{Limit, Place, args_of};

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
    /// What it gives then.
    timed_out: i64,
    /// How often the thread had run, where that must tell this call from the next one like it.
    runs: Option<u64>,
    /// Its flags carry the mark.
    marked: bool,
    /// Made again by us: nobody but us ends it on time.
    ours: bool,
}

impl Waiting {
    /// Ends the call: its time is over.
    fn end(&self, regs: &mut user_regs_struct, place: Place<'_>) {
        place.nothing_came(self.nr, &self.args);
        regs.rip = self.rip;
        regs.orig_rax = !0;
        regs.rax = self.timed_out.cast_unsigned();
    }

    fn is_due(&self, now: u64) -> bool {
        self.ours && self.deadline.is_some_and(|d| d <= now)
    }

    fn blocked(&self, now: u64) -> BlockedCall {
        BlockedCall {
            nr: self.nr,
            remaining_ns: self.deadline.map(|d| d.saturating_sub(now)),
        }
    }
}

/// All of them, by thread.
pub struct Kicks {
    pid: i32,
    asleep: Asleep,
    waiting: HashMap<i32, Waiting>,
    /// Threads in a call whose number nobody saw, and the kernel function they sleep in.
    sleeps_in: HashMap<i32, String>,
    last_stop: u64,
}

impl Kicks {
    pub fn new(pid: i32, sched_debug: bool) -> Self {
        Self {
            pid,
            asleep: Asleep::new(pid, sched_debug),
            waiting: HashMap::new(),
            sleeps_in: HashMap::new(),
            last_stop: 0,
        }
    }

    /// Looks up when each thread fell asleep. Before the stop: stopping wakes it.
    pub fn sample(&mut self) {
        let pid = self.pid;
        self.sleeps_in.retain(|&tid, place| {
            let now = procfs::sleeps_in(pid, tid);
            now.map(|now| *place = now).is_some()
        });
        self.asleep.sample();
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
        place: Place<'_>,
    ) -> (Option<BlockedCall>, bool) {
        let tid = stopped.tid();
        let old = self.waiting.remove(&tid);
        if let Some(waiting) = old.filter(|w| is_about_to_repeat(w, regs)) {
            return self.before_repeat(tid, waiting, regs, place);
        }
        place.take_interruption(regs);
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
        let args = args_of(regs);
        let row = blocking::interruptible(nr);
        let handled = signals.run_a_handler(waits_under(nr, &args, place));
        let limit = match (same, row) {
            (None, Some(row)) => place.limit(nr, row, regs),
            _ => None,
        };
        let deadline = match same {
            Some(w) => w.deadline,
            None => limit.map(|limit| self.deadline(tid, limit, now)),
        };
        let mut waiting = Waiting {
            nr,
            args,
            rsp: regs.rsp,
            rip: regs.rip,
            deadline,
            timed_out: same.map_or_else(
                || limit.map_or(0, |limit| limit.result),
                |same| same.timed_out,
            ),
            runs: None,
            marked: same.is_some_and(|w| w.marked),
            ours: interrupted
                || same.is_some_and(|w| w.ours)
                || limit.is_some_and(|limit| limit.starts_over),
        };
        let mut changed = false;
        if row.is_some() && waiting.ours && !handled {
            if deadline.is_some_and(|d| d <= now) {
                waiting.end(regs, place);
                return (None, true);
            }
            if interrupted {
                regs.orig_rax = nr;
                regs.rax = blocking::RESTART_UNLESS_HANDLED;
            }
            if interrupted || !waiting.marked {
                mark(regs);
                (changed, waiting.marked) = (true, true);
            }
        } else if interrupted {
            return (None, false);
        }
        // A call with a restart block shows another number from now on, a marked one its mark, and
        // without a deadline it does not matter.
        let alike = deadline.is_some() && !waiting.marked && !blocking::is_restart_block(regs.rax);
        waiting.runs = alike.then(|| procfs::times_run(self.pid, tid)).flatten();
        self.waiting.insert(tid, waiting);
        (Some(waiting.blocked(now)), changed)
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
        place: Place<'_>,
    ) -> (Option<BlockedCall>, bool) {
        let now = monotonic();
        if waiting.is_due(now) {
            waiting.end(regs, place);
            return (None, true);
        }
        self.waiting.insert(tid, waiting);
        (Some(waiting.blocked(now)), false)
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
    fn deadline(&self, tid: i32, limit: Limit, now: u64) -> u64 {
        // It was not in this call at the last stop, so the call began after that. Without a sleep
        // start the timeout counts from now: late is allowed, early is not.
        let began = self.asleep.since(tid);
        let began = began.filter(|&at| !limit.left && at <= now && at >= self.last_stop);
        began.unwrap_or(now).saturating_add(limit.ns)
    }

    /// After a rewind: the thread goes on in `nr` with `remaining` ns. `regs` are marked.
    pub fn expect(
        &mut self,
        tid: i32,
        regs: &user_regs_struct,
        (nr, remaining): (u64, Option<u64>),
        place: Place<'_>,
    ) {
        let Some(remaining) = remaining else { return };
        let row = blocking::interruptible(nr);
        let limit = row.and_then(|row| place.limit(nr, row, regs));
        let timed_out = limit.map_or(row.map_or(0, |row| row.timed_out), |limit| limit.result);
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
            timed_out,
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
            .filter(|(_, w)| w.is_due(now))
            .map(|(&tid, _)| tid)
            .collect();
        due
    }

    /// Is this thread's call one of those?
    pub fn is_due(&self, tid: i32, now: u64) -> bool {
        let waiting = self.waiting.get(&tid);
        waiting.is_some_and(|w| w.is_due(now))
    }

    /// Stops a thread that nobody traces for a moment and settles its call, as any stop does.
    pub fn kick(&mut self, tid: i32, children: &Children, place: Place<'_>) -> std::io::Result<()> {
        ptrace::seize(tid, ptrace::option::SYSGOOD)
            .inspect_err(|_| _ = self.waiting.remove(&tid))?;
        let Some(Waited::Stopped(stopped)) = interrupt(tid, children)? else {
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
            place,
        );
        if changed {
            stopped.set_regs(&regs)?;
        }
        let signal = signal_of(&stopped);
        stopped.detach(signal)
    }
}

/// Stops a thread whose call is to be ended; None when it cannot be stopped now.
pub fn interrupt(tid: i32, children: &Children) -> std::io::Result<Option<Waited>> {
    ptrace::interrupt(tid)?;
    children.next(tid, Instant::now() + KICK_DEADLINE)
}

/// The signal mask a call waits under, where it is not the thread's.
fn waits_under(nr: u64, args: &[u64; 6], place: Place<'_>) -> Option<u64> {
    let at = match blocking::mask_argument(nr, args)? {
        Mask::At(n) => args[n],
        Mask::Through(n) => place.memory.read_u64(args[n]).ok()?,
    };
    place.memory.read_u64(at).ok()
}

/// Marks the flags a call is made again with.
pub fn mark(regs: &mut user_regs_struct) {
    regs.eflags = regs.eflags & !MARK_BITS | MARK;
}

/// Was it stopped again before it came to make its call again?
fn is_about_to_repeat(w: &Waiting, regs: &user_regs_struct) -> bool {
    let marked = !w.marked || regs.eflags & MARK_BITS == MARK;
    let repeats = w.ours && marked && regs.rax == w.nr || regs.rax == RESTART_SYSCALL;
    // In user mode orig_rax is -1 by then; on the way there it is the interrupted call's still.
    repeats && regs.rip == w.rip - 2 && regs.rsp == w.rsp && args_of(regs) == w.args
}
