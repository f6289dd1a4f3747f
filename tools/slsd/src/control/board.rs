//! Where clients wait for a stop, which the worker's thread announces.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsls::control::{Stop, Wait};

/// How often whoever waits looks whether the client is still there.
const STEP: Duration = Duration::from_millis(50);

/// How far a partition has come.
#[derive(Debug, Default)]
pub struct Board {
    last: Mutex<Last>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Last {
    /// Stops so far.
    count: u64,
    stop: Option<Stop>,
    /// Of the last one.
    told: bool,
}

impl Board {
    fn last(&self) -> MutexGuard<'_, Last> {
        // Its fields are set one after the other by plain assignments.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops so far; what comes after is waited for by this.
    pub fn count(&self) -> u64 {
        self.last().count
    }

    /// It stands still.
    pub fn announce(&self, stop: Stop) {
        let mut last = self.last();
        last.count += 1;
        last.stop = Some(stop);
        last.told = false;
        self.changed.notify_all();
    }

    /// The last stop, unless somebody was told of it; now somebody is.
    pub fn untold(&self) -> Option<Stop> {
        let mut last = self.last();
        if std::mem::replace(&mut last.told, true) {
            return None;
        }
        last.stop.clone()
    }

    /// The first stop after so many; None where the time is over or the client is gone.
    pub fn wait(&self, after: u64, wait: Wait, gone: &dyn Fn() -> bool) -> Option<Stop> {
        let until = match wait {
            Wait::No => return None,
            Wait::Stop => None,
            Wait::Ms(ms) => Some(Instant::now() + Duration::from_millis(ms)),
        };
        let mut last = self.last();
        loop {
            if last.count > after {
                last.told = true;
                return last.stop.clone();
            }
            let left = until.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            let step = left.map_or(STEP, |left| left.min(STEP));
            let waited = self.changed.wait_timeout(last, step);
            last = waited.unwrap_or_else(PoisonError::into_inner).0;
            if last.count <= after && gone() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_came_before_it_is_waited_for_is_not_missed() {
        let board = Board::default();
        let before = board.count();
        let stop = Stop {
            pid: 7,
            ..Stop::default()
        };
        board.announce(stop.clone());
        assert_eq!(board.wait(before, Wait::Stop, &|| true), Some(stop.clone()));
        assert_eq!(board.untold(), None);
        board.announce(stop.clone());
        assert_eq!(board.untold(), Some(stop));
        assert_eq!(board.untold(), None);
        assert_eq!(board.wait(before, Wait::No, &|| false), None);
        assert_eq!(board.wait(board.count(), Wait::Ms(1), &|| false), None);
        assert_eq!(board.wait(board.count(), Wait::Stop, &|| true), None);
    }
}
