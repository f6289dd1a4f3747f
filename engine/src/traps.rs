//! What breakpoints and watchpoints a process has, and what they did to its pages.
//!
//! A breakpoint in the text of a file makes the kernel give the process a page of its own there, which
//! stays when the breakpoint has gone. To a checkpoint it is the file's, as it was before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use slos::{Slot, Staging};
use sls_keeper::{Trap, Watch};
use sls_sys::{PAGE, RemoteMemory, procfs};

use crate::ranges::Range;

const PAGE_BYTES: usize = 4096;
/// Bits of an entry of /proc/PID/pagemap.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// Of one process, in its address space of today.
#[derive(Debug, Default)]
pub(crate) struct Traps {
    /// It is seized for control.
    seized: bool,
    set: BTreeMap<u64, u8>,
    watches: Vec<Watch>,
    /// Pages that were the file's when the first breakpoint came into them, by number, and what they held.
    of_file: HashMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl Traps {
    pub fn is_seized(&self) -> bool {
        self.seized
    }

    pub fn seized(&mut self, on: bool) {
        self.seized = on;
    }

    /// The keeper that had them is gone.
    pub fn lost(&mut self) {
        self.seized = false;
        self.set.clear();
        self.watches.clear();
    }

    /// The address space is gone.
    pub fn forget(&mut self) {
        self.set.clear();
        self.watches.clear();
        self.of_file.clear();
    }

    /// Are these what is set?
    pub fn are(&self, addresses: &BTreeSet<u64>) -> bool {
        self.set.keys().eq(addresses)
    }

    pub fn are_watched(&self, watches: &[Watch]) -> bool {
        self.watches == watches
    }

    pub fn watched(&mut self, watches: Vec<Watch>) {
        self.watches = watches;
    }

    pub fn set(&mut self, traps: &[Trap]) {
        self.set = traps.iter().map(|t| (t.address, t.original)).collect();
    }

    /// Looks at the text before it is changed: what belongs there, without what cannot be read.
    pub fn look(
        &mut self,
        pid: i32,
        memory: &RemoteMemory,
        addresses: &BTreeSet<u64>,
    ) -> io::Result<Vec<Trap>> {
        let mut traps = Vec::with_capacity(addresses.len());
        let mut pages = None;
        for &address in addresses {
            let mut original = [0];
            if memory.read_at(address, &mut original).is_err() {
                continue;
            }
            traps.push(Trap {
                address,
                original: original[0],
            });
            let page = address / PAGE;
            if self.of_file.contains_key(&page) {
                continue;
            }
            let pages = match &mut pages {
                Some(pages) => pages,
                none => none.insert(Pages::of(pid)?),
            };
            if pages.is_of_file(page)? {
                let mut content = Box::new([0; PAGE_BYTES]);
                memory.read_at(page * PAGE, &mut content[..])?;
                self.of_file.insert(page, content);
            }
        }
        Ok(traps)
    }

    /// Pages that only we made the process's own are the file's in a checkpoint.
    pub fn leave_out(
        &self,
        pages: &mut Vec<(u64, Slot)>,
        staging: &Staging,
        absent: &mut Vec<Range>,
    ) {
        if self.of_file.is_empty() {
            return;
        }
        pages.retain(|&(page, slot)| {
            let was = self.of_file.get(&page);
            let is_file = was.is_some_and(|was| staging.bytes(slot)[..] == was[..]);
            if is_file {
                absent.push((page * PAGE, (page + 1) * PAGE));
            }
            !is_file
        });
    }
}

/// Whether pages are a file's.
struct Pages {
    maps: Vec<procfs::MapLine>,
    pagemap: File,
}

impl Pages {
    fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            maps: procfs::maps(pid)?,
            pagemap: File::open(format!("/proc/{pid}/pagemap"))?,
        })
    }

    fn is_of_file(&self, page: u64) -> io::Result<bool> {
        let at = page * PAGE;
        let mapping = self.maps.iter().find(|m| m.start <= at && at < m.end);
        if mapping.is_none_or(|m| m.inode == 0 || m.shared) {
            return Ok(false);
        }
        let mut entry = [0; 8];
        self.pagemap.read_exact_at(&mut entry, page * 8)?;
        let entry = u64::from_le_bytes(entry);
        Ok(if entry & PRESENT != 0 {
            entry & OF_FILE != 0
        } else {
            entry & SWAPPED == 0
        })
    }
}
