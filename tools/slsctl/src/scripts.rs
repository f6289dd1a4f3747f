//! Commands of the user's that run around a checkpoint or a restore, as CRIU has them.

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;

/// Commands that are run at certain moments
#[derive(Debug, Args)]
pub struct Scripts {
    /// Run this shell command before and after; CRTOOLS_SCRIPT_ACTION tells which (pre-dump,
    /// post-dump, pre-restore, post-restore where -s leaves it stopped, else post-resume). Again for
    /// more of them
    #[arg(long = "action-script", value_name = "COMMAND")]
    commands: Vec<String>,
}

/// What a command is told of the moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// As CRIU names it.
    pub action: &'a str,
    pub part: &'a str,
    /// Where there is one by then.
    pub epoch: Option<u64>,
    /// The first of the processes.
    pub pid: Option<i32>,
}

impl Scripts {
    pub fn any(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Runs all of them, in order, until one fails. What they print goes to standard error: standard
    /// output is for the answer.
    pub fn run(&self, moment: &Moment<'_>) -> anyhow::Result<()> {
        self.commands.iter().try_for_each(|c| run(c, moment))
    }
}

fn run(script: &str, moment: &Moment<'_>) -> anyhow::Result<()> {
    let failed = || format!("action script `{script}` for {}", moment.action);
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
        .stdout(Stdio::from(output))
        .env("CRTOOLS_SCRIPT_ACTION", moment.action)
        .env("SLS_PARTITION", moment.part);
    if let Some(epoch) = moment.epoch {
        command.env("SLS_EPOCH", epoch.to_string());
    }
    if let Some(pid) = moment.pid {
        let pid = pid.to_string();
        command.env("SLS_PID", &pid).env("CRTOOLS_INIT_PID", pid);
    }
    let status = command.status().with_context(failed)?;
    if !status.success() {
        bail!("{}: {status}", failed());
    }
    Ok(())
}
