//! What an evaluation touched, so that an epoch that changed none of it can be skipped.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::registers::Registers;
use crate::view::{Mapping, PAGE, ThreadView, Unavailable, View};

/// Pages and registers that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// Page-aligned addresses. Pages that could not be read are here too: mapping one changes the answer.
    pages: BTreeSet<u64>,
    /// Registers of the threads whose registers were looked at, as they were.
    pub registers: BTreeMap<u32, Registers>,
    /// The list of threads mattered (who is there, who is first).
    pub threads: bool,
}

impl ReadSet {
    /// Page-aligned half-open ranges, ascending, neighbours merged.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for page in &self.pages {
            match ranges.last_mut() {
                Some(last) if last.1 == *page => last.1 = page.saturating_add(PAGE),
                _ => ranges.push((*page, page.saturating_add(PAGE))),
            }
        }
        ranges
    }

    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter().copied()
    }

    /// Whether nothing was looked at.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.registers.is_empty() && !self.threads
    }

    pub fn contains_page(&self, address: u64) -> bool {
        self.pages.contains(&(address & !(PAGE - 1)))
    }

    pub fn add(&mut self, address: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = address.saturating_add(len - 1) / PAGE;
        self.pages
            .extend((address / PAGE..=last).map(|page| page * PAGE));
    }

    pub fn merge(&mut self, other: &ReadSet) {
        self.pages.extend(&other.pages);
        self.registers.extend(
            other
                .registers
                .iter()
                .map(|(tid, registers)| (*tid, registers.clone())),
        );
        self.threads |= other.threads;
    }

    /// Whether the registers that were read are the same in `view`.
    pub fn registers_unchanged(&self, view: &dyn View) -> bool {
        if !self.threads && self.registers.is_empty() {
            return true;
        }
        let now = view.threads();
        let seen = now
            .iter()
            .filter(|thread| self.registers.get(&thread.tid) == Some(&thread.registers))
            .count();
        seen == self.registers.len() && (!self.threads || now.len() == self.registers.len())
    }
}

/// A view that notes what is read through it.
pub struct Recording<'a> {
    inner: &'a dyn View,
    seen: RefCell<ReadSet>,
}

impl<'a> Recording<'a> {
    pub fn new(inner: &'a dyn View) -> Self {
        Self {
            inner,
            seen: RefCell::default(),
        }
    }

    pub fn finish(self) -> ReadSet {
        self.seen.into_inner()
    }
}

impl View for Recording<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        self.seen.borrow_mut().add(address, buf.len() as u64);
        self.inner.read(address, buf)
    }

    fn threads(&self) -> Vec<ThreadView> {
        let threads = self.inner.threads();
        let mut seen = self.seen.borrow_mut();
        seen.threads = true;
        seen.registers.extend(
            threads
                .iter()
                .map(|thread| (thread.tid, thread.registers.clone())),
        );
        threads
    }

    /// Mappings are not noted: a program is loaded once for a set of them, outside the recording.
    fn mappings(&self) -> Vec<Mapping> {
        self.inner.mappings()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.inner.auxv()
    }

    fn debug_roots(&self) -> Vec<std::path::PathBuf> {
        self.inner.debug_roots()
    }

    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        self.inner.open_file(mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_neighbours_and_cover_both_ends() {
        let mut set = ReadSet::default();
        set.add(0x1fff, 2);
        set.add(0x5000, 1);
        set.add(0x9000, 0);
        set.add(u64::MAX, 1);
        assert_eq!(set.ranges()[..2], [(0x1000, 0x3000), (0x5000, 0x6000)]);
        assert_eq!(set.ranges().len(), 3);
        assert!(set.contains_page(0x2abc) && !set.contains_page(0x3000));
    }
}
