//! How much memory the processes have, and how much of it a checkpoint holds.

use clap::Args;
use libsls::protocol::PsRow;
use libsls::view::CheckpointView;
use serde_json::{Value as Json, json};

use crate::arguments::PartArg;
use crate::output::{Paint, Table, bytes, left, right};
use crate::processes::ps;
use crate::session::{Outcome, Session};

const PAGE: u64 = 4096;

/// Count the resident pages of the processes, and those the newest checkpoint holds of each
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl pgresident -m\n\n\
        Resident are also pages of files, which a checkpoint holds only once they were written to.")]
pub struct PgResident {
    #[command(flatten)]
    part: PartArg,
}

/// One process.
struct Row {
    process: PsRow,
    /// None once it has ended.
    resident: Option<u64>,
    /// None when the newest checkpoint does not have it.
    kept: Option<u64>,
}

impl PgResident {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.part.name().as_deref())?;
        let newest = history.checkpoints.iter().find(|c| c.epoch == history.head);
        let mut rows = Vec::new();
        for process in ps(session)? {
            if process.partition != history.partition {
                continue;
            }
            let kept = match newest.filter(|c| c.pids.contains(&process.pid)) {
                Some(c) => Some(kept(session, &history.partition, c.epoch, process.pid)?),
                None => None,
            };
            let resident = resident(process.pid).filter(|_| process.state != "dead");
            rows.push(Row {
                process,
                resident,
                kept,
            });
        }
        let json = json!({
            "partition": history.partition,
            "epoch": newest.map(|c| c.epoch),
            "processes": rows.iter().map(row_json).collect::<Vec<_>>(),
        });
        session.answer(&json, |paint| text(&rows, paint))?;
        Ok(Outcome::Done)
    }
}

/// Pages a checkpoint holds of a process, what it shares included.
fn kept(session: &Session, part: &str, epoch: u64, pid: i32) -> anyhow::Result<u64> {
    let view = CheckpointView::open(session.client()?, part, epoch, Some(pid))?;
    let (kept, process) = (view.kept()?, view.process());
    let runs = process
        .mappings
        .iter()
        .flat_map(|m| kept.within(process, m));
    Ok(runs.map(|run| (run.end - run.start) / PAGE).sum())
}

/// As proc_pid_statm(5) has it: the second word.
fn resident(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

fn row_json(row: &Row) -> Json {
    json!({
        "pid": row.process.pid,
        "comm": row.process.comm,
        "resident": row.resident,
        "kept": row.kept,
    })
}

fn text(rows: &[Row], paint: Paint) -> String {
    let mut table = Table::new([
        right("PID").coloured(Paint::name),
        left("COMMAND"),
        right("RESIDENT"),
        right(""),
        right("KEPT"),
        right(""),
    ]);
    for row in rows {
        let shown = |pages: Option<u64>| match pages {
            Some(pages) => [pages.to_string(), bytes(pages * PAGE)],
            None => ["-".to_owned(), String::new()],
        };
        let ([pages, size], [kept, held]) = (shown(row.resident), shown(row.kept));
        let (pid, comm) = (row.process.pid.to_string(), row.process.comm.clone());
        table.row([pid, comm, pages, size, kept, held]);
    }
    table.text(paint)
}
