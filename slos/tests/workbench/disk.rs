//! A medium in memory that can be cut, flipped, and made to fail at its n-th change.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use slos::{Medium, SegmentFile, SegmentId};

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<SegmentId, Arc<Mutex<Vec<u8>>>>,
    /// Changes left until all fail.
    left: Option<u64>,
    failed: bool,
    /// Bytes that all files together may have.
    room: Option<u64>,
}

struct OnDisk {
    disk: Disk,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Disk {
    pub fn medium(&self) -> Box<dyn Medium> {
        Box::new(self.clone())
    }

    /// Every change after `count` more fails, the first of them half way.
    pub fn fail_after(&self, count: u64) {
        self.0.lock().unwrap().left = Some(count);
    }

    pub fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.left = None;
        state.failed = false;
    }

    /// So many bytes may lie on it from now on; a write beyond fits in part.
    pub fn set_room(&self, room: Option<u64>) {
        self.0.lock().unwrap().room = room;
    }

    pub fn used(&self) -> u64 {
        let state = self.0.lock().unwrap();
        let sizes = state.files.values().map(|f| f.lock().unwrap().len() as u64);
        sizes.sum()
    }

    fn fits(&self, bytes: usize) -> usize {
        let room = self.0.lock().unwrap().room;
        let left = room.map_or(u64::MAX, |room| room.saturating_sub(self.used()));
        bytes.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    pub fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failed
    }

    pub fn snapshot(&self) -> BTreeMap<SegmentId, Vec<u8>> {
        let state = self.0.lock().unwrap();
        let files = state.files.iter();
        files
            .map(|(&id, f)| (id, f.lock().unwrap().clone()))
            .collect()
    }

    pub fn restore(&self, snapshot: &BTreeMap<SegmentId, Vec<u8>>) {
        let files = snapshot.iter();
        let files = files.map(|(&id, bytes)| (id, Arc::new(Mutex::new(bytes.clone()))));
        self.0.lock().unwrap().files = files.collect();
    }

    /// Changes a file in place, beneath whoever has it open.
    pub fn scribble(&self, segment: SegmentId, scribble: impl FnOnce(&mut Vec<u8>)) {
        let file = Arc::clone(&self.0.lock().unwrap().files[&segment]);
        scribble(&mut file.lock().unwrap());
    }

    /// Counts one change; the error, if it is to fail, and whether it is the first to.
    fn change(&self) -> Result<(), bool> {
        let mut state = self.0.lock().unwrap();
        match &mut state.left {
            Some(0) => {
                let first = !state.failed;
                state.failed = true;
                Err(first)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&self, bytes: Arc<Mutex<Vec<u8>>>) -> Arc<dyn SegmentFile> {
        let disk = self.clone();
        Arc::new(OnDisk { disk, bytes })
    }
}

impl Medium for Disk {
    fn create(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        self.change().map_err(|_| io::Error::other("create"))?;
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let old = self
            .0
            .lock()
            .unwrap()
            .files
            .insert(segment, Arc::clone(&bytes));
        assert!(old.is_none(), "{segment} was made twice");
        Ok(self.file(bytes))
    }

    fn open(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let bytes = Arc::clone(&self.0.lock().unwrap().files[&segment]);
        Ok(self.file(bytes))
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.0.lock().unwrap().files.keys().copied().collect())
    }

    fn remove(&self, segment: SegmentId) -> io::Result<()> {
        self.change().map_err(|_| io::Error::other("remove"))?;
        self.0.lock().unwrap().files.remove(&segment).unwrap();
        Ok(())
    }

    fn room(&self) -> Option<u64> {
        let room = self.0.lock().unwrap().room?;
        Some(room.saturating_sub(self.used()))
    }
}

impl SegmentFile for OnDisk {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let fits = self.disk.fits(bytes.len());
        let (bytes, result) = match self.disk.change() {
            Ok(()) if fits < bytes.len() => {
                (&bytes[..fits], Err(io::ErrorKind::StorageFull.into()))
            }
            Ok(()) => (bytes, Ok(())),
            Err(true) => (
                &bytes[..bytes.len() / 2],
                Err(io::Error::other("torn write")),
            ),
            Err(false) => return Err(io::Error::other("write")),
        };
        let mut file = self.bytes.lock().unwrap();
        assert_eq!(file.len() as u64, offset, "segments are only appended to");
        file.extend_from_slice(bytes);
        result
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.bytes.lock().unwrap();
        let start = offset as usize;
        let found = file.get(start..start + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk
            .change()
            .map_err(|_| io::Error::other("truncate"))?;
        self.bytes.lock().unwrap().truncate(len as usize);
        Ok(())
    }
}
