//! What a restore's plans begin at.

use sls_record::{Process, Signals, Thread};
use sls_sys::procfs;

use crate::attributes::{self, Outside};
use crate::record::plain_mappings;

/// What a process that was just made has: a main thread, and what it got from its maker. By its own
/// numbers.
pub fn of(to: &Process) -> std::io::Result<Process> {
    let pid = to.outside();
    let status = procfs::status(pid)?;
    let outside = Outside::read(pid).unwrap_or_default();
    Ok(Process {
        pid: to.pid,
        pgid: status.own.pgid,
        sid: status.own.sid,
        start_ticks: procfs::stat(pid)?.start_ticks,
        cwd: procfs::link(pid, "cwd"),
        root: procfs::link(pid, "root"),
        umask: status.umask,
        attributes: attributes::of_process(&status, &outside),
        terminal: outside.terminal.clone(),
        threads: vec![Thread {
            tid: to.pid,
            name: status.name.clone(),
            clear_tid: Some(0),
            ..Thread::default()
        }],
        mappings: plain_mappings(&procfs::maps(pid)?),
        signals: Signals {
            ignored: status.sig_ignored,
            caught: status.sig_caught,
            ..Signals::default()
        },
        ..Process::default()
    })
}
