use std::io;
use std::ops::Range;

use memmap2::{MmapMut, MmapOptions};

use crate::PAGE;

/// Pages of one chunk: 4 MiB, so that growing costs one mapping and two huge pages at most.
const CHUNK: usize = 1024;

/// A pool of page buffers that are faulted in before they are needed and used again, so that
/// copying pages under the stop never waits for the kernel to clear one.
///
/// Buffers lie in anonymous mappings of 4 MiB each. [`Staging::reserve`] grows the pool off the
/// clock; an allocation that finds no free buffer grows it on the clock, up to the limit.
pub struct Staging {
    chunks: Vec<MmapMut>,
    limit: usize,
    /// Buffers below this index have been handed out since the last reset.
    fresh: usize,
    free: Vec<Slot>,
}

/// A page buffer of a [`Staging`] pool; valid until it is recycled or the pool is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

/// The pool's limit is reached, or the kernel gave no memory.
#[derive(Debug, thiserror::Error)]
pub enum StagingFull {
    #[error("staging holds its limit of {0} pages")]
    Limit(usize),
    #[error("no memory for staging: {0}")]
    Memory(#[from] io::Error),
}

impl Slot {
    /// The buffer `pages` further on in the same run.
    #[must_use]
    pub fn offset(self, pages: u32) -> Slot {
        Slot(self.0 + pages)
    }

    /// Buffers from here to `end`, of the same run.
    #[must_use]
    pub fn pages_to(self, end: Slot) -> u32 {
        end.0.saturating_sub(self.0)
    }
}

impl Staging {
    /// An empty pool that never holds more than `limit` pages, rounded up to whole chunks.
    #[must_use]
    pub fn new(limit: usize) -> Staging {
        let limit = limit.min(u32::MAX as usize - CHUNK).next_multiple_of(CHUNK);
        Staging {
            chunks: Vec::new(),
            limit,
            fresh: 0,
            free: Vec::new(),
        }
    }

    /// Faults in buffers until `pages` more can be had without growing.
    pub fn reserve(&mut self, pages: usize) -> Result<(), StagingFull> {
        while self.available() < pages {
            self.grow()?;
        }
        Ok(())
    }

    pub fn alloc(&mut self) -> Result<Slot, StagingFull> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        if self.fresh == self.capacity() {
            self.grow()?;
        }
        Ok(self.take(1))
    }

    /// Buffers for `pages` pages as runs that are contiguous in memory, few and long where possible.
    pub fn alloc_run(&mut self, pages: usize) -> Result<Vec<Range<Slot>>, StagingFull> {
        self.reserve(pages)?;
        let mut runs: Vec<Range<Slot>> = Vec::new();
        let mut left = pages;
        while left > 0 && self.fresh < self.capacity() {
            let count = left.min(CHUNK - self.fresh % CHUNK);
            let start = self.take(count);
            runs.push(start..Slot(start.0 + narrow(count)));
            left -= count;
        }
        let tail = self.free.len() - left;
        let mut singles = self.free.split_off(tail);
        singles.sort_unstable();
        for slot in singles {
            match runs.last_mut() {
                Some(run) if run.end == slot && !(slot.0 as usize).is_multiple_of(CHUNK) => {
                    run.end = slot.offset(1)
                }
                _ => runs.push(slot..slot.offset(1)),
            }
        }
        Ok(runs)
    }

    #[must_use]
    pub fn bytes(&self, slot: Slot) -> &[u8; PAGE] {
        let (chunk, at) = place(slot);
        self.chunks[chunk][at..at + PAGE]
            .first_chunk()
            .expect("a slot is a whole page")
    }

    pub fn bytes_mut(&mut self, slot: Slot) -> &mut [u8; PAGE] {
        let (chunk, at) = place(slot);
        self.chunks[chunk][at..at + PAGE]
            .first_chunk_mut()
            .expect("a slot is a whole page")
    }

    /// The bytes of a run that [`Staging::alloc_run`] returned, for one iovec.
    pub fn run_mut(&mut self, run: &Range<Slot>) -> &mut [u8] {
        let (chunk, at) = place(run.start);
        let pages = (run.end.0 - run.start.0) as usize;
        &mut self.chunks[chunk][at..at + pages * PAGE]
    }

    /// The address of a buffer, for a scattered read by the kernel. It stays put until
    /// [`Staging::shrink`].
    pub fn as_mut_ptr(&mut self, slot: Slot) -> *mut u8 {
        self.bytes_mut(slot).as_mut_ptr()
    }

    /// Gives one buffer back.
    pub fn recycle(&mut self, slot: Slot) {
        debug_assert!((slot.0 as usize) < self.fresh);
        self.free.push(slot);
    }

    /// Takes all buffers back at once; what they hold stays faulted in.
    pub fn reset(&mut self) {
        self.fresh = 0;
        self.free.clear();
    }

    /// Unmaps chunks beyond `pages` that hold no buffer handed out since the last reset.
    pub fn shrink(&mut self, pages: usize) {
        let keep = pages.max(self.fresh).div_ceil(CHUNK);
        self.chunks.truncate(keep);
    }

    /// Pages the pool holds, free or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Pages that can be had without growing.
    #[must_use]
    pub fn available(&self) -> usize {
        self.capacity() - self.fresh + self.free.len()
    }

    fn take(&mut self, count: usize) -> Slot {
        let slot = Slot(narrow(self.fresh));
        self.fresh += count;
        slot
    }

    fn grow(&mut self) -> Result<(), StagingFull> {
        if self.capacity() >= self.limit {
            return Err(StagingFull::Limit(self.limit));
        }
        let chunk = MmapOptions::new().len(CHUNK * PAGE).populate().map_anon()?;
        self.chunks.push(chunk);
        Ok(())
    }
}

fn place(slot: Slot) -> (usize, usize) {
    let index = slot.0 as usize;
    (index / CHUNK, index % CHUNK * PAGE)
}

fn narrow(pages: usize) -> u32 {
    u32::try_from(pages).expect("the limit is below 2^32 pages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_distinct_and_recycled() {
        let mut staging = Staging::new(2 * CHUNK);
        staging.reserve(10).unwrap();
        assert_eq!(staging.capacity(), CHUNK);
        let a = staging.alloc().unwrap();
        let b = staging.alloc().unwrap();
        staging.bytes_mut(a).fill(1);
        staging.bytes_mut(b).fill(2);
        assert!(staging.bytes(a).iter().all(|&x| x == 1));
        staging.recycle(a);
        assert_eq!(staging.alloc().unwrap(), a);
        assert!(staging.bytes(b).iter().all(|&x| x == 2));
    }

    #[test]
    fn runs_never_cross_a_chunk_and_fill_the_pool_exactly() {
        let mut staging = Staging::new(2 * CHUNK);
        let single = staging.alloc().unwrap();
        staging.recycle(single);
        let runs = staging.alloc_run(2 * CHUNK).unwrap();
        let mut slots: Vec<u32> = runs
            .iter()
            .inspect(|r| assert_eq!(r.start.0 as usize / CHUNK, (r.end.0 as usize - 1) / CHUNK))
            .flat_map(|r| r.start.0..r.end.0)
            .collect();
        slots.sort_unstable();
        assert!(slots.iter().copied().eq(0..narrow(2 * CHUNK)));
        assert!(matches!(staging.alloc(), Err(StagingFull::Limit(_))));
        for run in &runs {
            staging.run_mut(run).fill(7);
        }
        staging.shrink(0);
        assert_eq!(staging.capacity(), 2 * CHUNK);
        staging.reset();
        staging.shrink(1);
        assert_eq!(staging.capacity(), CHUNK);
    }
}
