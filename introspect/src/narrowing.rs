//! Hits of a search, narrowed by what other views have there.

use std::collections::BTreeMap;

use crate::search::{Number, Reading};
use crate::view::View;

const PAGE: u64 = 4096;

/// What a place must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    Is(Reading),
    Changed,
    Unchanged,
    More,
    Less,
}

impl Condition {
    /// `changed`, `unchanged`, `more`, `less` (than at the look before), or a value; None where the text is none of these.
    pub fn parse(number: Number, text: &str) -> Option<Self> {
        Some(match text {
            "changed" => Self::Changed,
            "unchanged" => Self::Unchanged,
            "more" => Self::More,
            "less" => Self::Less,
            value => Self::Is(number.reading(value)?),
        })
    }

    pub fn holds(self, old: Reading, new: Reading) -> bool {
        match self {
            Self::Is(wanted) => new == wanted,
            Self::Changed => new != old,
            Self::Unchanged => new == old,
            Self::More => new > old,
            Self::Less => new < old,
        }
    }
}

/// Those that fit, with what they are now.
pub fn narrowed(
    view: &dyn View,
    number: Number,
    left: &BTreeMap<u64, Reading>,
    condition: Condition,
) -> BTreeMap<u64, Reading> {
    let mut kept = BTreeMap::new();
    for (start, end) in runs(left) {
        let mut seen: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        view.each_page(start, end, &mut |page, bytes| {
            seen.insert(page, bytes.to_vec());
        });
        for (address, old) in left.range(start..end) {
            let page = address & !(PAGE - 1);
            let at = usize::try_from(address - page).unwrap_or(0);
            let now = match seen.get(&page) {
                Some(bytes) => number.read(bytes.get(at..).unwrap_or_default()),
                // A page that is left out is zero, or not there.
                None => {
                    let mut bytes = [0; 8];
                    let part = &mut bytes[..number.size()];
                    let there = view.read(*address, part).is_ok();
                    there.then(|| number.read(part)).flatten()
                }
            };
            if let Some(now) = now.filter(|now| condition.holds(*old, *now)) {
                kept.insert(*address, now);
            }
        }
    }
    kept
}

/// Runs of pages with something left in them.
fn runs(left: &BTreeMap<u64, Reading>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for address in left.keys() {
        let page = address & !(PAGE - 1);
        match runs.last_mut() {
            Some(run) if page < run.1 => {}
            Some(run) if page == run.1 && run.1 - run.0 < MOST_AT_ONCE => run.1 += PAGE,
            _ => runs.push((page, page + PAGE)),
        }
    }
    runs
}

const MOST_AT_ONCE: u64 = 16 << 20;
