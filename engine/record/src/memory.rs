//! Mappings of an address space.

use serde::{Deserialize, Serialize};

/// Access rights and sharing of a mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Perms {
    /// PROT_READ.
    pub read: bool,
    /// PROT_WRITE.
    pub write: bool,
    /// PROT_EXEC.
    pub exec: bool,
    /// MAP_SHARED.
    pub shared: bool,
}

impl Perms {
    /// The PROT_* bits of mmap(2).
    #[must_use]
    pub fn prot(self) -> u64 {
        u64::from(self.read) | u64::from(self.write) << 1 | u64::from(self.exec) << 2
    }
}

impl std::fmt::Display for Perms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bit = |on, c| if on { c } else { '-' };
        write!(
            f,
            "{}{}{}{}",
            bit(self.read, 'r'),
            bit(self.write, 'w'),
            bit(self.exec, 'x'),
            if self.shared { 's' } else { 'p' }
        )
    }
}

/// Where the content of a mapping's pages is found when the page map of its space has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Absent pages are zero.
    Anonymous,
    /// Absent pages are those of this file, from the mapping's offset on.
    File,
    /// Pages are kept under the shared object's own space, by offset in the object.
    Shared {
        /// Space of the object in the partition.
        space: u32,
    },
    /// The kernel's own (vvar, vsyscall): never captured, content not meaningful later.
    Kernel,
}

/// One mapping, as /proc/PID/maps lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Rights.
    pub perms: Perms,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Device of the file, 0 for none.
    pub dev: u64,
    /// Inode of the file, 0 for none.
    pub inode: u64,
    /// Path or bracketed name; empty for plain anonymous memory.
    pub path: String,
    /// Where absent pages come from.
    pub backing: Backing,
    /// mtime of the backing file in ns since 1970 at capture; 0 for none. A reader compares it
    /// before it trusts the file.
    pub file_mtime_ns: i128,
    /// Grows down: a stack, MAP_GROWSDOWN.
    pub grows_down: bool,
    /// mlock(2).
    pub locked: bool,
    /// madvise(2), as far as it lasts.
    pub advice: Vec<Advice>,
    /// Protection key, pkeys(7); 0 is that of all memory that was given none.
    pub key: u8,
}

/// A System V shared memory segment that a process has attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Number, which is the inode of what is mapped.
    pub id: i32,
    /// Key, 0 for none.
    pub key: i32,
    /// Bytes.
    pub size: u64,
    /// Rights.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// It goes with the last that has it attached.
    pub removed: bool,
}

impl Segment {
    /// Is it what is mapped there?
    #[must_use]
    pub fn is_at(&self, map: &Mapping) -> bool {
        map.path.starts_with("/SYSV") && i32::try_from(map.inode) == Ok(self.id)
    }

    /// Is it mapped there as by one call of shmat?
    #[must_use]
    pub fn is_whole_at(&self, map: &Mapping) -> bool {
        const PAGE: u64 = 4096;
        self.is_at(map) && map.offset == 0 && map.len() == self.size.next_multiple_of(PAGE)
    }
}

/// What a program has advised the kernel of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Advice {
    /// MADV_DONTDUMP.
    NotDumped,
    /// MADV_DONTFORK.
    NotForked,
    /// MADV_WIPEONFORK.
    WipedOnFork,
    /// MADV_HUGEPAGE.
    HugePages,
    /// MADV_NOHUGEPAGE.
    NoHugePages,
    /// MADV_MERGEABLE.
    Mergeable,
    /// MADV_RANDOM.
    Random,
    /// MADV_SEQUENTIAL.
    Sequential,
}

impl Mapping {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True for the impossible empty mapping.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}
