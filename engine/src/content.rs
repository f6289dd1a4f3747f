//! The fallback without write tracking: every page of the process's own is read and compared.
//!
//! For kernels before 6.7, targets whose userfaultfd could not be made, and ranges nobody vouches
//! for. What a page held is remembered as a BLAKE3 hash, so a changed page is found without
//! keeping a second copy of the process.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use sls_sys::RemoteMemory;
use sls_sys::pagemap::{self, Look, Of, Regions, category};
use sls_sys::procfs::MapLine;

use crate::ranges::Range;
use crate::runs::is_tracked;
use crate::space::Found;

const PAGE: u64 = sls_sys::PAGE;
const BATCH: u64 = 256;

/// Hashes of the pages as last captured.
#[derive(Debug)]
pub struct Content {
    pagemap: File,
    scan: bool,
    regions: Regions,
    hashes: HashMap<u64, [u8; 16]>,
}

impl Content {
    /// `scan`: PAGEMAP_SCAN may be used to find what is populated.
    pub fn new(pid: i32, scan: bool) -> io::Result<Self> {
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        Ok(Self {
            pagemap,
            scan,
            regions: Regions::default(),
            hashes: HashMap::new(),
        })
    }

    /// Forgets what was captured: the next comparison takes everything.
    pub fn invalidate(&mut self) {
        self.hashes.clear();
    }

    /// Changed pages and absent ranges, with every thread stopped.
    pub fn settle(
        &mut self,
        memory: &RemoteMemory,
        maps: &[MapLine],
        found: &mut Found,
    ) -> io::Result<()> {
        found.dirty.clear();
        found.absent.clear();
        let mut present: Vec<Range> = Vec::new();
        for map in maps.iter().filter(|m| is_tracked(m)) {
            let populated = self.populated((map.start, map.end))?;
            let mut at = map.start;
            for &(start, end) in &populated {
                if at < start {
                    found.absent.push((at, start));
                }
                self.compare(memory, (start, end), found);
                at = end;
            }
            if at < map.end {
                found.absent.push((at, map.end));
            }
            present.extend(populated);
        }
        // What is unmapped may come back with the very content it had.
        self.hashes.retain(|page, _| {
            let address = page * PAGE;
            let i = present.partition_point(|r| r.1 <= address);
            present.get(i).is_some_and(|r| r.0 <= address)
        });
        Ok(())
    }

    /// Ranges that hold pages of the process's own.
    fn populated(&mut self, range: Range) -> io::Result<Vec<Range>> {
        let mut ranges: Vec<Range> = Vec::new();
        let mut note = |start: u64, end: u64, categories: u64| {
            let own = categories & category::FILE == 0 && categories & category::PFNZERO == 0;
            if own && categories & (category::PRESENT | category::SWAPPED) != 0 {
                match ranges.last_mut() {
                    Some(last) if last.1 == start => last.1 = end,
                    _ => ranges.push((start, end)),
                }
            }
        };
        if self.scan {
            pagemap::scan(
                &self.pagemap,
                range,
                Look::Populated,
                Of::Files,
                &mut self.regions,
                |r| {
                    note(r.start, r.end, r.categories);
                },
            )?;
        } else {
            pagemap::classic(&self.pagemap, range, |r| note(r.start, r.end, r.categories))?;
        }
        Ok(ranges)
    }

    fn compare(&mut self, memory: &RemoteMemory, (start, end): Range, found: &mut Found) {
        let mut buffer = vec![0; sls_sys::size(BATCH * PAGE)];
        let mut at = start;
        while at < end {
            let n = BATCH.min((end - at) / PAGE);
            let bytes = &mut buffer[..sls_sys::size(n * PAGE)];
            if memory.read_at(at, bytes).is_err() {
                // Not readable as one piece: the copy sorts out which pages are there.
                found.dirty.push((at, at + n * PAGE));
                at += n * PAGE;
                continue;
            }
            for (page, bytes) in (at / PAGE..).zip(bytes.chunks_exact(sls_sys::size(PAGE))) {
                if self.is_new(page, bytes) {
                    match found.dirty.last_mut() {
                        Some(last) if last.1 == page * PAGE => last.1 += PAGE,
                        _ => found.dirty.push((page * PAGE, (page + 1) * PAGE)),
                    }
                }
            }
            at += n * PAGE;
        }
    }

    fn is_new(&mut self, page: u64, bytes: &[u8]) -> bool {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        self.hashes.insert(page, hash) != Some(hash)
    }
}
