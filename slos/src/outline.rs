//! Reading of a segment that was read whole before what is needed of it, and not its pages.
//!
//! Who opens a store reads all of it, to know that each record is as it was written. Of a segment that
//! was, an [`Outline`] tells what its page tables were, by checksums; segments are never changed. The
//! next time headers, tables and small records are read, and each is checked: headers, manifests and
//! marks by their own checksums, tables by the outline's. Page bodies are checked when somebody asks
//! for the page. Where anything is not as the outline says, the segment is read whole.
//!
//! An outline only ever spares reading: one that is missing, of another store or made up changes what
//! is read, never what is found. Two things cannot be told from it and are told by `fsck`: a page or
//! a checkpoint's record that was damaged since.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::SegmentId;
use crate::format::{
    RECORD_HEADER, RecordHeader, RecordType, SEGMENT_HEADER, crc32c, life, record_len,
};
use crate::log::Loc;
use crate::medium::SegmentFile;
use crate::pages::table_length;
use crate::scan::{Found, Identity, Record, Scanned};

/// What a segment held when all of it was read and found to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    generation: u32,
    first_lsn: u64,
    last_lsn: u64,
    /// Of the last record.
    end: u64,
    tables: Vec<Table>,
}

/// The table of one PAGES record, in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    length: u32,
    /// crc32c of the record's header and the table.
    crc: u32,
}

/// Who keeps outlines from one opening to the next. It may forget any of them at any time.
pub trait Outlines {
    fn outline(&self, store: &[u8; 16], segment: SegmentId) -> Option<Outline>;
    fn keep(&self, store: &[u8; 16], segment: SegmentId, outline: Outline);
    /// The store has no other segments.
    fn keep_only(&self, store: &[u8; 16], segments: &BTreeSet<SegmentId>);
}

/// Gathers the outline of a segment while all of it is read.
#[derive(Default)]
pub(crate) struct Sketch {
    tables: Vec<Table>,
    /// A record that is no table though it should be one.
    failed: bool,
}

impl Sketch {
    pub fn add(&mut self, record: &Record<'_>) {
        if record.header.kind != RecordType::Pages {
            return;
        }
        let Some(length) = table_length(record.payload) else {
            self.failed = true;
            return;
        };
        self.tables.push(Table {
            length: u32::try_from(length).unwrap_or(u32::MAX),
            crc: bound(&record.header, &record.payload[..length]),
        });
    }

    /// None of a segment of which not everything is as it was written.
    pub fn finish(self, found: &Found, scanned: &Scanned, damaged: bool) -> Option<Outline> {
        let header = found.header.as_ref().ok()?;
        let whole = !damaged && !self.failed && scanned.damaged_tail.is_none();
        whole.then_some(Outline {
            generation: header.generation,
            first_lsn: header.first_lsn,
            last_lsn: scanned.last_lsn,
            end: scanned.end,
            tables: self.tables,
        })
    }
}

/// Visits every record as a scan of the whole segment does, but without page bodies and without the
/// payload of checkpoints' records. `None`, and nothing visited: something is not as the outline says.
pub(crate) fn skim(
    found: &Found,
    identity: &Identity,
    outline: &Outline,
    mut visit: impl FnMut(Record<'_>),
) -> io::Result<Option<Scanned>> {
    let len = found.file.len()?;
    let Some(heads) = Skim::of(found, identity, outline, len)? else {
        return Ok(None);
    };
    for head in &heads.found {
        visit(Record {
            header: head.header,
            loc: head.loc,
            payload: &heads.bytes[head.payload.clone()],
        });
    }
    Ok(Some(Scanned {
        end: outline.end,
        len,
        last_lsn: outline.last_lsn,
        damaged_tail: None,
    }))
}

struct Head {
    header: RecordHeader,
    loc: Loc,
    /// What was read of the payload, within the bytes that were read.
    payload: Range<usize>,
}

struct Skim {
    found: Vec<Head>,
    bytes: Vec<u8>,
}

impl Skim {
    fn of(
        found: &Found,
        identity: &Identity,
        outline: &Outline,
        len: u64,
    ) -> io::Result<Option<Skim>> {
        let same = found
            .header
            .as_ref()
            .is_ok_and(|h| (h.generation, h.first_lsn) == (outline.generation, outline.first_lsn));
        if !same || outline.end > len {
            return Ok(None);
        }
        let mut skim = Skim {
            found: Vec::new(),
            bytes: Vec::new(),
        };
        let mut window = Window::new(&*found.file, len);
        let mut tables = outline.tables.iter();
        let mut at = SEGMENT_HEADER as u64;
        let mut last_lsn = outline.first_lsn.saturating_sub(1);
        let life = life(&identity.uuid, outline.generation);
        while at < outline.end {
            let header = header_at(&mut window, at, life)?;
            let Some(header) = header.filter(|h| h.lsn > last_lsn) else {
                return Ok(None);
            };
            let Some(payload) = skim.read(&mut window, at, &header, &mut tables)? else {
                return Ok(None);
            };
            let length = record_len(header.length as usize);
            let (Ok(offset), Ok(short)) = (u32::try_from(at), u32::try_from(length)) else {
                return Ok(None);
            };
            skim.found.push(Head {
                header,
                loc: Loc {
                    segment: found.id,
                    offset,
                    length: short,
                },
                payload,
            });
            last_lsn = header.lsn;
            at += length as u64;
        }
        let follows = header_at(&mut window, at, life)?.is_some_and(|h| h.lsn > last_lsn);
        let sealed = skim.found.last();
        let sealed = sealed.is_some_and(|h| h.header.kind == RecordType::Footer);
        let ends = at == outline.end && last_lsn == outline.last_lsn && (sealed || !follows);
        Ok((ends && tables.next().is_none()).then_some(skim))
    }

    /// As much of a record's payload as is needed; `None` where it is not what was written.
    fn read<'a>(
        &mut self,
        window: &mut Window<'_>,
        at: u64,
        header: &RecordHeader,
        tables: &mut impl Iterator<Item = &'a Table>,
    ) -> io::Result<Option<Range<usize>>> {
        let whole = header.length as usize;
        let from = at + RECORD_HEADER as u64;
        let start = self.bytes.len();
        match header.kind {
            RecordType::Blob => return Ok(Some(start..start)),
            RecordType::Pages => {
                let table = tables.next().filter(|t| t.length <= header.length);
                let Some(table) = table else { return Ok(None) };
                let Some(bytes) = window.get(from, table.length as usize)? else {
                    return Ok(None);
                };
                if bound(header, bytes) != table.crc {
                    return Ok(None);
                }
                self.bytes.extend_from_slice(bytes);
            }
            _ => {
                let Some(bytes) = window.get(from, whole)? else {
                    return Ok(None);
                };
                if crc32c(bytes) != header.payload_crc {
                    return Ok(None);
                }
                self.bytes.extend_from_slice(bytes);
            }
        }
        Ok(Some(start..self.bytes.len()))
    }
}

/// Ties a table to the very record it is of.
fn bound(header: &RecordHeader, table: &[u8]) -> u32 {
    crc32c(table) ^ crc32c(&header.encode()).rotate_left(16)
}

/// The record header there, if it is one of this life of the store.
pub(crate) fn header_at(
    window: &mut Window<'_>,
    at: u64,
    life: u32,
) -> io::Result<Option<RecordHeader>> {
    let bytes = window.get(at, RECORD_HEADER)?;
    let header = bytes.and_then(<[u8]>::first_chunk);
    let header = header.and_then(RecordHeader::decode);
    Ok(header.filter(|h| h.life == life))
}

/// Reads a segment forwards, a little more at a time than is asked for.
pub(crate) struct Window<'a> {
    file: &'a dyn SegmentFile,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// As much as a disk brings in the time it takes to ask for it.
const AHEAD: u64 = 32 << 10;

impl<'a> Window<'a> {
    pub fn new(file: &'a dyn SegmentFile, len: u64) -> Window<'a> {
        Window {
            file,
            len,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `None` beyond the segment's end.
    pub fn get(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let end = at.saturating_add(length as u64);
        if end > self.len {
            return Ok(None);
        }
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let some = (self.len - at).min(AHEAD.max(length as u64));
            self.bytes
                .resize(usize::try_from(some).map_err(io::Error::other)?, 0);
            self.start = at;
            self.file.read_at(&mut self.bytes, at)?;
        }
        let from = usize::try_from(at - self.start).map_err(io::Error::other)?;
        Ok(self.bytes.get(from..from + length))
    }
}
