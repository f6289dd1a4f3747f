//! The superblock of a store on a device: what is fixed when it is made.
//!
//! Two rings of 64 places of 4096 bytes, one at either end of the device. Each opening for writing
//! writes the next place of both, so that a place that goes bad is left behind; the valid place
//! with the largest sequence counts.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `SLSDEV\r\n` |
//! | 8 | 4 | layout version, 1 |
//! | 12 | 4 | bytes of a slot |
//! | 16 | 16 | store uuid |
//! | 32 | 8 | sequence: how often the store was opened for writing, from 1 |
//! | 40 | 8 | this place's own offset |
//! | 48 | 8 | bytes of the store, both rings included |
//! | 56 | 4 | number of slots |
//! | 60 | 4 | crc32c of bytes 0 to 59 |
//!
//! Slot `n` begins at `262144 + n * bytes of a slot`.

use std::io;

use crate::device::Device;
use crate::format::{crc32c, u32_at, u64_at};

pub(crate) const PLACE: u64 = 4096;
const PLACES: u64 = 64;
/// Bytes of a ring.
pub(crate) const RING: u64 = PLACE * PLACES;
pub(crate) const MAGIC: &[u8; 8] = b"SLSDEV\r\n";
pub(crate) const VERSION: u32 = 1;
const LENGTH: usize = 64;

pub(crate) const LARGEST_SLOT: u64 = 16 << 20;
const SMALLEST_SLOT: u64 = 128 << 10;
/// Slots that a small store is divided into, where they do not get too small.
const SLOTS_AT_LEAST: u64 = 32;
/// Fewer hold nothing besides what is kept free.
pub(crate) const FEWEST_SLOTS: u32 = 8;

/// What a store on a device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub uuid: [u8; 16],
    pub slot: u32,
    pub slots: u32,
    pub bytes: u64,
    pub sequence: u64,
}

/// What is at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Valid(Superblock),
    /// It was never written.
    Blank,
    Version(u32),
    Bad,
}

/// The smallest device that a store can be made on.
pub(crate) const SMALLEST: u64 = 2 * RING + FEWEST_SLOTS as u64 * SMALLEST_SLOT;

impl Superblock {
    /// Of a new store on so many bytes, in slots of at most so many; none where they are too few.
    pub fn new(uuid: [u8; 16], bytes: u64, largest: u64) -> Option<Superblock> {
        let bytes = bytes / PLACE * PLACE;
        if bytes < SMALLEST {
            return None;
        }
        let area = bytes - 2 * RING;
        let largest = largest.clamp(SMALLEST_SLOT, LARGEST_SLOT);
        let share = (area / SLOTS_AT_LEAST).clamp(SMALLEST_SLOT, largest) / PLACE * PLACE;
        let slots = u32::try_from(area / share).unwrap_or(u32::MAX);
        Some(Superblock {
            uuid,
            slot: u32::try_from(share).ok()?,
            slots,
            bytes,
            sequence: 1,
        })
    }

    pub fn offset_of(&self, slot: u32) -> u64 {
        RING + u64::from(slot) * u64::from(self.slot)
    }

    fn places(&self) -> [u64; 2] {
        let place = self.sequence % PLACES * PLACE;
        [place, self.bytes - RING + place]
    }

    fn encode(&self, place: u64) -> [u8; LENGTH] {
        let mut b = [0; LENGTH];
        b[..8].copy_from_slice(MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[12..16].copy_from_slice(&self.slot.to_le_bytes());
        b[16..32].copy_from_slice(&self.uuid);
        b[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        b[40..48].copy_from_slice(&place.to_le_bytes());
        b[48..56].copy_from_slice(&self.bytes.to_le_bytes());
        b[56..60].copy_from_slice(&self.slots.to_le_bytes());
        let crc = crc32c(&b[..60]);
        b[60..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    pub fn decode(b: &[u8], place: u64) -> Place {
        let Some(b) = b.first_chunk::<LENGTH>() else {
            return Place::Bad;
        };
        if b.iter().all(|&byte| byte == 0) {
            return Place::Blank;
        }
        if &b[..8] != MAGIC || u32_at(b, 60) != crc32c(&b[..60]) || u64_at(b, 40) != place {
            return Place::Bad;
        }
        if u32_at(b, 8) != VERSION {
            return Place::Version(u32_at(b, 8));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&b[16..32]);
        let found = Superblock {
            uuid,
            slot: u32_at(b, 12),
            slots: u32_at(b, 56),
            bytes: u64_at(b, 48),
            sequence: u64_at(b, 32),
        };
        if found.is_sound() {
            Place::Valid(found)
        } else {
            Place::Bad
        }
    }

    /// Do its numbers fit together? A checksum alone keeps nobody from writing others.
    pub fn is_sound(&self) -> bool {
        let slot = u64::from(self.slot);
        let area = u64::from(self.slots).checked_mul(slot);
        (SMALLEST_SLOT..=LARGEST_SLOT).contains(&slot)
            && slot.is_multiple_of(PLACE)
            && self.bytes.is_multiple_of(PLACE)
            && self.bytes >= SMALLEST
            && self.slots >= FEWEST_SLOTS
            && area.is_some_and(|area| area <= self.bytes - 2 * RING)
            && (1..1 << 32).contains(&self.sequence)
    }

    /// Writes its place in both rings, one after the other, so that one of them is whole at any time.
    pub fn write(&self, device: &dyn Device) -> io::Result<()> {
        for place in self.places() {
            let mut block = vec![0; usize::try_from(PLACE).map_err(io::Error::other)?];
            block[..LENGTH].copy_from_slice(&self.encode(place));
            device.write_at(&block, place)?;
            device.flush()?;
        }
        Ok(())
    }
}

/// Offsets of all places of the ring that begins at `start`.
pub(crate) fn ring(start: u64) -> impl Iterator<Item = u64> {
    (0..PLACES).map(move |n| start + n * PLACE)
}

/// Every place of both rings, as it is.
pub(crate) fn places(device: &dyn Device) -> io::Result<Vec<(u64, Place)>> {
    let size = device.size()? / PLACE * PLACE;
    if size < SMALLEST {
        return Ok(Vec::new());
    }
    let mut found = read_ring(device, 0)?;
    // The device may have grown since.
    let bytes = newest(&found).map_or(size, |s| s.bytes.min(size));
    found.extend(read_ring(device, bytes - RING)?);
    Ok(found)
}

fn read_ring(device: &dyn Device, start: u64) -> io::Result<Vec<(u64, Place)>> {
    let mut bytes = [0; LENGTH];
    ring(start)
        .map(|place| {
            let there = device.read_at(&mut bytes, place);
            // One block that cannot be read is what the other places are for.
            Ok(match there {
                Ok(()) => (place, Superblock::decode(&bytes, place)),
                Err(_) => (place, Place::Bad),
            })
        })
        .collect()
}

/// The one that counts.
pub(crate) fn newest(places: &[(u64, Place)]) -> Option<Superblock> {
    let valid = places.iter().filter_map(|(_, place)| match place {
        Place::Valid(superblock) => Some(*superblock),
        _ => None,
    });
    valid.max_by_key(|s| s.sequence)
}
