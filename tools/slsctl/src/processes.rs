//! Processes: held, let go, stopped, listed.

use clap::Args;
use libsls::protocol::{Answer, PsRow, Request};
use serde_json::{Value as Json, json};

use crate::arguments::{PartArg, pid};
use crate::output::{Paint, Table, left, right};
use crate::progress::Shown;
use crate::session::{Outcome, Session, out_of_turn};

/// Put a running process under checkpoints; it is not changed and runs on
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl attach -p 1234 -t 10")]
pub struct Attach {
    /// The process
    #[arg(short = 'p', value_name = "PID", value_parser = pid)]
    pid: i32,
    #[command(flatten)]
    part: PartArg,
    #[command(flatten)]
    how: How,
    /// Its descendants too, those made later included
    #[arg(short = 'r')]
    follow: bool,
    /// Stay seized, so that a crash, exec, fork or exit is checkpointed as it happens
    #[arg(long)]
    hold: bool,
}

/// What `attach` and `spawn` both take.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct How {
    /// Checkpoint every MS milliseconds
    #[arg(short = 't', value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub period_ms: Option<u64>,
}

impl Attach {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let more = More {
            follow: self.follow,
            hold: self.hold,
            begins: false,
        };
        let attached = attach(session, self.pid, &self.part, &self.how, more)?;
        session.answer(&attached.json(), |_| attached.text())?;
        Ok(Outcome::Done)
    }
}

/// What came of an attach.
pub struct Attached {
    part: String,
    pid: i32,
    tracking: String,
}

impl Attached {
    pub fn json(&self) -> Json {
        json!({"partition": self.part, "pid": self.pid, "tracking": self.tracking})
    }

    pub fn text(&self) -> String {
        format!(
            "process {} is in partition {}; changes are found by {}\n",
            self.pid, self.part, self.tracking
        )
    }
}

/// What `attach` and `spawn` do not both take.
#[derive(Debug, Clone, Copy, Default)]
pub struct More {
    /// Descendants too.
    pub follow: bool,
    /// Stay seized.
    pub hold: bool,
    /// It is about to begin; the first checkpoint is of that.
    pub begins: bool,
}

/// Attaches to a process.
pub fn attach(
    session: &Session,
    pid: i32,
    part: &PartArg,
    how: &How,
    more: More,
) -> anyhow::Result<Attached> {
    let _shown = Shown::waiting("attach");
    let request = Request::Attach {
        pid,
        part: part.name_or_memory(),
        period_ms: how.period_ms,
        follow: more.follow,
        hold: more.hold,
        begins: more.begins,
    };
    match session.ask(&request)? {
        Answer::Attached { part, tracking } => Ok(Attached {
            part,
            pid,
            tracking,
        }),
        other => Err(out_of_turn(&other)),
    }
}

/// Let a process go, and those that came with it: they run on as if never touched, and the history stays
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl detach -p 1234")]
pub struct Detach {
    /// The process
    #[arg(short = 'p', value_name = "PID", value_parser = pid, conflicts_with_all = ["part", "memory"])]
    pid: Option<i32>,
    #[command(flatten)]
    part: PartArg,
}

impl Detach {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let rows = ps(session)?;
        let part = match self.pid {
            Some(_) => None,
            None => Some(session.part(&self.part)?),
        };
        let of = |row: &&PsRow| self.pid == Some(row.pid) || part.as_ref() == Some(&row.partition);
        let held = rows.iter().find(of);
        session.tell(&Request::Detach {
            pid: self.pid,
            part: part.clone(),
        })?;
        let pid = held.map(|row| row.pid);
        let part = held.map(|row| row.partition.clone()).or(part);
        session.answer(&json!({"partition": part, "pid": pid}), |_| match pid {
            Some(pid) => format!("process {pid} is let go\n"),
            None => "let go\n".to_owned(),
        })?;
        Ok(Outcome::Done)
    }
}

/// Stop a partition's processes as SIGSTOP does; they stay stopped even if the daemon ends
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl suspend -o web")]
pub struct Suspend {
    #[command(flatten)]
    part: PartArg,
}

impl Suspend {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let ask = |part| Request::Suspend { part };
        put(session, &self.part, ask, ("suspended", "is suspended"))
    }
}

/// Let a suspended partition, or one stopped by `rewind -s`, run on
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl resume -o web")]
pub struct Resume {
    #[command(flatten)]
    part: PartArg,
}

impl Resume {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let ask = |part| Request::Resume { part };
        put(session, &self.part, ask, ("running", "runs"))
    }
}

/// Puts a partition into a state: its name for programs, and what is said of it.
fn put(
    session: &Session,
    part: &PartArg,
    ask: impl FnOnce(Option<String>) -> Request,
    (state, said): (&str, &str),
) -> anyhow::Result<Outcome> {
    let part = session.part(part)?;
    session.tell(&ask(Some(part.clone())))?;
    let json = json!({"partition": part, "state": state});
    session.answer(&json, |_| format!("partition {part} {said}\n"))?;
    Ok(Outcome::Done)
}

/// List the processes that are held
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl ps")]
pub struct Ps {}

impl Ps {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let rows = ps(session)?;
        let processes: Vec<Json> = rows.iter().map(ps_json).collect();
        session.answer(&json!({ "processes": processes }), |paint| {
            ps_text(&rows, paint)
        })?;
        Ok(Outcome::Done)
    }
}

/// All processes of all partitions.
pub fn ps(session: &Session) -> anyhow::Result<Vec<PsRow>> {
    match session.ask(&Request::Ps)? {
        Answer::Ps(rows) => Ok(rows),
        other => Err(out_of_turn(&other)),
    }
}

fn ps_json(row: &PsRow) -> Json {
    json!({
        "pid": row.pid,
        "partition": row.partition,
        "state": row.state,
        "threads": row.threads,
        "comm": row.comm,
        "period_ms": row.period_ms,
        "checkpoints": row.checkpoints,
        "tracking": row.tracking,
        "trouble": row.trouble,
    })
}

fn ps_text(rows: &[PsRow], paint: Paint) -> String {
    if rows.is_empty() {
        return "no process is held; attach one: slsctl attach -p PID\n".to_owned();
    }
    let mut table = Table::new([
        right("PID"),
        left("PARTITION").coloured(Paint::name),
        left("STATE"),
        right("THREADS"),
        left("COMM"),
        right("PERIOD"),
        right("CHECKPOINTS"),
        left("TROUBLE").coloured(Paint::bad),
    ]);
    for row in rows {
        table.row([
            row.pid.to_string(),
            row.partition.clone(),
            row.state.clone(),
            row.threads.to_string(),
            row.comm.clone(),
            row.period_ms.map_or("-".into(), |ms| format!("{ms} ms")),
            row.checkpoints.to_string(),
            row.trouble.clone().unwrap_or_default(),
        ]);
    }
    table.text(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_has_the_keys_of_the_contract() {
        let row = PsRow {
            pid: 4,
            partition: "mem".into(),
            state: "running".into(),
            threads: 2,
            comm: "x".into(),
            period_ms: Some(5),
            checkpoints: 7,
            tracking: "write protection".into(),
            trouble: None,
        };
        let json = ps_json(&row);
        for key in ["pid", "partition", "state", "threads", "comm"] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert!(ps_text(&[row], Paint::PLAIN).contains("5 ms"));
    }
}
