//! How the daemon ends: by itself when nobody needs it, or when it is asked to by a signal.
//!
//! Either way partitions with checkpoints stay in memory for the next daemon, as they would after
//! `kill -9`; only what holds nothing is removed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::registry::Registry;

/// How long nobody must have needed the daemon before it leaves.
const IDLE: Duration = Duration::from_secs(3);
/// How often it looks.
const STEP: Duration = Duration::from_millis(100);
/// What is in progress may take so long to end when a signal asks; the keepers finish the rest.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket this daemon listens on, told from one that was put in its place.
pub struct Door {
    path: PathBuf,
    id: (u64, u64),
}

impl Door {
    /// The socket that was just made.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let id = id(path).with_context(|| format!("look at {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            id,
        })
    }

    /// Can a client still find us?
    fn is_there(&self) -> bool {
        id(&self.path).is_ok_and(|id| id == self.id)
    }

    fn remove(&self) {
        if self.is_there()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, socket = %self.path.display(), "remove the socket");
        }
    }
}

fn id(path: &Path) -> std::io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Watches for the end from a thread of its own; it ends the process.
pub fn watch(registry: &Arc<Registry>, door: Door) -> anyhow::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&asked)).context("catch signals")?;
    }
    let registry = Arc::clone(registry);
    std::thread::Builder::new()
        .name("leave".into())
        .spawn(move || {
            until_over(&registry, &door, &asked);
            let_go_in_time(&registry);
            door.remove();
            std::process::exit(0);
        })?;
    Ok(())
}

fn until_over(registry: &Registry, door: &Door, asked: &AtomicBool) {
    let mut needed = Instant::now();
    loop {
        std::thread::sleep(STEP);
        registry.stores.close_idle();
        if asked.load(Ordering::SeqCst) {
            tracing::info!("asked to leave");
            registry.close(true);
            return;
        }
        if is_needed(registry, door) {
            needed = Instant::now();
        } else if needed.elapsed() > IDLE && shut(registry, door) {
            return;
        }
    }
}

/// Without its socket no new client can come, and the histories are of use to the next daemon only.
fn is_needed(registry: &Registry, door: &Door) -> bool {
    registry.has_clients() || (door.is_there() && registry.is_needed())
}

/// Turns clients away who come from now on: they start another daemon. Not when one came meanwhile.
fn shut(registry: &Registry, door: &Door) -> bool {
    registry.close(true);
    if is_needed(registry, door) {
        registry.close(false);
        return false;
    }
    if !door.is_there() {
        tracing::warn!(socket = %door.path.display(), "the socket is gone: nobody can come any more");
    }
    true
}

/// A worker that does not come to an end must not keep the daemon: its keeper lets go without it.
fn let_go_in_time(registry: &Arc<Registry>) {
    let (done, over) = channel::<()>();
    let registry = Arc::clone(registry);
    std::thread::spawn(move || {
        registry.let_go();
        registry.stores.close();
        drop(done);
    });
    if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("left in the middle of something; the keepers finish it");
    }
}
