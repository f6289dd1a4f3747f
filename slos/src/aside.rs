//! A device that is read and never written to: what would be written to it is kept in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::device::Device;

const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = 4096;

/// Opening a store writes to it: a superblock, a catalogue, the end of its tail. Over this it can be
/// opened where it must stay as it is, and is read from then on. What was written is gone with it.
pub struct Aside<D> {
    under: D,
    written: Mutex<BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>>,
}

impl<D: Device> Aside<D> {
    /// All of `under`, as it is.
    pub fn new(under: D) -> Aside<D> {
        Aside {
            under,
            written: Mutex::default(),
        }
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>> {
        // A block is put in whole.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is below; the device may end within it.
    fn below(&self, block: u64) -> io::Result<Box<[u8; BLOCK_BYTES]>> {
        let mut bytes = Box::new([0; BLOCK_BYTES]);
        let left = self.under.size()?.saturating_sub(block * BLOCK);
        let there = usize::try_from(left.min(BLOCK)).map_err(io::Error::other)?;
        self.under.read_at(&mut bytes[..there], block * BLOCK)?;
        Ok(bytes)
    }
}

/// Block by block: which, where in it, and where in the caller's bytes.
fn parts(length: usize, offset: u64) -> io::Result<Vec<(u64, usize, std::ops::Range<usize>)>> {
    let mut parts = Vec::new();
    let mut done = 0;
    while done < length {
        let at = offset
            .checked_add(done as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let within = usize::try_from(at % BLOCK).map_err(io::Error::other)?;
        let some = (BLOCK_BYTES - within).min(length - done);
        parts.push((at / BLOCK, within, done..done + some));
        done += some;
    }
    Ok(parts)
}

impl<D: Device> Device for Aside<D> {
    fn size(&self) -> io::Result<u64> {
        self.under.size()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.under.read_at(bytes, offset)?;
        let written = self.written();
        if written.is_empty() {
            return Ok(());
        }
        for (block, within, here) in parts(bytes.len(), offset)? {
            if let Some(newer) = written.get(&block) {
                let length = here.len();
                bytes[here].copy_from_slice(&newer[within..within + length]);
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| self.size().is_ok_and(|size| end > size)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (block, within, here) in parts(bytes.len(), offset)? {
            let mut written = self.written();
            let mut whole = match written.remove(&block) {
                Some(newer) => newer,
                None => self.below(block)?,
            };
            whole[within..within + here.len()].copy_from_slice(&bytes[here]);
            written.insert(block, whole);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails whoever writes.
    struct Still(Vec<u8>);

    impl Device for Still {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let at = usize::try_from(offset).map_err(io::Error::other)?;
            let there = self.0.get(at..at + bytes.len());
            bytes.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn flush(&self) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_device_stays() -> io::Result<()> {
        let before: Vec<u8> = (0..10_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let aside = Aside::new(Still(before.clone()));
        // Over a seam, within a block, and at the end, which is no block's.
        let mut expected = before.clone();
        for (at, byte, length) in [(4000, 1, 200), (4100, 2, 10), (9990, 3, 10), (0, 4, 9000)] {
            aside.write_at(&vec![byte; length], at as u64)?;
            expected[at..at + length].fill(byte);
            let mut all = vec![0; before.len()];
            aside.read_at(&mut all, 0)?;
            assert_eq!(all, expected);
        }
        assert!(aside.write_at(&[0; 2], 9_999).is_err());
        assert!(aside.write_at(&[0; 2], u64::MAX).is_err());
        assert_eq!(aside.under.0, before);
        aside.flush()
    }
}
