//! Threads made and ended, and the state each goes on with.

use std::collections::BTreeMap;

use sls_keeper::{Arg, FinalState, MakeThread, Step, Want};
use sls_record::{Process, Thread};
use sls_sys::blocking;

use super::plan::Steps;
use crate::record::words;

const SS_ONSTACK: u32 = 1;
const RESTART_SYSCALL: u64 = 219;

/// The thread that makes the calls: the main one when both states have it.
pub fn leader(from: &Process, to: &Process) -> Option<i32> {
    let there = |tid: i32| to.threads.iter().any(|t| t.tid == tid);
    let common = || from.threads.iter().map(|t| t.tid).filter(|&tid| there(tid));
    common()
        .find(|&tid| tid == from.pid)
        .or_else(|| common().next())
}

/// Ends what was started since, makes what has ended since.
pub fn ends_and_births(steps: &mut Steps, from: &Process, to: &Process) {
    let index = |p: &Process| -> BTreeMap<i32, Thread> {
        p.threads.iter().map(|t| (t.tid, t.clone())).collect()
    };
    let (old, new) = (index(from), index(to));
    for &tid in old.keys().filter(|tid| !new.contains_key(tid)) {
        steps.list.push(Step::End { tid });
    }
    for (&tid, thread) in new.iter().filter(|(tid, _)| !old.contains_key(tid)) {
        steps.list.push(Step::Make(MakeThread {
            tid,
            clear_tid: thread.clear_tid,
            robust: thread.robust_list,
            rseq: thread.rseq.map(|r| (r.addr, r.size, r.signature)),
        }));
        name(steps, tid, &thread.name);
    }
    for (&tid, thread) in &new {
        let was = old.get(&tid);
        if was.map(|t| t.altstack) != Some(thread.altstack) {
            altstack(steps, tid, thread);
        }
        if let Some(was) = was
            && was.name != thread.name
        {
            name(steps, tid, &thread.name);
        }
    }
}

fn name(steps: &mut Steps, tid: i32, name: &str) {
    const PR_SET_NAME: u64 = 15;
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    let args = vec![Arg::Value(PR_SET_NAME), Arg::Bytes(bytes)];
    steps.call_in(tid, "set its name", libc::SYS_prctl, args, Want::Success);
}

fn altstack(steps: &mut Steps, tid: i32, thread: &Thread) {
    let stack = thread.altstack;
    let mut bytes = stack.sp.to_le_bytes().to_vec();
    // Being on it is a matter of the stack pointer, not of this flag.
    bytes.extend_from_slice(&u64::from(stack.flags & !SS_ONSTACK).to_le_bytes());
    bytes.extend_from_slice(&stack.size.to_le_bytes());
    let args = vec![Arg::Bytes(bytes), Arg::Value(0)];
    let what = "set its alternate signal stack";
    steps.call_in(tid, what, libc::SYS_sigaltstack, args, Want::Success);
}

/// Registers, vector state, mask: set when all else is done.
pub fn finals(steps: &mut Steps, to: &Process) {
    for thread in &to.threads {
        steps.list.push(Step::Final(Box::new(final_state(thread))));
    }
}

fn final_state(thread: &Thread) -> FinalState {
    let mut regs = thread.regs;
    let interrupted = regs.orig_rax.cast_signed() >= 0 && blocking::is_restart_code(regs.rax);
    if interrupted {
        // The kernel's own restart state belongs to another moment: the call is made again by
        // hand, and the keeper ends it when its remaining time is over.
        let nr = thread.blocked.map_or(regs.orig_rax, |b| b.nr);
        if nr == RESTART_SYSCALL {
            regs.rax = (-i64::from(libc::EINTR)).cast_unsigned();
        } else {
            regs.rip -= 2;
            regs.rax = nr;
        }
    }
    if let Some(blocked) = thread
        .blocked
        .filter(|_| !interrupted && regs.rax == RESTART_SYSCALL)
    {
        regs.rax = blocked.nr; // It was stopped just before the kernel's own restart.
    }
    regs.orig_rax = !0;
    FinalState {
        tid: thread.tid,
        regs: words(&regs),
        xstate: thread.xstate.clone(),
        sigmask: thread.sigmask,
        blocked: thread.blocked.map(|b| (b.nr, b.remaining_ns)),
    }
}
