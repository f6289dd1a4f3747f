//! Threads made and ended, and the state each goes on with.

use std::collections::BTreeMap;

use sls_keeper::{Arg, FinalState, MakeThread, Step, Want};
use sls_record::{AltStack, Process, Thread};
use sls_sys::blocking::{self, RESTART_SYSCALL};

use super::Steps;
use crate::record::words;

const SS_ONSTACK: u32 = 1;
/// RSEQ_FLAG_UNREGISTER.
const UNREGISTER: u64 = 1;
/// sizeof(struct robust_list_head).
const ROBUST_HEAD: u64 = 24;

/// The thread that makes the calls: the main one when both states have it.
pub fn leader(from: &Process, to: &Process) -> Option<i32> {
    let there = |tid: i32| to.threads.iter().any(|t| t.tid == tid);
    let common = || from.threads.iter().map(|t| t.tid).filter(|&tid| there(tid));
    common()
        .find(|&tid| tid == from.pid)
        .or_else(|| common().next())
}

fn by_id(process: &Process) -> BTreeMap<i32, &Thread> {
    process.threads.iter().map(|t| (t.tid, t)).collect()
}

/// Ends what was started since, and has the kernel forget rseq areas that are to be others. Before
/// any mapping goes: a thread that runs while its area is not there is killed.
pub fn ends(steps: &mut Steps, from: &Process, to: &Process) {
    let new = by_id(to);
    for thread in &from.threads {
        match new.get(&thread.tid) {
            None => steps.list.push(Step::End { tid: thread.tid }),
            Some(is) if is.rseq != thread.rseq => {
                rseq(steps, thread, UNREGISTER, libc::EINVAL);
            }
            Some(_) => {}
        }
    }
}

/// `done` is what the kernel answers when it is so already.
fn rseq(steps: &mut Steps, thread: &Thread, flags: u64, done: i32) {
    let Some(r) = thread.rseq else { return };
    let args = [r.addr, u64::from(r.size), flags, u64::from(r.signature)];
    let args = args.map(Arg::Value).to_vec();
    let what = "register restartable sequences";
    let want = Want::Or(vec![done]);
    steps.call_in(thread.tid, what, libc::SYS_rseq, args, want);
}

/// Makes what has ended since, and gives the threads that are there what they had.
pub fn births(steps: &mut Steps, from: &Process, to: &Process) {
    let (old, new) = (by_id(from), by_id(to));
    for (&tid, &thread) in new.iter().filter(|(tid, _)| !old.contains_key(tid)) {
        steps.list.push(Step::Make(MakeThread {
            tid,
            clear_tid: thread.clear_tid.unwrap_or(0),
            robust: thread.robust_list,
            rseq: thread.rseq.map(|r| (r.addr, r.size, r.signature)),
        }));
        name(steps, tid, &thread.name);
        // At once: what one thread does one after the other takes one loan of it.
        if let Some(stack) = thread.altstack {
            altstack(steps, tid, stack);
        }
        if thread.clear_tid.is_none() {
            let what = "it could not be asked where its end is announced, so nobody can join it";
            steps.not_restored.push(format!("thread {tid}: {what}"));
        }
    }
    for (&tid, &thread) in &new {
        let Some(&was) = old.get(&tid) else { continue };
        if let Some(stack) = thread.altstack
            && was.altstack != Some(stack)
        {
            altstack(steps, tid, stack);
        }
        if was.name != thread.name {
            name(steps, tid, &thread.name);
        }
        registrations(steps, was, thread);
    }
}

/// Addresses a thread gave the kernel. They differ where the id has gone to another thread since,
/// which then becomes the one it was: at its end the kernel would else write into a third one.
fn registrations(steps: &mut Steps, was: &Thread, is: &Thread) {
    let tid = is.tid;
    let mut call = |what: &str, nr: i64, args: &[u64]| {
        let args = args.iter().copied().map(Arg::Value).collect();
        steps.call_in(tid, what, nr, args, Want::Success);
    };
    if let Some(address) = is.clear_tid
        && was.clear_tid != Some(address)
    {
        call("set_tid_address", libc::SYS_set_tid_address, &[address]);
    }
    if was.robust_list != is.robust_list {
        let (head, len) = is.robust_list;
        // None was given: an empty one by its usual length.
        let len = if head == 0 { ROBUST_HEAD } else { len };
        call(
            "set its robust list",
            libc::SYS_set_robust_list,
            &[head, len],
        );
    }
    if was.rseq != is.rseq {
        rseq(steps, is, 0, libc::EBUSY);
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
