//! What is looked at: a process, attached at the start where nobody had, let go of at the end by whoever attached it; a
//! partition; the history of a store; a core.

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use libsls::protocol::{Answer, History, MEMORY_PARTITION, PsRow, Request};
use libsls::{Client, partition_name};

use crate::access::{CORE_EPOCH, Origin, Shelf};
use crate::cli::{Cli, Command};
use crate::made::Made;
use crate::model::Target;
use crate::watcher::ps;

const DEFAULT_PERIOD_MS: u64 = 100;

/// What this program has made, and takes away at the end.
enum Holding {
    Attached(i32),
    /// A partition with the history of a store, which has it still.
    Imported(String),
}

/// What is looked at. Lets go when dropped, should nobody have done so before.
pub struct Session {
    pub origin: Origin,
    pub target: Target,
    /// The first connection, for whoever follows the history; a core has none.
    pub client: Option<Client>,
    /// Something to be said at the start.
    pub remark: Option<String>,
    /// What was done to processes.
    pub made: Made,
    holdings: Vec<Holding>,
}

impl Session {
    /// Opens what the command line names.
    ///
    /// # Errors
    /// The daemon cannot be reached, or refuses; the file is nothing that can be looked at.
    pub fn open(cli: &Cli) -> anyhow::Result<Self> {
        let mut session = Self {
            origin: Origin {
                socket: match &cli.socket {
                    Some(path) => std::path::absolute(path).context("--socket")?,
                    None => libsls::default_socket()?,
                },
                daemon: daemon()?,
                part: String::new(),
                pid: None,
                core: None,
                shelf: Arc::new(Shelf::default()),
            },
            target: Target::default(),
            client: None,
            remark: None,
            made: Made::default(),
            holdings: Vec::new(),
        };
        match &cli.command {
            Command::Attach { pid, period_ms } => session.attach(*pid, *period_ms)?,
            Command::Open { what, from } => session.open_named(what, from.as_deref())?,
        }
        Ok(session)
    }

    fn attach(&mut self, pid: i32, period_ms: Option<u64>) -> anyhow::Result<()> {
        let mut client = self.origin.connect()?;
        let (target, ours) = attach(&mut client, pid, period_ms)?;
        if ours {
            self.holdings.push(Holding::Attached(pid));
        } else if period_ms.is_some() {
            let part = &target.part;
            self.remark = Some(format!(
                "attached already, in {part}: its period stays as it was"
            ));
        }
        self.look_at(client, target);
        Ok(())
    }

    /// A partition by its name, else a file.
    fn open_named(&mut self, what: &str, from: Option<&str>) -> anyhow::Result<()> {
        let path = Path::new(what);
        if what.contains('/') || (path.exists() && !self.is_partition(what)) {
            return self.open_file(path, from);
        }
        let mut client = self.origin.connect()?;
        let target = open(&mut client, &partition_name(what), None)?;
        self.look_at(client, target);
        Ok(())
    }

    /// A file that happens to be called like a partition does not hide it.
    fn is_partition(&self, name: &str) -> bool {
        let Ok(mut client) = Client::connect(&self.origin.socket) else {
            return false;
        };
        client.history(Some(&partition_name(name))).is_ok()
    }

    fn open_file(&mut self, path: &Path, from: Option<&str>) -> anyhow::Result<()> {
        let shown = path.display();
        let meta = std::fs::metadata(path).with_context(|| format!("open {shown}"))?;
        let kind = meta.file_type();
        anyhow::ensure!(
            kind.is_file() || kind.is_block_device(),
            "{shown} is neither a file nor a device"
        );
        let mut magic = [0; 4];
        let begins = std::fs::File::open(path).and_then(|mut file| file.read(&mut magic));
        begins.with_context(|| format!("read {shown}"))?;
        if &magic == b"\x7fELF" {
            return self.open_core(path);
        }
        self.open_store(path, from)
    }

    fn open_core(&mut self, path: &Path) -> anyhow::Result<()> {
        let path = std::path::absolute(path)?;
        let view = introspect::CoreView::open(&path)?;
        let threads = introspect::View::threads(&view);
        let main = threads.first();
        self.target = Target {
            pid: main.map_or(0, |thread| thread.tid.cast_signed()),
            comm: main.map_or(String::new(), |thread| thread.name.clone()),
            part: crate::text::file_name(&path.to_string_lossy()).to_owned(),
            state: "core".to_owned(),
            ..Target::default()
        };
        self.origin.part.clone_from(&self.target.part);
        self.origin.core = Some(path);
        Ok(())
    }

    /// Makes a partition of a store's history for as long as it is looked at.
    fn open_store(&mut self, path: &Path, from: Option<&str>) -> anyhow::Result<()> {
        let store = std::path::absolute(path)?;
        let mut client = self.origin.connect()?;
        let snapshots = Request::Snapshots {
            store: Some(store.clone()),
        };
        let histories = match client.ask(&snapshots)? {
            Answer::Snapshots(histories) => histories,
            other => anyhow::bail!("slsd answered out of turn: {other:?}"),
        };
        let name = history_of(&store, &histories, from)?;
        let taken = client.history(Some(&name)).is_ok();
        // Beside a partition of the same name it has another one, and is nobody's to write to.
        let part = if taken {
            format!("{name}-store-{}", std::process::id())
        } else {
            name.clone()
        };
        let import = Request::Import {
            store,
            from: Some(name),
            part: Some(part.clone()),
            budget: None,
        };
        match client.ask(&import)? {
            Answer::Moved(_) => {}
            other => anyhow::bail!("slsd answered out of turn: {other:?}"),
        }
        self.holdings.push(Holding::Imported(part.clone()));
        let target = open(&mut client, &part, None)?;
        self.look_at(client, target);
        self.remark = Some(format!(
            "a copy of the store, in partition {part} until this ends"
        ));
        Ok(())
    }

    fn look_at(&mut self, client: Client, target: Target) {
        self.origin.part.clone_from(&target.part);
        self.origin.pid = (target.pid != 0).then_some(target.pid);
        self.origin.core = None;
        self.target = target;
        self.client = Some(client);
    }

    /// Looks at another partition, or another process of one. What was attached stays so until the end.
    ///
    /// # Errors
    /// It is not there, or the daemon does not answer.
    pub fn switch(&mut self, part: &str, pid: Option<i32>) -> anyhow::Result<()> {
        let mut client = self.origin.connect()?;
        let mut target = open(&mut client, part, pid)?;
        let held =
            |holding: &Holding| matches!(holding, Holding::Attached(held) if *held == target.pid);
        target.ours = self.holdings.iter().any(held);
        self.look_at(client, target);
        Ok(())
    }

    /// Takes away what this program has made.
    ///
    /// # Errors
    /// Something could not be let go of.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.let_go()
    }

    fn let_go(&mut self) -> anyhow::Result<()> {
        let holdings = std::mem::take(&mut self.holdings);
        if holdings.is_empty() && self.made.is_nothing() {
            return Ok(());
        }
        let mut client = Client::connect(&self.origin.socket)?;
        self.made.undo(&mut client);
        for holding in holdings {
            match holding {
                Holding::Attached(pid) => detach(&mut client, pid)?,
                Holding::Imported(part) => client
                    .tell(&Request::PartDel { part: part.clone() })
                    .with_context(|| format!("remove {part}: try `slsctl partdel -o {part}`"))?,
            }
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

/// Which history of a store is meant.
fn history_of(store: &Path, histories: &[History], from: Option<&str>) -> anyhow::Result<String> {
    let names: Vec<&str> = histories
        .iter()
        .map(|history| history.partition.as_str())
        .collect();
    let shown = store.display();
    match (from, &names[..]) {
        (Some(from), names) if names.contains(&from) => Ok(from.to_owned()),
        (None, [one]) => Ok((*one).to_owned()),
        (_, []) => anyhow::bail!("{shown} has no history; `slsctl export` brings one there"),
        (_, names) => anyhow::bail!(
            "{shown} has the histories {}: choose one with `--from NAME`",
            names.join(", ")
        ),
    }
}

fn detach(client: &mut Client, pid: i32) -> anyhow::Result<()> {
    // One that has ended needs no letting go.
    if ps(client)?.iter().any(|row| row.pid == pid) {
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

fn attach(client: &mut Client, pid: i32, period_ms: Option<u64>) -> anyhow::Result<(Target, bool)> {
    let held = |rows: Vec<PsRow>| {
        rows.into_iter()
            .find(|row| row.pid == pid && row.state != "dead")
    };
    if let Some(row) = held(ps(client)?) {
        return Ok((target(row, false), false));
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
    Ok((target(row, true), true))
}

/// A partition, and the process of it that is meant, else its first.
fn open(client: &mut Client, part: &str, pid: Option<i32>) -> anyhow::Result<Target> {
    let history = client.history(Some(part))?;
    let row = ps(client)?
        .into_iter()
        .find(|row| row.partition == part && pid.is_none_or(|pid| row.pid == pid));
    // Without a process, the one that the newest checkpoint is of.
    let newest = history.checkpoints.last().and_then(|row| row.pids.first());
    Ok(match row {
        Some(row) => target(row, false),
        None => Target {
            pid: pid.or(newest.copied()).unwrap_or(0),
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

/// The history of a core: itself.
pub fn core_history(part: &str) -> History {
    History {
        partition: part.to_owned(),
        head: CORE_EPOCH,
        branch: "core".to_owned(),
        checkpoints: vec![libsls::protocol::HistoryRow {
            epoch: CORE_EPOCH,
            branch: "core".to_owned(),
            ..libsls::protocol::HistoryRow::default()
        }],
    }
}
