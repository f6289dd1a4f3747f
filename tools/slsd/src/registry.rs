//! The partitions this daemon holds.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use libsls::is_temporary;
use libsls::protocol::{Failure, Keep};
use slos::{Epoch, Taken};
use sls_engine::Probe;

use crate::guests::Guests;
use crate::known::{self, Known};
use crate::names;
use crate::part::{Part, Source};
use crate::stores::Stores;

/// No partition's name starts with a dot.
const JOURNALS: &str = ".journals";

/// Every checkpoint.
pub const ALL: (Epoch, Epoch) = (Epoch(1), Epoch(u64::MAX));

/// Each has a thread, a folder and descriptors.
const MOST_PARTITIONS: usize = 256;

/// What is new may take so long to come to its store when the daemon leaves; memory has it anyway.
const LAST_FLUSH: Duration = Duration::from_secs(3);

/// A refusal a client can act on.
#[derive(Debug)]
pub struct Refusal {
    pub kind: Failure,
    pub message: String,
}

impl Refusal {
    pub fn new(kind: Failure, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn other(error: impl std::fmt::Display) -> Self {
        Self::new(Failure::Other, error.to_string())
    }
}

/// Everything the daemon knows.
pub struct Registry {
    parts: Mutex<BTreeMap<String, Arc<Part>>>,
    pub clients: AtomicU64,
    pub guests: Arc<Guests>,
    pub stores: Arc<Stores>,
    /// The daemon leaves: who comes now is turned away, and starts another.
    closed: AtomicBool,
    pub started: Instant,
    pub probe: Probe,
    pub keeper: PathBuf,
    /// Journals of rewinds: in memory, and with the partitions' folders.
    pub journals: PathBuf,
    /// Folder of this daemon's memory partitions.
    memory: PathBuf,
}

impl Registry {
    /// Opens what an earlier daemon on the same socket left in memory.
    pub fn open(socket: &Path, probe: Probe, keeper: PathBuf) -> anyhow::Result<Self> {
        let memory = slos::private_memory_folder(&libsls::memory_name(socket))
            .context("a private folder in /dev/shm")?;
        let known = Known::begin(known::catalogue(socket)).context("a thread for the catalogue")?;
        let registry = Self {
            parts: Mutex::new(BTreeMap::new()),
            clients: AtomicU64::new(0),
            guests: Arc::default(),
            stores: Arc::new(Stores::new(known)),
            closed: AtomicBool::new(false),
            started: Instant::now(),
            probe,
            keeper,
            journals: memory.join(JOURNALS),
            memory,
        };
        registry.recover()?;
        Ok(registry)
    }

    /// The folder is there as long as a partition is.
    fn make_folder(&self) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.journals)
    }

    fn recover(&self) -> anyhow::Result<()> {
        let entries = match std::fs::read_dir(&self.memory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context("look for what an earlier daemon left")?,
        };
        self.make_folder()?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == JOURNALS {
                continue;
            }
            if is_temporary(&name) || Part::is_half_imported(&entry.path()) {
                // Who looked, or waited for it, is not connected any more.
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!(%name, %error, "remove");
                }
                continue;
            }
            match Part::recover(&name, &entry.path(), self) {
                Ok(part) => {
                    self.lock().insert(name, Arc::new(part));
                }
                Err(error) => tracing::error!(%name, error = format!("{error:#}"), "recover"),
            }
        }
        self.tidy(&self.lock());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Part>>> {
        // The map is changed by single inserts and removals, so it is whole after any panic.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All partitions, by name.
    pub fn all(&self) -> Vec<Arc<Part>> {
        self.lock().values().cloned().collect()
    }

    /// A partition by name or number, or the only one.
    pub fn find(&self, given: Option<&str>) -> Result<Arc<Part>, Refusal> {
        let parts = self.lock();
        let Some(given) = given else {
            let mut lasting = parts.values().filter(|part| !is_temporary(&part.name));
            return match (lasting.next(), lasting.next()) {
                (Some(only), None) => Ok(Arc::clone(only)),
                (None, _) => Err(Refusal::new(
                    Failure::NotFound,
                    "there is no partition; attach a process first: slsctl attach -p PID",
                )),
                _ => Err(Refusal::new(
                    Failure::Usage,
                    format!("name one of the partitions with -o: {}", list(&parts)),
                )),
            };
        };
        let name = libsls::partition_name(given);
        parts.get(&name).cloned().ok_or_else(|| {
            Refusal::new(
                Failure::NotFound,
                format!(
                    "there is no partition {}; there are: {}",
                    names::shown(&name),
                    list(&parts)
                ),
            )
        })
    }

    /// The partition that holds a process.
    pub fn find_pid(&self, pid: i32) -> Result<Arc<Part>, Refusal> {
        self.all().into_iter().find(|p| p.has(pid)).ok_or_else(|| {
            Refusal::new(
                Failure::NotFound,
                format!("process {pid} is not attached; `slsctl ps` lists what is"),
            )
        })
    }

    /// Makes a memory partition.
    pub fn add(
        &self,
        given: &str,
        keep: Keep,
        budget: Option<u64>,
        period: Option<Duration>,
    ) -> Result<Arc<Part>, Refusal> {
        let name = libsls::partition_name(given);
        names::partition(&name)?;
        let mut parts = self.lock();
        if parts.len() >= MOST_PARTITIONS {
            return Err(Refusal::new(
                Failure::Other,
                format!(
                    "there are {MOST_PARTITIONS} partitions already; remove one with `slsctl partdel`"
                ),
            ));
        }
        if parts.contains_key(&name) {
            return Err(exists(&name));
        }
        self.make_folder()
            .map_err(|e| Refusal::other(format!("make {}: {e}", self.journals.display())))?;
        let part = Part::create(&name, &self.memory.join(&name), keep, budget, period, self)
            .map_err(|e| Refusal::other(format!("make partition {name}: {e:#}")))?;
        let part = Arc::new(part);
        parts.insert(name, Arc::clone(&part));
        Ok(part)
    }

    /// Makes a memory partition of a history that lies in a store.
    pub fn add_imported(
        &self,
        name: &str,
        source: &Source<'_>,
        budget: Option<u64>,
    ) -> Result<Taken, Refusal> {
        names::partition(name)?;
        if self.lock().contains_key(name) {
            return Err(exists(name));
        }
        self.make_folder()
            .map_err(|e| Refusal::other(format!("make {}: {e}", self.journals.display())))?;
        // Not under the lock: gigabytes take their time.
        let imported = Part::import(name, &self.memory.join(name), source, budget, self);
        let (part, taken) = imported.inspect_err(|_| self.tidy(&self.lock()))?;
        let mut parts = self.lock();
        if parts.len() >= MOST_PARTITIONS || parts.contains_key(name) {
            drop(parts);
            part.erase().map_err(Refusal::other)?;
            return Err(exists(name));
        }
        parts.insert(name.to_owned(), Arc::new(part));
        Ok(taken)
    }

    /// Makes a partition that is written to a store as it runs; a history that the store has of that
    /// name is its past.
    pub fn add_durable(
        &self,
        given: &str,
        store: &Path,
        keep: Keep,
        budget: Option<u64>,
        period: Option<Duration>,
    ) -> Result<Arc<Part>, Refusal> {
        let name = libsls::partition_name(given);
        let opened = self.stores.open(store)?;
        let past = opened.partition(&name).ok();
        let past = past.filter(|past| past.newest().is_ok_and(|newest| newest.is_some()));
        let part = match past {
            Some(past) => {
                let source = Source {
                    history: &past,
                    range: ALL,
                    files: None,
                };
                self.add_imported(&name, &source, budget)?;
                let part = self.find(Some(&name))?;
                part.settle(keep, period).map_err(Refusal::other)?;
                part
            }
            None => self.add(&name, keep, budget, period)?,
        };
        if let Err(error) = part.keep_in(&self.stores, store) {
            self.remove(&name)?;
            return Err(Refusal::other(format!(
                "keep {name} in {}: {error}",
                store.display()
            )));
        }
        Ok(part)
    }

    /// Lets a partition's process go and gives its memory back.
    pub fn remove(&self, given: &str) -> Result<(), Refusal> {
        let part = self.find(Some(given))?;
        part.detach()?;
        if !self.strike(&part) {
            return Err(Refusal::new(
                Failure::NotFound,
                format!("partition {} is gone already", part.name),
            ));
        }
        // Not under the lock: gigabytes take their time to be given back.
        let erased = part.erase();
        self.tidy(&self.lock());
        erased.map_err(|error| {
            Refusal::other(format!(
                "remove the history of partition {}: {error}",
                part.name
            ))
        })
    }

    /// Takes this very partition off the list; false when another thread was quicker.
    fn strike(&self, part: &Arc<Part>) -> bool {
        let mut parts = self.lock();
        let there = parts
            .get(&part.name)
            .is_some_and(|held| Arc::ptr_eq(held, part));
        if there {
            parts.remove(&part.name);
        }
        there
    }

    /// Is anybody connected?
    pub fn has_clients(&self) -> bool {
        self.clients.load(Ordering::SeqCst) > 0
    }

    /// Is a partition of use to anybody?
    pub fn is_needed(&self) -> bool {
        self.all().iter().any(|part| part.is_needed())
    }

    /// Turns new clients away, or no longer.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
    }

    /// Are new clients turned away?
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Lets every process go, and removes the partitions that hold nothing.
    pub fn let_go(&self) {
        for part in self.all() {
            if let Err(refusal) = part.detach() {
                tracing::warn!(name = part.name, error = refusal.message, "let go");
            }
            if part.is_held() && !is_temporary(&part.name) {
                part.flush(LAST_FLUSH);
                continue;
            }
            if let Err(refusal) = self.remove(&part.name) {
                tracing::warn!(name = part.name, error = refusal.message, "remove");
            }
        }
    }

    /// With the last partition goes the folder, unless something is in it that could not be
    /// recovered: that is not ours to throw away.
    fn tidy(&self, parts: &BTreeMap<String, Arc<Part>>) {
        if !parts.is_empty() {
            return;
        }
        if let Err(error) = self.remove_folder()
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.memory.display(), "remove the folder");
        }
    }

    fn remove_folder(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.memory)? {
            if entry?.file_name() != JOURNALS {
                return Ok(());
            }
        }
        // Of a process that lives they are what puts it right at the next attach.
        if self.journals.exists() && !sls_engine::clean(&self.journals)? {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.journals)?;
        std::fs::remove_dir(&self.memory)
    }
}

fn exists(name: &str) -> Refusal {
    Refusal::new(
        Failure::Exists,
        format!("there is a partition {name} already; remove it with `slsctl partdel -o {name}`"),
    )
}

fn list(parts: &BTreeMap<String, Arc<Part>>) -> String {
    if parts.is_empty() {
        return "none".to_owned();
    }
    parts.keys().cloned().collect::<Vec<_>>().join(", ")
}
