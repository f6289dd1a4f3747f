//! Page tables that are gone, which the quick scan cannot see.
//!
//! The quick scan reports written pages and empty entries. Where the page table itself is missing
//! (madvise emptied it and the kernel freed it, or a huge page was dropped) it need not say
//! anything: 6.18 does, 6.7's source does not. A table of which nothing was reported is either
//! whole, every page in it as it was, or gone. That is found out after the stop, off the clock: a
//! page that still is protected then was so during the stop, since nobody else protects. Where no
//! such page is left nobody knows, and the stop counts for nothing: the next one looks thoroughly.

use std::collections::BTreeSet;

use crate::ranges::Range;

/// What one page table maps.
const TABLE: u64 = 2 << 20;
/// After a stop that counted for nothing, so many are thorough: what frees tables does so again.
const THOROUGH_FOR: u32 = 64;

/// Page tables of one address space, by address divided by what one maps.
#[derive(Debug, Default)]
pub struct Tables {
    /// Tables that may have pages in the page map.
    known: BTreeSet<u64>,
    /// Of the last settling: ranges scanned quickly, and what was reported in each, by address.
    quick: Vec<(Range, Vec<Range>)>,
    thorough: u32,
}

fn tables(range: Range) -> std::ops::Range<u64> {
    range.0 / TABLE..range.1.div_ceil(TABLE)
}

impl Tables {
    /// A settling begins. May it be quick?
    pub fn begin(&mut self) -> bool {
        self.quick.clear();
        let quick = self.thorough == 0;
        self.thorough = self.thorough.saturating_sub(1);
        quick
    }

    /// Pages of the range were seen.
    pub fn seen(&mut self, range: Range) {
        self.known.extend(tables(range));
    }

    /// A thorough scan found the range empty.
    pub fn empty(&mut self, range: Range) {
        let whole = range.0.div_ceil(TABLE)..range.1 / TABLE;
        if whole.start < whole.end {
            let gone: Vec<u64> = self.known.range(whole).copied().collect();
            for table in gone {
                self.known.remove(&table);
            }
        }
    }

    /// `range` was scanned quickly and this was reported.
    pub fn scanned(&mut self, range: Range, reported: Vec<Range>) {
        self.quick.push((range, reported));
    }

    /// Ranges that must still have a protected page, each one table, by address.
    pub fn silent(&self) -> Vec<Range> {
        let mut silent = Vec::new();
        for (range, reported) in &self.quick {
            for table in self.known.range(tables(*range)) {
                let part = (range.0.max(table * TABLE), range.1.min((table + 1) * TABLE));
                let next = reported.partition_point(|r| r.1 <= part.0);
                if reported.get(next).is_none_or(|r| r.0 >= part.1) {
                    silent.push(part);
                }
            }
        }
        silent
    }

    /// Nobody knows what the last stop found.
    pub fn lost(&mut self) {
        self.thorough = THOROUGH_FOR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = TABLE;

    #[test]
    fn a_table_of_which_nothing_was_said_is_asked_for() {
        let mut it = Tables::default();
        assert!(it.begin());
        it.seen((0, 3 * T));
        it.scanned((0, 4 * T), vec![(T, T + 4096)]);
        assert_eq!(it.silent(), [(0, T), (2 * T, 3 * T)]);
    }

    #[test]
    fn an_emptied_table_is_forgotten_and_a_part_of_one_is_not() {
        let mut it = Tables::default();
        it.seen((0, 3 * T));
        it.empty((4096, 3 * T));
        it.begin();
        it.scanned((0, 4 * T), Vec::new());
        assert_eq!(it.silent(), [(0, T)]);
    }

    #[test]
    fn after_a_loss_it_is_thorough_for_a_while() {
        let mut it = Tables::default();
        it.lost();
        assert_eq!((0..100).filter(|_| !it.begin()).count(), 64);
    }
}
