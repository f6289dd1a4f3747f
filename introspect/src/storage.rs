//! Where an object's bytes are.

use std::sync::Arc;

use crate::debug_info::DieOffset;
use crate::view::{Unavailable, View, ViewExt};

/// An object in memory, gathered from registers and constants, or not to be had.
#[derive(Debug, Clone)]
pub enum Storage {
    Memory(u64),
    Gathered(Gathered),
    /// A pointer that was optimized away, to an object that still has a value (`DW_OP_implicit_pointer`).
    Implicit {
        module: usize,
        die: DieOffset,
        offset: i64,
    },
    Missing(Unavailable),
}

/// Bytes with holes: an object that lives in registers, or in pieces.
#[derive(Debug, Clone)]
pub struct Gathered {
    pieces: Arc<[Piece]>,
    start: u64,
}

/// A run of bytes of an object.
#[derive(Debug, Clone)]
pub enum Piece {
    Bytes(Vec<u8>),
    Memory { address: u64, len: u64 },
    Hole { len: u64 },
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Memory { len, .. } | Self::Hole { len } => *len,
        }
    }

    fn read(&self, view: &dyn View, from: u64, into: &mut [u8]) -> Result<(), Unavailable> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(from).map_err(|_| Unavailable::optimized_out())?;
                let source = start
                    .checked_add(into.len())
                    .and_then(|end| bytes.get(start..end));
                into.copy_from_slice(source.ok_or_else(Unavailable::optimized_out)?);
                Ok(())
            }
            Self::Memory { address, .. } => view.read(address.wrapping_add(from), into),
            Self::Hole { .. } => Err(Unavailable::optimized_out()),
        }
    }
}

impl Storage {
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self::pieces(vec![Piece::Bytes(bytes)])
    }

    pub fn pieces(pieces: Vec<Piece>) -> Self {
        Self::Gathered(Gathered {
            pieces: pieces.into(),
            start: 0,
        })
    }

    pub fn missing(reason: &'static str) -> Self {
        Self::Missing(Unavailable::because(reason))
    }

    /// The part of the object that starts `offset` bytes in.
    pub fn at(&self, offset: u64) -> Self {
        match self {
            Self::Memory(address) => Self::Memory(address.wrapping_add(offset)),
            Self::Gathered(gathered) => Self::Gathered(Gathered {
                pieces: Arc::clone(&gathered.pieces),
                start: gathered.start.saturating_add(offset),
            }),
            // Only a whole pointer can stand for another object.
            Self::Implicit { .. } if offset == 0 => self.clone(),
            Self::Implicit { .. } => Self::Missing(Unavailable::optimized_out()),
            Self::Missing(why) => Self::Missing(why.clone()),
        }
    }

    pub fn address(&self) -> Option<u64> {
        match self {
            Self::Memory(address) => Some(*address),
            _ => None,
        }
    }

    pub fn read(&self, view: &dyn View, len: usize) -> Result<Vec<u8>, Unavailable> {
        match self {
            Self::Memory(address) => view.read_vec(*address, len),
            Self::Gathered(gathered) => gathered.read(view, len),
            Self::Implicit { .. } => Err(Unavailable::optimized_out()),
            Self::Missing(why) => Err(why.clone()),
        }
    }

    /// A little-endian number of up to 16 bytes.
    pub fn read_unsigned(&self, view: &dyn View, len: u64) -> Result<u128, Unavailable> {
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= 16)
            .ok_or_else(|| Unavailable::because("not a number"))?;
        Ok(little_endian(&self.read(view, len)?))
    }
}

impl Gathered {
    fn read(&self, view: &dyn View, len: usize) -> Result<Vec<u8>, Unavailable> {
        let total: u64 = self.pieces.iter().map(Piece::len).sum();
        if self.start.saturating_add(len as u64) > total {
            return Err(Unavailable::optimized_out());
        }
        let mut bytes = vec![0; len];
        let mut done = 0;
        let mut skip = self.start;
        for piece in self.pieces.iter() {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let take = usize::try_from(piece.len() - skip)
                .unwrap_or(usize::MAX)
                .min(len - done);
            piece.read(view, skip, &mut bytes[done..done + take])?;
            (done, skip) = (done + take, 0);
            if done == len {
                break;
            }
        }
        Ok(bytes)
    }
}

pub fn little_endian(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .rev()
        .take(16)
        .fold(0, |value, byte| value << 8 | u128::from(*byte))
}
