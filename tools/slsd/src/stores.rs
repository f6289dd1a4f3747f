//! Stores on devices and in files: opened when they are asked for, and closed when nobody has asked
//! for a while, so that another program can have them. What one held is known then, as long as it is as it was.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsls::protocol::{Failure, History};
use slos::{Aside, Device, FileDevice, OpenError, Store, fingerprint};

use crate::known::Known;
use crate::registry::Refusal;
use crate::transfer;

/// Opening reads what is in use of the store, so it stays open for the next question.
const IDLE: Duration = Duration::from_secs(2);

/// The end of the daemon waits so long for what is known of stores to be saved.
const SAVING: Duration = Duration::from_secs(2);

/// The stores that are open, and what is known of others.
pub struct Stores {
    open: Mutex<BTreeMap<Id, Kept>>,
    known: Known,
}

/// A device by its number, or a file by its place: one of them may have several names.
type Id = (u64, u64);

struct Kept {
    store: Arc<Store>,
    device: Arc<dyn Device>,
    path: PathBuf,
    used: Instant,
}

impl Stores {
    pub fn new(known: Known) -> Stores {
        Stores {
            open: Mutex::default(),
            known,
        }
    }

    /// The store that lies there.
    pub fn open(&self, path: &Path) -> Result<Arc<Store>, Refusal> {
        if !path.is_absolute() {
            let message = format!("{} is no absolute path", path.display());
            return Err(Refusal::new(Failure::Usage, message));
        }
        let id = id(path).map_err(|error| missing(path, &error))?;
        let mut open = self.lock();
        if let Some(kept) = open.get_mut(&id) {
            kept.used = Instant::now();
            if !kept.store.is_dead() {
                return Ok(Arc::clone(&kept.store));
            }
            // After a failed write only what lies there counts.
            open.remove(&id);
        }
        let device = FileDevice::open(path).map_err(|error| unusable(path, &error))?;
        let device: Arc<dyn Device> = Arc::new(device);
        let opened = Store::open_device_by(Arc::clone(&device), path, &self.known);
        let (store, report) = opened.map_err(|error| refusal(path, &error))?;
        if report.is_clean() {
            tracing::info!(
                path = %path.display(), checkpoints = report.checkpoints,
                segments = report.segments, skimmed = report.skimmed, "store opened"
            );
        } else {
            tracing::warn!(path = %path.display(), ?report, "store opened with damage");
        }
        let store = Arc::new(store);
        let kept = Kept {
            store: Arc::clone(&store),
            device,
            path: path.to_owned(),
            used: Instant::now(),
        };
        open.insert(id, kept);
        Ok(store)
    }

    /// The store that lies there, for who only reads. A bundle stays as it is, and several may read it.
    pub fn open_to_read(&self, path: &Path) -> Result<Arc<Store>, Refusal> {
        if !libsls::bundle::is_named_so(path) {
            return self.open(path);
        }
        let device = FileDevice::open_to_read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let message = format!("there is no {}", path.display());
                Refusal::new(Failure::NotFound, message)
            }
            _ => unusable(path, &error),
        })?;
        let opened = Store::open_device(Arc::new(Aside::new(device)), path);
        let (store, report) = opened.map_err(|error| refusal(path, &error))?;
        if !report.is_clean() {
            tracing::warn!(path = %path.display(), ?report, "bundle opened with damage");
        }
        Ok(Arc::new(store))
    }

    /// Closes those that nobody has used for a while.
    pub fn close_idle(&self) {
        self.close_where(|kept| kept.used.elapsed() >= IDLE);
    }

    /// Closes all that nobody uses, and keeps what is known of them for the next daemon.
    pub fn close(&self) {
        self.close_where(|_| true);
        self.known.settle(SAVING);
    }

    fn close_where(&self, is_over: impl Fn(&Kept) -> bool) {
        let mut open = self.lock();
        let over = |kept: &Kept| Arc::strong_count(&kept.store) == 1 && is_over(kept);
        let ids: Vec<Id> = open
            .iter()
            .filter(|(_, kept)| over(kept))
            .map(|(id, _)| *id)
            .collect();
        // Under the lock: who asks for it now would be told that somebody else has it.
        for kept in ids.iter().filter_map(|id| open.remove(id)) {
            self.close_one(kept);
        }
    }

    /// Notes what it holds, under what it looks like once it is closed.
    fn close_one(&self, kept: Kept) {
        let histories = match kept.store.is_dead() {
            false => transfer::histories(&kept.store).ok(),
            true => None,
        };
        drop(kept.store);
        let Some(histories) = histories else { return };
        match fingerprint(&kept.device) {
            Ok(Some(looks)) => self.known.close(&kept.path, &looks, &histories),
            // It has to be opened to be told what is in it.
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(path = %kept.path.display(), %error, "look at a closed store")
            }
        }
    }

    /// What a store holds that nobody has open, if it is as it was when it was closed here. It is not written to.
    pub fn known(&self, path: &Path) -> Option<Vec<History>> {
        let open = self.lock();
        let id = id(path).ok()?;
        if open.contains_key(&id) || !self.known.knows(path) {
            return None;
        }
        // Whatever is wrong with it, opening it says so.
        let device: Arc<dyn Device> = Arc::new(FileDevice::open(path).ok()?);
        let looks = fingerprint(&device).ok()??;
        self.known.listing(&looks)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Kept>> {
        // Single insertions and removals: whole after any panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id(path: &Path) -> io::Result<Id> {
    let meta = std::fs::metadata(path)?;
    Ok(if meta.file_type().is_block_device() {
        (u64::MAX, meta.rdev())
    } else {
        (meta.dev(), meta.ino())
    })
}

fn missing(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::new(
            Failure::NotFound,
            format!("there is no {shown}; make a store there: newfs_sls --size 4G {shown}"),
        ),
        _ => unusable(path, error),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    let message = match error.kind() {
        io::ErrorKind::WouldBlock => format!("{shown} is in use by another process"),
        io::ErrorKind::ResourceBusy => {
            format!("{shown} is mounted, or a part of something that is")
        }
        _ => format!("{shown}: {error}"),
    };
    Refusal::new(Failure::Other, message)
}

fn refusal(path: &Path, error: &OpenError) -> Refusal {
    let shown = path.display();
    match error {
        OpenError::NoStore { .. } => Refusal::new(
            Failure::NotFound,
            format!("{shown} holds no store; make one there: newfs_sls {shown}"),
        ),
        other => Refusal::new(
            Failure::Other,
            format!("{other}; `slsctl fsck {shown}` tells more"),
        ),
    }
}
