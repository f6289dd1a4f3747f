//! Segments in memory, for a store that lives as long as one input.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use slos::{Medium, SegmentFile, SegmentId};

/// Segments by number; clones are the same ones.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<SegmentId, Segment>>>);

/// One of them.
#[derive(Clone, Default)]
pub struct Segment(Arc<Mutex<Vec<u8>>>);

impl Memory {
    /// A store of one segment.
    pub fn of(bytes: Vec<u8>) -> Self {
        let segment = Segment(Arc::new(Mutex::new(bytes)));
        Self(Arc::new(Mutex::new(BTreeMap::from([(
            SegmentId(1),
            segment,
        )]))))
    }

    /// The content of each.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let segments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        segments.values().map(|s| s.with(|b| b.clone())).collect()
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<SegmentId, Segment>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Segment {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Medium for Memory {
    fn create(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let file = Segment::default();
        self.with(|all| match all.insert(segment, file.clone()) {
            None => Ok(Arc::new(file) as Arc<dyn SegmentFile>),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        })
    }

    fn open(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.with(|all| all.get(&segment).cloned());
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(file))
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.with(|all| all.keys().copied().collect()))
    }

    fn remove(&self, segment: SegmentId) -> io::Result<()> {
        self.with(|all| all.remove(&segment));
        Ok(())
    }
}

impl SegmentFile for Segment {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|all| {
            all.resize(all.len().max(at + bytes.len()), 0);
            all[at..at + bytes.len()].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|all| {
            let end = at
                .checked_add(bytes.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(all.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|all| all.len() as u64))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|all| all.resize(len, 0));
        Ok(())
    }
}
