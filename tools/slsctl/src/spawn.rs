//! Programs started under capture.
//!
//! The child stops itself before it becomes CMD, so that the first instruction of CMD already runs
//! under checkpoints: `slsctl __exec` is that child.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
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
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => {}
            other => bail!("the program ended before it was started: {other:?}"),
        }
        let attached = attach(
            session,
            pid.as_raw(),
            &self.part,
            &self.how,
            More::default(),
        )?;
        // Standard output is the program's.
        if session.json() {
            eprintln!("{}", attached.json());
        }
        kill(pid, Signal::SIGCONT).context("start the program")?;
        child.wait().context("wait for the program")
    }
}

/// As shells do: 128 and the signal for one that was killed.
pub fn passed_on(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Stop, then become CMD.
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
        raise(Signal::SIGSTOP)?;
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
