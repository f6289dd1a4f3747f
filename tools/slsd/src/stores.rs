//! Stores on devices and in files: opened when they are asked for, and closed when nobody has asked
//! for a while, so that another program can have them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsls::protocol::Failure;
use slos::{Aside, FileDevice, OpenError, Store};

use crate::registry::Refusal;

/// Opening reads what is in use of the store, so it stays open for the next question.
const IDLE: Duration = Duration::from_secs(2);

/// The stores that are open.
#[derive(Default)]
pub struct Stores(Mutex<BTreeMap<Id, Kept>>);

/// A device by its number, or a file by its place: one of them may have several names.
type Id = (u64, u64);

struct Kept {
    store: Arc<Store>,
    used: Instant,
}

impl Stores {
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
        let (store, report) =
            Store::open_device(Arc::new(device), path).map_err(|error| refusal(path, &error))?;
        if report.is_clean() {
            tracing::info!(path = %path.display(), checkpoints = report.checkpoints, "store opened");
        } else {
            tracing::warn!(path = %path.display(), ?report, "store opened with damage");
        }
        let store = Arc::new(store);
        let kept = Kept {
            store: Arc::clone(&store),
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
        self.lock()
            .retain(|_, kept| Arc::strong_count(&kept.store) > 1 || kept.used.elapsed() < IDLE);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Kept>> {
        // Single insertions and removals: whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
