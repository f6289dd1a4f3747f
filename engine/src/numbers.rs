//! Records have the numbers by which a program knows itself and others: those of its own PID
//! namespace. Everything that looks a process up has slsd's.

use std::collections::BTreeMap;

use sls_record::{Ended, Process};
use sls_sys::procfs::{self, Stat, Status};

/// Gives a process, read by slsd's numbers, those of its own namespace. `threads` has its threads by
/// slsd's.
pub fn inward(process: &mut Process, status: &Status, threads: &BTreeMap<i32, i32>) {
    let depth = status.own.depth;
    if depth == 0 {
        return;
    }
    let of_thread = |tid: i32| threads.get(&tid).copied().unwrap_or(0);
    process.outside = process.pid;
    process.pid = status.own.tgid;
    process.ppid = of(process.ppid, depth);
    process.pgid = status.own.pgid;
    process.sid = status.own.sid;
    for thread in &mut process.threads {
        thread.tid = of_thread(thread.tid);
    }
    let pid = process.pid;
    process.threads.sort_by_key(|t| (t.tid != pid, t.tid));
    for timer in process.timers.iter_mut().filter(|t| t.tid != 0) {
        timer.tid = of_thread(timer.tid);
    }
    for tid in process.filters.iter_mut().flat_map(|f| &mut f.tids) {
        *tid = of_thread(*tid);
    }
    if let Some(terminal) = &mut process.terminal {
        terminal.foreground = of(terminal.foreground, depth);
    }
}

/// A process that has ended, by the numbers of its own namespace.
pub fn ended(stat: &Stat, status: Status) -> Ended {
    let own = status.own;
    Ended {
        pid: own.tgid,
        ppid: of(stat.ppid, own.depth),
        pgid: own.pgid,
        sid: own.sid,
        comm: status.name,
        status: stat.exit_code,
        exit_signal: stat.exit_signal,
    }
}

/// Its number in the namespace at this depth; 0: it is in none there.
fn of(pid: i32, depth: usize) -> i32 {
    if depth == 0 {
        return pid;
    }
    let there = procfs::status(pid).ok().filter(|s| s.own.depth == depth);
    there.map_or(0, |s| s.own.tgid)
}
