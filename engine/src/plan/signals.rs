//! Signal actions, pending signals, working directory, umask; timers last.

use sls_keeper::{Arg, Want};
use sls_record::{PosixTimer, Process, SigAction, SigInfo};

use super::{Steps, int, path};

const SIGNALS: i32 = 64;

/// Everything but pending signals and timers.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) {
    actions(steps, from, to);
    if from.umask != to.umask {
        let args = vec![Arg::Value(u64::from(to.umask))];
        steps.call("set the umask", libc::SYS_umask, args, Want::Success);
    }
    if from.cwd != to.cwd {
        let want = Want::Report(format!("working directory {}", to.cwd));
        steps.call(
            "change the working directory",
            libc::SYS_chdir,
            vec![path(&to.cwd)],
            want,
        );
    }
}

fn action(process: &Process, signo: i32) -> SigAction {
    let ignored = (process.signals.ignored >> (signo - 1)) & 1 == 1;
    let plain = SigAction {
        signo,
        handler: u64::from(ignored),
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    process
        .signals
        .actions
        .iter()
        .find(|a| a.signo == signo)
        .copied()
        .unwrap_or(plain)
}

fn actions(steps: &mut Steps, from: &Process, to: &Process) {
    for signo in (1..=SIGNALS).filter(|&n| n != libc::SIGKILL && n != libc::SIGSTOP) {
        let (was, is) = (action(from, signo), action(to, signo));
        if was == is {
            continue;
        }
        let mut bytes = Vec::with_capacity(32);
        for word in [is.handler, is.flags, is.restorer, is.mask] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let args = vec![int(signo), Arg::Bytes(bytes), Arg::Value(0), Arg::Value(8)];
        steps.call(
            "set a signal's action",
            libc::SYS_rt_sigaction,
            args,
            Want::Success,
        );
    }
}

/// Timers of what is left come to a stand, and what they have sent since that was recorded is taken,
/// which else would wait in a state that knows nothing of it. They are set again by [`timers`]. Once
/// every thread is there, and before [`pending`].
pub fn quieten(steps: &mut Steps, from: &Process, to: &Process, leader: i32) {
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD_ID: i32 = 4;
    const SIGNALS: [i32; 3] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];
    let mut sent = Vec::new();
    for timer in &from.itimers {
        let args = vec![
            u64::from(timer.which).into(),
            Arg::Bytes(vec![0; 32]),
            0.into(),
        ];
        let what = "stop an interval timer";
        steps.call(what, libc::SYS_setitimer, args, Want::Success);
        let signal = usize::try_from(timer.which)
            .ok()
            .and_then(|at| SIGNALS.get(at));
        sent.extend(signal.map(|&signal| (leader, signal)));
    }
    for timer in from.timers.iter().filter(|timer| timer.value_ns > 0) {
        let args = vec![int(timer.id), 0.into(), Arg::Bytes(vec![0; 32]), 0.into()];
        // One that was deleted, on the way back.
        let want = Want::Or(vec![libc::EINVAL]);
        steps.call("stop a timer", libc::SYS_timer_settime, args, want);
        let to_one = timer.notify & SIGEV_THREAD_ID != 0;
        let tid = if to_one { timer.tid } else { leader };
        if timer.notify != SIGEV_NONE && (!to_one || to.threads.iter().any(|t| t.tid == tid)) {
            sent.push((tid, timer.signo));
        }
    }
    let was = |tid: i32, signal: i32| {
        let thread = to.threads.iter().find(|t| t.tid == tid);
        let own = thread.into_iter().flat_map(|t| &t.pending);
        let mut all = to.signals.pending.iter().chain(own);
        all.any(|info| info.signo() == signal)
    };
    for (tid, signal) in sent {
        // One that waited then as well is to wait.
        if !was(tid, signal) {
            take(steps, tid, signal);
        }
    }
}

/// Pending signals that are not the same: all of the one are taken, all of the other queued. Once
/// every thread is there.
pub fn pending(steps: &mut Steps, from: &Process, to: &Process, leader: i32) {
    if from.signals.pending != to.signals.pending {
        for info in &from.signals.pending {
            take(steps, leader, info.signo());
        }
        for info in &to.signals.pending {
            let args = vec![int(to.pid), int(info.signo()), Arg::Bytes(info.0.clone())];
            steps.call(
                "queue a signal",
                libc::SYS_rt_sigqueueinfo,
                args,
                Want::Success,
            );
        }
    }
    let none: &[SigInfo] = &[];
    for thread in &to.threads {
        let was = from.threads.iter().find(|t| t.tid == thread.tid);
        let was = was.map_or(none, |t| &t.pending[..]);
        if was == &thread.pending[..] {
            continue;
        }
        for info in was {
            take(steps, thread.tid, info.signo());
        }
        for info in &thread.pending {
            let args = vec![
                int(to.pid),
                int(thread.tid),
                int(info.signo()),
                Arg::Bytes(info.0.clone()),
            ];
            let what = "queue a signal";
            steps.call_in(
                thread.tid,
                what,
                libc::SYS_rt_tgsigqueueinfo,
                args,
                Want::Success,
            );
        }
    }
}

/// Every signal is blocked in a parked thread, so a pending one can be taken without delivery.
fn take(steps: &mut Steps, tid: i32, signal: i32) {
    let bit = 1u64.checked_shl(signal.cast_unsigned().wrapping_sub(1));
    let args = vec![
        Arg::Bytes(bit.unwrap_or(0).to_le_bytes().to_vec()),
        Arg::Value(0),
        Arg::Bytes(vec![0; 16]),
        Arg::Value(8),
    ];
    let want = Want::Or(vec![libc::EAGAIN]);
    steps.call_in(
        tid,
        "take a pending signal",
        libc::SYS_rt_sigtimedwait,
        args,
        want,
    );
}

/// Timers, armed as late as can be.
pub fn timers(steps: &mut Steps, from: &Process, to: &Process) {
    interval_timers(steps, from, to);
    for timer in &from.timers {
        if !to.timers.iter().any(|t| same_timer(t, timer)) {
            let args = vec![int(timer.id)];
            let want = Want::Or(vec![libc::EINVAL]);
            steps.call("delete a timer", libc::SYS_timer_delete, args, want);
        }
    }
    for timer in &to.timers {
        if !from.timers.iter().any(|t| same_timer(t, timer)) {
            create(steps, timer);
        }
        let mut bytes = timespec(timer.interval_ns).to_vec();
        bytes.extend_from_slice(&timespec(timer.value_ns));
        let args = vec![
            int(timer.id),
            Arg::Value(0),
            Arg::Bytes(bytes),
            Arg::Value(0),
        ];
        let want = Want::Report(format!("timer {}", timer.id));
        steps.call("set a timer", libc::SYS_timer_settime, args, want);
    }
}

fn same_timer(a: &PosixTimer, b: &PosixTimer) -> bool {
    (a.id, a.clock, a.notify, a.signo, a.value) == (b.id, b.clock, b.notify, b.signo, b.value)
}

fn interval_timers(steps: &mut Steps, from: &Process, to: &Process) {
    for which in 0..3u32 {
        let find = |p: &Process| p.itimers.iter().find(|t| t.which == which).copied();
        let (was, is) = (find(from), find(to));
        if was.is_none() && is.is_none() {
            continue;
        }
        let timeval = |ns: u64| {
            let mut bytes = (ns / 1_000_000_000).to_le_bytes().to_vec();
            bytes.extend_from_slice(&(ns % 1_000_000_000 / 1000).to_le_bytes());
            bytes
        };
        let mut bytes = timeval(is.map_or(0, |t| t.interval_ns));
        // setitimer(2) takes nothing left as none. One that has rung rings again at once: its signal
        // waits still, and two of it are one.
        bytes.extend(timeval(is.map_or(0, |t| t.value_ns.max(1000))));
        let args = vec![
            Arg::Value(u64::from(which)),
            Arg::Bytes(bytes),
            Arg::Value(0),
        ];
        steps.call(
            "set an interval timer",
            libc::SYS_setitimer,
            args,
            Want::Success,
        );
    }
}

fn timespec(ns: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&(ns / 1_000_000_000).to_le_bytes());
    out[8..].copy_from_slice(&(ns % 1_000_000_000).to_le_bytes());
    out
}

/// Makes a timer under its old id.
fn create(steps: &mut Steps, timer: &PosixTimer) {
    // Linux 6.15; before, ids only ever grow and the old one cannot be had again.
    const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
    let restore = |on: u64| {
        vec![
            Arg::Value(PR_TIMER_CREATE_RESTORE_IDS),
            Arg::Value(on),
            0.into(),
            0.into(),
            0.into(),
        ]
    };
    let want = || Want::Report(format!("timer {}", timer.id));
    steps.call(
        "ask for a timer's own id",
        libc::SYS_prctl,
        restore(1),
        want(),
    );
    // struct sigevent: value, signo, notify, tid.
    let mut event = timer.value.to_le_bytes().to_vec();
    event.extend_from_slice(&timer.signo.to_le_bytes());
    event.extend_from_slice(&timer.notify.to_le_bytes());
    event.extend_from_slice(&timer.tid.to_le_bytes());
    event.resize(64, 0);
    let id = timer.id.to_le_bytes().to_vec();
    let args = vec![int(timer.clock), Arg::Bytes(event), Arg::Bytes(id)];
    steps.call("make a timer", libc::SYS_timer_create, args, want());
    steps.call("no more ids asked for", libc::SYS_prctl, restore(0), want());
}
