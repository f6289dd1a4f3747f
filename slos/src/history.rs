use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// Which checkpoints a partition keeps. Pinned, held and named ones, and the newest, always stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Keep {
    /// All that the budget can hold; the oldest go first.
    #[default]
    All,
    /// The newest `n`.
    Last(u64),
    /// All of the newest 256; beyond, the spacing doubles each time the age does.
    Log,
}

/// What a partition may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    pub keep: Keep,
    /// Bytes of segments and index the partition may take; `None`: what its store may.
    pub budget: Option<u64>,
}

/// What [`crate::Partition::history`] tells of a checkpoint without reading the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    pub epoch: Epoch,
    /// The checkpoint it was made from, which may have been dropped since.
    pub parent: Option<Epoch>,
    pub branch: Arc<str>,
    pub name: Option<String>,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    pub stop_us: u64,
    /// Pages whose content changed against the parent.
    pub pages: u64,
    /// Bytes its commit appended to the log.
    pub bytes: u64,
    pub meta: Arc<[u8]>,
    pub pinned: bool,
}

/// Newest checkpoints that [`Keep::Log`] keeps all of.
const DENSE: u64 = 256;

/// Whether [`Keep::Log`] keeps a checkpoint that stands `depth` commits below its root, `age`
/// commits ago: every one among the newest, then every second, fourth, eighth.
pub(crate) fn log_keeps(depth: u64, age: u64) -> bool {
    match age / DENSE {
        0 => true,
        ratio => {
            let stride = 2u64.checked_shl(ratio.ilog2()).unwrap_or(0);
            stride != 0 && depth.is_multiple_of(stride)
        }
    }
}

/// The ages at which the verdict of [`log_keeps`] can change.
pub(crate) fn log_thresholds() -> impl Iterator<Item = u64> {
    (0..u64::BITS - DENSE.ilog2()).map(|j| DENSE << j)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacing_doubles_with_age() {
        let newest = 100_000;
        let kept: Vec<u64> = (1..=newest).filter(|&d| log_keeps(d, newest - d)).collect();
        for pair in kept.windows(2) {
            let (gap, age) = (pair[1] - pair[0], newest - pair[0]);
            assert!(gap.is_power_of_two());
            assert!(gap == 1 || gap * DENSE <= 2 * age, "gap {gap} at age {age}");
            assert!(
                age < 2 * DENSE || gap * DENSE * 2 >= age,
                "gap {gap} at age {age}"
            );
        }
        assert!(kept.len() < 2000);
    }

    #[test]
    fn a_checkpoint_thinned_once_is_never_wanted_again() {
        for depth in 0..512 {
            let mut gone = false;
            for age in 0..20_000 {
                let keeps = log_keeps(depth, age);
                assert!(!(gone && keeps));
                gone |= !keeps;
            }
        }
    }

    #[test]
    fn verdicts_change_only_at_thresholds() {
        let thresholds: Vec<u64> = log_thresholds().collect();
        for depth in 0..256 {
            for age in 1..10_000 {
                if log_keeps(depth, age) != log_keeps(depth, age - 1) {
                    assert!(thresholds.contains(&age));
                }
            }
        }
    }
}
