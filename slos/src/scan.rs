//! Reading segments from their bytes alone: what recovery and verification share.

use std::sync::Arc;

use crate::format::{
    HeaderFault, RECORD_HEADER, RECORD_MAGIC, RecordHeader, RecordType, SEGMENT_HEADER,
    SegmentHeader, crc32c, life, record_len,
};
use crate::log::Loc;
use crate::medium::SegmentFile;
use crate::recover::Damage;
use crate::{Epoch, SegmentId};

/// A segment longer than any store makes is not read into memory.
const LONGEST: u64 = (1 << 30) + (4 << 20);

/// What ties segments to one store: its uuid, and how often it has been opened at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uuid: [u8; 16],
    pub generation: u32,
}

pub(crate) struct Found {
    pub id: SegmentId,
    pub file: Arc<dyn SegmentFile>,
    pub header: Result<SegmentHeader, HeaderFault>,
}

/// What one segment's scan came to.
pub(crate) struct Scanned {
    /// End of the last valid record.
    pub end: u64,
    pub len: u64,
    pub last_lsn: u64,
    /// The bytes after `end` hold a whole record header, so they are damage rather than torn.
    pub damaged_tail: Option<Damage>,
}

/// One valid record, handed to the visitor.
pub(crate) struct Record<'a> {
    pub header: RecordHeader,
    pub loc: Loc,
    pub payload: &'a [u8],
}

pub(crate) fn header_of(file: &dyn SegmentFile) -> Result<SegmentHeader, HeaderFault> {
    let mut bytes = [0; SEGMENT_HEADER];
    file.read_at(&mut bytes, 0)
        .map_err(|_| HeaderFault::Magic)?;
    SegmentHeader::decode(&bytes)
}

/// Visits every valid record of a segment, over damage to the next valid one.
pub(crate) fn scan(
    found: &Found,
    identity: &Identity,
    damage: &mut Vec<Damage>,
    mut visit: impl FnMut(Record<'_>),
) -> std::io::Result<Scanned> {
    let len = found.file.len()?;
    if len > LONGEST {
        return Err(std::io::Error::other("longer than any segment"));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
    found.file.read_at(&mut bytes, 0)?;
    let mut walk = Walk {
        segment: found.id,
        identity,
        generation: found.header.as_ref().ok().map(|h| h.generation),
        bytes: &bytes,
        at: SEGMENT_HEADER.min(bytes.len()),
        // What lay in the same place before has lower ones.
        last_lsn: found
            .header
            .as_ref()
            .map_or(0, |h| h.first_lsn.saturating_sub(1)),
        sealed: false,
    };
    while let Some(record) = walk.next(damage) {
        visit(record);
    }
    Ok(Scanned {
        end: walk.at as u64,
        len,
        last_lsn: walk.last_lsn,
        damaged_tail: walk.tail_damage(),
    })
}

struct Walk<'a> {
    segment: SegmentId,
    identity: &'a Identity,
    /// Of the segment's records, if its header is readable.
    generation: Option<u32>,
    bytes: &'a [u8],
    at: usize,
    last_lsn: u64,
    sealed: bool,
}

impl<'a> Walk<'a> {
    fn next(&mut self, damage: &mut Vec<Damage>) -> Option<Record<'a>> {
        if self.sealed {
            return None;
        }
        let at = match self.valid_at(self.at) {
            Some(_) => self.at,
            None => {
                let next = self.resync()?;
                damage.push(self.damage_at(self.at, next));
                next
            }
        };
        let (header, payload) = self.valid_at(at)?;
        let length = record_len(payload.len());
        self.at = at + length;
        self.last_lsn = header.lsn;
        self.sealed = header.kind == RecordType::Footer;
        let loc = Loc {
            segment: self.segment,
            offset: u32::try_from(at).ok()?,
            length: u32::try_from(length).ok()?,
        };
        Some(Record {
            header,
            loc,
            payload,
        })
    }

    /// The record at an offset, if all of it is valid and it belongs here.
    fn valid_at(&self, at: usize) -> Option<(RecordHeader, &'a [u8])> {
        let header = self.header_at(at)?;
        // With its padding: a write that ended within it was not acknowledged.
        let len = header.length as usize;
        let record = self.bytes.get(at..at + record_len(len))?;
        let payload = &record[RECORD_HEADER..RECORD_HEADER + len];
        (crc32c(payload) == header.payload_crc).then_some((header, payload))
    }

    fn header_at(&self, at: usize) -> Option<RecordHeader> {
        let header = self.bytes.get(at..)?.first_chunk()?;
        let header = RecordHeader::decode(header)?;
        let generation = header.life ^ life(&self.identity.uuid, 0);
        let ours = match self.generation {
            Some(known) => generation == known,
            None => generation <= self.identity.generation,
        };
        (ours && header.lsn > self.last_lsn).then_some(header)
    }

    /// The next valid record after damage.
    fn resync(&self) -> Option<usize> {
        let mut at = self.at;
        while let Some(rest) = self.bytes.get(at + 8..) {
            at += 8;
            if rest.starts_with(RECORD_MAGIC) && self.valid_at(at).is_some() {
                return Some(at);
            }
        }
        None
    }

    fn damage_at(&self, from: usize, to: usize) -> Damage {
        let header = self.header_at(from);
        let epoch = header.map(|h| h.subject).filter(|&s| s != 0);
        Damage {
            segment: self.segment,
            offset: from as u64,
            length: (to - from) as u64,
            epoch: epoch.map(Epoch),
        }
    }

    /// A process that dies while it writes leaves a file that ends early. A record that is there
    /// in full length, but not valid, was damaged later.
    fn tail_damage(&self) -> Option<Damage> {
        let header = self.header_at(self.at)?;
        let end = self.at + record_len(header.length as usize);
        (!self.sealed && end <= self.bytes.len()).then(|| self.damage_at(self.at, self.bytes.len()))
    }
}
