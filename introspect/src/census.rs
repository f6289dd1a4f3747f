//! What is on the heap, by type, and what has grown.

use std::collections::BTreeMap;

use crate::reach::{Home, Reach};

/// Objects and bytes of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    pub bytes: u64,
}

/// By type.
pub type Census = BTreeMap<String, Sum>;

/// Counted is what lies in no variable.
pub fn census(reach: &Reach<'_>) -> Census {
    let mut census = Census::new();
    for found in reach.wholes().filter(|found| found.home == Home::Heap) {
        let sum = census.entry(found.type_name.clone()).or_default();
        sum.count += 1;
        sum.bytes += found.len;
    }
    census
}

/// Largest first.
pub fn by_size(census: &Census) -> Vec<(&String, &Sum)> {
    let mut rows: Vec<_> = census.iter().collect();
    rows.sort_by_key(|(name, sum)| (std::cmp::Reverse(sum.bytes), *name));
    rows
}

/// Of all types.
pub fn total(census: &Census) -> Sum {
    census.values().fold(Sum::default(), |total, sum| Sum {
        count: total.count + sum.count,
        bytes: total.bytes + sum.bytes,
    })
}

/// A type of which there is more or less than before.
#[derive(Debug, PartialEq, Eq)]
pub struct Grown {
    pub name: String,
    pub old: Sum,
    pub new: Sum,
}

impl Grown {
    pub fn bytes(&self) -> i128 {
        i128::from(self.new.bytes) - i128::from(self.old.bytes)
    }

    pub fn count(&self) -> i128 {
        i128::from(self.new.count) - i128::from(self.old.count)
    }
}

/// What has grown most first.
pub fn growth(old: &Census, new: &Census) -> Vec<Grown> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |census: &Census, name: &String| census.get(name).copied().unwrap_or_default();
    let mut grown: Vec<Grown> = names
        .into_iter()
        .map(|name| Grown {
            name: name.clone(),
            old: of(old, name),
            new: of(new, name),
        })
        .filter(|grown| grown.old != grown.new)
        .collect();
    // Stable: what grew as much stays in the order of the names.
    grown.sort_by_key(|grown| std::cmp::Reverse((grown.bytes(), grown.count())));
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_or_shrank_is_told_largest_first() {
        let census = |rows: &[(&str, u64, u64)]| -> Census {
            let row = |(name, count, bytes): &(&str, u64, u64)| {
                let sum = Sum {
                    count: *count,
                    bytes: *bytes,
                };
                ((*name).to_owned(), sum)
            };
            rows.iter().map(row).collect()
        };
        let old = census(&[("a", 1, 8), ("b", 2, 16), ("same", 1, 1)]);
        let new = census(&[("b", 1, 8), ("c", 9, 90), ("same", 1, 1)]);
        let grown = growth(&old, &new);
        let told: Vec<_> = grown.iter().map(|g| (g.name.as_str(), g.count())).collect();
        assert_eq!(told, [("c", 9), ("a", -1), ("b", -1)]);
    }
}
