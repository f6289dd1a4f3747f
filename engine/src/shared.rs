//! Memory shared with others: taken by content at every checkpoint, once per object.
//!
//! No scan vouches for it: a write through another mapping, another process or pwrite(2) is not
//! reported. Only what the process can write is taken; a read-only mapping of a file is the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use sls_record::{Backing, Process, Renamed};
use sls_sys::procfs::MapLine;

use crate::ranges::Range;
use crate::runs::is_kernel;

const PAGE: u64 = sls_sys::PAGE;

/// The numbers under which a history keeps memory: each process's own, and shared objects.
#[derive(Debug, Default)]
pub struct Spaces {
    /// By device and inode.
    objects: BTreeMap<(u64, u64), u32>,
    /// The first that was never given.
    next: u32,
}

/// Parts of objects that were seen to already.
#[derive(Debug, Default)]
pub struct Taken(Vec<(u32, Range)>);

impl Taken {
    /// This part of an object is seen to.
    pub fn take(&mut self, space: u32, range: Range) {
        self.0.push((space, range));
    }

    /// Was it, whole?
    pub fn has(&self, space: u32, range: Range) -> bool {
        let covers = |&(of, r): &(u32, Range)| of == space && r.0 <= range.0 && range.1 <= r.1;
        self.0.iter().any(covers)
    }
}

/// Is it shared memory whose content goes into checkpoints?
pub fn is_captured(map: &MapLine) -> bool {
    map.shared && (map.write || is_memory_only(&map.path)) && !is_kernel(map) && !is_device(map)
}

/// Device memory has side effects or no pages at all; io_uring rings are the kernel's.
pub fn is_device(map: &MapLine) -> bool {
    let path = map.path.as_str();
    (path.starts_with("/dev/") && !path.starts_with("/dev/shm/") && !path.starts_with("/dev/zero"))
        || path.starts_with("anon_inode:")
        || path.starts_with("/[aio]")
}

/// Memory without a file behind it: what a rewind may write without touching anybody's file.
pub fn is_memory_only(path: &str) -> bool {
    path.starts_with("/memfd:")
        || path.starts_with("/dev/shm/")
        || path.starts_with("/dev/zero")
        || path.starts_with("/SYSV")
        || path.starts_with("/anon_hugepage")
}

impl Spaces {
    /// Numbers up to this one have a meaning already.
    pub fn skip(&mut self, last: u32) {
        self.next = self.next.max(last.saturating_add(1));
    }

    /// The numbers that the objects of these have.
    pub fn know(&mut self, processes: &[Process]) {
        for map in processes.iter().flat_map(|p| &p.mappings) {
            if let Backing::Shared { space } = map.backing {
                self.objects.insert((map.dev, map.inode), space);
            }
        }
        for file in processes.iter().flat_map(|p| &p.files) {
            if let Some(space) = file.content() {
                self.objects.insert((file.dev, file.inode), space);
            }
        }
    }

    /// Objects that were made again keep their numbers.
    pub fn rename(&mut self, renamed: &[Renamed]) {
        for Renamed { old, new } in renamed {
            if let Some(&space) = self.objects.get(&(old.dev, old.inode)) {
                self.objects.insert((new.dev, new.inode), space);
            }
        }
    }

    /// A number for a process's own memory.
    pub fn of_process(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        number
    }

    /// Space of the object behind a mapping.
    pub fn of_object(&mut self, map: &MapLine) -> u32 {
        self.of((map.dev, map.inode))
    }

    /// Space of an object, by its device and inode.
    pub fn of(&mut self, object: (u64, u64)) -> u32 {
        match self.objects.get(&object) {
            Some(&known) => known,
            None => {
                let number = self.of_process();
                self.objects.insert(object, number);
                number
            }
        }
    }
}

/// Where the object behind a shared mapping holds data, as addresses of the mapping: a sparse
/// object of 64 GiB costs what it holds. Without the privilege to open it, the whole mapping.
pub fn populated(pid: i32, map: &MapLine) -> io::Result<Vec<Range>> {
    let path = format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end);
    let Ok(file) = File::open(path) else {
        return Ok(vec![(map.start, map.end)]);
    };
    let mut ranges = Vec::new();
    let end = map.offset + (map.end - map.start);
    let mut at = map.offset;
    while at < end {
        let Some(data) = seek(&file, at, libc::SEEK_DATA) else {
            break;
        };
        if data >= end {
            break;
        }
        let hole = seek(&file, data, libc::SEEK_HOLE).unwrap_or(end).min(end);
        let start = data / PAGE * PAGE;
        let stop = hole.next_multiple_of(PAGE).min(end);
        ranges.push((
            map.start + (start - map.offset),
            map.start + (stop - map.offset),
        ));
        at = stop;
    }
    Ok(ranges)
}

fn seek(file: &File, at: u64, whence: i32) -> Option<u64> {
    let at = i64::try_from(at).ok()?;
    let whence = if whence == libc::SEEK_DATA {
        nix::unistd::Whence::SeekData
    } else {
        nix::unistd::Whence::SeekHole
    };
    debug_assert!(file.as_raw_fd() >= 0);
    nix::unistd::lseek(file, at, whence)
        .ok()
        .map(i64::cast_unsigned)
}
