//! Memory for answers that wait to be read.
//!
//! A client that does not read must not fill the daemon with what it asked for, and no process may
//! take the room of all.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes that may be held, together and for one process.
#[derive(Debug)]
pub struct Room {
    most: usize,
    most_each: usize,
    held: Mutex<BTreeMap<i32, usize>>,
    freed: Condvar,
}

/// A share of the room; given back when it is dropped.
#[derive(Debug)]
pub struct Share<'a> {
    room: &'a Room,
    pid: i32,
    bytes: usize,
}

impl Room {
    pub const fn new(most: usize, most_each: usize) -> Self {
        Self {
            most,
            most_each,
            held: Mutex::new(BTreeMap::new()),
            freed: Condvar::new(),
        }
    }

    /// Waits for a share of `bytes`; None when there is no room in time.
    pub fn take(&self, pid: i32, bytes: usize, until: Instant) -> Option<Share<'_>> {
        let mut held = self.lock();
        while !self.fits(&held, pid, bytes) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let woken = self.freed.wait_timeout(held, left);
            held = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *held.entry(pid).or_default() += bytes;
        Some(Share {
            room: self,
            pid,
            bytes,
        })
    }

    fn fits(&self, held: &BTreeMap<i32, usize>, pid: i32, bytes: usize) -> bool {
        let own = held.get(&pid).copied().unwrap_or(0);
        let all: usize = held.values().sum();
        own + bytes <= self.most_each && all + bytes <= self.most
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, usize>> {
        // Numbers are changed one at a time, so they are whole after any panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut held = self.room.lock();
        if let Some(own) = held.get_mut(&self.pid) {
            *own -= self.bytes;
            if *own == 0 {
                held.remove(&self.pid);
            }
        }
        drop(held);
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    #[test]
    fn one_process_leaves_room_for_others() {
        let room = Room::new(100, 40);
        let first = room.take(1, 40, soon()).unwrap();
        assert!(room.take(1, 1, soon()).is_none());
        let _second = room.take(2, 40, soon()).unwrap();
        assert!(
            room.take(3, 21, soon()).is_none(),
            "all of them have no more"
        );
        drop(first);
        assert!(room.take(1, 20, soon()).is_some());
    }

    #[test]
    fn whoever_waits_gets_it() {
        let room = Room::new(10, 10);
        let share = room.take(1, 10, soon()).unwrap();
        std::thread::scope(|scope| {
            let late = Instant::now() + Duration::from_secs(60);
            let room = &room;
            let waits = scope.spawn(move || room.take(2, 5, late).is_some());
            drop(share);
            assert!(waits.join().unwrap());
        });
        assert!(room.lock().is_empty());
    }
}
