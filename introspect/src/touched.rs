//! Addresses at which two views may differ, and one view read instead of the other where they do not.

use crate::view::{Mapping, PAGE, ThreadView, Unavailable, View};

/// Half-open ranges of addresses, ascending and apart from each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    ranges: Vec<(u64, u64)>,
}

impl Touched {
    /// Of ranges in any order.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut all: Vec<(u64, u64)> = ranges.into_iter().filter(|(a, b)| a < b).collect();
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self { ranges: merged }
    }

    /// Nothing is known to be the same.
    pub fn everything() -> Self {
        Self::new([(0, u64::MAX)])
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Whether any of the `len` bytes from `address` on is among them.
    pub fn overlaps(&self, address: u64, len: u64) -> bool {
        len > 0
            && self
                .next(address)
                .is_some_and(|next| next < address.saturating_add(len))
    }

    /// The first address among them that is not before `address`.
    pub fn next(&self, address: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|range| range.1 <= address);
        self.ranges.get(at).map(|range| range.0.max(address))
    }
}

/// The new view, read from the old one where the two agree: what both sides of a comparison read is fetched once.
pub(crate) struct Overlay<'a> {
    pub old: &'a dyn View,
    pub new: &'a dyn View,
    pub touched: &'a Touched,
}

impl View for Overlay<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let mut done = 0;
        while done < buf.len() {
            let here = address
                .checked_add(done as u64)
                .ok_or_else(|| Unavailable::not_mapped(address))?;
            let left = usize::try_from(PAGE - here % PAGE).unwrap_or(1);
            let end = buf.len().min(done + left);
            let side = if self.touched.overlaps(here & !(PAGE - 1), PAGE) {
                self.new
            } else {
                self.old
            };
            side.read(here, &mut buf[done..end])?;
            done = end;
        }
        Ok(())
    }

    fn threads(&self) -> Vec<ThreadView> {
        self.new.threads()
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.new.mappings()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.new.auxv()
    }

    fn debug_roots(&self) -> Vec<std::path::PathBuf> {
        self.new.debug_roots()
    }

    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        self.new.open_file(mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_asked() {
        let touched = Touched::new([(0x5000, 0x6000), (0x1000, 0x2000), (0x2000, 0x3000), (9, 9)]);
        assert_eq!(touched.ranges(), [(0x1000, 0x3000), (0x5000, 0x6000)]);
        assert!(touched.overlaps(0xfff, 2) && touched.overlaps(0x2fff, 1));
        assert!(!touched.overlaps(0xfff, 1) && !touched.overlaps(0x3000, 0x2000));
        assert!(!touched.overlaps(0x1000, 0));
        assert_eq!(touched.next(0x3000), Some(0x5000));
        assert_eq!(touched.next(0x6000), None);
        assert!(Touched::everything().overlaps(u64::MAX - 1, 1));
    }
}
