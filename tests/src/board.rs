//! The board on which tests/tracees/oracle.c writes down what its cases saw.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const NAME: usize = 32;
const BUCKETS: usize = 24;
const HEAD: usize = 16;
const COUNTS: usize = 11;
const ROW: usize = NAME + 8 * (COUNTS + BUCKETS);

/// What one case saw. Layout: struct row in tests/tracees/oracle/board.h.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Calls that have returned.
    pub calls: u64,
    /// Of those, with EINTR where no handler of the program's had run.
    pub interrupted: u64,
    /// With less than asked for, where docs/limits.md says so.
    pub shorts: u64,
    /// Before their timeout.
    pub early: u64,
    /// With another result than they should, or after a lost item.
    pub wrong: u64,
    /// Signals whose handler ran without ending the call that was made.
    pub lost: u64,
    /// That a rewind put back.
    pub spanned: u64,
    /// End of the last one, CLOCK_MONOTONIC ns.
    pub last_ns: u64,
    /// Result, errno and length in us of the last one that was not right.
    pub example: [i64; 3],
    /// Timeouts that came 2^n to 2^(n+1) us late.
    pub late: Vec<u64>,
}

impl Case {
    fn read(bytes: &[u8]) -> Self {
        let name = bytes[..NAME].split(|&b| b == 0).next().unwrap_or_default();
        let word = |n: usize| {
            let at = NAME + 8 * n;
            i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
        };
        let count = |n| word(n).cast_unsigned();
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            calls: count(0),
            interrupted: count(1),
            shorts: count(2),
            early: count(3),
            wrong: count(4),
            lost: count(5),
            spanned: count(6),
            last_ns: count(7),
            example: [word(8), word(9), word(10)],
            late: (0..BUCKETS).map(|n| count(COUNTS + n)).collect(),
        }
    }

    /// How late its latest timeout was at most, us.
    #[must_use]
    pub fn worst_us(&self) -> u64 {
        let worst = self.late.iter().rposition(|&n| n > 0);
        worst.map_or(0, |n| 2 << n)
    }

    /// Timeouts that were later than this for sure.
    #[must_use]
    pub fn later_than(&self, us: u64) -> u64 {
        let buckets = self.late.iter().enumerate();
        buckets.filter(|&(n, _)| 1 << n >= us).map(|(_, n)| n).sum()
    }
}

/// The file of one process.
#[derive(Debug)]
pub struct Board(PathBuf);

impl Board {
    /// In the folder the tracee was given.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self(folder.join("board"))
    }

    /// Its cases as they are now.
    ///
    /// # Panics
    /// The tracee has not made it.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let bytes = std::fs::read(&self.0).expect("the tracee makes its board");
        let rows = u64::from_le_bytes(bytes[8..HEAD].try_into().expect("8 bytes"));
        let rows = usize::try_from(rows).expect("a few");
        let rows = bytes[HEAD..].chunks_exact(ROW).take(rows);
        rows.map(Case::read).collect()
    }

    /// Tells the cases that so many rewinds have begun or ended: odd within one.
    ///
    /// # Panics
    /// The board cannot be written.
    pub fn tell(&self, rewinds: u64) {
        let file = File::options().write(true).open(&self.0).expect("a board");
        file.write_all_at(&rewinds.to_le_bytes(), 0)
            .expect("a board can be written");
    }
}
