//! Stop times of a partition, for `stat`.

use std::collections::VecDeque;

const KEPT: usize = 4096;

/// The newest stop times, µs.
#[derive(Debug, Default)]
pub struct Stops {
    times: VecDeque<u64>,
}

impl Stops {
    pub fn add(&mut self, us: u64) {
        if self.times.len() == KEPT {
            self.times.pop_front();
        }
        self.times.push_back(us);
    }

    /// Median, 99th percentile, largest.
    pub fn figures(&self) -> (u64, u64, u64) {
        let mut sorted: Vec<u64> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        let at = |share: usize| {
            let index = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
            sorted.get(index).copied().unwrap_or(0)
        };
        (at(50), at(99), at(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_hundred() {
        let mut stops = Stops::default();
        assert_eq!(stops.figures(), (0, 0, 0));
        (1..=100).for_each(|us| stops.add(us));
        assert_eq!(stops.figures(), (51, 100, 100));
    }
}
