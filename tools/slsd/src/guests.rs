//! Who is connected. When all places are taken, a newcomer gets one of the process that has most.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::gate::Gate;

/// Connections served at once.
pub const MOST: usize = 512;
/// Beyond these, connections that are only told that there are too many, or that are being ended.
const LINGERING: usize = 64;
/// Requests of one process worked on at once.
const TURNS_EACH: usize = 4;

/// The list of all.
#[derive(Default)]
pub struct Guests {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    next: u64,
    guests: BTreeMap<u64, Guest>,
}

struct Guest {
    process: Arc<Process>,
    stream: Arc<UnixStream>,
    heard: Instant,
    /// One that lingers has no place.
    lingers: bool,
}

/// What the connections of one process share.
pub struct Process {
    pub pid: i32,
    pub turns: Gate,
}

/// A connection's place on the list, until it is dropped.
pub struct Seat {
    guests: Arc<Guests>,
    id: u64,
    pub process: Arc<Process>,
    pub stream: Arc<UnixStream>,
    /// It is only to be told that there are too many.
    pub too_many: bool,
}

impl Guests {
    /// A seat for a connection; None when not even telling is possible.
    pub fn seat(self: &Arc<Self>, pid: i32, stream: UnixStream) -> Option<Seat> {
        let mut list = self.lock();
        let too_many = list.served().count() >= MOST && !list.make_place(pid);
        let lingering = list.guests.len() - list.served().count();
        if lingering >= LINGERING && (too_many || lingering >= 2 * LINGERING) {
            return None;
        }
        let known = list.guests.values().find(|g| g.process.pid == pid);
        let process = known.map_or_else(
            || {
                Arc::new(Process {
                    pid,
                    turns: Gate::new(TURNS_EACH),
                })
            },
            |guest| Arc::clone(&guest.process),
        );
        let stream = Arc::new(stream);
        let id = list.next;
        list.next += 1;
        list.guests.insert(
            id,
            Guest {
                process: Arc::clone(&process),
                stream: Arc::clone(&stream),
                heard: Instant::now(),
                lingers: too_many,
            },
        );
        Some(Seat {
            guests: Arc::clone(self),
            id,
            process,
            stream,
            too_many,
        })
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // Guests come and go by single inserts and removals, so the list is whole after any panic.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn served(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values().filter(|guest| !guest.lingers)
    }

    /// Ends the connection that was silent longest of the process that has most; false when that
    /// would be the newcomer's own, or everybody has one only.
    fn make_place(&mut self, newcomer: i32) -> bool {
        let mut each: BTreeMap<i32, usize> = BTreeMap::new();
        for guest in self.served() {
            *each.entry(guest.process.pid).or_default() += 1;
        }
        let own = each.get(&newcomer).copied().unwrap_or(0);
        let Some((&pid, &most)) = each.iter().max_by_key(|(_, count)| **count) else {
            return false;
        };
        if most <= own + 1 {
            return false;
        }
        let of_it = |guest: &&mut Guest| guest.process.pid == pid && !guest.lingers;
        let silent = self.guests.values_mut().filter(of_it);
        let Some(guest) = silent.min_by_key(|guest| guest.heard) else {
            return false;
        };
        guest.lingers = true;
        // It has gone already: as good.
        let _ = guest.stream.shutdown(Shutdown::Both);
        true
    }
}

impl Seat {
    /// It has said something.
    pub fn heard(&self) {
        if let Some(guest) = self.guests.lock().guests.get_mut(&self.id) {
            guest.heard = Instant::now();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.lock().guests.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(guests: &Arc<Guests>, pid: i32) -> Option<(Seat, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        Some((guests.seat(pid, ours)?, theirs))
    }

    #[test]
    fn a_newcomer_gets_a_place_of_who_has_most() {
        let guests = Arc::new(Guests::default());
        let many: Vec<_> = (0..MOST).map(|_| guest(&guests, 1).unwrap()).collect();
        assert!(many.iter().all(|(seat, _)| !seat.too_many));
        let (one_more, _end) = guest(&guests, 1).unwrap();
        assert!(one_more.too_many, "who has most gets no more");
        many[0].0.heard();
        let (newcomer, _end) = guest(&guests, 2).unwrap();
        assert!(!newcomer.too_many);
        let ended = |n: usize| {
            let mut byte = [0];
            many[n].1.set_nonblocking(true).unwrap();
            std::io::Read::read(&mut &many[n].1, &mut byte).is_ok_and(|n| n == 0)
        };
        assert!(ended(1) && !ended(0), "the one that was silent longest");
    }

    #[test]
    fn those_that_linger_have_an_end_too() {
        let guests = Arc::new(Guests::default());
        let many: Vec<_> = (0..2 * MOST).filter_map(|_| guest(&guests, 1)).collect();
        assert_eq!(many.len(), MOST + LINGERING);
        let (newcomer, _end) = guest(&guests, 2).unwrap();
        assert!(!newcomer.too_many);
        drop(many);
        assert_eq!(guests.lock().guests.len(), 1);
    }
}
