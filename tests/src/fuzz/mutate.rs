//! Inputs from other inputs, the same for a seed: what `./x test` has in place of libFuzzer.

use crate::Dice;

/// Numbers at which parsers break.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'\n', b'('];

/// One of the seeds with a few changes, or bytes from nowhere.
#[must_use]
pub fn mutated(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let pick = |dice: &mut Dice| {
        let at = index(dice, seeds.len());
        seeds.get(at).cloned().unwrap_or_default()
    };
    let mut bytes = match dice.below(20) {
        0 => noise(dice),
        _ => pick(dice),
    };
    for _ in 0..=dice.below(8) {
        let at = index(dice, bytes.len() + 1);
        match dice.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, noise(dice))),
            2 => drop(bytes.drain(at..(at + index(dice, 16)).min(bytes.len()))),
            3 => {
                let other = pick(dice);
                let from = index(dice, other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            // The longest number a varint can be.
            4 => drop(bytes.splice(at..at, [[0xff; 9].as_slice(), &[1]].concat())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match dice.below(3) {
                        0 => EDGES[index(dice, EDGES.len())],
                        1 => *byte ^ 1 << dice.below(8),
                        _ => any(dice),
                    };
                }
            }
        }
    }
    bytes
}

fn noise(dice: &mut Dice) -> Vec<u8> {
    (0..dice.below(64)).map(|_| any(dice)).collect()
}

fn any(dice: &mut Dice) -> u8 {
    dice.below(256).to_le_bytes()[0]
}

/// One of 0..len, 0 when there is none.
fn index(dice: &mut Dice, len: usize) -> usize {
    usize::try_from(dice.below(len as u64)).unwrap_or(0)
}
