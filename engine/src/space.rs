//! One address space under write tracking: which pages may have changed since the last scan.
//!
//! - **Invariant**: the final scan is made with PM_SCAN_CHECK_WPASYNC. Where the kernel says that
//!   nobody tracks it (new, moved, mapped again at the same address), it is registered and taken
//!   whole; the map list is never trusted to tell.
//! - **Invariant**: the final scan protects nothing. What was written until then stays so marked
//!   and is protected, and copied once more, by the next sweep, which is on nobody's clock.

use std::fs::File;
use std::io;
use std::sync::Arc;

use sls_sys::pagemap::{self, Look, Of, Region, Regions, category};
use sls_sys::procfs::MapLine;
use sls_sys::uffd::WriteProtect;

use crate::holes::Tables;
use crate::ranges::{Range, gaps, normalise, overlaps, push};
use crate::runs::{Run, SMALL, file_backed, is_tracked, runs};

/// How many separate places are looked at one by one before one walk over everything is cheaper: a
/// call costs about what walking 0.5 MiB of page table does.
const SINGLE_LOOKS: usize = 64;

/// What the scan of a checkpoint found.
#[derive(Debug, Default)]
pub struct Found {
    /// Ranges to copy, by address.
    pub dirty: Vec<Range>,
    /// Ranges that hold nothing: zero or the file's.
    pub absent: Vec<Range>,
}

impl Found {
    fn clear(&mut self) {
        self.dirty.clear();
        self.absent.clear();
    }
}

/// Tracking of one address space.
#[derive(Debug)]
pub struct Space {
    wp: WriteProtect,
    pagemap: File,
    regions: Regions,
    /// Mappings that cannot be registered (the target has a userfaultfd of its own there): taken
    /// by content at every checkpoint.
    refused: Vec<Range>,
    /// Nothing is vouched for: take everything.
    whole: bool,
    /// Mappings registered since the last settling: what the page map has of them may be of what
    /// was there before.
    adopted: Vec<Range>,
    /// Of those, mappings of files in which no page of the process's own was seen yet.
    unspoiled: Vec<Range>,
    /// Mappings of files in which every protected page is the file's and of which the page map has
    /// nothing: nearly all program text. What kind a page is need not be asked there, which makes
    /// the kernel look up each one.
    clean: Vec<Range>,
    tables: Tables,
    /// The map list that the last sweep registered.
    swept: Arc<[MapLine]>,
    /// The list of this settling is a guess: a mapping that is not tracked shows it to be wrong.
    guess: bool,
}

impl Space {
    pub fn new(pid: i32, wp: WriteProtect) -> io::Result<Self> {
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        Ok(Self {
            wp,
            pagemap,
            regions: Regions::default(),
            refused: Vec::new(),
            whole: false,
            adopted: Vec::new(),
            unspoiled: Vec::new(),
            clean: Vec::new(),
            tables: Tables::default(),
            swept: Arc::from([]),
            guess: false,
        })
    }

    /// Registers every mapping that is not; what is registered already stays as it is.
    pub fn register_all(&mut self, maps: &[MapLine]) -> io::Result<()> {
        self.adopt_new((0, u64::MAX), maps)
    }

    /// Has the target a userfaultfd of its own somewhere?
    pub fn is_refused_somewhere(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Dirty ranges since the last scan, protected again. For rounds while the target runs: what
    /// is mapped or moved meanwhile is skipped here and taken whole by the final scan.
    pub fn sweep(&mut self, maps: &Arc<[MapLine]>, dirty: &mut Vec<Range>) -> io::Result<()> {
        if !Arc::ptr_eq(&self.swept, maps) {
            self.register_all(maps)?;
            self.swept = Arc::clone(maps);
        }
        dirty.clear();
        for run in runs(maps, &self.refused, &self.clean) {
            if run.of == Of::CleanFiles {
                self.sweep_clean(run, dirty)?;
                continue;
            }
            self.scan(run, Look::WrittenAndProtect, |region| {
                push(dirty, region.start, region.end);
            })?;
        }
        normalise(dirty);
        dirty.iter().for_each(|&range| self.tables.seen(range));
        self.unspoiled.retain(|&r| !overlaps(dirty, r));
        Ok(())
    }

    /// The final scan, with every thread stopped: what was written and what is gone.
    /// Changes nothing that a second call with another list would miss: it counts after
    /// [`Space::settled`]. Where it may be `quick` it counts only once [`Space::verify`] has said so.
    ///
    /// # Errors
    /// EPERM: the list was a `guess`, and a wrong one.
    pub fn settle(
        &mut self,
        maps: &[MapLine],
        guess: bool,
        quick: bool,
        found: &mut Found,
    ) -> io::Result<()> {
        found.clear();
        self.guess = guess;
        let quick = self.tables.begin() && quick && !self.whole;
        self.each_run(maps, |space, run| {
            let old = !overlaps(&space.adopted, run.range) && !space.whole;
            let done = match run.of {
                Of::Anonymous => quick && old && space.settle_quickly(run, found)?,
                Of::CleanFiles => old && space.look_clean(run, &mut found.dirty)?.is_some(),
                Of::Files => false,
            };
            if done {
                return Ok(());
            }
            space.settle_thoroughly(run, maps, found)
        })?;
        for range in self.refused.clone() {
            self.take_whole(
                Run {
                    range,
                    of: Of::Files,
                },
                found,
            )?;
        }
        normalise(&mut found.dirty);
        normalise(&mut found.absent);
        Ok(())
    }

    /// The map list of the last settling was the true one: what it found counts.
    pub fn settled(&mut self, found: &Found) {
        self.adopted.clear();
        self.unspoiled.retain(|&r| !overlaps(&found.dirty, r));
        self.clean.append(&mut self.unspoiled);
        self.clean.retain(|&r| !overlaps(&found.dirty, r));
    }

    /// One short walk for all, then a look at each place it reports. False: there are too many, or
    /// something in the run is not tracked.
    fn settle_quickly(&mut self, run: Run, found: &mut Found) -> io::Result<bool> {
        let mut reported = Vec::new();
        match self.scan(run, Look::WrittenOrEmpty, |r| {
            push(&mut reported, r.start, r.end);
        }) {
            Ok(()) if reported.len() <= SINGLE_LOOKS => {}
            Ok(()) => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(false),
            Err(error) => return Err(error),
        }
        let Found { dirty, absent } = found;
        for places in reported.chunk_by(|a, b| b.0 - a.1 <= SMALL) {
            let range = (places[0].0, places[places.len() - 1].1);
            let mut own = Vec::new();
            self.scan(Run { range, ..run }, Look::WrittenOwn, |r| {
                own.push((r.start, r.end));
            })?;
            absent.extend(places.iter().flat_map(|&place| gaps(place, &own)));
            dirty.append(&mut own);
        }
        self.tables.scanned(run.range, reported);
        Ok(true)
    }

    /// Protects what came or was written since. A first page of the process's own ends this kind
    /// for its mapping.
    fn sweep_clean(&mut self, run: Run, dirty: &mut Vec<Range>) -> io::Result<()> {
        let mut own = Vec::new();
        for range in self.look_clean(run, dirty)?.unwrap_or_default() {
            let of = Of::Files;
            self.scan(Run { range, of }, Look::WrittenAndProtect, |r| {
                push(&mut own, r.start, r.end);
            })?;
            self.scan(Run { range, of }, Look::ProtectFiles, |_| {})?;
        }
        // It runs: a first page may have come since it was looked at.
        self.clean.retain(|&mapping| !overlaps(&own, mapping));
        dirty.append(&mut own);
        Ok(())
    }

    /// Looks only at pages that came or were written since, and gives their ranges; those of the
    /// process's own are dirty. None: not all of the run is tracked.
    fn look_clean(&mut self, run: Run, dirty: &mut Vec<Range>) -> io::Result<Option<Vec<Range>>> {
        let mut reported = Vec::new();
        match self.scan(run, Look::Written, |r| {
            push(&mut reported, r.start, r.end);
        }) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut own = Vec::new();
        for &range in &reported {
            let of = Of::Files;
            self.scan(Run { range, of }, Look::WrittenOwn, |r| {
                push(&mut own, r.start, r.end);
            })?;
        }
        self.clean.retain(|&mapping| !overlaps(&own, mapping));
        dirty.append(&mut own);
        Ok(Some(reported))
    }

    fn settle_thoroughly(
        &mut self,
        run: Run,
        maps: &[MapLine],
        found: &mut Found,
    ) -> io::Result<()> {
        let run = match run.of {
            Of::CleanFiles => Run {
                of: Of::Files,
                ..run
            },
            _ => run,
        };
        self.checked_scan(run, maps, |region| sort_region(region, maps, found))?;
        if self.whole {
            self.take_whole(run, found)?;
        }
        Ok(())
    }

    /// After the stop: did the last settling see everything? It did not where a page table may
    /// have been gone; the next one is thorough then. Changes what the next settling expects, so
    /// call it once, also when nothing was quick.
    pub fn verify(&mut self, found: &Found) -> io::Result<bool> {
        let mut sure = true;
        for table in self.tables.silent() {
            sure = match pagemap::has_protected(&self.pagemap, table) {
                Ok(kept) => kept,
                // Mapped anew since, which says nothing about then.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => false,
                Err(error) => return Err(error),
            };
            if !sure {
                break;
            }
        }
        if !sure {
            self.tables.lost();
        }
        found.absent.iter().for_each(|&r| self.tables.empty(r));
        found.dirty.iter().for_each(|&r| self.tables.seen(r));
        Ok(sure)
    }

    /// Scans run by run; a mapping that turns out to be refused splits its run, and what is left
    /// is scanned again. Scanning twice reports a range twice, never not at all.
    fn each_run(
        &mut self,
        maps: &[MapLine],
        mut scan: impl FnMut(&mut Self, Run) -> io::Result<()>,
    ) -> io::Result<()> {
        self.refused
            .retain(|r| maps.iter().any(|m| (m.start, m.end) == *r));
        loop {
            let refused = self.refused.len();
            for run in runs(maps, &self.refused, &self.clean) {
                match scan(self, run) {
                    Err(_) if self.refused.len() > refused => break,
                    other => other?,
                }
            }
            if self.refused.len() == refused {
                return Ok(());
            }
        }
    }

    /// Everything populated in a mapping that nobody tracks.
    fn take_whole(&mut self, run: Run, found: &mut Found) -> io::Result<()> {
        let range = run.range;
        let mut at = range.0;
        let Found { dirty, absent } = found;
        self.scan(run, Look::Populated, |region| {
            if at < region.start {
                absent.push((at, region.start));
            }
            at = region.end;
            if is_private_copy(region) && region.categories & category::PFNZERO == 0 {
                dirty.push((region.start, region.end));
            } else {
                absent.push((region.start, region.end));
            }
        })?;
        if at < range.1 {
            absent.push((at, range.1));
        }
        Ok(())
    }

    /// Pages that a scan reported were not kept: the next final scan takes everything whole,
    /// protected or not.
    pub fn distrust(&mut self) {
        self.whole = true;
    }

    /// What was taken whole has been kept.
    pub fn trust(&mut self) {
        self.whole = false;
    }

    fn adopt_new(&mut self, run: Range, maps: &[MapLine]) -> io::Result<()> {
        let inside = |m: &&MapLine| is_tracked(m) && m.end > run.0 && m.start < run.1;
        for map in maps.iter().filter(inside) {
            if !pagemap::is_tracked(&self.pagemap, map.start, &mut self.regions)? {
                self.register((map.start, map.end))?;
                if map.inode != 0 {
                    self.unspoiled.push((map.start, map.end));
                }
            }
        }
        Ok(())
    }

    fn register(&mut self, range: Range) -> io::Result<()> {
        match self.wp.adopt(range) {
            // Gone since the list was read; the next list tells.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EINVAL)) => {
                self.refused.push(range);
                Ok(())
            }
            Ok(()) => {
                self.clean.retain(|&r| r.1 <= range.0 || range.1 <= r.0);
                self.adopted.push(range);
                Ok(())
            }
            other => other,
        }
    }

    /// Scans a run; where a mapping in it is not tracked, registers every mapping of the run and
    /// scans again. A failed scan has protected nothing, so nothing is lost by starting over.
    fn checked_scan(
        &mut self,
        run: Run,
        maps: &[MapLine],
        mut each: impl FnMut(Region),
    ) -> io::Result<()> {
        let mut found = Vec::new();
        let look = Look::WrittenOrAbsent;
        let mut result = self.scan(run, look, |r| found.push(r));
        if result
            .as_ref()
            .is_err_and(|e| e.raw_os_error() == Some(libc::EPERM))
        {
            found.clear();
            self.register_run(run.range, maps)?;
            result = self.scan(run, look, |r| found.push(r));
        }
        found.into_iter().for_each(&mut each);
        result
    }

    fn scan(&mut self, run: Run, look: Look, each: impl FnMut(Region)) -> io::Result<()> {
        pagemap::scan(
            &self.pagemap,
            run.range,
            look,
            run.of,
            &mut self.regions,
            each,
        )
    }

    fn register_run(&mut self, run: Range, maps: &[MapLine]) -> io::Result<()> {
        if self.guess {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let refused = self.refused.len();
        self.adopt_new(run, maps)?;
        if self.refused.len() > refused {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        Ok(())
    }
}

/// Does the region hold pages of the process's own? A clean page of a private file mapping is
/// the file's.
fn is_private_copy(region: Region) -> bool {
    region.categories & category::FILE == 0
}

fn sort_region(region: Region, maps: &[MapLine], found: &mut Found) {
    let Region {
        start,
        end,
        categories,
    } = region;
    let has = |bits| categories & bits != 0;
    if !has(category::PRESENT | category::SWAPPED) {
        push(&mut found.absent, start, end);
        return;
    }
    if !is_private_copy(region) || has(category::PFNZERO) {
        // The file's clean page or the zero page where a page of its own may have been.
        push(&mut found.absent, start, end);
    } else if has(category::WRITTEN) || file_backed(maps, (start, end)) {
        // In a private file mapping "swapped and not written" may be the marker that a dropped
        // page leaves behind: nobody vouches for it, so it is read.
        push(&mut found.dirty, start, end);
    }
}
