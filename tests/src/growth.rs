//! What a process and a folder hold, seen from outside.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::target::field;

/// Resident bytes, 0 of a process that has ended.
#[must_use]
pub fn rss(pid: i32) -> u64 {
    let text = field(pid, "VmRSS:");
    let kib = text.split_whitespace().next();
    kib.and_then(|n| n.parse().ok()).unwrap_or(0) * 1024
}

/// Open descriptors.
#[must_use]
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Lines of the map list.
#[must_use]
pub fn mappings(pid: i32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
    maps.map_or(0, |text| text.lines().count())
}

/// The most that a daemon and its folder held, looked at twenty times a second.
#[derive(Debug)]
pub struct Held {
    daemon: Arc<AtomicI32>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Most>,
}

/// See [`Held`]; bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Most {
    /// In the folder.
    pub files: u64,
    /// Resident in the daemon.
    pub rss: u64,
    /// Both, at one moment.
    pub together: u64,
}

impl Held {
    /// Begins to look.
    #[must_use]
    pub fn watch(folder: PathBuf, daemon: i32) -> Self {
        let daemon = Arc::new(AtomicI32::new(daemon));
        let over = Arc::new(AtomicBool::new(false));
        let (of, until) = (Arc::clone(&daemon), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut most = Most::default();
            while !until.load(Ordering::SeqCst) {
                let (files, rss) = (on_disk(&folder), rss(of.load(Ordering::SeqCst)));
                most.files = most.files.max(files);
                most.rss = most.rss.max(rss);
                most.together = most.together.max(files + rss);
                std::thread::sleep(Duration::from_millis(50));
            }
            most
        });
        Self {
            daemon,
            over,
            thread,
        }
    }

    /// Another daemon has taken over.
    pub fn is_now(&self, daemon: i32) {
        self.daemon.store(daemon, Ordering::SeqCst);
    }

    /// The most there was.
    #[must_use]
    pub fn stop(self) -> Most {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("it only looks")
    }
}

/// Bytes that the files of a folder take; a file may go meanwhile.
fn on_disk(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok());
    sizes.map(|m| m.blocks() * 512).sum()
}
