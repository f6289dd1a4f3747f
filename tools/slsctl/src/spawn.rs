//! Programs started under capture.
//!
//! The child is traced until it has become CMD, and stopped before CMD's own first instruction: the
//! first checkpoint is of that moment. `slsctl __exec` is that child.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::arguments::PartArg;
use crate::processes::{How, More, attach};
use crate::session::{Outcome, Session};

/// Start a program under checkpoints, wait for it and pass its exit status on
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl spawn -t 10 -- ./server --port 8080")]
pub struct Spawn {
    #[command(flatten)]
    part: PartArg,
    #[command(flatten)]
    how: How,
    /// Its descendants too
    #[arg(short = 'r')]
    follow: bool,
    /// The program and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

impl Spawn {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        session.client()?; // A daemon that cannot be had is told before the program starts.
        let mut child = Command::new(std::env::current_exe()?)
            .arg("__exec")
            .arg("--")
            .args(&self.command)
            .spawn()
            .context("start the program")?;
        let status = self.capture(session, &mut child);
        if status.is_err() {
            // It has not become CMD yet, or is lost to us: nothing may be left behind stopped.
            let _ = child.kill();
            let _ = child.wait();
        }
        Ok(Outcome::Status(passed_on(status?)))
    }

    fn capture(&self, session: &Session, child: &mut Child) -> anyhow::Result<ExitStatus> {
        // A Ctrl-C is for the program, which may go on after it; the status is still ours to pass.
        let mut ours = SigSet::empty();
        ours.add(Signal::SIGINT);
        ours.add(Signal::SIGQUIT);
        ours.thread_block()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        if !has_become(pid)? {
            return child.wait().context("wait for the program");
        }
        let more = More {
            follow: self.follow,
            hold: false,
            begins: true,
        };
        let attached = attach(session, pid.as_raw(), &self.part, &self.how, more)?;
        // Standard output is the program's.
        if session.json() {
            eprintln!("{}", attached.json());
        }
        kill(pid, Signal::SIGCONT).context("start the program")?;
        child.wait().context("wait for the program")
    }
}

/// Waits until it stands at its first instruction, stopped and no longer traced. False: it cannot be
/// executed, has said so, and ends.
fn has_become(pid: Pid) -> anyhow::Result<bool> {
    // What has ended is left for its status to be taken.
    let seen = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(pid), seen)? {
            WaitStatus::PtraceEvent(_, Signal::SIGTRAP, _)
            | WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
            WaitStatus::PtraceEvent(_, signal, _) | WaitStatus::Stopped(_, signal) => {
                waitpid(pid, None)?; // Seen.
                ptrace::cont(pid, signal)?;
            }
            _ => return Ok(false),
        }
    }
    waitpid(pid, None)?;
    ptrace::detach(pid, Signal::SIGSTOP)?;
    // Until it has taken the signal.
    waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    Ok(true)
}

/// As shells do: 128 and the signal for one that was killed.
pub fn passed_on(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Become CMD, and stop.
#[derive(Debug, Args)]
pub struct Exec {
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// What shells report for a program that is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

impl Exec {
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let [program, arguments @ ..] = &self.command[..] else {
            bail!("no program to run");
        };
        // The kernel stops it once it has become the program.
        ptrace::traceme().context("have the program stop at its beginning")?;
        let error = Command::new(program).args(arguments).exec();
        eprintln!("slsctl: {}: {error}", program.display());
        Ok(Outcome::Status(match error.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_RUN,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_passed_on_as_shells_do() {
        assert_eq!(passed_on(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(passed_on(ExitStatus::from_raw(9)), 137);
        assert_eq!(passed_on(ExitStatus::from_raw(0)), 0);
    }
}
