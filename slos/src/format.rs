//! The layout of a segment, all integers little endian.
//!
//! A segment is a header and then records, each padded with zero bytes to a multiple of 8.
//!
//! Segment header, 64 bytes:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `SLSSEG\r\n` |
//! | 8 | 4 | format version, 3 |
//! | 12 | 4 | segment number |
//! | 16 | 16 | store uuid |
//! | 32 | 8 | lsn of the first record |
//! | 40 | 4 | generation: how often the store had been opened |
//! | 44 | 4 | nominal segment size |
//! | 48 | 8 | all records with lsns below lasted when the segment was begun |
//! | 56 | 4 | zero |
//! | 60 | 4 | crc32c of bytes 0 to 59 |
//!
//! Record header, 48 bytes, then the payload:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `SLR1` |
//! | 4 | 1 | type |
//! | 5 | 1 | flags: bit 0, the logical record goes on in the next lsn; bit 1, it began before |
//! | 6 | 2 | zero |
//! | 8 | 8 | lsn: counts records over the life of the store, from 1 |
//! | 16 | 8 | subject: the epoch of EPOCH and BLOB, else 0 |
//! | 24 | 4 | partition, or 0 |
//! | 28 | 4 | payload length |
//! | 32 | 4 | first four bytes of the store uuid xor the generation |
//! | 36 | 4 | header crc of the previous record, or the segment header's crc |
//! | 40 | 4 | crc32c of the payload |
//! | 44 | 4 | crc32c of bytes 0 to 43 |
//!
//! The subject stands in the header so that a damaged payload can still be reported by epoch; the
//! generation is mixed into the uuid word so that bytes of an earlier life do not pass for a record.
//!
//! | type | name | payload |
//! |---|---|---|
//! | 1 | PAGES | varint count; per page: varint uid delta, varint `length * 4 + encoding`, for 2 and 3 varint distance to the base's uid, 4 bytes crc32c of the raw page; then the bodies |
//! | 2 | EPOCH | a manifest (`manifest.rs`); its last fragment is the commit point of its epoch |
//! | 3 | BLOB | the checkpoint's opaque record: varint raw length, lz4 block |
//! | 4 | MARK | postcard list of changes to names, pins, settings, partitions, drops |
//! | 5 | CATALOGUE | postcard: every partition with its settings and live epochs; supersedes older marks |
//! | 6 | FOOTER | 4 bytes record count, 8 bytes last lsn: the segment is sealed |
//! | 7 | FLUSHED | nothing: all records with lsns below it last; on a device, after a flush |
//!
//! Page encodings: 0 raw, 1 lz4, 2 lz4 of the XOR with the base version, 3 the words of that XOR which
//! are not zero. A base's encoding is 0 or 1.
//! Zero pages and pages equal to their parent's have no body: a zero page is a map entry of its
//! own kind, an equal page is no entry at all.
//!
//! Considerations: uids are never used again and a body that the cleaner moved keeps its uid, so
//! maps are not rewritten with their pages, and the copy with the highest lsn is the one to read.
//! Manifests are immutable for the same reason: any mixture of old and rewritten manifests that
//! closes over the base epochs describes the same maps.

use crate::SegmentId;

pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const RECORD_HEADER: usize = 48;
pub(crate) const RECORD_HEADER_U32: u32 = 48;
/// Room a segment keeps for its footer.
pub(crate) const FOOTER_ROOM: usize = RECORD_HEADER + 16;
/// The largest payload of a record; longer logical records are split.
pub(crate) const MAX_PAYLOAD: usize = 2 << 20;
pub(crate) const VERSION: u32 = 3;
/// Lsns, epochs and uids at or above are not ours: counting on from them could overflow.
pub(crate) const COUNTER_LIMIT: u64 = 1 << 62;
const SEGMENT_MAGIC: &[u8; 8] = b"SLSSEG\r\n";
pub(crate) const RECORD_MAGIC: &[u8; 4] = b"SLR1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordType {
    Pages = 1,
    Epoch = 2,
    Blob = 3,
    Mark = 4,
    Catalogue = 5,
    Footer = 6,
    Flushed = 7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub segment: SegmentId,
    pub uuid: [u8; 16],
    pub first_lsn: u64,
    pub generation: u32,
    pub size: u32,
    /// All lsns below lasted when the segment was begun.
    pub durable: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub kind: RecordType,
    pub more: bool,
    pub continued: bool,
    pub lsn: u64,
    pub subject: u64,
    pub partition: u32,
    pub length: u32,
    pub life: u32,
    pub previous: u32,
    pub payload_crc: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Magic,
    Version(u32),
    Checksum,
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// What ties a record to this store and this life of it.
pub(crate) fn life(uuid: &[u8; 16], generation: u32) -> u32 {
    u32_at(uuid, 0) ^ generation
}

/// Length of a record in the segment, header and padding included.
pub(crate) fn record_len(payload: usize) -> usize {
    RECORD_HEADER + payload.next_multiple_of(8)
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut b = [0; SEGMENT_HEADER];
        b[..8].copy_from_slice(SEGMENT_MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[12..16].copy_from_slice(&self.segment.0.to_le_bytes());
        b[16..32].copy_from_slice(&self.uuid);
        b[32..40].copy_from_slice(&self.first_lsn.to_le_bytes());
        b[40..44].copy_from_slice(&self.generation.to_le_bytes());
        b[44..48].copy_from_slice(&self.size.to_le_bytes());
        b[48..56].copy_from_slice(&self.durable.to_le_bytes());
        let crc = crc32c(&b[..60]);
        b[60..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    pub fn decode(b: &[u8; SEGMENT_HEADER]) -> Result<SegmentHeader, HeaderFault> {
        if &b[..8] != SEGMENT_MAGIC {
            return Err(HeaderFault::Magic);
        }
        if u32_at(b, 60) != crc32c(&b[..60]) {
            return Err(HeaderFault::Checksum);
        }
        if u32_at(b, 8) != VERSION {
            return Err(HeaderFault::Version(u32_at(b, 8)));
        }
        if u64_at(b, 32).max(u64_at(b, 48)) >= COUNTER_LIMIT {
            return Err(HeaderFault::Checksum);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&b[16..32]);
        Ok(SegmentHeader {
            segment: SegmentId(u32_at(b, 12)),
            uuid,
            first_lsn: u64_at(b, 32),
            generation: u32_at(b, 40),
            size: u32_at(b, 44),
            durable: u64_at(b, 48),
        })
    }
}

impl RecordHeader {
    pub fn encode(&self) -> [u8; RECORD_HEADER] {
        let mut b = [0; RECORD_HEADER];
        b[..4].copy_from_slice(RECORD_MAGIC);
        b[4] = self.kind as u8;
        b[5] = u8::from(self.more) | u8::from(self.continued) << 1;
        b[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        b[16..24].copy_from_slice(&self.subject.to_le_bytes());
        b[24..28].copy_from_slice(&self.partition.to_le_bytes());
        b[28..32].copy_from_slice(&self.length.to_le_bytes());
        b[32..36].copy_from_slice(&self.life.to_le_bytes());
        b[36..40].copy_from_slice(&self.previous.to_le_bytes());
        b[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c(&b[..44]);
        b[44..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    pub fn decode(b: &[u8; RECORD_HEADER]) -> Option<RecordHeader> {
        if &b[..4] != RECORD_MAGIC || u32_at(b, 44) != crc32c(&b[..44]) {
            return None;
        }
        let kind = match b[4] {
            1 => RecordType::Pages,
            2 => RecordType::Epoch,
            3 => RecordType::Blob,
            4 => RecordType::Mark,
            5 => RecordType::Catalogue,
            6 => RecordType::Footer,
            7 => RecordType::Flushed,
            _ => return None,
        };
        let length = u32_at(b, 28);
        let counters = u64_at(b, 8).max(u64_at(b, 16));
        (length as usize <= MAX_PAYLOAD && counters < COUNTER_LIMIT).then_some(RecordHeader {
            kind,
            more: b[5] & 1 != 0,
            continued: b[5] & 2 != 0,
            lsn: u64_at(b, 8),
            subject: u64_at(b, 16),
            partition: u32_at(b, 24),
            length,
            life: u32_at(b, 32),
            previous: u32_at(b, 36),
            payload_crc: u32_at(b, 40),
        })
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A bounded reader over bytes that may be hostile: every step can end the decoding.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.0 = &self.0[i + 1..];
                return Some(value);
            }
        }
        None
    }

    pub fn varint32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32_at(self.bytes(4)?, 0))
    }

    /// A length-prefixed run of bytes.
    pub fn blob(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.bytes(len)
    }
}

pub(crate) fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut v = [0; 4];
    v.copy_from_slice(&b[at..at + 4]);
    u32::from_le_bytes(v)
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut v = [0; 8];
    v.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(v)
}
