//! The judge of tests/tracees/counted.c: tells from one moment of its memory, and from nothing else,
//! whether every byte is as it was then.
#![allow(clippy::cast_possible_truncation)] // It has a few MiB.

use libsls::protocol::{Answer, Request};
use libsls::{Client, ClientError};

use crate::Dice;

const BASE: u64 = 0x2000_0000_0000;
const APART: u64 = 64 << 20;
const PAGE: u64 = 4096;
const STRIDE: u64 = 0x9e5;

/// Cells of one thread, as the tracee has them.
struct Shape {
    size: u64,
    count: u64,
}

const SHAPES: [Shape; 4] = [
    Shape {
        size: 4096,
        count: 512,
    },
    Shape {
        size: 64,
        count: 4096,
    },
    Shape {
        size: 8,
        count: 32768,
    },
    Shape {
        size: 4096,
        count: 128,
    },
];

/// Pages of one thread's cells: which thread, the first page, how many.
pub type Stretch = (usize, u64, u64);

/// What one epoch's memory turned out to be.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Steps done, a thread each.
    pub steps: Vec<u64>,
    /// Bytes that were judged.
    pub bytes: u64,
    /// The first thing that is not as it should be.
    pub wrong: Option<String>,
}

/// All there is to judge.
#[must_use]
pub fn everything() -> Vec<Stretch> {
    (0..SHAPES.len()).map(|n| (n, 0, pages(n))).collect()
}

/// A few stretches, of up to 64 pages each.
pub fn something(dice: &mut Dice) -> Vec<Stretch> {
    let stretch = |n: usize, dice: &mut Dice| {
        let first = dice.below(pages(n));
        (n, first, (1 + dice.below(64)).min(pages(n) - first))
    };
    (0..SHAPES.len()).map(|n| stretch(n, dice)).collect()
}

/// Reads stretches of an epoch and judges them. An error is the daemon's or the connection's.
///
/// # Errors
/// As [`Client::ask`].
pub fn judge(
    client: &mut Client,
    part: &str,
    epoch: u64,
    stretches: &[Stretch],
) -> Result<Verdict, ClientError> {
    let record = client.record(Some(part), epoch)?;
    let Some(process) = record.processes.first() else {
        return Ok(wrong(format!("@{epoch} has no process")));
    };
    let runs = stretches.iter().flat_map(|&(n, first, count)| {
        let head = (BASE + APART * n as u64) / PAGE;
        [(head, 1), (head + 1 + first, count as u32)]
    });
    let answer = client.ask(&Request::Pages {
        part: Some(part.to_owned()),
        epoch,
        space: process.space,
        runs: runs.collect(),
    })?;
    let Answer::Pages { present, bytes } = answer else {
        return Err(ClientError::OutOfTurn("no pages".into()));
    };
    Ok(of_bytes(epoch, stretches, &spread(&present, &bytes)))
}

/// One page a flag: a page that is not there is zero.
fn spread(present: &[bool], bytes: &[u8]) -> Vec<u64> {
    let mut kept = bytes.chunks_exact(PAGE as usize);
    let mut words = Vec::with_capacity(present.len() * 512);
    for &here in present {
        match here.then(|| kept.next()).flatten() {
            Some(page) => words.extend(page.chunks_exact(8).map(word)),
            None => words.resize(words.len() + 512, 0),
        }
    }
    words
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn of_bytes(epoch: u64, stretches: &[Stretch], mut words: &[u64]) -> Verdict {
    let mut verdict = Verdict::default();
    for &(n, first, count) in stretches {
        let (mine, rest) = words.split_at(512 * (1 + count as usize));
        words = rest;
        let (begun, done) = (mine[0], mine[1]);
        verdict.steps.push(done);
        verdict.bytes += (mine.len() * 8) as u64;
        if begun != done && begun != done + 1 {
            return wrong(format!("@{epoch} thread {n}: begun {begun}, done {done}"));
        }
        let cell_words = (SHAPES[n].size / 8) as usize;
        let first_cell = first * PAGE / SHAPES[n].size;
        for (cell, got) in (first_cell..).zip(mine[512..].chunks_exact(cell_words)) {
            if !is_whole(n, (begun, done), cell, got) {
                let got = &got[..got.len().min(4)];
                let due = last(n, done, cell);
                return wrong(format!(
                    "@{epoch} thread {n} at step {done}: cell {cell} is {got:x?} and should be of step {due}"
                ));
            }
        }
    }
    verdict
}

/// Is the cell as its last step left it, or, in the middle of a step of its own, as far as that is?
fn is_whole(n: usize, (begun, done): (u64, u64), cell: u64, got: &[u64]) -> bool {
    let old = last(n, done, cell);
    let is_of = |step: u64, from: usize, got: &[u64]| {
        let words = (from as u64..).zip(got);
        words.into_iter().all(|(at, &got)| got == value(step, at))
    };
    if begun == done || begun * STRIDE % SHAPES[n].count != cell {
        return is_of(old, 0, got);
    }
    let new = (0u64..).zip(got);
    let written = new
        .take_while(|&(at, &got)| got == value(begun, at))
        .count();
    is_of(old, written, &got[written..])
        // Where both steps leave the same word nobody can tell which it is.
        || (0..written).rev().any(|k| is_of(begun, 0, &got[..k]) && is_of(old, k, &got[k..]))
}

/// The last step up to `done` that wrote a cell, 0 when none has.
fn last(n: usize, done: u64, cell: u64) -> u64 {
    let count = SHAPES[n].count;
    // The stride's inverse: Newton's iteration doubles the bits that are right.
    let inverse = (0..6).fold(STRIDE, |x, _| {
        x.wrapping_mul(2u64.wrapping_sub(STRIDE.wrapping_mul(x)))
    });
    let turn = cell.wrapping_mul(inverse) % count;
    let first = if turn == 0 { count } else { turn };
    if first > done {
        return 0;
    }
    done - (done - first) % count
}

fn value(step: u64, word: u64) -> u64 {
    if step.is_multiple_of(8) {
        return 0; // So is what no step has written yet.
    }
    if word % 4 == 3 {
        return step;
    }
    let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}

fn pages(n: usize) -> u64 {
    SHAPES[n].size * SHAPES[n].count / PAGE
}

fn wrong(what: String) -> Verdict {
    Verdict {
        wrong: Some(what),
        ..Verdict::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of one thread after so many steps, of which the last is only begun.
    fn memory(n: usize, done: u64, words_of_next: usize) -> Vec<u64> {
        let cell_words = (SHAPES[n].size / 8) as usize;
        let mut words = vec![0; 512 * (1 + pages(n) as usize)];
        let mut write = |step: u64, count: usize| {
            let cell = (step * STRIDE % SHAPES[n].count) as usize;
            for at in 0..count {
                words[512 + cell * cell_words + at] = value(step, at as u64);
            }
        };
        (1..=done).for_each(|step| write(step, cell_words));
        write(done + 1, words_of_next);
        words[0] = done + u64::from(words_of_next > 0);
        words[1] = done;
        words
    }

    #[test]
    fn judges_what_is_whole_torn_and_wrong() {
        for (n, shape) in SHAPES.iter().enumerate() {
            let all = [(n, 0, pages(n))];
            for done in [0, 1, 7, 8, 100, 3 * shape.count + 5] {
                for torn in [0, 1] {
                    let good = memory(n, done, torn);
                    let verdict = of_bytes(1, &all, &good);
                    assert_eq!(verdict.wrong, None, "{n} {done} {torn}");
                    let mut bad = good.clone();
                    bad[512 + 8 * (done as usize % 50)] ^= 0x10;
                    assert!(of_bytes(1, &all, &bad).wrong.is_some(), "{n} {done}");
                    // All of it as it was a step before, but for the counters.
                    if done > 1 && done % 8 != 0 {
                        let mut stale = memory(n, done - 1, 0);
                        stale[..2].copy_from_slice(&good[1..2].repeat(2));
                        assert!(of_bytes(1, &all, &stale).wrong.is_some(), "{n} {done}");
                    }
                }
            }
        }
    }
}
