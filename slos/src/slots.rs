//! Segments in the slots of a device: the second medium of the one log.
//!
//! A slot is as long as every other; it holds one segment, whose header stands at both ends of it:
//! in its first bytes, and in the first bytes of its last 4096. Where both are zero the slot is free,
//! whatever lies between. A slot that was given back is used again only once a flush has made that
//! last, and nobody reads the old segment any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::SegmentId;
use crate::device::Device;
use crate::error::OpenError;
use crate::format::{SEGMENT_HEADER, SegmentHeader};
use crate::medium::{Layout, Medium, SegmentFile};
use crate::superblock::{self, PLACE, Place, Superblock};

/// A store's segments on a device.
pub struct DeviceMedium {
    device: Arc<dyn Device>,
    superblock: Superblock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: BTreeMap<SegmentId, Used>,
    free: BTreeSet<u32>,
    leaving: Vec<Leaving>,
}

struct Used {
    slot: u32,
    file: Weak<SlotFile>,
}

struct Leaving {
    slot: u32,
    file: Weak<SlotFile>,
    flushed: bool,
}

/// What stands at one end of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Header(SegmentHeader),
    Blank,
    Bad,
}

/// One slot with the segment in it.
struct SlotFile {
    device: Arc<dyn Device>,
    start: u64,
    /// Bytes before the second header.
    room: u64,
}

/// Zeros are written so many at a time.
const ZEROS: usize = 1 << 20;

/// Makes a device, of which nothing is kept, into an empty store.
pub fn format_device(device: &dyn Device) -> io::Result<()> {
    format_device_in_slots(device, superblock::LARGEST_SLOT)
}

/// The same, in slots of at most so many bytes.
pub fn format_device_in_slots(device: &dyn Device, largest: u64) -> io::Result<()> {
    let mut uuid = [0; 16];
    crate::store::random(&mut uuid)?;
    let size = device.size()?;
    let too_small = || {
        let smallest = superblock::SMALLEST;
        let message = format!("{size} bytes are too few for a store, which takes {smallest}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let superblock = Superblock::new(uuid, size, largest).ok_or_else(too_small)?;
    // Until the new superblock is there the device is nobody's.
    for ring in [0, superblock.bytes - superblock::RING] {
        clear(device, ring, superblock::RING)?;
    }
    for slot in 0..superblock.slots {
        clear(device, superblock.offset_of(slot), PLACE)?;
        clear(
            device,
            superblock.offset_of(slot) + room(&superblock),
            PLACE,
        )?;
    }
    device.flush()?;
    superblock.write(device)
}

/// Does the device hold a store, of whatever version?
pub fn holds_store(device: &dyn Device) -> io::Result<bool> {
    let places = superblock::places(device)?;
    let ours = |place: &Place| matches!(place, Place::Valid(_) | Place::Version(_));
    Ok(places.iter().any(|(_, place)| ours(place)))
}

/// Bytes of a slot before its second header.
pub(crate) fn room(superblock: &Superblock) -> u64 {
    u64::from(superblock.slot) - PLACE
}

fn clear(device: &dyn Device, from: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut at = from;
    while at < from + length {
        let some = (from + length - at).min(ZEROS as u64);
        let some = usize::try_from(some).map_err(io::Error::other)?;
        device.write_at(&zeros[..some], at)?;
        at += some as u64;
    }
    Ok(())
}

/// The two ends of a slot.
pub(crate) fn ends(device: &dyn Device, superblock: &Superblock, slot: u32) -> [End; 2] {
    let start = superblock.offset_of(slot);
    [start, start + room(superblock)].map(|at| {
        let mut bytes = [0; SEGMENT_HEADER];
        if device.read_at(&mut bytes, at).is_err() {
            return End::Bad;
        }
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.uuid == superblock.uuid => End::Header(header),
            // Of a store that was here before.
            Ok(_) => End::Blank,
            Err(_) if bytes.iter().all(|&b| b == 0) => End::Blank,
            Err(_) => End::Bad,
        }
    })
}

/// The segment in a slot, for a look.
pub(crate) fn segment_file(
    device: &Arc<dyn Device>,
    superblock: &Superblock,
    slot: u32,
) -> impl SegmentFile + use<> {
    SlotFile {
        device: Arc::clone(device),
        start: superblock.offset_of(slot),
        room: room(superblock),
    }
}

/// Clears the ends of a slot that hold no header.
pub(crate) fn blank_slot(
    device: &dyn Device,
    superblock: &Superblock,
    slot: u32,
) -> io::Result<()> {
    let start = superblock.offset_of(slot);
    let both = ends(device, superblock, slot);
    if both.iter().any(|end| matches!(end, End::Header(_))) {
        return Ok(());
    }
    for at in [start, start + room(superblock)] {
        device.write_at(&[0; SEGMENT_HEADER], at)?;
    }
    Ok(())
}

impl DeviceMedium {
    /// The device's store, for the one who writes to it.
    pub fn open(device: Arc<dyn Device>, path: &std::path::Path) -> Result<Self, OpenError> {
        let places = superblock::places(&*device);
        let failed = |source| OpenError::Device {
            path: path.to_owned(),
            source,
        };
        let places = places.map_err(failed)?;
        let Some(superblock) = superblock::newest(&places) else {
            let other = places.iter().find_map(|(_, place)| match place {
                Place::Version(version) => Some(*version),
                _ => None,
            });
            let path = path.to_owned();
            return Err(match other {
                Some(found) => OpenError::Version {
                    path,
                    found,
                    supported: superblock::VERSION,
                },
                None => OpenError::NoStore { path },
            });
        };
        if device.size().map_err(failed)? < superblock.bytes {
            return Err(failed(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the store has {} bytes, the device less", superblock.bytes),
            )));
        }
        let medium = Self {
            state: Mutex::new(State::default()),
            superblock: Superblock {
                sequence: superblock.sequence + 1,
                ..superblock
            },
            device,
        };
        medium.superblock.write(&*medium.device).map_err(failed)?;
        medium.find_segments().map_err(failed)?;
        Ok(medium)
    }

    fn find_segments(&self) -> io::Result<()> {
        let mut state = self.state();
        let mut newest: BTreeMap<SegmentId, (u32, u32)> = BTreeMap::new();
        for slot in 0..self.superblock.slots {
            let [front, back] = ends(&*self.device, &self.superblock, slot);
            let header = match (front, back) {
                (End::Header(header), End::Header(_)) => header,
                // The good one is copied over the other.
                (End::Header(header), _) | (_, End::Header(header)) => {
                    self.file_in(slot).write_at(&header.encode(), 0)?;
                    header
                }
                // What was in it is lost, and missed by what names it: it is not written over.
                (End::Bad, End::Bad) => continue,
                _ => {
                    state.free.insert(slot);
                    continue;
                }
            };
            let place = newest
                .entry(header.segment)
                .or_insert((header.generation, slot));
            if place.0 < header.generation {
                *place = (header.generation, slot);
            }
        }
        let used = newest.into_iter().map(|(id, (_, slot))| {
            let file = Weak::new();
            (id, Used { slot, file })
        });
        state.used = used.collect();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is one insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_in(&self, slot: u32) -> SlotFile {
        SlotFile {
            device: Arc::clone(&self.device),
            start: self.superblock.offset_of(slot),
            room: room(&self.superblock),
        }
    }

    fn flush(&self, state: &mut State) -> io::Result<()> {
        self.device.flush()?;
        state.leaving.iter_mut().for_each(|l| l.flushed = true);
        Ok(())
    }

    /// A free slot; none but that is given back where there is no other.
    fn take_slot(&self, state: &mut State) -> io::Result<u32> {
        state.settle();
        if state.free.is_empty() && state.leaving.iter().any(Leaving::is_unread) {
            self.flush(state)?;
            state.settle();
        }
        state.free.pop_first().ok_or_else(|| {
            let message = "all slots of the store are in use";
            io::Error::new(io::ErrorKind::StorageFull, message)
        })
    }
}

impl State {
    /// Slots that nobody reads any more, and that a flush has given back, are free.
    fn settle(&mut self) {
        let done = |l: &Leaving| l.flushed && l.is_unread();
        self.free
            .extend(self.leaving.iter().filter(|l| done(l)).map(|l| l.slot));
        self.leaving.retain(|l| !done(l));
    }
}

impl Leaving {
    fn is_unread(&self) -> bool {
        self.file.strong_count() == 0
    }
}

impl Medium for DeviceMedium {
    fn create(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let mut state = self.state();
        if state.used.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let slot = self.take_slot(&mut state)?;
        let file = Arc::new(self.file_in(slot));
        let used = Used {
            slot,
            file: Arc::downgrade(&file),
        };
        state.used.insert(segment, used);
        Ok(file)
    }

    fn open(&self, segment: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let mut state = self.state();
        let used = state.used.get_mut(&segment);
        let used = used.ok_or(io::ErrorKind::NotFound)?;
        if let Some(file) = used.file.upgrade() {
            return Ok(file);
        }
        let file = Arc::new(self.file_in(used.slot));
        used.file = Arc::downgrade(&file);
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.state().used.keys().copied().collect())
    }

    fn remove(&self, segment: SegmentId) -> io::Result<()> {
        let mut state = self.state();
        let used = state.used.remove(&segment);
        let Used { slot, file } = used.ok_or(io::ErrorKind::NotFound)?;
        self.file_in(slot).write_at(&[0; SEGMENT_HEADER], 0)?;
        state.leaving.push(Leaving {
            slot,
            file,
            flushed: false,
        });
        Ok(())
    }

    fn layout(&self) -> Option<Layout> {
        Some(Layout {
            uuid: self.superblock.uuid,
            generation: u32::try_from(self.superblock.sequence).unwrap_or(u32::MAX),
            segment_size: self.superblock.slot - u32::try_from(PLACE).unwrap_or(0),
            slots: self.superblock.slots,
        })
    }

    fn free_slots(&self) -> u64 {
        let state = self.state();
        let leaving = state.leaving.iter().filter(|l| l.is_unread());
        (state.free.len() + leaving.count()) as u64
    }

    fn sync(&self) -> io::Result<()> {
        self.flush(&mut self.state())
    }
}

impl SegmentFile for SlotFile {
    /// The segment's header, at 0, goes to both ends.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check(bytes.len(), offset)?;
        self.device.write_at(bytes, self.start + offset)?;
        if offset == 0 {
            let header = &bytes[..bytes.len().min(SEGMENT_HEADER)];
            self.device.write_at(header, self.start + self.room)?;
        }
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.check(bytes.len(), offset)?;
        self.device.read_at(bytes, self.start + offset)
    }

    /// Of the slot: what lies after the last record means nothing.
    fn len(&self) -> io::Result<u64> {
        Ok(self.room)
    }

    /// What lay there is gone for good, so that numbers given to it can be given again.
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.check(0, len)?;
        clear(&*self.device, self.start + len, self.room - len)?;
        self.device.flush()
    }
}

impl SlotFile {
    fn check(&self, len: usize, offset: u64) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.room => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
