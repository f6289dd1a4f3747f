//! The records of a segment, one after the other.

use std::io;

use super::Finding;
use crate::device::Device;
use crate::format::{
    RECORD_HEADER, RecordHeader, RecordType, SEGMENT_HEADER, SegmentHeader, crc32c, life,
    record_len,
};
use crate::slots::room;
use crate::superblock::Superblock;

/// A slot that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub slot: u32,
    pub header: SegmentHeader,
}

/// A record that is whole.
pub(super) struct Record<'a> {
    pub header: RecordHeader,
    pub payload: &'a [u8],
    /// Where the payload lies on the device.
    pub at: u64,
}

struct Walk<'a> {
    bytes: &'a [u8],
    life: u32,
    /// The lsn that comes next.
    next: u64,
    /// Checksum of the header before; none after damage.
    chain: Option<u32>,
    at: usize,
}

/// The lsn below which everything lasts.
pub(super) fn horizon(
    device: &dyn Device,
    superblock: &Superblock,
    segments: &[Segment],
) -> io::Result<u64> {
    let known = segments.iter().map(|s| s.header.durable).max().unwrap_or(1);
    let mut horizon = known.max(1);
    let first = segments.partition_point(|s| s.header.first_lsn <= known);
    for segment in &segments[first.saturating_sub(1)..] {
        let bytes = load(device, superblock, segment)?;
        let mut walk = Walk::new(&bytes, superblock, segment);
        while let Some((_, record)) = walk.next_valid() {
            if record.kind == RecordType::Flushed {
                horizon = horizon.max(record.lsn);
            }
        }
    }
    Ok(horizon)
}

/// Visits the records with lsns below the horizon; what is damaged among them.
pub(super) fn walk(
    device: &dyn Device,
    superblock: &Superblock,
    (segment, next): (&Segment, Option<&Segment>),
    horizon: u64,
    mut visit: impl FnMut(Record<'_>),
) -> io::Result<Vec<Finding>> {
    let bytes = load(device, superblock, segment)?;
    let mut walk = Walk::new(&bytes, superblock, segment);
    let mut damage = Vec::new();
    let mut report = |from: usize, to: usize| {
        damage.push(Finding::Bytes {
            segment: segment.header.segment,
            offset: from as u64,
            length: (to - from) as u64,
        });
    };
    let mut sealed = false;
    while !sealed && walk.next < horizon {
        let (expected, from) = (walk.next, walk.at);
        let Some((at, header)) = walk.next_valid() else {
            break;
        };
        if at > from || header.lsn != expected {
            report(from, at.max(from + 1));
        }
        if header.lsn >= horizon {
            return Ok(damage);
        }
        sealed = header.kind == RecordType::Footer;
        let from = at + RECORD_HEADER;
        visit(Record {
            header,
            payload: &bytes[from..from + header.length as usize],
            at: superblock.offset_of(segment.slot) + from as u64,
        });
    }
    // The next segment goes on where this one ends, if it is the next that was made.
    let follows = next.filter(|n| n.header.segment.0 == segment.header.segment.0 + 1);
    let end = follows.map_or(horizon, |n| n.header.first_lsn);
    let last = follows.is_some() || next.is_none();
    if !sealed && last && walk.next < end.min(horizon) {
        report(walk.at, bytes.len());
    }
    Ok(damage)
}

fn load(device: &dyn Device, superblock: &Superblock, segment: &Segment) -> io::Result<Vec<u8>> {
    let room = usize::try_from(room(superblock)).map_err(io::Error::other)?;
    let mut bytes = vec![0; room];
    device.read_at(&mut bytes, superblock.offset_of(segment.slot))?;
    Ok(bytes)
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], superblock: &Superblock, segment: &Segment) -> Self {
        let header = segment.header.encode();
        Walk {
            bytes,
            life: life(&superblock.uuid, segment.header.generation),
            next: segment.header.first_lsn,
            chain: Some(crc32c(&header[..SEGMENT_HEADER - 4])),
            at: SEGMENT_HEADER,
        }
    }

    /// The next whole record from here on, and where it begins.
    fn next_valid(&mut self) -> Option<(usize, RecordHeader)> {
        let mut at = self.at;
        loop {
            if let Some(header) = self.record_at(at) {
                let bytes = &self.bytes[at..at + RECORD_HEADER - 4];
                self.chain = Some(crc32c(bytes));
                self.next = header.lsn + 1;
                self.at = at + record_len(header.length as usize);
                return Some((at, header));
            }
            // Beyond damage the chain begins anew.
            self.chain = None;
            at += 8;
            if at + RECORD_HEADER > self.bytes.len() {
                return None;
            }
        }
    }

    fn record_at(&self, at: usize) -> Option<RecordHeader> {
        let header = RecordHeader::decode(self.bytes.get(at..)?.first_chunk()?)?;
        let chained = self.chain.is_none_or(|chain| chain == header.previous);
        if header.life != self.life || header.lsn < self.next || !chained {
            return None;
        }
        let length = header.length as usize;
        let record = self.bytes.get(at..at + record_len(length))?;
        let (payload, padding) = record[RECORD_HEADER..].split_at(length);
        let whole = crc32c(payload) == header.payload_crc;
        (whole && padding.iter().all(|&b| b == 0)).then_some(header)
    }
}
