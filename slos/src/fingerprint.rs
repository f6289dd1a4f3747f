//! Is a store that nobody has open what it was when it was last closed?

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::SegmentId;
use crate::device::Device;
use crate::format::{RECORD_HEADER, RecordType, SEGMENT_HEADER, SegmentHeader, crc32c, record_len};
use crate::medium::SegmentFile;
use crate::outline::{Window, header_at};
use crate::slots::{End, ends, segment_file};
use crate::superblock::{self, Superblock};

/// A store's uuid, and a hash over the headers of all its records.
///
/// Two equal ones are of the same log: a header holds its record's number and checksum. Manifests, marks
/// and catalogues were each found whole, so an opening would find the same checkpoints with the same
/// names. Pages and checkpoints' records were not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    pub store: [u8; 16],
    pub log: [u8; 32],
}

/// Reads a store without opening it; nothing is written. None where an opening has to tell: something
/// in it is damaged, or it is no store of this version.
pub fn fingerprint(device: &Arc<dyn Device>) -> io::Result<Option<Fingerprint>> {
    let places = superblock::places(&**device)?;
    let Some(superblock) = superblock::newest(&places) else {
        return Ok(None);
    };
    if device.size()? < superblock.bytes {
        return Ok(None);
    }
    let Some(segments) = find(&**device, &superblock) else {
        return Ok(None);
    };
    let mut hasher = blake3::Hasher::new();
    // How often it was opened for writing: every opening leaves another log.
    hasher.update(&superblock.sequence.to_le_bytes());
    hasher.update(&superblock.bytes.to_le_bytes());
    for (header, slot) in segments.values() {
        let file = segment_file(device, &superblock, *slot);
        if !add_segment(&mut hasher, header, &file)? {
            return Ok(None);
        }
    }
    Ok(Some(Fingerprint {
        store: superblock.uuid,
        log: *hasher.finalize().as_bytes(),
    }))
}

type Segments = BTreeMap<SegmentId, (SegmentHeader, u32)>;

/// Each segment's header, and the slot it lies in. None where an opening would put something right.
fn find(device: &dyn Device, superblock: &Superblock) -> Option<Segments> {
    let mut segments = Segments::new();
    for slot in 0..superblock.slots {
        match ends(device, superblock, slot) {
            [End::Header(front), End::Header(back)] if front == back => {
                if segments.insert(front.segment, (front, slot)).is_some() {
                    return None;
                }
            }
            [End::Blank, End::Blank] => {}
            _ => return None,
        }
    }
    Some(segments)
}

/// Adds all record headers of a segment; false where a record that names checkpoints is damaged.
fn add_segment(
    hasher: &mut blake3::Hasher,
    segment: &SegmentHeader,
    file: &dyn SegmentFile,
) -> io::Result<bool> {
    hasher.update(&segment.encode());
    let mut window = Window::new(file, file.len()?);
    let life = crate::format::life(&segment.uuid, segment.generation);
    let mut at = SEGMENT_HEADER as u64;
    let mut last_lsn = segment.first_lsn.saturating_sub(1);
    while let Some(header) = header_at(&mut window, at, life)?.filter(|h| h.lsn > last_lsn) {
        hasher.update(&header.encode());
        if matches!(
            header.kind,
            RecordType::Epoch | RecordType::Mark | RecordType::Catalogue
        ) {
            let from = at + RECORD_HEADER as u64;
            let payload = window.get(from, header.length as usize)?;
            if payload.map(crc32c) != Some(header.payload_crc) {
                return Ok(false);
            }
        }
        if header.kind == RecordType::Footer {
            break;
        }
        last_lsn = header.lsn;
        at += record_len(header.length as usize) as u64;
    }
    Ok(true)
}
