//! A held target: seized between checkpoints, so that what ends or changes it is seen coming.

use std::io;

use sls_keeper::EventKind;
use sls_sys::ptrace::{self, Stopped, Why, option};
use sls_sys::{RemoteMemory, frame, procfs};

/// PTRACE_O_* of a held target.
pub const HOLD_OPTIONS: usize =
    option::SYSGOOD | option::CLONE | option::FORK | option::VFORK | option::EXEC | option::EXIT;

const TRAP_HWBKPT: u8 = 4;
const RESUME_FLAG: u64 = 1 << 16;
/// Local enable bits of debug register 7, exact execution breakpoints of one byte.
const ENABLE: [u64; 2] = [1, 1 << 2];

/// What to do with a stop of a held thread.
pub enum Seen {
    /// Tell slsd and wait.
    Tell(EventKind, Stopped),
    /// Nothing; it ran on.
    Passed,
    /// Nothing; it is in a group stop and listens.
    Listening,
}

/// Breakpoints on the places where libc calls execve: in debug registers, no code is changed.
pub struct ExecSites(Vec<u64>);

impl ExecSites {
    pub fn find(memory: &RemoteMemory, pid: i32) -> Self {
        let maps = procfs::maps(pid).unwrap_or_default();
        let mut sites = frame::exec_sites(memory, &maps);
        sites.truncate(ENABLE.len());
        Self(sites)
    }

    /// Arms them in one thread.
    pub fn arm(&self, thread: &Stopped) -> io::Result<()> {
        let mut control = 0;
        for (index, &site) in self.0.iter().enumerate() {
            thread.set_debug_register(index, site)?;
            control |= ENABLE[index];
        }
        if control == 0 {
            Ok(())
        } else {
            thread.set_debug_register(7, control)
        }
    }

    /// Takes them away, before letting go.
    pub fn disarm(&self, thread: &Stopped) -> io::Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            thread.set_debug_register(7, 0)
        }
    }

    fn hit(&self, thread: &Stopped) -> io::Result<bool> {
        let info = thread.siginfo()?;
        Ok(info[8] == TRAP_HWBKPT && self.0.contains(&thread.regs()?.rip))
    }
}

/// Signals whose default action leaves the process alive.
fn harmless_by_default(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
    )
}

fn is_fatal(pid: i32, signal: i32) -> bool {
    let Ok(status) = procfs::status(pid) else {
        return false;
    };
    let bit = 1u64
        .checked_shl(signal.cast_unsigned().wrapping_sub(1))
        .unwrap_or(0);
    (status.sig_caught | status.sig_ignored) & bit == 0 && !harmless_by_default(signal)
}

/// Judges a stop that nobody asked for.
pub fn judge(pid: i32, stopped: Stopped, sites: &ExecSites) -> io::Result<Seen> {
    let tid = stopped.tid();
    match stopped.why() {
        Why::Signal(libc::SIGTRAP) if sites.hit(&stopped)? => {
            let mut regs = stopped.regs()?;
            regs.eflags |= RESUME_FLAG; // Once past this instruction the breakpoint is live again.
            stopped.set_regs(&regs)?;
            Ok(Seen::Tell(EventKind::Exec { tid }, stopped))
        }
        Why::Signal(signal) if is_fatal(pid, signal) => {
            let info = stopped.siginfo()?.to_vec();
            Ok(Seen::Tell(EventKind::Fatal { tid, info }, stopped))
        }
        Why::Signal(signal) => stopped.cont(signal).map(|()| Seen::Passed),
        Why::Group(_) => stopped.listen().map(|()| Seen::Listening),
        Why::Event(ptrace::event::FORK | ptrace::event::VFORK | ptrace::event::CLONE) => {
            let child = i32::try_from(stopped.event_message()?).unwrap_or(0);
            let same = procfs::status(child).is_ok_and(|s| s.tgid == pid);
            if same {
                return stopped.cont(0).map(|()| Seen::Passed);
            }
            Ok(Seen::Tell(EventKind::Fork { tid, child }, stopped))
        }
        Why::Event(ptrace::event::EXIT) => {
            let status = i32::try_from(stopped.event_message()?).unwrap_or(0);
            if is_whole_process(pid, &stopped)? {
                return Ok(Seen::Tell(EventKind::Exit { status }, stopped));
            }
            stopped.cont(0).map(|()| Seen::Passed)
        }
        Why::Interrupt | Why::Syscall | Why::Event(_) => {
            sites.arm(&stopped)?;
            stopped.cont(0).map(|()| Seen::Passed)
        }
    }
}

/// Is it the process that exits, not just one of its threads?
fn is_whole_process(pid: i32, stopped: &Stopped) -> io::Result<bool> {
    let nr = stopped.regs()?.orig_rax.cast_signed();
    Ok(nr == libc::SYS_exit_group || procfs::tasks(pid)?.len() == 1)
}
