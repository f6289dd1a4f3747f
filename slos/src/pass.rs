//! Encodes a draft's pages against what the index holds: equal ones are not stored, changed ones as
//! a difference where that is shorter.

use std::collections::{BTreeSet, HashMap};

use crate::codec::{Encoder, Encoding, is_zero};
use crate::error::{CommitError, ReadError};
use crate::format::crc32c;
use crate::pagemap::LineId;
use crate::pages::{PageRow, PagesWriter};
use crate::store::{Shared, Writer};
use crate::versions::Value;
use crate::{Epoch, PAGE, PageIndex, SpaceId};

/// A changed page on its way into the map.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    Held(Value),
    New(usize),
}

/// A body that lies in the log, or will with the next flush.
pub(crate) struct NewBody {
    pub row: PageRow,
    pub base: Option<Value>,
}

/// A space of a draft, and what its base holds.
pub(crate) struct Planned<'a> {
    pub space: SpaceId,
    pub from: Option<SpaceId>,
    pub line: Option<LineId>,
    pub absent: BTreeSet<u64>,
    pub pages: &'a [(PageIndex, &'a [u8])],
}

/// Encodes one draft's pages against what the index holds.
pub(crate) struct Pass<'s, 'a> {
    pub shared: &'s Shared,
    pub writer: &'s mut Writer,
    pub out: PagesWriter,
    pub bodies: Vec<NewBody>,
    /// Pages new to this draft by checksum: equal ones are stored once.
    fresh: HashMap<u32, (&'a [u8; PAGE], usize)>,
}

impl<'s, 'a> Pass<'s, 'a> {
    pub fn new(shared: &'s Shared, writer: &'s mut Writer, partition: u32) -> Self {
        Self {
            shared,
            writer,
            out: PagesWriter::new(partition),
            bodies: Vec::new(),
            fresh: HashMap::new(),
        }
    }

    /// Appends a space's pages; what changed against its base, ascending.
    pub fn encode_space(
        &mut self,
        encoder: &mut Encoder,
        space: &Planned<'a>,
        parent: Option<Epoch>,
    ) -> Result<Vec<(u64, Change)>, CommitError> {
        let mut changes = Vec::with_capacity(space.pages.len());
        let mut absent = space.absent.iter().copied().peekable();
        for &(PageIndex(page), bytes) in space.pages {
            while let Some(gone) = absent.next_if(|&gone| gone < page) {
                changes.push((gone, Change::Held(Value::ABSENT)));
            }
            absent.next_if_eq(&page);
            let bytes = bytes.first_chunk().expect("the plan checked the length");
            let old = self.old_value(space, parent, page)?;
            if let Some(change) = self.encode(encoder, old, bytes, Some(bytes))? {
                changes.push((page, change));
            }
        }
        changes.extend(absent.map(|gone| (gone, Change::Held(Value::ABSENT))));
        Ok(changes)
    }

    pub fn old_value(
        &self,
        space: &Planned<'_>,
        parent: Option<Epoch>,
        page: u64,
    ) -> Result<Value, ReadError> {
        let (Some(line), Some(parent)) = (space.line, parent) else {
            return Ok(Value::ABSENT);
        };
        let index = self.shared.read()?;
        let history = index.histories.get(&self.out.partition());
        Ok(history.map_or(Value::ABSENT, |h| h.lines.value(line, parent.0, page)))
    }

    /// Decides how a page is stored; `None` when it is what it was. One that stays where it is while
    /// the draft is encoded is given as `lasting` too.
    pub fn encode(
        &mut self,
        encoder: &mut Encoder,
        old: Value,
        page: &[u8; PAGE],
        lasting: Option<&'a [u8; PAGE]>,
    ) -> Result<Option<Change>, CommitError> {
        if is_zero(page) {
            let change = Change::Held(Value::ZERO);
            return Ok((old != Value::ZERO).then_some(change));
        }
        let crc = crc32c(page);
        if !old.is_version() {
            return self.encode_new(encoder, page, crc, lasting).map(Some);
        }
        if self.holds(old, page, crc)? {
            return Ok(None);
        }
        let Some((base, dead)) = self.base_of(old, &mut encoder.base)? else {
            return self.store_whole(encoder, page, crc).map(Some);
        };
        if *encoder.base == *page {
            return Ok(Some(Change::Held(base)));
        }
        let change = match encoder.delta(page, dead) {
            Some(body) => self.push(crc, body.encoding, body.bytes, Some(base)),
            None => self.store_whole(encoder, page, crc),
        };
        change.map(Some)
    }

    /// A page that has no earlier version: it may equal one of another space, or of another image.
    fn encode_new(
        &mut self,
        encoder: &mut Encoder,
        page: &[u8; PAGE],
        crc: u32,
        lasting: Option<&'a [u8; PAGE]>,
    ) -> Result<Change, CommitError> {
        if let Some(&(content, body)) = self.fresh.get(&crc)
            && content == page
        {
            return Ok(Change::New(body));
        }
        let known = self.shared.read()?.versions.candidate(crc);
        if let Some(known) = known
            && self.holds(known, page, crc)?
        {
            return Ok(Change::Held(known));
        }
        let change = self.store_whole(encoder, page, crc)?;
        if let (Change::New(body), Some(page)) = (change, lasting) {
            self.fresh.insert(crc, (page, body));
        }
        Ok(change)
    }

    fn store_whole(
        &mut self,
        encoder: &mut Encoder,
        page: &[u8; PAGE],
        crc: u32,
    ) -> Result<Change, CommitError> {
        let body = encoder.whole(page);
        self.writer.bases.put(self.writer.log.next_uid, page);
        self.push(crc, body.encoding, body.bytes, None)
    }

    fn push(
        &mut self,
        crc: u32,
        encoding: Encoding,
        bytes: &[u8],
        base: Option<Value>,
    ) -> Result<Change, CommitError> {
        let base_uid = match base {
            Some(base) => Some(self.shared.read()?.versions.get(base).uid),
            None => None,
        };
        let row = PageRow {
            uid: self.writer.log.next_uid,
            base: base_uid,
            crc,
            length: u16::try_from(bytes.len()).expect("bodies are at most a page"),
            encoding,
        };
        self.writer.log.next_uid += 1;
        self.out.add(&mut self.writer.log, row, bytes)?;
        self.bodies.push(NewBody { row, base });
        Ok(Change::New(self.bodies.len() - 1))
    }

    /// Whether a stored version has this content. A damaged one has not: the page is stored anew.
    fn holds(&self, value: Value, page: &[u8; PAGE], crc: u32) -> Result<bool, ReadError> {
        let located = {
            let index = self.shared.read()?;
            if index.versions.get(value).crc != crc {
                return Ok(false);
            }
            if let Some(known) = self.writer.bases.get(&index.versions, value) {
                return Ok(known == page);
            }
            index.locate(value)
        };
        Ok(located.holds(page))
    }

    /// The whole version that a delta of the page can build on, decoded into `out`, and whether
    /// only deltas keep it; none when it is worn out or unreadable.
    fn base_of(
        &mut self,
        old: Value,
        out: &mut [u8; PAGE],
    ) -> Result<Option<(Value, bool)>, ReadError> {
        let index = self.shared.read()?;
        let versions = &index.versions;
        let version = versions.get(old);
        let base = match version.encoding {
            Encoding::Lost => return Ok(None),
            delta if delta.is_delta() => version.base(),
            _ => Some(old),
        };
        let Some(base) = base.filter(|&b| !versions.is_worn(b)) else {
            return Ok(None);
        };
        let dead = versions.is_pinned_base(base);
        if let Some(page) = self.writer.bases.get(versions, base) {
            out.copy_from_slice(page);
            return Ok(Some((base, dead)));
        }
        let (located, uid) = (index.locate(base), versions.get(base).uid);
        drop(index);
        if located.read(out).is_err() {
            return Ok(None);
        }
        self.writer.bases.put(uid, out);
        Ok(Some((base, dead)))
    }
}
