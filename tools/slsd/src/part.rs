//! A partition: its history, and the worker that owns its process.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use libsls::protocol::{Failure, Keep, Kept, PartStat, PsRow};
use slos::{Epoch, Options, Partition, Settings, Store, Taken};

use crate::bundle;
use crate::control::board::Board;
use crate::flush::Flusher;
use crate::registry::{Refusal, Registry};
use crate::stops::Stops;
use crate::stores::Stores;
use crate::worker::{Command, Reply, Worker};

/// Without --budget a memory partition may take this share of the machine's memory.
const DEFAULT_SHARE: u64 = 4;
/// In the folder of a partition as long as its history is still coming from a store.
const HALF_IMPORTED: &str = "half-imported";
/// In the folder of a partition whose history brought files along: these.
const BROUGHT: &str = "files";
/// In the folder of a partition that is written to a store: where that lies.
const KEPT_IN: &str = "kept-in";

/// What `stat` and `ps` show of a partition, kept by its worker.
#[derive(Debug, Default)]
pub struct Figures {
    /// The root first, dead or alive.
    pub pids: Vec<i32>,
    pub dead: bool,
    pub suspended: bool,
    /// Standing still until they are let go on.
    pub paused: bool,
    /// Of this attachment.
    pub period: Option<Duration>,
    /// Of attachments that name none, as the partition was made.
    pub default_period: Option<Duration>,
    pub tracking: String,
    pub branch: String,
    /// Where the branch begins, as long as it has no checkpoint of its own.
    pub begins: Option<Epoch>,
    /// Made by partadd, not by an attach: it waits for its process.
    pub awaits: bool,
    pub taken: u64,
    pub failed: u64,
    pub dropped: u64,
    pub missed: u64,
    pub stops: Stops,
    pub last_error: Option<String>,
}

impl Figures {
    /// A process has come. A period that an earlier one had is not its own.
    pub fn attached(&mut self, pids: Vec<i32>, period: Option<Duration>, tracking: String) {
        self.pids = pids;
        self.dead = false;
        self.suspended = false;
        self.period = period.or(self.default_period);
        self.tracking = tracking;
        self.last_error = None;
    }

    /// It goes on from a checkpoint, on a branch of its own.
    pub fn branched(&mut self, branch: &str, from: Epoch) {
        branch.clone_into(&mut self.branch);
        self.begins = Some(from);
    }

    /// The process is not held any more.
    pub fn detached(&mut self) {
        self.pids.clear();
        self.dead = false;
        self.suspended = false;
        self.paused = false;
        self.period = None;
    }
}

/// What a partition is made of that has a past.
pub struct Source<'a> {
    pub history: &'a Partition,
    pub range: (Epoch, Epoch),
    /// Files that come along with it.
    pub files: Option<Partition>,
}

/// One partition.
pub struct Part {
    pub name: String,
    folder: PathBuf,
    store: Store,
    pub history: Partition,
    budget: u64,
    figures: std::sync::Arc<Mutex<Figures>>,
    worker: Worker,
    board: Arc<Board>,
    /// Where it is written to a store as it runs.
    flusher: OnceLock<Flusher>,
}

impl Part {
    /// A new, empty memory partition.
    pub fn create(
        name: &str,
        folder: &Path,
        keep: Keep,
        budget: Option<u64>,
        period: Option<Duration>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let budget = budget.unwrap_or_else(default_budget);
        if let Some(parent) = folder.parent() {
            private(parent)?;
        }
        // What is there already is somebody's history, even where it cannot be recovered.
        let there = folder.exists();
        let made = Self::make(name, folder, keep, budget, period, registry);
        if made.is_err()
            && !there
            && let Err(error) = fs::remove_dir_all(folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(name, %error, "remove what was begun");
        }
        made
    }

    fn make(
        name: &str,
        folder: &Path,
        keep: Keep,
        budget: u64,
        period: Option<Duration>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let options = Options {
            budget: Some(budget),
            segment_size: None,
        };
        let store = Store::create(folder, options)?;
        let settings = Settings {
            keep: slos_keep(keep),
            budget: Some(budget),
        };
        let history = store.add_partition(name, settings)?;
        Self::start(name, folder, store, history, budget, period, registry)
    }

    /// A partition with the history of another store. What is not whole goes, also when the daemon ends
    /// meanwhile.
    pub fn import(
        name: &str,
        folder: &Path,
        source: &Source<'_>,
        budget: Option<u64>,
        registry: &Registry,
    ) -> Result<(Self, Taken), Refusal> {
        let budget = budget.unwrap_or_else(default_budget);
        let trouble = |e: anyhow::Error| Refusal::other(format!("import {name}: {e:#}"));
        if folder.exists() {
            return Err(Refusal::new(
                Failure::Exists,
                format!("{} is there already", folder.display()),
            ));
        }
        private(folder).map_err(|e| trouble(e.into()))?;
        let filled = Self::fill(name, folder, source, budget);
        let done = filled.and_then(|(store, history, taken)| {
            fs::remove_file(folder.join(HALF_IMPORTED))?;
            let part = Self::start(name, folder, store, history, budget, None, registry)?;
            Ok((part, taken))
        });
        done.map_err(|error| {
            if let Err(error) = fs::remove_dir_all(folder) {
                tracing::warn!(name, %error, "remove what was begun");
            }
            trouble(error)
        })
    }

    fn fill(
        name: &str,
        folder: &Path,
        source: &Source<'_>,
        budget: u64,
    ) -> anyhow::Result<(Store, Partition, Taken)> {
        fs::write(folder.join(HALF_IMPORTED), "")?;
        let options = Options {
            budget: Some(budget),
            segment_size: None,
        };
        let store = Store::create(folder, options)?;
        let settings = Settings {
            keep: slos::Keep::All,
            budget: Some(budget),
        };
        let history = store.add_partition(name, settings)?;
        let taken = history.take_over(source.history, source.range, |_| {})?;
        if let Some(oldest) = taken.dropped.first() {
            bail!(
                "its history does not fit into {budget} bytes ({oldest} had to go); give it more with --budget"
            );
        }
        if let Some(files) = &source.files {
            bundle::unpack(files, &folder.join(BROUGHT))?;
        }
        Ok((store, history, taken))
    }

    /// The folder of the files that its history brought along, if any.
    pub fn brought(&self) -> Option<PathBuf> {
        Some(self.folder.join(BROUGHT)).filter(|folder| folder.is_dir())
    }

    /// Bytes that its history takes.
    pub fn bytes(&self) -> u64 {
        self.store.held().unwrap_or(0)
    }

    /// Is it what an import had made by the time its daemon ended?
    pub fn is_half_imported(folder: &Path) -> bool {
        folder.join(HALF_IMPORTED).exists()
    }

    /// A partition that an earlier daemon left.
    pub fn recover(name: &str, folder: &Path, registry: &Registry) -> anyhow::Result<Self> {
        // The budget is a setting of the partition, and with it of the store.
        let (store, report) = Store::open(folder, Options::default())?;
        let history = store
            .partition(name)
            .context("the store is another partition's")?;
        let budget = history.settings()?.budget.unwrap_or_else(default_budget);
        if report.is_clean() {
            tracing::info!(name, checkpoints = report.checkpoints, "recovered");
        } else {
            tracing::warn!(name, ?report, "recovered with damage");
        }
        let part = Self::start(name, folder, store, history, budget, None, registry)?;
        match fs::read(folder.join(KEPT_IN)) {
            Ok(path) => {
                part.begin_flushing(&registry.stores, Path::new(OsStr::from_bytes(&path)))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("where it is kept"),
        }
        Ok(part)
    }

    /// From now on it is written to a store, also by the next daemon.
    pub fn keep_in(&self, stores: &Arc<Stores>, store: &Path) -> std::io::Result<()> {
        fs::write(self.folder.join(KEPT_IN), store.as_os_str().as_bytes())?;
        self.begin_flushing(stores, store)
    }

    fn begin_flushing(&self, stores: &Arc<Stores>, store: &Path) -> std::io::Result<()> {
        let flusher = Flusher::start(self.history.clone(), stores, store)?;
        // It has none yet: this comes once.
        let _ = self.flusher.set(flusher);
        Ok(())
    }

    /// What an import could not know.
    pub fn settle(&self, keep: Keep, period: Option<Duration>) -> Result<(), slos::WriteError> {
        self.figures().default_period = period;
        let budget = Some(self.budget);
        let keep = slos_keep(keep);
        self.history.set_settings(Settings { keep, budget })?;
        Ok(())
    }

    /// Where it is written to a store.
    pub fn flusher(&self) -> Option<&Flusher> {
        self.flusher.get()
    }

    /// Waits a while until all of it lasts, where it is written to a store.
    pub fn flush(&self, patience: Duration) {
        let newest = self.history.newest().ok().flatten();
        if let (Some(flusher), Some(newest)) = (self.flusher(), newest)
            && let Err(refusal) = flusher.wait(newest, Some(Instant::now() + patience))
        {
            tracing::warn!(name = self.name, error = refusal.message, "flush");
        }
    }

    fn start(
        name: &str,
        folder: &Path,
        store: Store,
        history: Partition,
        budget: u64,
        period: Option<Duration>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let branch = history
            .newest()?
            .and_then(|e| history.info(e).ok())
            .map_or_else(|| "main".to_owned(), |i| i.branch.to_string());
        let figures = Figures {
            branch,
            default_period: period,
            ..Figures::default()
        };
        let figures = std::sync::Arc::new(Mutex::new(figures));
        let board = Arc::new(Board::default());
        let worker = Worker::start(
            history.clone(),
            std::sync::Arc::clone(&figures),
            registry.probe,
            registry.keeper.clone(),
            registry.journals.clone(),
            Arc::clone(&board),
        )?;
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            store,
            history,
            budget,
            figures,
            worker,
            board,
            flusher: OnceLock::new(),
        })
    }

    /// Its figures; they are plain counters, whole after any panic.
    pub fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its stops are told.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Does it hold this process, dead or alive?
    pub fn has(&self, pid: i32) -> bool {
        self.figures().pids.contains(&pid)
    }

    /// Must the daemon stay for it? What it was made with would be lost.
    pub fn is_needed(&self) -> bool {
        self.figures().awaits || self.is_held()
    }

    /// Has it a process that lives, or a checkpoint?
    pub fn is_held(&self) -> bool {
        let attached = {
            let figures = self.figures();
            !figures.pids.is_empty() && !figures.dead
        };
        attached || self.history.newest().is_ok_and(|e| e.is_some())
    }

    /// Has the worker do something.
    pub fn command(&self, command: Command) -> Result<Reply, Refusal> {
        self.worker.ask(command).unwrap_or_else(|| {
            Err(Refusal::new(
                Failure::NotFound,
                format!(
                    "the worker of partition {0} has ended by a bug, see slsd.log; its history can still be read, `slsctl partdel -o {0}` removes it",
                    self.name
                ),
            ))
        })
    }

    /// Lets the process go; fine when there is none.
    pub fn detach(&self) -> Result<(), Refusal> {
        match self.command(Command::Detach { pid: None }) {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.kind == Failure::NotFound => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Gives the memory back. Readers that still hold a segment open go on reading.
    pub fn erase(&self) -> std::io::Result<()> {
        if let Some(flusher) = self.flusher() {
            flusher.end();
        }
        fs::remove_dir_all(&self.folder)
    }

    /// Its lines of `ps`, one a process.
    pub fn ps(&self) -> Vec<PsRow> {
        let checkpoints = self.history.history().map_or(0, |h| h.len() as u64);
        let figures = self.figures();
        let pids = figures.pids.iter();
        pids.map(|&pid| self.row(pid, checkpoints, &figures))
            .collect()
    }

    fn row(&self, pid: i32, checkpoints: u64, figures: &Figures) -> PsRow {
        let status = sls_engine::procfs::status(pid)
            .ok()
            .filter(|_| !figures.dead);
        let state = match &status {
            None => "dead",
            Some(_) if figures.paused => "paused",
            Some(_) if figures.suspended => "suspended",
            Some(s) => match s.state {
                'R' => "running",
                'T' | 't' => "stopped",
                'Z' | 'X' => "dead",
                _ => "sleeping",
            },
        };
        PsRow {
            pid,
            partition: self.name.clone(),
            state: state.to_owned(),
            threads: status.as_ref().map_or(0, |s| s.threads),
            comm: status.map(|s| s.name).unwrap_or_default(),
            period_ms: figures
                .period
                .map(|p| u64::try_from(p.as_millis()).unwrap_or(0)),
            checkpoints,
            tracking: figures.tracking.clone(),
            trouble: figures.last_error.clone(),
        }
    }

    /// Its counters.
    pub fn stat(&self) -> PartStat {
        let held = self.store.stats().unwrap_or_default();
        let lag = self.flusher().map(|flusher| flusher.lag(&self.history));
        let figures = self.figures();
        let (stop_us_p50, stop_us_p99, stop_us_max) = figures.stops.figures();
        PartStat {
            partition: self.name.clone(),
            checkpoints: held.checkpoints,
            budget: Some(self.budget),
            held_bytes: held.total(),
            segment_bytes: held.segments,
            live_bytes: held.live,
            record_bytes: held.records,
            index_bytes: held.index,
            pinned_base_bytes: held.pinned_bases,
            cleaned_segments: held.cleaned,
            taken: figures.taken,
            failed: figures.failed,
            dropped: figures.dropped,
            missed_periods: figures.missed,
            stop_us_p50,
            stop_us_p99,
            stop_us_max,
            last_error: figures.last_error.clone(),
            kept: lag.map(|lag| Kept {
                store: lag.store,
                durable: lag.durable,
                behind: lag.behind,
                trouble: lag.trouble,
            }),
        }
    }
}

fn private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(folder)
}

fn slos_keep(keep: Keep) -> slos::Keep {
    match keep {
        Keep::All => slos::Keep::All,
        Keep::Last(n) => slos::Keep::Last(n),
        Keep::Log => slos::Keep::Log,
    }
}

fn default_budget() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|l| {
        l.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(4 << 20) * 1024 / DEFAULT_SHARE
}
