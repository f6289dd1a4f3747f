//! PAGES records: bodies of page versions behind a table of what they are.

use crate::SegmentId;
use crate::codec::Encoding;
use crate::error::WriteError;
use crate::format::{COUNTER_LIMIT, Cursor, RECORD_HEADER, RecordType, put_varint};
use crate::log::{Loc, Log, Subject};

/// One row of a PAGES record's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRow {
    pub uid: u64,
    pub base: Option<u64>,
    pub crc: u32,
    pub length: u16,
    pub encoding: Encoding,
}

/// Gathers bodies and appends them a record at a time.
#[derive(Default)]
pub(crate) struct PagesWriter {
    partition: u32,
    table: Vec<u8>,
    bodies: Vec<u8>,
    /// Offset of each gathered body within `bodies`.
    starts: Vec<u32>,
    last_uid: u64,
    placed: Vec<(SegmentId, u32)>,
    pub appended: u64,
}

impl PagesWriter {
    pub fn new(partition: u32) -> PagesWriter {
        PagesWriter {
            partition,
            ..PagesWriter::default()
        }
    }

    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Adds a body; uids ascend from one call to the next.
    pub fn add(&mut self, log: &mut Log, row: PageRow, body: &[u8]) -> Result<(), WriteError> {
        if !self.starts.is_empty() && self.table.len() + self.bodies.len() >= log.fragment() {
            self.flush(log)?;
        }
        put_varint(&mut self.table, row.uid - self.last_uid);
        put_varint(
            &mut self.table,
            u64::from(row.length) * 4 + row.encoding as u64,
        );
        if let Some(base) = row.base {
            put_varint(&mut self.table, row.uid - base);
        }
        self.table.extend_from_slice(&row.crc.to_le_bytes());
        self.last_uid = row.uid;
        self.starts.push(narrow(self.bodies.len()));
        self.bodies.extend_from_slice(body);
        Ok(())
    }

    pub fn flush(&mut self, log: &mut Log) -> Result<(), WriteError> {
        if self.starts.is_empty() {
            return Ok(());
        }
        let mut payload = Vec::with_capacity(8 + self.table.len() + self.bodies.len());
        put_varint(&mut payload, self.starts.len() as u64);
        payload.extend_from_slice(&self.table);
        let bodies_at = narrow(RECORD_HEADER + payload.len());
        payload.extend_from_slice(&self.bodies);
        let subject = Subject {
            kind: RecordType::Pages,
            epoch: 0,
            partition: self.partition,
        };
        let Loc {
            segment,
            offset,
            length,
        } = log.append(subject, &payload)?;
        self.appended += u64::from(length);
        let places = self.starts.drain(..);
        self.placed
            .extend(places.map(|s| (segment, offset + bodies_at + s)));
        self.table.clear();
        self.bodies.clear();
        self.last_uid = 0;
        Ok(())
    }

    /// Where the bodies added so far lie, in the order of their adding; all flushed.
    pub fn placed(self) -> Vec<(SegmentId, u32)> {
        debug_assert!(self.starts.is_empty());
        self.placed
    }
}

/// Reads a table; each row with the offset of its body within the payload, which is so long. The
/// bodies themselves need not be there.
pub(crate) fn read_table(payload: &[u8], length: usize) -> Option<Vec<(PageRow, u32)>> {
    let mut c = Cursor(payload);
    let count = c.varint()?;
    let mut rows = Vec::new();
    let mut uid = 0u64;
    for _ in 0..count {
        uid = uid
            .checked_add(c.varint()?)
            .filter(|&u| u < COUNTER_LIMIT)?;
        let word = c.varint()?;
        let encoding = Encoding::from_bits(word % 4)?;
        let length = u16::try_from(word / 4).ok().filter(|&l| l <= 4096)?;
        let base = match encoding {
            delta if delta.is_delta() => Some(uid.checked_sub(c.varint()?)?),
            _ => None,
        };
        let crc = c.u32()?;
        let row = PageRow {
            uid,
            base,
            crc,
            length,
            encoding,
        };
        rows.push((row, 0));
    }
    let mut at = payload.len() - c.0.len();
    for (row, offset) in &mut rows {
        *offset = u32::try_from(at).ok()?;
        at += usize::from(row.length);
    }
    (at == length).then_some(rows)
}

/// Bytes of a payload before its bodies.
pub(crate) fn table_length(payload: &[u8]) -> Option<usize> {
    let mut c = Cursor(payload);
    for _ in 0..c.varint()? {
        c.varint()?;
        if Encoding::from_bits(c.varint()? % 4)?.is_delta() {
            c.varint()?;
        }
        c.u32()?;
    }
    Some(payload.len() - c.0.len())
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("records are bounded")
}
