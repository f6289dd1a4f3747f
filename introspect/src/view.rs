//! What introspection looks at: a checkpoint, a live process or a core, seen as memory and registers.

use std::borrow::Cow;
use std::fmt;

use crate::registers::Registers;

/// Why a byte or a value cannot be had. Its text is what `{"unavailable": ...}` shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unavailable {
    /// First address that could not be read, where one is at fault.
    pub address: Option<u64>,
    /// A few words: "not mapped", "optimized out", ...
    pub reason: Cow<'static, str>,
}

impl Unavailable {
    pub fn not_mapped(address: u64) -> Self {
        Self {
            address: Some(address),
            reason: Cow::Borrowed("not mapped"),
        }
    }

    pub fn optimized_out() -> Self {
        Self::because("optimized out")
    }

    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            address: None,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} at {address:#x}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// One thread of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadView {
    pub tid: u32,
    pub name: String,
    pub registers: Registers,
}

/// One line of a memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// Offset of `start` in the file, in bytes.
    pub offset: u64,
    pub perms: Perms,
    /// As in `/proc/PID/maps`: may be empty, `[heap]`, or end in " (deleted)".
    pub path: String,
}

impl Mapping {
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// The path of the mapped file without the kernel's mark, or None for memory without a file.
    pub fn file_path(&self) -> Option<&str> {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        path.starts_with('/').then_some(path)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Perms {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub shared: bool,
}

impl Perms {
    /// From the `rwxp` column of `/proc/PID/maps`.
    pub fn parse(text: &str) -> Self {
        Self {
            read: text.contains('r'),
            write: text.contains('w'),
            execute: text.contains('x'),
            shared: text.contains('s'),
        }
    }
}

/// Memory and registers of a stopped program.
pub trait View {
    /// Fills `buf` from `address`, whole, or names the first byte that is not there.
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable>;

    /// Calls `each` with the pages of a page-aligned range that can be read, ascending. One that was never written may be
    /// left out: it is zero.
    fn each_page(&self, start: u64, end: u64, each: &mut dyn FnMut(u64, &[u8])) {
        let mut page = [0; PAGE_BYTES];
        let mut at = start;
        while at < end {
            if self.read(at, &mut page).is_ok() {
                each(at, &page);
            }
            at = at.saturating_add(PAGE);
        }
    }

    /// Every thread, the main one first.
    fn threads(&self) -> Vec<ThreadView>;

    /// The thread to look at where none is named, if it is not the main one: the one that stopped.
    fn selected(&self) -> Option<u32> {
        None
    }

    /// By address, ascending.
    fn mappings(&self) -> Vec<Mapping>;

    /// Pairs of the auxiliary vector, where known.
    fn auxv(&self) -> Vec<(u64, u64)> {
        Vec::new()
    }

    /// Folders that hold debug files of its own, laid out as /usr/lib/debug is.
    fn debug_roots(&self) -> Vec<std::path::PathBuf> {
        Vec::new()
    }

    /// The bytes of the file behind a mapping. A bundle supplies its own copy here.
    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        match mapping.file_path() {
            Some(path) => crate::regular::share(path.as_ref()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Reads of fixed shapes over any view.
pub trait ViewExt: View {
    fn read_vec(&self, address: u64, len: usize) -> Result<Vec<u8>, Unavailable> {
        if len > READ_LIMIT {
            return Err(Unavailable {
                address: Some(address),
                reason: Cow::Borrowed("too large"),
            });
        }
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    fn read_u64(&self, address: u64) -> Result<u64, Unavailable> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read_u32(&self, address: u64) -> Result<u32, Unavailable> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Bytes up to a NUL, at most `limit`; the flag is false when `limit` or the end of memory came first.
    fn read_c_string(&self, address: u64, limit: usize) -> Result<(Vec<u8>, bool), Unavailable> {
        let mut text = Vec::new();
        while text.len() < limit {
            let at = address.wrapping_add(text.len() as u64);
            // Never across a page: the next one may not be there, or not be wanted.
            let room = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
            let step = room.min(limit - text.len()).min(256);
            let mut chunk = [0; 256];
            match self.read(at, &mut chunk[..step]) {
                Ok(()) => {}
                Err(error) if text.is_empty() => return Err(error),
                Err(_) => return Ok((text, false)),
            }
            match chunk[..step].iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&chunk[..end]);
                    return Ok((text, true));
                }
                None => text.extend_from_slice(&chunk[..step]),
            }
        }
        Ok((text, false))
    }
}

impl<V: View + ?Sized> ViewExt for V {}

pub const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;
/// No single value is larger than this: a bound on what damaged type information can make us allocate.
const READ_LIMIT: usize = 64 << 20;
