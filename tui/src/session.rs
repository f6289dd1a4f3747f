//! The process looked at: attached at the start where nobody had, let go of at the end by whoever attached it.

use std::path::PathBuf;

use anyhow::Context;
use libsls::protocol::{Answer, MEMORY_PARTITION, PsRow, Request};
use libsls::{Client, partition_name};

use crate::cli::{Cli, Command};
use crate::model::Target;
use crate::watcher::ps;
use crate::worker::Origin;

const DEFAULT_PERIOD_MS: u64 = 100;

/// What is looked at. Lets go of the process when dropped, should nobody have done so before.
pub struct Session {
    pub origin: Origin,
    pub target: Target,
    /// Something to be said at the start.
    pub remark: Option<String>,
    ours: Option<i32>,
}

impl Session {
    /// Opens what the command line names.
    ///
    /// # Errors
    /// The daemon cannot be reached, or refuses.
    pub fn open(cli: &Cli) -> anyhow::Result<(Self, Client)> {
        let mut origin = Origin {
            socket: match &cli.socket {
                Some(path) => std::path::absolute(path).context("--socket")?,
                None => libsls::default_socket()?,
            },
            daemon: daemon()?,
            part: String::new(),
            pid: None,
        };
        let mut client = origin.connect()?;
        let mut remark = None;
        let (target, ours) = match &cli.command {
            Command::Attach { pid, period_ms } => attach(&mut client, *pid, *period_ms)?,
            Command::Open { part } => (open(&mut client, &partition_name(part))?, None),
        };
        if let Command::Attach {
            period_ms: Some(_), ..
        } = &cli.command
            && ours.is_none()
        {
            let part = &target.part;
            remark = Some(format!(
                "attached already, in {part}: its period stays as it was"
            ));
        }
        origin.part.clone_from(&target.part);
        origin.pid = (target.pid != 0).then_some(target.pid);
        let session = Self {
            origin,
            target,
            remark,
            ours,
        };
        Ok((session, client))
    }

    /// Lets go of the process if this program attached it.
    ///
    /// # Errors
    /// It could not be let go of.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.let_go()
    }

    fn let_go(&mut self) -> anyhow::Result<()> {
        let Some(pid) = self.ours.take() else {
            return Ok(());
        };
        let mut client = Client::connect(&self.origin.socket)?;
        // One that has ended needs no letting go.
        if ps(&mut client)?.iter().any(|row| row.pid == pid) {
            let request = Request::Detach {
                pid: Some(pid),
                part: None,
            };
            client
                .tell(&request)
                .with_context(|| format!("let go of {pid}: try `slsctl detach -p {pid}`"))?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Only reached with something left to do when this program fails: its own error is what counts then.
        let _ = self.let_go();
    }
}

fn attach(
    client: &mut Client,
    pid: i32,
    period_ms: Option<u64>,
) -> anyhow::Result<(Target, Option<i32>)> {
    let held = |rows: Vec<PsRow>| {
        rows.into_iter()
            .find(|row| row.pid == pid && row.state != "dead")
    };
    if let Some(row) = held(ps(client)?) {
        return Ok((target(row, false), None));
    }
    let request = Request::Attach {
        pid,
        part: MEMORY_PARTITION.1.to_owned(),
        period_ms: Some(period_ms.unwrap_or(DEFAULT_PERIOD_MS)),
        follow: false,
        hold: false,
        begins: false,
    };
    match client.ask(&request)? {
        Answer::Attached { .. } => {}
        other => anyhow::bail!("slsd answered out of turn: {other:?}"),
    }
    let row = held(ps(client)?).with_context(|| format!("{pid} ended while it was attached"))?;
    Ok((target(row, true), Some(pid)))
}

fn open(client: &mut Client, part: &str) -> anyhow::Result<Target> {
    let history = client.history(Some(part))?;
    let row = ps(client)?.into_iter().find(|row| row.partition == part);
    // Without a process, the one that the newest checkpoint is of.
    let newest = history.checkpoints.last().and_then(|row| row.pids.first());
    Ok(match row {
        Some(row) => target(row, false),
        None => Target {
            pid: newest.copied().unwrap_or(0),
            part: part.to_owned(),
            state: "detached".to_owned(),
            ..Target::default()
        },
    })
}

fn target(row: PsRow, ours: bool) -> Target {
    Target {
        pid: row.pid,
        comm: row.comm,
        part: row.partition,
        state: row.state,
        trouble: row.trouble,
        ours,
    }
}

/// slsd belongs beside this program.
fn daemon() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the folder of slsd")?;
    Ok(own.with_file_name("slsd"))
}
