//! Stores on devices and in files: histories go there, come back, are listed and checked.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use libsls::protocol::{Answer, Bundled, History, Moved, Request};
use serde_json::{Value as Json, json};

use crate::arguments::{PartArg, Range, WrongUsage, size};
use crate::output::{Paint, Table, bytes, duration_ns, left, now_ns, right};
use crate::progress::Shown;
use crate::session::{Outcome, Session, beside, out_of_turn};

/// Requests that an export is divided into, so that it can be watched and broken off.
const STEPS: usize = 100;

/// Bring checkpoints to a store, or to one file with all that is needed to look at them
#[derive(Debug, Args)]
#[command(
    long_about = "Bring checkpoints to a store, or to one file with all that is needed to look at them.\n\n\
        A store gets what it does not have yet. A bundle, FILE.sls, is written anew: the checkpoints, the programs \
        and libraries that their processes had mapped, and the debug files of those. It opens on a machine that \
        has none of them.",
    after_help = "Example: slsctl export -m @before.. --to kept.store\nExample: slsctl export -m @crash --to crash.sls"
)]
pub struct Export {
    #[command(flatten)]
    part: PartArg,
    /// The checkpoints, on whatever branch [default: all]
    #[arg(value_name = "@A..@B")]
    range: Option<Range>,
    /// A store that newfs_sls made, a device or a file; or a bundle to be written
    #[arg(long, value_name = "STORE|FILE.sls", required = true)]
    to: PathBuf,
    /// What the history is called there [default: as the partition]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

impl Export {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let store = place(&self.to)?;
        let history = session.history(self.part.name().as_deref())?;
        let epochs = self.epochs(&history)?;
        if libsls::bundle::is_named_so(&store) {
            return self.bundle(session, &history, &epochs, store);
        }
        let steps = epochs.chunks(epochs.len().div_ceil(STEPS).max(1));
        let shown = Shown::counted("export", steps.len());
        let mut all = Moved {
            partition: self.name.clone().unwrap_or(history.partition.clone()),
            ..Moved::default()
        };
        for some in steps {
            let request = Request::Export {
                part: Some(history.partition.clone()),
                first: some.first().copied(),
                last: some.last().copied(),
                store: store.clone(),
                name: self.name.clone(),
            };
            let moved = moved(session.ask(&request)?)?;
            all.partition = moved.partition;
            all.checkpoints += moved.checkpoints;
            all.pages += moved.pages;
            all.bytes += moved.bytes;
            all.passed.extend(moved.passed);
            shown.progress().step();
        }
        drop(shown);
        let mut json = moved_json(&all);
        json["store"] = store.display().to_string().into();
        session.answer(&json, |_| exported_text(&all, &store))?;
        Ok(Outcome::Done)
    }

    /// One request: it is whole, or it is not there.
    fn bundle(
        &self,
        session: &Session,
        history: &History,
        epochs: &[u64],
        file: PathBuf,
    ) -> anyhow::Result<Outcome> {
        let shown = Shown::waiting("export");
        let answer = session.ask(&Request::Bundle {
            part: Some(history.partition.clone()),
            first: epochs.first().copied(),
            last: epochs.last().copied(),
            file: file.clone(),
            name: self.name.clone(),
        });
        drop(shown);
        let bundled = match answer? {
            Answer::Bundled(bundled) => bundled,
            other => return Err(out_of_turn(&other)),
        };
        let mut json = moved_json(&bundled.moved);
        json["store"] = file.display().to_string().into();
        json["file_bytes"] = bundled.bytes.into();
        json["files"] = bundled.files.clone().into();
        json["left_out"] = bundled.left_out.clone().into();
        session.answer(&json, |_| bundled_text(&bundled, &file))?;
        Ok(Outcome::Done)
    }

    fn epochs(&self, history: &History) -> anyhow::Result<Vec<u64>> {
        let range = self.range.clone().unwrap_or_default();
        let end = |given: Option<&libsls::EpochRef>| given.map(|r| r.resolve(history)).transpose();
        let (from, to) = (end(range.from.as_ref())?, end(range.to.as_ref())?);
        let (from, to) = (from.unwrap_or(0), to.unwrap_or(u64::MAX));
        let all = history.checkpoints.iter().map(|row| row.epoch);
        let epochs: Vec<u64> = all.filter(|epoch| (from..=to).contains(epoch)).collect();
        if epochs.is_empty() {
            let part = &history.partition;
            let message =
                format!("there is nothing to export: partition {part} has no checkpoint there");
            return Err(WrongUsage(message).into());
        }
        Ok(epochs)
    }
}

fn exported_text(moved: &Moved, store: &Path) -> String {
    let store = store.display();
    let mut text = match moved.checkpoints {
        0 => format!("{store} has all of {} already\n", moved.partition),
        count => format!(
            "{count} checkpoints of {} are in {store}: {} pages, {}\n",
            moved.partition,
            moved.pages,
            bytes(moved.bytes)
        ),
    };
    if let (Some(first), Some(last)) = (moved.passed.first(), moved.passed.last()) {
        text += &format!(
            "{} of them (@{first} to @{last}) are older than what was there and cannot be put in between; export them under another name with --as NAME\n",
            moved.passed.len()
        );
    }
    text
}

fn bundled_text(bundled: &Bundled, file: &Path) -> String {
    let mut text = format!(
        "{}: {} checkpoints of {} and {} files, {}\n",
        file.display(),
        bundled.moved.checkpoints,
        bundled.moved.partition,
        bundled.files.len(),
        bytes(bundled.bytes)
    );
    for why in &bundled.left_out {
        text += &format!("not in it: {why}\n");
    }
    text
}

/// Make a partition of a history in a store or a bundle; checkpoints keep numbers, names and branches
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl import kept.store -o web && slsctl restore -o web @before -d\nExample: slsctl import crash.sls -o crash && slsctl bt -o crash @-1"
)]
pub struct Import {
    /// A store, a device or a file; or a bundle
    #[arg(value_name = "STORE|FILE.sls")]
    store: PathBuf,
    /// What the partition is to be called [default: as the history]
    #[arg(short = 'o', value_name = "PART")]
    part: Option<String>,
    /// Which history of the store [default: that of the partition's name, or the only one]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// The most memory the history may take [default: a quarter of the machine's]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    budget: Option<u64>,
}

impl Import {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let store = place(&self.store)?;
        let shown = Shown::waiting("import");
        let answer = session.ask(&Request::Import {
            store: store.clone(),
            from: self.from.clone(),
            part: self.part.clone(),
            budget: self.budget,
        });
        drop(shown);
        let moved = moved(answer?)?;
        let mut json = moved_json(&moved);
        json["store"] = store.display().to_string().into();
        session.answer(&json, |_| {
            format!(
                "partition {} has {} checkpoints of {}\n",
                moved.partition,
                moved.checkpoints,
                store.display()
            )
        })?;
        Ok(Outcome::Done)
    }
}

/// List the checkpoints of every partition, or of every history in a store
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl listsnaps --store kept.store")]
pub struct ListSnaps {
    /// A store, a device or a file, or a bundle [default: what the daemon holds]
    #[arg(long, value_name = "STORE|FILE.sls")]
    store: Option<PathBuf>,
}

impl ListSnaps {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let store = self.store.as_deref().map(place).transpose()?;
        let histories = match session.ask(&Request::Snapshots { store })? {
            Answer::Snapshots(histories) => histories,
            other => return Err(out_of_turn(&other)),
        };
        session.answer(&snaps_json(&histories), |paint| {
            snaps_text(&histories, now_ns(), paint)
        })?;
        Ok(Outcome::Done)
    }
}

fn snaps_json(histories: &[History]) -> Json {
    let rows = histories.iter().flat_map(|history| {
        history.checkpoints.iter().map(|row| {
            json!({
                "partition": history.partition,
                "epoch": row.epoch,
                "parent": row.parent,
                "branch": row.branch,
                "name": row.name,
                "time": row.time,
                "pages": row.pages,
                "bytes": row.bytes,
            })
        })
    });
    json!({ "snapshots": rows.collect::<Vec<_>>() })
}

fn snaps_text(histories: &[History], now: u64, paint: Paint) -> String {
    let mut table = Table::new([
        left("PARTITION").coloured(Paint::name),
        left("EPOCH").coloured(Paint::name),
        left("BRANCH"),
        left("NAME").coloured(Paint::heading),
        right("AGE"),
        right("PAGES"),
        right("BYTES"),
    ]);
    for history in histories {
        for row in &history.checkpoints {
            table.row([
                history.partition.clone(),
                format!("@{}", row.epoch),
                row.branch.clone(),
                row.name.clone().unwrap_or_default(),
                duration_ns(now.saturating_sub(row.time)),
                row.pages.to_string(),
                bytes(row.bytes),
            ]);
        }
    }
    if histories
        .iter()
        .all(|history| history.checkpoints.is_empty())
    {
        return "there are no checkpoints\n".to_owned();
    }
    table.text(paint)
}

/// Check a store for damage, by a reader of its own; it may be in use meanwhile
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl fsck kept.store\n\nExit status: 0 clean, 3 damage was found."
)]
pub struct Fsck {
    /// Put right what there is a copy of, and remove checkpoints that are damaged; the store must not be in use
    #[arg(long)]
    repair: bool,
    /// A store: a device or a file
    #[arg(value_name = "DEVICE|FILE")]
    store: PathBuf,
}

impl Fsck {
    /// It needs no daemon, and must not trust one: a program of its own reads the store.
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let program = beside("fsck_sls")?;
        let mut command = Command::new(&program);
        command.args(self.repair.then_some("--repair"));
        command.args(session.json().then_some("--json"));
        let status = command.arg(&self.store).status();
        let status = status
            .with_context(|| format!("start {}; it belongs beside slsctl", program.display()))?;
        match status.code().map(u8::try_from) {
            Some(Ok(code)) => Ok(Outcome::Status(code)),
            _ => anyhow::bail!("fsck_sls ended by signal {:?}", status.signal()),
        }
    }
}

/// Wait until a checkpoint lasts in the store of its partition
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl epochwait -o disk @-1")]
pub struct EpochWait {
    #[command(flatten)]
    part: PartArg,
    /// The checkpoint [default: the newest of any branch]
    #[arg(value_name = "@N")]
    epoch: Option<libsls::EpochRef>,
}

impl EpochWait {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.part.name().as_deref())?;
        let epoch = self
            .epoch
            .as_ref()
            .map(|e| e.resolve(&history))
            .transpose()?;
        let shown = Shown::waiting("epochwait");
        session.tell(&Request::EpochWait {
            part: Some(history.partition.clone()),
            epoch,
        })?;
        drop(shown);
        let newest = history.checkpoints.last().map_or(0, |row| row.epoch);
        let epoch = epoch.unwrap_or(newest);
        let json = json!({ "partition": history.partition, "epoch": epoch });
        session.answer(&json, |_| {
            format!("@{epoch} of {} lasts\n", history.partition)
        })?;
        Ok(Outcome::Done)
    }
}

/// As the daemon, which is somewhere else, finds it.
pub fn place(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

fn moved(answer: Answer) -> anyhow::Result<Moved> {
    match answer {
        Answer::Moved(moved) => Ok(moved),
        other => Err(out_of_turn(&other)),
    }
}

fn moved_json(moved: &Moved) -> Json {
    json!({
        "partition": moved.partition,
        "checkpoints": moved.checkpoints,
        "pages": moved.pages,
        "bytes": moved.bytes,
        "passed": moved.passed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_put_in_is_said() {
        let moved = Moved {
            partition: "mem".into(),
            checkpoints: 2,
            pages: 7,
            bytes: 4096,
            passed: vec![1, 3],
        };
        let text = exported_text(&moved, Path::new("/s"));
        assert!(
            text.starts_with("2 checkpoints of mem are in /s: 7 pages, 4.0K\n"),
            "{text}"
        );
        assert!(text.contains("2 of them (@1 to @3) are older"), "{text}");
        assert_eq!(moved_json(&moved)["passed"], json!([1, 3]));
    }
}
