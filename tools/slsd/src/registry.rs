//! The partitions this daemon holds.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use libsls::protocol::{Failure, Keep, TEMPORARY_PREFIX};
use sls_engine::Probe;

use crate::part::Part;

/// How long nothing must be held and nobody connected before the daemon leaves.
const IDLE: Duration = Duration::from_secs(3);

/// No partition's name starts with a dot.
const JOURNALS: &str = ".journals";

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
        let name = socket.to_string_lossy().replace('/', "-");
        let memory = slos::private_memory_folder(name.trim_start_matches(['-', '.']))
            .context("a private folder in /dev/shm")?;
        let registry = Self {
            parts: Mutex::new(BTreeMap::new()),
            clients: AtomicU64::new(0),
            started: Instant::now(),
            probe,
            keeper,
            journals: memory.join(JOURNALS),
            memory,
        };
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&registry.journals)?;
        registry.recover();
        Ok(registry)
    }

    fn recover(&self) {
        let Ok(entries) = std::fs::read_dir(&self.memory) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == JOURNALS {
                continue;
            }
            match Part::recover(&name, &entry.path(), self) {
                Ok(part) => {
                    self.lock().insert(name, Arc::new(part));
                }
                Err(error) => tracing::error!(%name, error = format!("{error:#}"), "recover"),
            }
        }
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
            let mut lasting = parts
                .values()
                .filter(|part| !part.name.starts_with(TEMPORARY_PREFIX));
            return match (lasting.next(), lasting.next()) {
                (Some(only), None) => Ok(Arc::clone(only)),
                (None, _) => Err(Refusal::new(
                    Failure::NotFound,
                    "there is no partition; attach a process first: slsctl attach -p PID",
                )),
                _ => Err(Refusal::new(
                    Failure::Usage,
                    format!("name one of the partitions with -o: {}", names(&parts)),
                )),
            };
        };
        let name = libsls::partition_name(given);
        parts.get(&name).cloned().ok_or_else(|| {
            Refusal::new(
                Failure::NotFound,
                format!("there is no partition {name}; there are: {}", names(&parts)),
            )
        })
    }

    /// The partition that holds a process.
    pub fn find_pid(&self, pid: i32) -> Result<Arc<Part>, Refusal> {
        self.all()
            .into_iter()
            .find(|p| p.pid() == Some(pid))
            .ok_or_else(|| {
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
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || name.contains('/') {
            return Err(Refusal::new(
                Failure::Usage,
                format!(
                    "{name:?} cannot name a partition: up to 64 characters, no slash, no leading dot"
                ),
            ));
        }
        let mut parts = self.lock();
        if parts.contains_key(&name) {
            return Err(Refusal::new(
                Failure::Exists,
                format!(
                    "there is a partition {name} already; remove it with `slsctl partdel -o {name}`"
                ),
            ));
        }
        let part = Part::create(&name, &self.memory.join(&name), keep, budget, period, self)
            .map_err(|e| Refusal::other(format!("make partition {name}: {e:#}")))?;
        let part = Arc::new(part);
        parts.insert(name, Arc::clone(&part));
        Ok(part)
    }

    /// Lets a partition's process go and gives its memory back.
    pub fn remove(&self, given: &str) -> Result<(), Refusal> {
        let part = self.find(Some(given))?;
        part.detach()?;
        self.lock().remove(&part.name);
        part.erase().map_err(Refusal::other)?;
        Ok(())
    }

    /// Ends the process when nothing is held and nobody is connected.
    pub fn leave_when_idle(self: &Arc<Self>, socket: PathBuf) {
        let registry = Arc::clone(self);
        std::thread::spawn(move || {
            let mut since = Instant::now();
            loop {
                std::thread::sleep(IDLE / 10);
                let busy = registry.clients.load(Ordering::SeqCst) > 0
                    || registry.all().iter().any(|p| p.is_held());
                if busy {
                    since = Instant::now();
                } else if since.elapsed() > IDLE {
                    break;
                }
            }
            for part in registry.all() {
                let _ = part.erase(); // Empty: nothing is lost with it.
            }
            let _ = std::fs::remove_dir_all(&registry.memory);
            // A client that connects now finds no socket and starts another daemon.
            let _ = std::fs::remove_file(socket);
            std::process::exit(0);
        });
    }
}

fn names(parts: &BTreeMap<String, Arc<Part>>) -> String {
    if parts.is_empty() {
        return "none".to_owned();
    }
    parts.keys().cloned().collect::<Vec<_>>().join(", ")
}
