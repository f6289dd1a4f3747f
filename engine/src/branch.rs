//! Names of branches.

use std::collections::BTreeSet;

use slos::Partition;

/// A name that no branch of the partition has: the kind and a number.
pub fn new(partition: &Partition, kind: &str) -> String {
    let used: BTreeSet<String> = partition
        .history()
        .unwrap_or_default()
        .into_iter()
        .map(|c| c.branch.to_string())
        .collect();
    (1..)
        .map(|n| format!("{kind}-{n}"))
        .find(|name| !used.contains(name))
        .unwrap_or_else(|| kind.to_owned())
}
