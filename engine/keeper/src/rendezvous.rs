//! What slsd and the keeper of a stopped target tell each other on the board's two words: the target
//! waits for it, and a message takes as long to send and to receive as a thread to be let go.
//!
//! - slsd decides what is to become of the target once it has copied.
//! - The keeper hands over the map list. It takes long to read, and slsd meanwhile scans by the list
//!   it knows; what was scanned counts when the lists are equal. It lies at the front of the board,
//!   the states behind it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sls_sys::shared::Board;

/// Longest map list that is handed over.
const MAPS_ROOM: usize = 4 << 20;

/// What is to become of the target once the keeper has read its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was copied: let go at once.
    LetGo,
    /// It stays stopped until [`crate::Ask::Resume`].
    Stay,
}

/// Neither decided nor handed over.
const NOTHING: u32 = 0;
const LET_GO: u32 = 1;
const STAY: u32 = 2;

fn verdict(board: &Board) -> &AtomicU32 {
    &board.words()[0]
}

fn maps(board: &Board) -> &AtomicU32 {
    &board.words()[1]
}

/// slsd, before it asks for a stop.
pub fn open(board: &Board) {
    verdict(board).store(NOTHING, Ordering::Release);
    maps(board).store(NOTHING, Ordering::Release);
}

/// slsd, once it has copied. A keeper that looks no more does not hear it: it says so by the stop
/// that is missing in [`crate::Say::Collected`].
pub fn decide(board: &Board, what: Verdict) {
    let word = match what {
        Verdict::LetGo => LET_GO,
        Verdict::Stay => STAY,
    };
    verdict(board).store(word, Ordering::Release);
}

/// The keeper, for so long; then the answer is to stay.
pub fn decided(board: &Board, patience: Duration) -> Verdict {
    match look(verdict(board), patience) {
        LET_GO => Verdict::LetGo,
        _ => Verdict::Stay,
    }
}

/// The keeper: the map list as it is. One that does not fit is slsd's to read.
pub fn hand_over(board: &mut Board, list: &[u8]) {
    if list.len() <= MAPS_ROOM && board.put(0, list).is_ok() {
        let len = u32::try_from(list.len()).unwrap_or(NOTHING);
        maps(board).store(len, Ordering::Release);
    }
}

/// slsd: the map list, None when it does not come.
#[must_use]
pub fn handed_over(board: &Board, patience: Duration) -> Option<Vec<u8>> {
    let len = look(maps(board), patience);
    (len != NOTHING).then(|| board.get(0, sls_sys::size(u64::from(len))))
}

/// The keeper: what it has read of the target.
///
/// # Errors
/// It does not fit.
pub fn put_states(board: &mut Board, bytes: &[u8]) -> io::Result<()> {
    board.put(MAPS_ROOM, bytes)
}

/// slsd: the same, `n` bytes.
#[must_use]
pub fn states(board: &Board, n: u64) -> Vec<u8> {
    board.get(MAPS_ROOM, sls_sys::size(n))
}

fn look(word: &AtomicU32, patience: Duration) -> u32 {
    let until = Instant::now() + patience;
    loop {
        let seen = word.load(Ordering::Acquire);
        if seen != NOTHING || Instant::now() >= until {
            return seen;
        }
        // To the other side, when it is as urgent and waits for this very CPU.
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_decided_is_heard_and_nothing_means_stay() {
        let board = Board::new(4096).unwrap();
        open(&board);
        assert_eq!(decided(&board, Duration::ZERO), Verdict::Stay);
        decide(&board, Verdict::LetGo);
        assert_eq!(decided(&board, LONG), Verdict::LetGo);
        decide(&board, Verdict::Stay);
        assert_eq!(decided(&board, LONG), Verdict::Stay);
    }

    #[test]
    fn a_list_that_does_not_fit_does_not_come() {
        let mut board = Board::new(4096).unwrap();
        hand_over(&mut board, &[0; 5000]);
        assert_eq!(handed_over(&board, Duration::ZERO), None);
        hand_over(&mut board, b"list");
        assert_eq!(handed_over(&board, LONG).unwrap(), b"list");
        open(&board);
        assert_eq!(handed_over(&board, Duration::ZERO), None);
    }
}
