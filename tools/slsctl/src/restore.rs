//! Processes made anew from a checkpoint.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use libsls::EpochRef;
use libsls::protocol::{Answer, Request, Restored};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde_json::{Map, Value as Json, json};

use crate::arguments::PartArg;
use crate::output::{Paint, micros};
use crate::progress::Shown;
use crate::scripts::{Moment, Scripts};
use crate::session::{Outcome, Session, out_of_turn};
use crate::spawn::passed_on;

/// Signals that a terminal or a supervisor sends to whoever is in the foreground.
const PASSED_ON: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
];

/// How long slsd may take to know of an end.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);

/// Make the process of a checkpoint anew, after its end, and wait for it
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl restore @7 -d")]
pub struct Restore {
    #[command(flatten)]
    part: PartArg,
    /// The checkpoint: @7, @name or @-1
    #[arg(value_name = "@N", default_value = "@-1")]
    from: EpochRef,
    /// Leave it stopped; `slsctl resume` lets it run
    #[arg(short = 's')]
    stay_stopped: bool,
    /// Do not wait for its end; otherwise its exit status is passed on
    #[arg(short = 'd')]
    detached: bool,
    /// Go on although files it had mapped or open have changed or are gone
    #[arg(long)]
    force: bool,
    /// Let it run at once: its memory is brought as it is needed, and the rest behind that. As root
    #[arg(long)]
    lazy: bool,
    /// In a PID namespace of its own, so that it does not matter who has its numbers: it sees those
    /// that it had, everybody else sees others
    #[arg(long)]
    pidns: bool,
    /// With all TCP connections closed, also those among the processes themselves
    #[arg(long)]
    tcp_close: bool,
    /// In the place of what was open on RESOURCE, as `slsctl fds` names it, have this descriptor of
    /// whoever calls slsctl: fd[1]:pipe:[7]. It stays as it is, with its offset and flags
    #[arg(long, value_name = "fd[N]:RESOURCE", value_parser = inherited)]
    inherit_fd: Vec<(i32, String)>,
    #[command(flatten)]
    scripts: Scripts,
}

impl Restore {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.part.name().as_deref())?;
        let epoch = self.from.resolve(&history)?;
        let pids = history.checkpoints.iter().find(|c| c.epoch == epoch);
        let mut moment = Moment {
            action: "pre-restore",
            part: &history.partition,
            epoch: Some(epoch),
            pid: pids.and_then(|c| c.pids.first().copied()),
        };
        self.scripts.run(&moment)?;
        // Before it is there, so that none that comes meanwhile ends who waits for it.
        let signals = (!self.detached).then(take_signals).transpose()?;
        let restored = ask(session, history.partition.clone(), epoch, self)?;
        let process = restored
            .pids
            .first()
            .and_then(|&(_, pid)| Pid::from_raw(pid))
            .context("slsd restored no process")?;
        // None: it has ended already.
        let life = pidfd_open(process, PidfdFlags::empty()).ok();
        session.answer(&restored_json(&restored), |paint| {
            restored_text(&restored, paint)
        })?;
        moment.action = if self.stay_stopped {
            "post-restore"
        } else {
            "post-resume"
        };
        self.scripts.run(&moment)?;
        let Some(signals) = signals else {
            return Ok(Outcome::Done);
        };
        if let Some(life) = life {
            wait(&life, &signals)?;
        }
        let status = how_it_ended(session, restored.partition, process)?;
        Ok(Outcome::Status(passed_on(status)))
    }
}

/// As CRIU has it.
fn inherited(text: &str) -> Result<(i32, String), String> {
    let parsed = text.strip_prefix("fd[").and_then(|t| t.split_once("]:"));
    let (number, name) = parsed.ok_or("it is written fd[N]:RESOURCE")?;
    match number.parse() {
        Ok(number) if number >= 0 && !name.is_empty() => Ok((number, name.to_owned())),
        _ => Err("it is written fd[N]:RESOURCE".to_owned()),
    }
}

/// slsd takes note of it at about the same time; its keeper, if it has a thread just then, before.
fn how_it_ended(session: &Session, part: String, process: Pid) -> anyhow::Result<ExitStatus> {
    let pid = process.as_raw_nonzero().get();
    let request = Request::Ended {
        part: Some(part),
        pid,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match session.ask(&request)? {
            Answer::Ended(Some(status)) => return Ok(ExitStatus::from_raw(status)),
            Answer::Ended(None) if Instant::now() < deadline => std::thread::sleep(STEP),
            Answer::Ended(None) => bail!("slsd does not know how process {pid} ended"),
            other => return Err(out_of_turn(&other)),
        }
    }
}

fn ask(session: &Session, part: String, epoch: u64, how: &Restore) -> anyhow::Result<Restored> {
    let _shown = Shown::waiting("restore");
    let request = Request::Restore {
        part: Some(part),
        epoch,
        stay_stopped: how.stay_stopped,
        force: how.force,
        inherit: how.inherit_fd.clone(),
        lazy: how.lazy,
        pidns: how.pidns,
        tcp_close: how.tcp_close,
    };
    match session.ask(&request)? {
        Answer::Restored(restored) => Ok(restored),
        other => Err(out_of_turn(&other)),
    }
}

fn take_signals() -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    PASSED_ON.into_iter().for_each(|signal| set.add(signal));
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// Waits for its end, and passes on what comes for whoever is in the foreground.
fn wait(life: &OwnedFd, signals: &SignalFd) -> anyhow::Result<()> {
    loop {
        let mut fds = [life.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[0].any().unwrap_or(false) {
            return Ok(());
        }
        while let Some(info) = signals.read_signal()? {
            let number = i32::try_from(info.ssi_signo)?;
            if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                // It has just ended, which the next round finds.
                let _ = pidfd_send_signal(life, signal);
            }
        }
    }
}

pub fn restored_json(restored: &Restored) -> Json {
    let pids: Map<String, Json> = restored
        .pids
        .iter()
        .map(|(old, new)| (old.to_string(), json!(new)))
        .collect();
    json!({
        "pids": pids,
        "us": restored.us,
        "not_restored": restored.not_restored,
        "partition": restored.partition,
        "epoch": restored.epoch,
        "branch": restored.branch,
        "pages": restored.pages,
    })
}

pub fn restored_text(restored: &Restored, paint: Paint) -> String {
    let name = |&(old, new): &(i32, i32)| match old == new {
        true => new.to_string(),
        false => format!("{new} ({old} inside)"),
    };
    let pids: Vec<String> = restored.pids.iter().map(name).collect();
    let mut text = format!(
        "restored {} as {} {}: {} pages in {}; now on branch {}\n",
        paint.name(&format!("@{}", restored.epoch)),
        if pids.len() == 1 {
            "process"
        } else {
            "processes"
        },
        pids.join(", "),
        restored.pages,
        micros(restored.us),
        restored.branch,
    );
    for what in &restored.not_restored {
        text += &format!("{} {what}\n", paint.bad("not restored:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inherited_is_written_as_for_criu() {
        assert_eq!(inherited("fd[3]:pipe:[7]"), Ok((3, "pipe:[7]".into())));
        assert_eq!(inherited("fd[0]:tmp/x]:y"), Ok((0, "tmp/x]:y".into())));
        for wrong in ["", "3:x", "fd[-1]:x", "fd[x]:y", "fd[1]:", "fd[1]x"] {
            assert!(inherited(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_contracts_keys() {
        let restored = Restored {
            partition: "mem".into(),
            epoch: 7,
            pids: vec![(41, 41)],
            branch: "restore-1".into(),
            pages: 3,
            us: 812,
            not_restored: vec!["x".into()],
        };
        let json = restored_json(&restored);
        assert_eq!(json["pids"]["41"], 41);
        assert_eq!(json["us"], 812);
        assert_eq!(json["not_restored"][0], "x");
        assert!(restored_text(&restored, Paint::PLAIN).ends_with("not restored: x\n"));
    }
}
