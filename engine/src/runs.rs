//! Which mappings are tracked, and which of them one call looks at together: calls, not pages, are
//! what a scan of a small process costs.

use sls_sys::PAGE;
use sls_sys::pagemap::Of;
use sls_sys::procfs::MapLine;

use crate::ranges::{Range, overlaps};

/// Is this mapping one whose private pages are ours to track?
pub fn is_tracked(map: &MapLine) -> bool {
    !map.shared && !is_kernel(map)
}

/// The kernel's own mappings cannot be registered and do not hold the program's data.
pub fn is_kernel(map: &MapLine) -> bool {
    matches!(
        map.path.as_str(),
        "[vvar]" | "[vvar_vclock]" | "[vsyscall]" | "[vdso]"
    )
}

/// Anonymous mappings up to so much are not worth a call of their own beside mappings of files.
pub const SMALL: u64 = 128 * PAGE;

/// Neighbouring mappings that are looked at with one call.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub range: Range,
    /// `Files` may hold a few small anonymous mappings as well.
    pub of: Of,
}

impl Run {
    fn of(map: &MapLine, clean: &[Range]) -> Self {
        let range = (map.start, map.end);
        let of = if map.inode == 0 {
            Of::Anonymous
        } else if clean.contains(&range) {
            Of::CleanFiles
        } else {
            Of::Files
        };
        Self { range, of }
    }

    fn is_small(&self) -> bool {
        self.of == Of::Anonymous && self.range.1 - self.range.0 <= SMALL
    }

    /// Takes the next mapping in. False: it needs a call of its own.
    fn takes(&mut self, next: Self) -> bool {
        let of = match (self.of, next.of) {
            (of, other) if of == other => of,
            (Of::Files, Of::Anonymous) if next.is_small() => Of::Files,
            (Of::Anonymous, Of::Files) if self.is_small() => Of::Files,
            _ => return false,
        };
        *self = Self {
            range: (self.range.0, next.range.1),
            of,
        };
        true
    }
}

/// Maximal runs of tracked mappings: each is one call instead of many. Unmapped gaps inside a run
/// are skipped by the kernel.
pub fn runs(maps: &[MapLine], refused: &[Range], clean: &[Range]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut open = false;
    for map in maps {
        if !is_tracked(map) || overlaps(refused, (map.start, map.end)) {
            open = false;
            continue;
        }
        let next = Run::of(map, clean);
        if !(open && runs.last_mut().is_some_and(|run| run.takes(next))) {
            runs.push(next);
        }
        open = true;
    }
    runs
}

/// Is there a file behind any part of the range?
pub fn file_backed(maps: &[MapLine], range: Range) -> bool {
    let first = maps.partition_point(|m| m.end <= range.0);
    let inside = maps[first..].iter().take_while(|m| m.start < range.1);
    inside.into_iter().any(|m| m.inode != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(start: u64, pages: u64, inode: u64) -> MapLine {
        MapLine {
            start,
            end: start + pages * PAGE,
            inode,
            ..MapLine::default()
        }
    }

    #[test]
    fn small_mappings_are_looked_at_with_their_neighbours() {
        let at = |page: u64| page * PAGE;
        let maps = [
            map(at(0), 4, 7),
            map(at(4), 33, 0),
            map(at(100), 4096, 0),
            map(at(4196), 1, 0),
            map(at(4197), 300, 8),
            map(at(4500), 2, 9),
            map(at(4502), 3, 0),
        ];
        let clean = [(at(4197), at(4497))];
        let got: Vec<_> = runs(&maps, &[], &clean)
            .iter()
            .map(|r| (r.range.0 / PAGE, r.range.1 / PAGE, r.of))
            .collect();
        let want = [
            (0, 37, Of::Files),
            (100, 4197, Of::Anonymous),
            (4197, 4497, Of::CleanFiles),
            (4500, 4505, Of::Files),
        ];
        assert_eq!(got, want);
        assert!(file_backed(&maps, (at(4), at(4500) + 1)));
        assert!(!file_backed(&maps, (at(4), at(4197))));
    }
}
