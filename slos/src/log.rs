use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::SegmentId;
use crate::error::{RecordFault, WriteError};
use crate::format::{
    FOOTER_ROOM, MAX_PAYLOAD, RECORD_HEADER, RecordHeader, RecordType, SEGMENT_HEADER,
    SegmentHeader, crc32c, life, record_len,
};
use crate::medium::{Layout, Medium, SegmentFile};

/// Room for marks and a catalogue that name thousands of checkpoints.
const NOTES: u64 = 256 << 10;
/// Of the slots of a medium one in so many is kept for notes of what goes and for the cleaner, and at
/// least [`FEWEST_KEPT`].
const KEPT: u64 = 20;
const FEWEST_KEPT: u64 = 2;

/// Where a record lies, header and padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Loc {
    pub segment: SegmentId,
    pub offset: u32,
    pub length: u32,
}

/// One segment as readers and the cleaner see it.
pub(crate) struct Segment {
    pub file: Arc<dyn SegmentFile>,
    used: AtomicU64,
    last_lsn: AtomicU64,
}

/// What a record is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub kind: RecordType,
    pub epoch: u64,
    pub partition: u32,
}

/// The writing end: appends records to the active segment and rolls to the next.
pub(crate) struct Log {
    medium: Box<dyn Medium>,
    uuid: [u8; 16],
    generation: u32,
    segment_size: u32,
    next_segment: u32,
    pub next_lsn: u64,
    pub next_uid: u64,
    active: Option<Active>,
    /// Segments made since the index last took them over.
    pub born: BTreeMap<SegmentId, Arc<Segment>>,
    buffer: Vec<u8>,
    /// Something was written that may not last yet.
    unsynced: bool,
    /// All lsns below last.
    durable: u64,
    /// What is written now makes room, and may take the last of it.
    makes_room: bool,
    dead: bool,
}

#[derive(Clone)]
struct Active {
    id: SegmentId,
    segment: Arc<Segment>,
    at: u32,
    previous: u32,
    records: u32,
}

/// An end of the log that it can be taken back to, for as long as nobody was told of what follows.
pub(crate) struct Point {
    next_segment: u32,
    next_lsn: u64,
    active: Option<Active>,
    last_lsn: u64,
}

/// Where a log that was found goes on.
pub(crate) struct Resume {
    pub uuid: [u8; 16],
    pub generation: u32,
    pub segment_size: u32,
    pub next_segment: u32,
    pub next_lsn: u64,
    pub next_uid: u64,
}

impl Segment {
    pub fn new(file: Arc<dyn SegmentFile>, used: u64, last_lsn: u64) -> Segment {
        Segment {
            file,
            used: AtomicU64::new(used),
            last_lsn: AtomicU64::new(last_lsn),
        }
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn last_lsn(&self) -> u64 {
        self.last_lsn.load(Ordering::Relaxed)
    }
}

impl Log {
    pub fn new(medium: Box<dyn Medium>, resume: Resume) -> Log {
        Log {
            medium,
            uuid: resume.uuid,
            generation: resume.generation,
            segment_size: resume.segment_size,
            next_segment: resume.next_segment,
            next_lsn: resume.next_lsn,
            next_uid: resume.next_uid,
            active: None,
            born: BTreeMap::new(),
            buffer: Vec::new(),
            unsynced: false,
            durable: resume.next_lsn,
            makes_room: false,
            dead: false,
        }
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    pub fn segment_size(&self) -> u32 {
        self.segment_size
    }

    /// Payload bytes beyond which a logical record is split, and a PAGES record is closed.
    pub fn fragment(&self) -> usize {
        (self.segment_size as usize / 8).min(MAX_PAYLOAD / 2)
    }

    pub fn active(&self) -> Option<SegmentId> {
        self.active.as_ref().map(|a| a.id)
    }

    /// Its present end.
    pub fn point(&self) -> Point {
        Point {
            next_segment: self.next_segment,
            next_lsn: self.next_lsn,
            last_lsn: self.active.as_ref().map_or(0, |a| a.segment.last_lsn()),
            active: self.active.clone(),
        }
    }

    /// After an error: where nothing is wrong but that the medium is full, what was written since
    /// is taken back, and the log lives. Uids that were given away are not given again.
    pub fn take_back(&mut self, to: Point, error: WriteError) -> WriteError {
        if !error.is_full() {
            return error;
        }
        if self.cut(to).is_err() {
            self.dead = true;
            return error;
        }
        self.dead = false;
        match error {
            WriteError::Append { segment, source } => WriteError::Full { segment, source },
            other => other,
        }
    }

    /// From the end on, so that what a kill leaves of it is a shorter log.
    fn cut(&mut self, to: Point) -> std::io::Result<()> {
        for id in (to.next_segment..self.next_segment).rev().map(SegmentId) {
            match self.medium.remove(id) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => self.born.remove(&id),
            };
        }
        if let Some(active) = &to.active {
            active.segment.file.truncate(u64::from(active.at))?;
            let used = &active.segment.used;
            used.store(u64::from(active.at), Ordering::Relaxed);
            let last = &active.segment.last_lsn;
            last.store(to.last_lsn, Ordering::Relaxed);
        }
        self.next_segment = to.next_segment;
        self.next_lsn = to.next_lsn;
        self.active = to.active;
        // Numbers are given again: nothing that had them may come back.
        self.medium.sync()
    }

    /// Waits until all that was written lasts, whatever ends then. After an error nobody knows what
    /// does: the log is dead.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        if self.dead {
            return Err(WriteError::Dead);
        }
        if !std::mem::take(&mut self.unsynced) {
            return Ok(());
        }
        self.medium.sync().map_err(|error| {
            self.dead = true;
            WriteError::Flush(error)
        })?;
        self.durable = self.next_lsn;
        if self.medium.layout().is_some() {
            self.note_flush()?;
        }
        Ok(())
    }

    /// From here on damage before the note can be told from a write that did not come to its end. The
    /// note itself lasts with the next flush; where it does not fit, the next segment's header says it.
    fn note_flush(&mut self) -> Result<(), WriteError> {
        let room = record_len(0) + FOOTER_ROOM;
        let fits = |a: &Active| a.at as usize + room <= self.segment_size as usize;
        if self.active.as_ref().is_some_and(fits) {
            let note = Subject {
                kind: RecordType::Flushed,
                epoch: 0,
                partition: 0,
            };
            self.write(note, &[], false, false)?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// What is written in here makes room in the end, and may take what is kept free for it.
    pub fn making_room(&mut self, makes_room: bool) -> bool {
        std::mem::replace(&mut self.makes_room, makes_room)
    }

    pub fn makes_room(&self) -> bool {
        self.makes_room
    }

    /// On a medium of slots: those that are left for checkpoints.
    pub fn slots_left(&self) -> Option<u64> {
        let layout = self.medium.layout()?;
        Some(self.medium.free_slots().saturating_sub(kept(layout)))
    }

    /// All of it or nothing, where the medium is full.
    fn whole<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let point = self.point();
        write(self).map_err(|error| self.take_back(point, error))
    }

    /// Appends one record that is not split.
    pub fn append(&mut self, subject: Subject, payload: &[u8]) -> Result<Loc, WriteError> {
        self.whole(|log| log.fragment_at(subject, payload, false, false))
    }

    /// Appends a logical record as fragments of consecutive lsns.
    pub fn append_split(
        &mut self,
        subject: Subject,
        payload: &[u8],
    ) -> Result<Vec<Loc>, WriteError> {
        let size = self.fragment();
        let count = payload.len().div_ceil(size).max(1);
        self.whole(|log| {
            (0..count)
                .map(|i| {
                    let part = &payload[i * size..payload.len().min((i + 1) * size)];
                    log.fragment_at(subject, part, i + 1 < count, i > 0)
                })
                .collect()
        })
    }

    /// Ends the active segment with a footer; the next record begins a new one.
    pub fn seal(&mut self) -> Result<(), WriteError> {
        self.whole(Self::end_segment)
    }

    fn end_segment(&mut self) -> Result<(), WriteError> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let mut payload = active.records.to_le_bytes().to_vec();
        payload.extend_from_slice(&(self.next_lsn - 1).to_le_bytes());
        let footer = Subject {
            kind: RecordType::Footer,
            epoch: 0,
            partition: 0,
        };
        self.write(footer, &payload, false, false)?;
        self.active = None;
        Ok(())
    }

    /// Bytes that the cleaner may copy to.
    pub fn room_to_clean(&self) -> u64 {
        match self.medium.layout() {
            Some(_) => self.medium.free_slots() * u64::from(self.segment_size),
            None => self.room().unwrap_or(u64::MAX),
        }
    }

    /// [`Medium::room`], less what it takes to note what goes when room is made: without that a full
    /// medium stays full.
    pub fn room(&self) -> Option<u64> {
        let notes = u64::from(self.segment_size / 4).min(NOTES);
        Some(self.medium.room()?.saturating_sub(notes))
    }

    /// There is no room for more.
    pub fn full(&self) -> WriteError {
        WriteError::Full {
            segment: self.active().unwrap_or(SegmentId(self.next_segment)),
            source: std::io::ErrorKind::StorageFull.into(),
        }
    }

    /// Removes a segment that nothing lives in.
    pub fn remove(&mut self, segment: SegmentId) -> Result<(), WriteError> {
        let done = self.medium.remove(segment);
        self.or_die(segment, done)
    }

    fn fragment_at(
        &mut self,
        subject: Subject,
        payload: &[u8],
        more: bool,
        continued: bool,
    ) -> Result<Loc, WriteError> {
        if self.dead {
            return Err(WriteError::Dead);
        }
        if payload.len() > MAX_PAYLOAD {
            return Err(WriteError::TooLarge(payload.len()));
        }
        let room = record_len(payload.len()) + FOOTER_ROOM;
        let full = |a: &Active| a.at as usize + room > self.segment_size as usize;
        if self.active.as_ref().is_some_and(full) {
            self.end_segment()?;
        }
        if self.active.is_none() {
            self.begin_segment()?;
        }
        self.write(subject, payload, more, continued)
    }

    fn write(
        &mut self,
        subject: Subject,
        payload: &[u8],
        more: bool,
        continued: bool,
    ) -> Result<Loc, WriteError> {
        let active = self.active.as_mut().expect("a segment was begun");
        let header = RecordHeader {
            kind: subject.kind,
            more,
            continued,
            lsn: self.next_lsn,
            subject: subject.epoch,
            partition: subject.partition,
            length: narrow(payload.len()),
            life: life(&self.uuid, self.generation),
            previous: active.previous,
            payload_crc: crc32c(payload),
        }
        .encode();
        let length = record_len(payload.len());
        self.buffer.clear();
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        self.buffer.resize(length, 0);
        let loc = Loc {
            segment: active.id,
            offset: active.at,
            length: narrow(length),
        };
        active.previous = crc32c(&header[..RECORD_HEADER - 4]);
        active.at += loc.length;
        active.records += 1;
        let segment = Arc::clone(&active.segment);
        let written = segment.file.write_at(&self.buffer, u64::from(loc.offset));
        segment
            .used
            .store(u64::from(loc.offset + loc.length), Ordering::Relaxed);
        segment.last_lsn.store(self.next_lsn, Ordering::Relaxed);
        self.next_lsn += 1;
        self.unsynced = true;
        self.or_die(loc.segment, written)?;
        Ok(loc)
    }

    fn begin_segment(&mut self) -> Result<(), WriteError> {
        let id = SegmentId(self.next_segment);
        if !self.makes_room && self.slots_left() == Some(0) {
            return Err(self.full());
        }
        self.next_segment = self
            .next_segment
            .checked_add(1)
            .ok_or(WriteError::SegmentsUsedUp)?;
        let header = SegmentHeader {
            segment: id,
            uuid: self.uuid,
            first_lsn: self.next_lsn,
            generation: self.generation,
            size: self.segment_size,
            durable: self.durable,
        }
        .encode();
        let made = self.medium.create(id).and_then(|file| {
            file.write_at(&header, 0)?;
            Ok(file)
        });
        let file = self.or_die(id, made)?;
        let segment = Arc::new(Segment::new(file, SEGMENT_HEADER as u64, self.next_lsn));
        self.born.insert(id, Arc::clone(&segment));
        self.active = Some(Active {
            id,
            segment,
            at: narrow(SEGMENT_HEADER),
            previous: crc32c(&header[..SEGMENT_HEADER - 4]),
            records: 0,
        });
        Ok(())
    }

    /// After a failed write nobody knows what the medium holds: only recovery can tell.
    fn or_die<T>(
        &mut self,
        segment: SegmentId,
        result: std::io::Result<T>,
    ) -> Result<T, WriteError> {
        result.map_err(|source| {
            self.dead = true;
            WriteError::Append { segment, source }
        })
    }
}

/// Reads one record back and checks it.
pub(crate) fn read_record(
    file: &dyn SegmentFile,
    loc: Loc,
) -> Result<(RecordHeader, Vec<u8>), RecordFault> {
    let bad = || RecordFault::Checksum {
        segment: loc.segment,
        offset: loc.offset,
    };
    let mut bytes = vec![0; loc.length as usize];
    file.read_at(&mut bytes, u64::from(loc.offset))
        .map_err(|source| RecordFault::Io {
            segment: loc.segment,
            source,
        })?;
    let header = bytes.first_chunk().and_then(RecordHeader::decode);
    let header = header.ok_or_else(bad)?;
    if record_len(header.length as usize) != bytes.len() {
        return Err(bad());
    }
    let payload = &bytes[RECORD_HEADER..RECORD_HEADER + header.length as usize];
    if crc32c(payload) != header.payload_crc {
        return Err(bad());
    }
    let payload = payload.to_vec();
    Ok((header, payload))
}

fn kept(layout: Layout) -> u64 {
    (u64::from(layout.slots) / KEPT).max(FEWEST_KEPT)
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("payloads are bounded")
}
