//! Threads made and ended, and the state each goes on with.

use std::collections::BTreeMap;

use sls_keeper::{Arg, FinalState, MakeThread, Step, Want};
use sls_record::{AltStack, Process, Thread};
use sls_sys::blocking::{self, RESTART_SYSCALL};

use super::plan::Steps;
use crate::record::words;

const SS_ONSTACK: u32 = 1;

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
            clear_tid: thread.clear_tid.unwrap_or(0),
            robust: thread.robust_list,
            rseq: thread.rseq.map(|r| (r.addr, r.size, r.signature)),
        }));
        name(steps, tid, &thread.name);
        if thread.clear_tid.is_none() {
            let what = "it could not be asked where its end is announced, so nobody can join it";
            steps.not_restored.push(format!("thread {tid}: {what}"));
        }
    }
    for (&tid, thread) in &new {
        let was = old.get(&tid);
        if let Some(stack) = thread.altstack
            && was.and_then(|t| t.altstack) != Some(stack)
        {
            altstack(steps, tid, stack);
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

fn altstack(steps: &mut Steps, tid: i32, stack: AltStack) {
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
        let state = final_state(thread);
        steps.list.push(Step::Final(Box::new(state)));
    }
}

fn final_state(thread: &Thread) -> FinalState {
    let mut regs = thread.regs;
    let nr = thread.blocked.map_or(regs.orig_rax, |b| b.nr);
    if regs.orig_rax.cast_signed() >= 0 && blocking::is_restart_code(regs.rax) {
        // The kernel makes the call again, unless a handler runs first. Its own restart state
        // belongs to another moment: the keeper ends the call when its remaining time is over.
        regs.orig_rax = nr;
        if blocking::is_restart_block(regs.rax) {
            regs.rax = blocking::RESTART_UNLESS_HANDLED;
        }
    } else {
        if regs.rax == RESTART_SYSCALL && thread.blocked.is_some() {
            regs.rax = nr; // It was stopped just before the kernel's own restart.
        }
        regs.orig_rax = !0;
    }
    FinalState {
        tid: thread.tid,
        regs: words(&regs),
        xstate: thread.xstate.clone(),
        sigmask: thread.sigmask,
        blocked: thread.blocked.map(|b| (b.nr, b.remaining_ns)),
    }
}
