use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use crate::SegmentId;

/// Where segments lie: the whole OS surface of a store, so that tests can fail any call of it.
pub trait Medium: Send + Sync {
    /// Creates an empty segment; it is an error when it is there already.
    fn create(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>>;
    fn open(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>>;
    fn list(&self) -> io::Result<Vec<SegmentId>>;
    /// Whoever still holds the segment's file may go on reading it.
    fn remove(&self, segment: SegmentId) -> io::Result<()>;
    /// Bytes that more segments may take, where that is limited and known. Others may take them too.
    fn room(&self) -> Option<u64> {
        None
    }
    /// What was settled when the medium was made, where it is one of slots.
    fn layout(&self) -> Option<Layout> {
        None
    }
    /// Slots that segments can still be made in; of a medium of slots.
    fn free_slots(&self) -> u64 {
        0
    }
    /// All that was written and removed before lasts once this returns, whatever ends then. Where there
    /// are no slots it lasts as it is written.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A medium of slots: each holds a segment, and has bytes after the last record that mean nothing.
/// What was not followed by a sync may be lost in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub uuid: [u8; 16],
    /// How often it was opened for writing.
    pub generation: u32,
    /// Bytes of a slot that a segment may take.
    pub segment_size: u32,
    pub slots: u32,
}

/// One segment. Bytes once written are never changed, but for the truncation of a torn tail.
pub trait SegmentFile: Send + Sync {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Its descriptor, where it is a file of its own: whoever has that reads it without the store.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Segments as files of a private folder, held under an advisory lock while it is open.
pub struct FolderMedium {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Names a private folder for a memory partition's store: `/dev/shm/sls-UID/NAME`, where
/// `sls-UID` is made with mode 0700 and refused when it belongs to someone else.
pub fn private_memory_folder(name: &str) -> io::Result<PathBuf> {
    let uid = nix::unistd::geteuid();
    let parent = PathBuf::from(format!("/dev/shm/sls-{uid}"));
    match DirBuilder::new().mode(0o700).create(&parent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    // A stranger may have made the folder first, or put a symbolic link there.
    let meta = std::fs::symlink_metadata(&parent)?;
    if !meta.is_dir() || meta.uid() != uid.as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a private folder of ours", parent.display()),
        ));
    }
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} cannot name a folder"),
        ));
    }
    Ok(parent.join(name))
}

impl FolderMedium {
    /// Makes the folder (mode 0700) if it is missing, and locks it.
    pub fn create(path: &Path) -> io::Result<FolderMedium> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        FolderMedium::open(path)
    }

    /// Locks an existing folder; `WouldBlock` when another process holds it.
    pub fn open(path: &Path) -> io::Result<FolderMedium> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path.join("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(FolderMedium {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    fn file(&self, segment: SegmentId) -> PathBuf {
        self.path.join(format!("{:010}.seg", segment.0))
    }
}

impl Medium for FolderMedium {
    fn create(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(self.file(segment))?;
        Ok(Arc::new(file))
    }

    fn open(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.file(segment))?;
        Ok(Arc::new(file))
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|n| n.strip_suffix(".seg"));
            if let Some(Ok(number)) = number.map(str::parse) {
                found.push(SegmentId(number));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn remove(&self, segment: SegmentId) -> io::Result<()> {
        std::fs::remove_file(self.file(segment))
    }

    fn room(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.path).ok()?;
        // A tmpfs without a limit says that it has no blocks at all.
        let limited = stat.blocks() > 0;
        limited.then(|| stat.blocks_available().saturating_mul(stat.fragment_size()))
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}
