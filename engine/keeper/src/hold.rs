//! A held target: seized between checkpoints, so that what ends or changes it is seen coming.

use std::io;

use sls_keeper::EventKind;
use sls_sys::procfs;
use sls_sys::ptrace::{self, Stopped, Why, option};

use crate::debug::DebugRegisters;

/// PTRACE_O_* of a held target.
pub const HOLD_OPTIONS: usize =
    option::SYSGOOD | option::CLONE | option::FORK | option::VFORK | option::EXEC | option::EXIT;

const RESUME_FLAG: u64 = 1 << 16;

/// What to do with a stop of a held thread.
pub enum Seen {
    /// Tell slsd and wait.
    Tell(EventKind, Stopped),
    /// Nothing; it ran on.
    Passed,
    /// Nothing; it is in a group stop and listens.
    Listening,
}

/// Does a signal end the process?
pub fn is_fatal(pid: i32, signal: i32) -> bool {
    procfs::status(pid).is_ok_and(|status| status.ends_by(signal))
}

/// Judges a stop that nobody asked for.
pub fn judge(pid: i32, stopped: Stopped, debug: &DebugRegisters) -> io::Result<Seen> {
    let tid = stopped.tid();
    match stopped.why() {
        Why::Signal(libc::SIGTRAP) if debug.is_exec(&stopped)? => {
            let mut regs = stopped.regs()?;
            regs.eflags |= RESUME_FLAG; // Once past this instruction the breakpoint is live again.
            stopped.set_regs(&regs)?;
            // The trap is ours, not the program's.
            Ok(Seen::Tell(
                EventKind::Exec { tid },
                stopped.without_signal(),
            ))
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
            debug.arm(&stopped)?;
            stopped.cont(0).map(|()| Seen::Passed)
        }
    }
}

/// Is it the process that exits, not just one of its threads?
fn is_whole_process(pid: i32, stopped: &Stopped) -> io::Result<bool> {
    let nr = stopped.regs()?.orig_rax.cast_signed();
    Ok(nr == libc::SYS_exit_group || procfs::tasks(pid)?.len() == 1)
}
