//! The pages that a lazy restore leaves to a pager: those of anonymous memory of each process's own.
//!
//! Not by mapping an image of them: what a program gives back (MADV_DONTNEED) must read as zeros then, and a mapping of
//! a file would show it the file again.

use std::ops::Range as Span;

use slos::{Epoch, Excerpt, PageIndex, Partition, ReadError, SpaceId};
use sls_record::{Advice, Backing, Mapping, Process};
use sls_sys::fault;
use sls_sys::missing::Missing;

use crate::error::RestoreError;
use crate::keeper::Keeper;
use crate::pager::{Debtor, Pager};
use crate::ranges::{Range, normalise, overlaps};
use crate::target::Options;

const PAGE: u64 = sls_sys::PAGE;
/// Fewer are written sooner than a pager starts.
const WORTH_IT: usize = 1024;

/// What is brought later.
pub struct Later {
    /// By process, where pages are missing.
    ranges: Vec<Vec<Range>>,
    excerpt: Excerpt,
    debtors: Vec<Debtor>,
}

impl Later {
    /// None: it is not worth it.
    pub fn of(
        partition: &Partition,
        epoch: Epoch,
        all: &[Process],
    ) -> Result<Option<Self>, ReadError> {
        let ranges: Vec<Vec<Range>> = all.iter().map(ranges).collect();
        let wanted: Vec<(SpaceId, Vec<Span<PageIndex>>)> = all
            .iter()
            .zip(&ranges)
            .map(|(process, ranges)| (SpaceId(process.space), pages(ranges)))
            .collect();
        let excerpt = partition.excerpt(epoch, &wanted)?;
        let later = Self {
            ranges,
            excerpt,
            debtors: Vec::new(),
        };
        Ok(Some(later).filter(|later| later.excerpt.len() >= WORTH_IT))
    }

    /// So many pages.
    pub fn pages(&self) -> u64 {
        self.excerpt.len() as u64
    }

    /// Is this page of a process, by its place among all, brought later?
    pub fn has(&self, process: usize, address: u64) -> bool {
        let ranges = self.ranges.get(process).map_or(&[][..], |ranges| ranges);
        overlaps(ranges, (address, address + PAGE))
    }

    /// Makes the userfaultfds, in processes that have nothing yet.
    pub fn prepare(
        &mut self,
        epoch: Epoch,
        all: &[Process],
        keepers: &mut [Keeper],
    ) -> Result<(), RestoreError> {
        for ((keeper, process), ranges) in keepers.iter_mut().zip(all).zip(&self.ranges) {
            let missing = keeper.userfaultfd(true)?;
            let missing = Missing::new(missing).map_err(|source| RestoreError::System {
                epoch: epoch.0,
                source,
            })?;
            self.debtors.push(Debtor {
                pid: process.outside(),
                known_as: process.pid,
                missing,
                ranges: ranges.clone(),
            });
        }
        Ok(())
    }

    /// Once all is mapped: from here on who touches what is missing waits for it.
    pub fn begin(&mut self, options: &Options) -> std::io::Result<Pager> {
        for debtor in &self.debtors {
            for &range in &debtor.ranges {
                let (pid, start) = (debtor.known_as, range.0);
                let what = format_args!("process {pid}: have the pages at {start:#x} brought");
                fault::step(what, || debtor.missing.register(range))?;
            }
        }
        let debtors = std::mem::take(&mut self.debtors);
        Pager::start(&options.keeper, &options.state, &self.excerpt, debtors)
    }
}

/// Where its pages can be brought later.
fn ranges(process: &Process) -> Vec<Range> {
    let fit = process.mappings.iter().filter(|map| can_wait(map));
    let mut ranges: Vec<Range> = fit.map(|map| (map.start, map.end)).collect();
    normalise(&mut ranges);
    ranges
}

/// Locked memory is brought when it is locked, and a child must not have what is wiped for it.
fn can_wait(map: &Mapping) -> bool {
    map.backing == Backing::Anonymous
        && map.inode == 0
        && !map.perms.shared
        && !map.locked
        && !map.advice.contains(&Advice::WipedOnFork)
        && map.path != "[vdso]"
}

fn pages(ranges: &[Range]) -> Vec<Span<PageIndex>> {
    let page = |address: u64| PageIndex(address / PAGE);
    ranges.iter().map(|&(a, b)| page(a)..page(b)).collect()
}
