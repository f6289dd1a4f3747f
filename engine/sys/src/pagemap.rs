//! PAGEMAP_SCAN (Linux 6.7) and the classic pagemap words it falls back to.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::PAGE;

/// Page categories, include/uapi/linux/fs.h.
pub mod category {
    #![allow(missing_docs)]
    pub const WPALLOWED: u64 = 1;
    pub const WRITTEN: u64 = 1 << 1;
    pub const FILE: u64 = 1 << 2;
    pub const PRESENT: u64 = 1 << 3;
    pub const SWAPPED: u64 = 1 << 4;
    pub const PFNZERO: u64 = 1 << 5;
    /// Linux 6.16.
    pub const GUARD: u64 = 1 << 8;
}

const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;

/// One run of pages of equal categories.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// [`category`] bits.
    pub categories: u64,
}

#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, ScanArg);

/// What a scan looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Written pages of the process's own, write-protected again in the same walk. Holes do not
    /// match: matching them would write a marker into every empty slot. Nor do the zero page and
    /// the clean pages of a file: protected, they would look like pages that did not change, where
    /// something else was before. A mapping that is not
    /// registered is skipped. It is not checked for here: a call that fails half way has protected
    /// pages that it does not report any more.
    WrittenAndProtect,
    /// The same pages, nothing protected. Fails with EPERM on a mapping that is not registered
    /// instead of skipping it.
    WrittenOwn,
    /// Written pages and all that are not present (absent or swapped) in one walk, nothing
    /// protected. Fails with EPERM as the one before.
    WrittenOrAbsent,
    /// Written pages and entries that hold nothing, not told apart, in the one walk the kernel is
    /// quick at. Missing page tables are passed over. Fails with EPERM as the one before.
    WrittenOrEmpty,
    /// Written pages, nothing protected. Fails with EPERM as well.
    Written,
    /// Protects the file's own pages.
    ProtectFiles,
    /// Everything that holds something, protected or not.
    Populated,
    /// Guards, MADV_GUARD_INSTALL.
    Guarded,
}

/// What the scanned mappings are. Telling a file's page from the process's own makes the kernel look
/// up every resident page, many times the cost of the walk: only asked for where there is a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// No file behind them: every page is the process's own.
    Anonymous,
    /// Private mappings of files.
    Files,
    /// Of those, mappings in which every protected page is known to be the file's.
    CleanFiles,
}

/// The reusable result buffer of scans.
#[derive(Debug)]
pub struct Regions {
    buffer: Vec<Region>,
}

impl Default for Regions {
    fn default() -> Self {
        Self {
            buffer: vec![Region::default(); 4096],
        }
    }
}

/// Scans `[start, end)` and hands each run to `each`, by address.
///
/// # Errors
/// EPERM: an unregistered mapping under a protecting scan. ESRCH: the address space is gone (exec
/// or exit). ENOTTY or EINVAL: the kernel has no PAGEMAP_SCAN.
pub fn scan(
    pagemap: &File,
    (start, end): (u64, u64),
    look: Look,
    of: Of,
    regions: &mut Regions,
    mut each: impl FnMut(Region),
) -> io::Result<()> {
    use category::{FILE, GUARD, PFNZERO, PRESENT, SWAPPED, WPALLOWED, WRITTEN};
    let (flags, inverted, mask, anyof) = match look {
        Look::WrittenAndProtect => (
            PM_SCAN_WP_MATCHING,
            FILE | PFNZERO,
            WRITTEN | FILE | PFNZERO,
            PRESENT | SWAPPED,
        ),
        Look::WrittenOwn => (
            PM_SCAN_CHECK_WPASYNC,
            FILE | PFNZERO,
            WRITTEN | FILE | PFNZERO,
            PRESENT | SWAPPED,
        ),
        // An empty slot is neither written nor present: only the inverted bit finds it.
        // A file's page that is protected may be what a dropped page of the process's own left
        // behind, mark and all: it is always reported.
        Look::WrittenOrAbsent => (PM_SCAN_CHECK_WPASYNC, PRESENT, 0, WRITTEN | PRESENT | FILE),
        Look::Written => (PM_SCAN_CHECK_WPASYNC, 0, WRITTEN, PRESENT | SWAPPED),
        Look::ProtectFiles => (PM_SCAN_WP_MATCHING, 0, WRITTEN | FILE, PRESENT),
        // These very masks, and nothing else to return, are what the kernel has a short loop for.
        Look::WrittenOrEmpty => (PM_SCAN_CHECK_WPASYNC, 0, WRITTEN, 0),
        Look::Populated => (0, 0, 0, PRESENT | SWAPPED),
        Look::Guarded => (0, 0, GUARD, 0),
    };
    let kinds = if of == Of::Files { !0 } else { !FILE };
    let wanted = match look {
        Look::WrittenOrEmpty => WRITTEN,
        Look::Guarded => GUARD,
        _ => (WPALLOWED | WRITTEN | FILE | PRESENT | SWAPPED | PFNZERO) & kinds,
    };
    let mut at = start;
    while at < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags,
            start: at,
            end,
            vec: regions.buffer.as_mut_ptr() as u64,
            vec_len: regions.buffer.len() as u64,
            category_inverted: inverted & kinds,
            category_mask: mask & kinds,
            category_anyof_mask: anyof & kinds,
            return_mask: wanted,
            ..ScanArg::default()
        };
        // SAFETY: `arg` outlives the call and its vec/vec_len describe `regions.buffer`, which is
        // borrowed mutably here; the kernel writes at most vec_len entries.
        let n = unsafe { pagemap_scan(pagemap.as_raw_fd(), &raw mut arg) }?;
        let n = usize::try_from(n).unwrap_or(0).min(regions.buffer.len());
        regions.buffer[..n].iter().copied().for_each(&mut each);
        if arg.walk_end <= at {
            return Err(io::Error::other(format!(
                "PAGEMAP_SCAN stands still at {at:#x}"
            )));
        }
        at = arg.walk_end;
    }
    Ok(())
}

/// Where memory has guards; nothing where the kernel does not tell (before Linux 6.16). Walks all page
/// tables.
///
/// # Errors
/// The address space is gone, or not ours to look at.
pub fn guards(pid: i32) -> io::Result<Vec<(u64, u64)>> {
    const ALL: (u64, u64) = (0, 0x7fff_ffff_f000);
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut regions = Regions::default();
    let look = Look::Guarded;
    let scanned = scan(
        &pagemap,
        ALL,
        look,
        Of::Anonymous,
        &mut regions,
        |region| match found.last_mut() {
            Some(last) if last.1 == region.start => last.1 = region.end,
            _ => found.push((region.start, region.end)),
        },
    );
    match scanned {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => {
            Ok(Vec::new())
        }
        other => other.map(|()| found),
    }
}

/// Is the mapping that begins at `start` registered for asynchronous write protection?
///
/// # Errors
/// ESRCH: the address space is gone.
pub fn is_tracked(pagemap: &File, start: u64, regions: &mut Regions) -> io::Result<bool> {
    let first = (start, start + PAGE);
    match scan(
        pagemap,
        first,
        Look::WrittenOrAbsent,
        Of::Anonymous,
        regions,
        |_| {},
    ) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Is there a page in `[start, end)` that is still protected?
///
/// # Errors
/// As [`scan`] with a checking look.
pub fn has_protected(pagemap: &File, (start, end): (u64, u64)) -> io::Result<bool> {
    use category::{PRESENT, SWAPPED, WRITTEN};
    let mut found = Region::default();
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        flags: PM_SCAN_CHECK_WPASYNC,
        start,
        end,
        vec: (&raw mut found) as u64,
        vec_len: 1,
        max_pages: 1,
        category_inverted: WRITTEN,
        category_mask: WRITTEN,
        category_anyof_mask: PRESENT | SWAPPED,
        return_mask: PRESENT | SWAPPED,
        ..ScanArg::default()
    };
    // SAFETY: `arg` outlives the call and `found` has room for the one entry it may write.
    let n = unsafe { pagemap_scan(pagemap.as_raw_fd(), &raw mut arg) }?;
    Ok(n > 0)
}

/// The classic words, one a page: works on every kernel and for plain users (frame numbers are
/// hidden, the flags are not).
///
/// # Errors
/// Reading /proc/PID/pagemap failed.
pub fn classic(
    pagemap: &File,
    (start, end): (u64, u64),
    mut each: impl FnMut(Region),
) -> io::Result<()> {
    const WORDS: usize = 8192;
    let mut bytes = vec![0u8; WORDS * 8];
    let mut page = start / PAGE;
    let last = end / PAGE;
    let mut run = Region::default();
    while page < last {
        let want = crate::size(last - page).min(WORDS);
        let got = pagemap.read_at(&mut bytes[..want * 8], page * 8)? / 8;
        if got == 0 {
            break;
        }
        for word in bytes[..got * 8].chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            let categories = (((word >> 63) & 1) * category::PRESENT)
                | (((word >> 62) & 1) * category::SWAPPED)
                | (((word >> 61) & 1) * category::FILE);
            let address = page * PAGE;
            if categories == run.categories && run.end == address {
                run.end += PAGE;
            } else {
                if run.end > run.start {
                    each(run);
                }
                run = Region {
                    start: address,
                    end: address + PAGE,
                    categories,
                };
            }
            page += 1;
        }
    }
    if run.end > run.start {
        each(run);
    }
    Ok(())
}
