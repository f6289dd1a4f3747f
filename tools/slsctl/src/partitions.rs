//! Partitions: made and removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use libsls::partition_name;
use libsls::protocol::{Keep, Request};
use serde_json::json;

use crate::arguments::{PartArg, WrongUsage, keep, size};
use crate::progress::Shown;
use crate::session::{Outcome, Session, beside};
use crate::stores::place;

/// Where a partition keeps its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackEnd {
    /// In memory, lost at a reboot
    Memory,
    /// In memory, and in a store that follows as it runs
    Slos,
    /// The same, in a plain file that is made when it is not there
    File,
}

/// Bytes of a file that is made.
const FILE_SIZE: &str = "4G";

/// Make a partition: a group of processes with one history
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl partadd memory -o web -t 100 --budget 512M --keep log\nExample: slsctl partadd file -o web -t 100 --store web.store"
)]
pub struct PartAdd {
    /// Where its history is kept
    #[arg(value_name = "BACKEND")]
    back_end: BackEnd,
    /// Its name, or the number of a default one (5116 is `mem`)
    #[arg(short = 'o', value_name = "PART", required = true)]
    part: String,
    /// Checkpoint every MS milliseconds
    #[arg(short = 't', value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    period_ms: Option<u64>,
    /// The most memory the history may take [default: a quarter of the machine's]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    budget: Option<u64>,
    /// Which checkpoints stay: all, last:N, or log (spacing doubles with age)
    #[arg(long, value_name = "all|last:N|log", value_parser = keep, default_value = "all")]
    keep: Keep,
    /// The store: one that newfs_sls made, or a file; a history of that name there is its past
    #[arg(long, value_name = "PATH", required_if_eq_any([("back_end", "slos"), ("back_end", "file")]))]
    store: Option<PathBuf>,
    /// How large the file is made, when it is not there [default: 4G]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    size: Option<u64>,
}

impl PartAdd {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        if self.store.is_some() && self.back_end == BackEnd::Memory {
            let message =
                "--store is for `partadd slos` and `partadd file`; a memory partition has none";
            return Err(WrongUsage(message.to_owned()).into());
        }
        if self.size.is_some() && self.back_end != BackEnd::File {
            let message = "--size is for `partadd file`; newfs_sls makes other stores";
            return Err(WrongUsage(message.to_owned()).into());
        }
        if let (BackEnd::File, Some(path)) = (self.back_end, &self.store) {
            self.make_file(path)?;
        }
        let shown = Shown::waiting("partadd");
        let part = partition_name(&self.part);
        session.tell(&Request::PartAdd {
            part: part.clone(),
            keep: self.keep,
            budget: self.budget,
            period_ms: self.period_ms,
            store: self.store.as_deref().map(place).transpose()?,
        })?;
        drop(shown);
        session.answer(&json!({ "partition": part }), |_| {
            format!("partition {part} is there\n")
        })?;
        Ok(Outcome::Done)
    }

    /// By newfs_sls, which sets all of it aside.
    fn make_file(&self, path: &Path) -> anyhow::Result<()> {
        if path.exists() {
            return Ok(());
        }
        let program = beside("newfs_sls")?;
        let mut command = Command::new(&program);
        let size = self
            .size
            .map_or(FILE_SIZE.to_owned(), |bytes| bytes.to_string());
        command.args(["--size", &size]).arg(path);
        let done = command.output();
        let done =
            done.with_context(|| format!("start {}; it belongs beside slsctl", program.display()))?;
        if !done.status.success() {
            bail!("{}", String::from_utf8_lossy(&done.stderr).trim_end());
        }
        Ok(())
    }
}

/// Remove a partition and its history; its processes run on
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl partdel -o web")]
pub struct PartDel {
    #[command(flatten)]
    part: PartArg,
    /// Remove the history of that name from this store instead
    #[arg(long, value_name = "STORE", requires = "part")]
    store: Option<PathBuf>,
}

impl PartDel {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        if let (Some(store), Some(part)) = (&self.store, self.part.name()) {
            return Self::from_store(session, place(store)?, part);
        }
        let part = session.part(&self.part)?;
        session.tell(&Request::PartDel { part: part.clone() })?;
        session.answer(&json!({ "partition": part }), |_| {
            format!("partition {part} is gone\n")
        })?;
        Ok(Outcome::Done)
    }

    fn from_store(session: &Session, store: PathBuf, part: String) -> anyhow::Result<Outcome> {
        let shown = store.display().to_string();
        session.tell(&Request::Unstore {
            store,
            part: part.clone(),
        })?;
        session.answer(&json!({ "partition": part, "store": shown }), |_| {
            format!("history {part} is gone from {shown}\n")
        })?;
        Ok(Outcome::Done)
    }
}
