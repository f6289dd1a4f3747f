//! What of an address space is still to be brought, and from where, as mappings move and go.

use std::collections::BTreeMap;

/// Ranges of addresses, apart, each with the address that its first page had in the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owed {
    /// By start: end, origin.
    ranges: BTreeMap<u64, (u64, u64)>,
}

/// One of them, or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debt {
    pub start: u64,
    pub end: u64,
    /// Where `start` was in the checkpoint.
    pub origin: u64,
}

impl Owed {
    /// The pages of the checkpoint in these ranges, where they were.
    pub fn new(ranges: &[(u64, u64)]) -> Self {
        let ranges = ranges.iter().map(|&(start, end)| (start, (end, start)));
        Self {
            ranges: ranges.collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What is owed from this address on.
    pub fn at(&self, address: u64) -> Option<Debt> {
        let (&start, &(end, origin)) = self.ranges.range(..=address).next_back()?;
        (address < end).then(|| Debt {
            start: address,
            end,
            origin: origin + (address - start),
        })
    }

    /// What is owed from this address on, or else from the next one at which something is, or the first.
    pub fn next(&self, address: u64) -> Option<Debt> {
        let after = || self.ranges.range(address..).next();
        let debt = |(&start, &(end, origin)): (&u64, &(u64, u64))| Debt { start, end, origin };
        let here = self.at(address);
        here.or_else(|| after().or_else(|| self.ranges.iter().next()).map(debt))
    }

    /// Nothing there is owed any more; what was is given.
    pub fn cut(&mut self, start: u64, end: u64) -> Vec<Debt> {
        let mut gone = Vec::new();
        while let Some((&from, &(to, origin))) = self.ranges.range(..end).next_back() {
            if to <= start {
                break;
            }
            self.ranges.remove(&from);
            if end < to {
                self.ranges.insert(end, (to, origin + (end - from)));
            }
            let first = from.max(start);
            gone.push(Debt {
                start: first,
                end: to.min(end),
                origin: origin + (first - from),
            });
            if from < start {
                self.ranges.insert(from, (start, origin));
            }
        }
        gone
    }

    /// What was owed from one address on is from another on.
    pub fn shift(&mut self, from: u64, to: u64, len: u64) {
        let moved = self.cut(from, from.saturating_add(len));
        self.cut(to, to.saturating_add(len));
        for debt in moved {
            let start = to + (debt.start - from);
            let end = start + (debt.end - debt.start);
            self.ranges.insert(start, (end, debt.origin));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ROOM: u64 = 64;

    /// Address by address, with the origin of each.
    fn plain(owed: &Owed) -> BTreeMap<u64, u64> {
        (0..2 * ROOM)
            .filter_map(|at| owed.at(at).map(|debt| (at, debt.origin)))
            .collect()
    }

    #[derive(Debug, Clone)]
    enum Act {
        Cut(u64, u64),
        Shift(u64, u64, u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        let place = 0..ROOM;
        prop_oneof![
            (place.clone(), 1..20u64).prop_map(|(at, len)| Act::Cut(at, at + len)),
            (place.clone(), place, 1..20u64)
                .prop_filter("mremap has no overlap", |(a, b, len)| a.abs_diff(*b)
                    >= *len)
                .prop_map(|(from, to, len)| Act::Shift(from, to, len)),
        ]
    }

    proptest! {
        #[test]
        fn every_address_is_owed_what_a_plain_list_says(acts in prop::collection::vec(act(), 0..30)) {
            let mut owed = Owed::new(&[(2, 20), (20, 30), (40, 60)]);
            let mut model = plain(&owed);
            prop_assert_eq!(model.len(), 48);
            for act in acts {
                match act {
                    Act::Cut(start, end) => {
                        owed.cut(start, end);
                        model.retain(|at, _| !(start..end).contains(at));
                    }
                    Act::Shift(from, to, len) => {
                        owed.shift(from, to, len);
                        let inside = |start: u64, at: u64| (start..start + len).contains(&at);
                        let moved: Vec<(u64, u64)> = model
                            .iter()
                            .filter(|&(&at, _)| inside(from, at))
                            .map(|(&at, &origin)| (to + (at - from), origin))
                            .collect();
                        model.retain(|&at, _| !inside(from, at) && !inside(to, at));
                        model.extend(moved);
                    }
                }
                prop_assert_eq!(plain(&owed), model.clone());
                prop_assert_eq!(owed.is_empty(), model.is_empty());
                for at in 0..2 * ROOM {
                    let next = owed.next(at).map(|debt| (debt.start, debt.origin));
                    let expected = model.range(at..).next().or_else(|| model.iter().next());
                    prop_assert_eq!(next, expected.map(|(&at, &origin)| (at, origin)));
                }
            }
        }
    }
}
