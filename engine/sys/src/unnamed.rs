//! Files without a name: memory files, and files that were unlinked while they are open. Nobody finds
//! them again by a path, so what they hold is read as the descriptors are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, fcntl};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::descriptors::FileStat;
use crate::fd::pidfd_getfd;
use crate::procfs::{self, MapLine};

/// Bytes of one file that are read at most: they are read while the process stands still.
pub const MOST: u64 = 1 << 20;
/// Bytes of all that are read at one stop.
const MOST_AT_ONCE: u64 = 16 << 20;
/// A file that was written so shortly before it was read may be written again under the same time.
const SETTLED: Duration = Duration::from_millis(50);

/// What is known of one besides what stat(2) tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unnamed {
    /// F_SEAL_*; of memory.
    pub seals: u32,
    /// What it holds.
    pub body: Body,
    /// Its times tell whether it is written again.
    pub settled: bool,
}

/// What it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// What it held when it was last told of, by way of whichever descriptor.
    Same,
    /// All of it.
    Bytes(ByteBuf),
    /// All of it is mapped for writing, and kept as memory is.
    Mapped,
    /// It was not read, and why.
    Unread(String),
}

/// Has nobody a path to it?
#[must_use]
pub fn is_unnamed(stat: &FileStat) -> bool {
    stat.mode & libc::S_IFMT == libc::S_IFREG && stat.links == 0
}

/// Reads those of one process at one stop.
#[derive(Debug)]
pub struct Reader {
    pid: i32,
    left: u64,
    maps: Option<Vec<MapLine>>,
}

impl Reader {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(pid: i32) -> Self {
        Self {
            pid,
            left: MOST_AT_ONCE,
            maps: None,
        }
    }

    /// What a descriptor's file holds; `last` is what it was, and what was told
    /// of it.
    pub fn read(
        &mut self,
        (pidfd, fd): (BorrowedFd<'_>, i32),
        stat: &FileStat,
        last: Option<(&FileStat, &Unnamed)>,
    ) -> Unnamed {
        if let Some((was, told)) = last
            && was == stat
            && told.settled
        {
            return told.clone();
        }
        let ours = match pidfd_getfd(pidfd, fd) {
            Ok(ours) => File::from(ours),
            Err(error) => return unread(0, error.to_string()),
        };
        // No other files can be sealed.
        let seals = fcntl(&ours, FcntlArg::F_GET_SEALS).unwrap_or(0);
        let seals = seals.cast_unsigned();
        if self.is_mapped(stat) {
            return Unnamed {
                seals,
                body: Body::Mapped,
                settled: true,
            };
        }
        if stat.size > MOST {
            let why = format!(
                "it is longer than the {} MiB that are kept of a file without a name",
                MOST >> 20
            );
            return unread(seals, why);
        }
        let Some(left) = self.left.checked_sub(stat.size) else {
            let why = "there are too many files without a name to keep what all of them hold";
            return unread(seals, why.to_owned());
        };
        self.left = left;
        match bytes(&ours, self.pid, fd, stat.size) {
            Ok(bytes) => Unnamed {
                seals,
                body: Body::Bytes(ByteBuf::from(bytes)),
                settled: is_settled(stat),
            },
            Err(error) => unread(seals, format!("it could not be read: {error}")),
        }
    }

    /// All of it, for writing and with others? A mapping is read anyway.
    fn is_mapped(&mut self, stat: &FileStat) -> bool {
        let pid = self.pid;
        let maps = self.maps.get_or_insert_with(|| {
            // Without them it is read twice at worst.
            procfs::maps(pid).unwrap_or_default()
        });
        let all = |m: &MapLine| m.offset == 0 && m.end - m.start >= stat.size;
        let its = |m: &MapLine| (m.dev, m.inode) == (stat.dev, stat.ino) && m.shared && m.write;
        stat.size > 0 && maps.iter().any(|m| its(m) && all(m))
    }
}

fn unread(seals: u32, why: String) -> Unnamed {
    Unnamed {
        seals,
        body: Body::Unread(why),
        settled: true,
    }
}

fn is_settled(stat: &FileStat) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos().cast_signed();
    now - stat.mtime_ns.max(stat.ctime_ns) > SETTLED.as_nanos().cast_signed()
}

fn bytes(ours: &File, pid: i32, fd: i32, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; crate::size(size)];
    match ours.read_exact_at(&mut bytes, 0) {
        // Open for writing only.
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
            let file = File::open(format!("/proc/{pid}/fd/{fd}"))?;
            file.read_exact_at(&mut bytes, 0)?;
        }
        read => read?,
    }
    Ok(bytes)
}

/// Makes a file that a process has open so long, and writes these bytes at that place.
///
/// # Errors
/// It may not be written, or has no room.
pub fn write(
    (pidfd, fd): (BorrowedFd<'_>, i32),
    size: u64,
    at: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let ours = pidfd_getfd(pidfd, fd)?;
    write_to(ours.as_fd(), size, at, bytes)
}

/// The same by a descriptor of our own, open for whatever.
///
/// # Errors
/// As [`write`].
pub fn write_to(ours: BorrowedFd<'_>, size: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // A description of our own: theirs may be for reading, or for appending.
    let path = format!("/proc/self/fd/{}", ours.as_raw_fd());
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)?;
    if file.metadata()?.len() != size {
        file.set_len(size)?;
    }
    let room = crate::size(size.saturating_sub(at)).min(bytes.len());
    file.write_all_at(&bytes[..room], at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::pidfd_open;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    fn stat(file: &File) -> FileStat {
        let meta = file.metadata().unwrap();
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        FileStat {
            dev: meta.dev(),
            ino: meta.ino(),
            mode: meta.mode(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
            owner: (meta.uid(), meta.gid()),
        }
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let pid = std::process::id().cast_signed();
        let pidfd = pidfd_open(pid).unwrap();
        let path = std::env::temp_dir().join(format!("sls-test-unnamed-{pid}"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        assert!(!is_unnamed(&stat(&file)));
        std::fs::remove_file(&path).unwrap();
        assert!(is_unnamed(&stat(&file)));
        let whose = (pidfd.as_fd(), file.as_raw_fd());
        write(whose, 3, 0, b"old beyond").unwrap();
        let old = stat(&file);
        assert_eq!(old.size, 3);
        let first = Reader::new(pid).read(whose, &old, None);
        assert_eq!(first.body, Body::Bytes(ByteBuf::from(b"old".to_vec())));
        assert!(!first.settled, "just written");
        std::thread::sleep(2 * SETTLED);
        let second = Reader::new(pid).read(whose, &old, Some((&old, &first)));
        assert!(second.settled && second.body == first.body);
        let known = Unnamed {
            body: Body::Same,
            ..second
        };
        let third = Reader::new(pid).read(whose, &old, Some((&old, &known)));
        assert_eq!(third, known);
        write(whose, MOST + 1, 0, b"").unwrap();
        let long = Reader::new(pid).read(whose, &stat(&file), Some((&old, &third)));
        assert!(matches!(long.body, Body::Unread(_)), "{long:?}");
    }
}
