//! Sorted lists of address ranges.

/// A range of addresses.
pub type Range = (u64, u64);

/// Sorted, without overlap.
pub fn normalise(ranges: &mut Vec<Range>) {
    if ranges.windows(2).all(|w| w[0].1 < w[1].0) {
        return;
    }
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for &(start, end) in ranges.iter() {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    *ranges = merged;
}

/// Does any of them share an address with the other?
pub fn overlaps(ranges: &[Range], with: Range) -> bool {
    ranges.iter().any(|r| r.0 < with.1 && with.0 < r.1)
}

/// Parts of `within` that `ranges` (sorted) leave out.
pub fn gaps(within: Range, ranges: &[Range]) -> Vec<Range> {
    let mut out = Vec::new();
    let mut at = within.0;
    let first = ranges.partition_point(|r| r.1 <= within.0);
    for &(start, end) in ranges[first..].iter().take_while(|r| r.0 < within.1) {
        if at < start {
            out.push((at, start));
        }
        at = at.max(end);
    }
    if at < within.1 {
        out.push((at, within.1));
    }
    out
}

/// Adds a range at the end, joined to the last one where they touch.
pub fn push(ranges: &mut Vec<Range>, start: u64, end: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => ranges.push((start, end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_around_ranges() {
        assert_eq!(gaps((0, 10), &[(2, 4), (4, 6)]), [(0, 2), (6, 10)]);
        assert_eq!(gaps((0, 10), &[(0, 10)]), []);
        assert_eq!(gaps((0, 10), &[]), [(0, 10)]);
        assert_eq!(gaps((4, 6), &[(0, 2), (5, 9), (12, 14)]), [(4, 5)]);
    }
}
