//! Everything a stopped thread tells, read while slsd scans and copies.

use std::io;

use libc::user_regs_struct;
use serde_bytes::ByteBuf;
use sls_keeper::ThreadState;
use sls_sys::fd;
use sls_sys::ptrace::{Stopped, Why};

use crate::kicks::Kicks;
use crate::limits::Place;

/// Words of user_regs_struct in its own order.
pub fn words(r: &user_regs_struct) -> [u64; 27] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds,
        r.es, r.fs, r.gs,
    ]
}

/// The other way.
pub fn regs(w: &[u64; 27]) -> user_regs_struct {
    user_regs_struct {
        r15: w[0],
        r14: w[1],
        r13: w[2],
        r12: w[3],
        rbp: w[4],
        rbx: w[5],
        r11: w[6],
        r10: w[7],
        r9: w[8],
        r8: w[9],
        rax: w[10],
        rcx: w[11],
        rdx: w[12],
        rsi: w[13],
        rdi: w[14],
        orig_rax: w[15],
        rip: w[16],
        cs: w[17],
        eflags: w[18],
        rsp: w[19],
        ss: w[20],
        fs_base: w[21],
        gs_base: w[22],
        ds: w[23],
        es: w[24],
        fs: w[25],
        gs: w[26],
    }
}

/// Signals pending for the whole process, read once per stop.
pub fn shared_pending(any: &Stopped) -> io::Result<Vec<[u8; 128]>> {
    any.pending(true)
}

/// Signals of pending siginfos as a mask.
pub fn mask_of(infos: &[[u8; 128]]) -> u64 {
    infos.iter().map(|i| bit(i[0])).fold(0, |a, b| a | b)
}

fn bit(signal: u8) -> u64 {
    1u64.checked_shl(u32::from(signal).wrapping_sub(1))
        .unwrap_or(0)
}

/// The signals that may interrupt a stopped thread's call, each as a mask.
#[derive(Debug, Clone, Copy)]
pub struct Signals {
    /// About to be delivered.
    now: u64,
    pending: u64,
    blocked: u64,
    caught: u64,
}

impl Signals {
    pub fn of(stopped: &Stopped, pending: &[&[[u8; 128]]], blocked: u64, caught: u64) -> Self {
        let now = match stopped.why() {
            Why::Signal(signal) => bit(u8::try_from(signal).unwrap_or(0)),
            _ => 0,
        };
        let pending = pending.iter().fold(0, |all, infos| all | mask_of(infos));
        Self {
            now,
            pending,
            blocked,
            caught,
        }
    }

    /// Does a handler run when the thread goes on? It then sees its call interrupted, as it would
    /// without us. What is not caught does not end a call; it is met here only because traced
    /// threads are shown ignored signals too. `under` is the mask the call waits under, where it is
    /// not the thread's.
    pub fn run_a_handler(&self, under: Option<u64>) -> bool {
        (self.pending & !under.unwrap_or(self.blocked) | self.now) & self.caught != 0
    }
}

/// State of one thread; its interrupted call is settled on the way.
pub fn thread(
    stopped: &Stopped,
    shared: &[[u8; 128]],
    caught: u64,
    kicks: &mut Kicks,
    place: Place<'_>,
) -> io::Result<ThreadState> {
    let mut regs = stopped.regs()?;
    let sigmask = stopped.sigmask()?;
    let own = stopped.pending(false)?;
    let signals = Signals::of(stopped, &[shared, &own], sigmask, caught);
    let (blocked, changed) = kicks.settle(stopped, &mut regs, signals, place);
    if changed {
        stopped.set_regs(&regs)?;
    }
    let mut pending: Vec<ByteBuf> = Vec::new();
    if let Why::Signal(_) = stopped.why() {
        pending.push(ByteBuf::from(stopped.siginfo()?));
    }
    pending.extend(own.into_iter().map(ByteBuf::from));
    let mut xstate = Vec::new();
    stopped.xstate(&mut xstate)?;
    Ok(ThreadState {
        tid: stopped.tid(),
        regs: words(&regs),
        xstate,
        sigmask,
        pending,
        robust: fd::robust_list(stopped.tid()).unwrap_or_default(),
        rseq: stopped.rseq().unwrap_or(None),
        group_stop: matches!(stopped.why(), Why::Group(_)),
        blocked,
        own: None,
        own_tid: stopped.tid(),
    })
}
