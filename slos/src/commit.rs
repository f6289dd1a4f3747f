use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::codec::{Encoder, Encoding, is_zero};
use crate::error::{CommitError, ReadError, WriteError};
use crate::format::{RecordType, crc32c, put_varint, record_len};
use crate::history::CheckpointInfo;
use crate::index::Index;
use crate::log::{Loc, Subject};
use crate::manifest::{Entry, Manifest, ManifestSpace};
use crate::pagemap::LineId;
use crate::pages::{PageRow, PagesWriter};
use crate::store::{Shared, Writer};
use crate::tree::{History, NewNode, NewSpace};
use crate::versions::{NewVersion, Value};
use crate::{Epoch, PAGE, PageIndex, SegmentId, SpaceId};

/// What a space's new map starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The same space's map in the parent checkpoint.
    Parent,
    /// Nothing: the first checkpoint, or an exec since.
    Empty,
    /// Another space's map in the parent checkpoint: a fork.
    Fork(SpaceId),
}

/// One space of a draft: its base, what vanished from it, then what was written.
#[derive(Debug)]
pub struct SpaceDelta<'a> {
    pub space: SpaceId,
    pub base: Base,
    /// Pages that vanish from the map, before `pages` are put in.
    pub dropped: Vec<Range<PageIndex>>,
    /// Pages of 4096 bytes, ascending; unchanged ones cost a comparison and nothing else.
    pub pages: Vec<(PageIndex, &'a [u8])>,
}

/// A checkpoint to be.
#[derive(Debug)]
pub struct Draft<'a> {
    pub parent: Option<Epoch>,
    pub branch: String,
    pub name: Option<String>,
    pub time_ns: u64,
    pub stop_us: u64,
    pub record: &'a [u8],
    /// Every space the checkpoint has: one that is not listed is gone from it.
    pub spaces: Vec<SpaceDelta<'a>>,
    /// Small and opaque; [`crate::Partition::history`] returns it without reading the log.
    pub meta: Vec<u8>,
}

/// What became of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub epoch: Epoch,
    /// Pages whose content or presence changed against the base.
    pub pages: u64,
    /// Bytes appended to the log.
    pub bytes: u64,
    /// Checkpoints that thinning dropped to keep policy and budget.
    pub dropped: Vec<Epoch>,
}

/// A changed page on its way into the map.
#[derive(Clone, Copy)]
enum Change {
    Held(Value),
    New(usize),
}

struct NewBody {
    row: PageRow,
    base: Option<Value>,
}

struct Planned<'a> {
    space: SpaceId,
    from: Option<SpaceId>,
    line: Option<LineId>,
    absent: BTreeSet<u64>,
    pages: &'a [(PageIndex, &'a [u8])],
}

/// Encodes one draft's pages against what the index holds.
struct Pass<'s, 'a> {
    shared: &'s Shared,
    writer: &'s mut Writer,
    out: PagesWriter,
    bodies: Vec<NewBody>,
    /// Pages new to this draft by checksum: equal ones are stored once.
    fresh: HashMap<u32, (&'a [u8; PAGE], usize)>,
}

impl Shared {
    pub(crate) fn commit(
        &self,
        id: u32,
        partition: &str,
        draft: &Draft<'_>,
    ) -> Result<Committed, CommitError> {
        let mut writer = self.writer()?;
        self.file_catalogue_if_due(&mut writer)?;
        let (plan, epoch, depth) = {
            let index = self.read()?;
            let history = history(&index, id, partition)?;
            let epoch = Epoch(history.next_epoch);
            let parent = draft.parent.and_then(|p| history.node(p));
            (
                plan(history, draft)?,
                epoch,
                parent.map_or(0, |p| p.depth + 1),
            )
        };
        let mut pass = Pass {
            shared: self,
            writer: &mut writer,
            out: PagesWriter::new(id),
            bodies: Vec::new(),
            fresh: HashMap::new(),
        };
        let mut changed = Vec::with_capacity(plan.len());
        let mut encoder = Encoder::new();
        for space in &plan {
            changed.push(pass.encode_space(&mut encoder, space, draft.parent)?);
        }
        pass.out.flush(&mut pass.writer.log)?;
        let (out, bodies) = (pass.out, pass.bodies);
        let info = CheckpointInfo {
            epoch,
            parent: draft.parent,
            branch: draft.branch.as_str().into(),
            name: draft.name.clone(),
            time_ns: draft.time_ns,
            stop_us: draft.stop_us,
            pages: changed.iter().map(|c| c.len() as u64).sum(),
            bytes: out.appended,
            meta: draft.meta.as_slice().into(),
            pinned: false,
        };
        let spaces = plan.iter().zip(changed).map(|(p, changes)| EncodedSpace {
            space: p.space,
            from: p.from,
            changes,
        });
        let drafted = Drafted {
            info,
            depth,
            spaces: spaces.collect(),
            bodies,
            places: out.placed(),
        };
        let committed = self.finish(&mut writer, id, draft.record, drafted)?;
        Ok(committed)
    }

    /// Writes record and manifest, which makes the checkpoint durable, then lists it.
    fn finish(
        &self,
        writer: &mut Writer,
        id: u32,
        record: &[u8],
        mut drafted: Drafted,
    ) -> Result<Committed, CommitError> {
        let epoch = drafted.info.epoch;
        let subject = |kind| Subject {
            kind,
            epoch: epoch.0,
            partition: id,
        };
        let blob = writer
            .log
            .append_split(subject(RecordType::Blob), &pack(record))?;
        let mut payload = {
            let index = self.read()?;
            drafted.manifest(&index, record.len() as u64).encode()
        };
        let bytes =
            drafted.info.bytes + total(&blob) + split_len(payload.len(), writer.log.fragment());
        drafted.info.bytes = bytes;
        Manifest::set_bytes(&mut payload, bytes);
        let manifest = writer
            .log
            .append_split(subject(RecordType::Epoch), &payload)?;
        writer.filed.since += bytes;
        self.adopt_segments(writer)?;
        let pages = drafted.info.pages;
        {
            let mut index = self.write()?;
            drafted.enter(&mut index, id, blob, manifest, record.len() as u64);
        }
        writer.headroom.note(bytes);
        let dropped = self.thin(writer, id, epoch)?;
        Ok(Committed {
            epoch,
            pages,
            bytes,
            dropped,
        })
    }
}

struct EncodedSpace {
    space: SpaceId,
    from: Option<SpaceId>,
    /// Ascending.
    changes: Vec<(u64, Change)>,
}

/// A checkpoint whose pages lie in the log, but that no manifest names yet.
struct Drafted {
    info: CheckpointInfo,
    depth: u64,
    spaces: Vec<EncodedSpace>,
    bodies: Vec<NewBody>,
    places: Vec<(SegmentId, u32)>,
}

impl Drafted {
    fn manifest(&self, index: &Index, record_len: u64) -> Manifest {
        let entry = |change: Change| match change {
            Change::Held(value) => index.entry(value),
            Change::New(body) => Entry::Version(self.bodies[body].row.uid),
        };
        let spaces = self.spaces.iter().map(|s| ManifestSpace {
            space: s.space,
            from: s.from,
            changes: s.changes.iter().map(|&(p, c)| (p, entry(c))).collect(),
        });
        let mut spaces: Vec<ManifestSpace> = spaces.collect();
        spaces.sort_unstable_by_key(|s| s.space);
        Manifest {
            live: true,
            info: self.info.clone(),
            base: self.info.parent,
            depth: self.depth,
            record_len,
            spaces,
        }
    }

    fn enter(
        self,
        index: &mut Index,
        id: u32,
        record: Vec<Loc>,
        manifest: Vec<Loc>,
        record_len: u64,
    ) {
        let versions = &mut index.versions;
        let mut values = Vec::with_capacity(self.bodies.len());
        for (body, (segment, offset)) in self.bodies.iter().zip(self.places) {
            let row = body.row;
            values.push(versions.insert(NewVersion {
                uid: row.uid,
                segment,
                offset,
                base: body.base,
                crc: row.crc,
                length: row.length,
                encoding: row.encoding,
                owner: id,
            }));
        }
        let Some(history) = index.histories.get_mut(&id) else {
            return;
        };
        let value = |change| match change {
            Change::Held(value) => value,
            Change::New(body) => values[body],
        };
        let spaces = self.spaces.into_iter().map(|s| NewSpace {
            space: s.space,
            from: s.from,
            changes: s.changes.into_iter().map(|(p, c)| (p, value(c))).collect(),
        });
        let mut info = self.info;
        info.branch = history.branch_name(&info.branch);
        let node = NewNode {
            up: info.parent,
            info,
            depth: self.depth,
            spaces: spaces.collect(),
            record,
            record_len,
            manifest,
        };
        history.insert(versions, node);
    }
}

impl<'a> Pass<'_, 'a> {
    fn encode_space(
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
            if let Some(change) = self.encode(encoder, old, bytes)? {
                changes.push((page, change));
            }
        }
        changes.extend(absent.map(|gone| (gone, Change::Held(Value::ABSENT))));
        Ok(changes)
    }

    fn old_value(
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

    /// Decides how a page is stored; `None` when it is what it was.
    fn encode(
        &mut self,
        encoder: &mut Encoder,
        old: Value,
        page: &'a [u8; PAGE],
    ) -> Result<Option<Change>, CommitError> {
        if is_zero(page) {
            let change = Change::Held(Value::ZERO);
            return Ok((old != Value::ZERO).then_some(change));
        }
        let crc = crc32c(page);
        if !old.is_version() {
            return self.encode_new(encoder, page, crc).map(Some);
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
        page: &'a [u8; PAGE],
        crc: u32,
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
        if let Change::New(body) = change {
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
        let mut stored = [0; PAGE];
        Ok(located.read(&mut stored).is_ok() && stored == *page)
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
            Encoding::Xor => version.base(),
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

fn history<'i>(index: &'i Index, id: u32, name: &str) -> Result<&'i History, WriteError> {
    let history = index.histories.get(&id);
    history.ok_or_else(|| WriteError::NoPartition(name.to_owned()))
}

fn plan<'a>(history: &History, draft: &'a Draft<'_>) -> Result<Vec<Planned<'a>>, CommitError> {
    let parent = match draft.parent {
        Some(parent) => Some(history.node(parent).ok_or(CommitError::NoParent(parent))?),
        None => None,
    };
    let mut seen = BTreeSet::new();
    let mut plan = Vec::with_capacity(draft.spaces.len());
    for delta in &draft.spaces {
        let space = delta.space;
        if !seen.insert(space) {
            return Err(CommitError::SpaceTwice(space));
        }
        check_pages(delta)?;
        let from = match delta.base {
            Base::Empty => None,
            Base::Parent => Some(space),
            Base::Fork(of) => Some(of),
        };
        let base = match from {
            None => None,
            Some(from) => {
                let found = parent.and_then(|p| p.space(from));
                Some(found.ok_or(CommitError::NoBase { space })?.line)
            }
        };
        let mut absent = BTreeSet::new();
        if let (Some(line), Some(epoch)) = (base, draft.parent) {
            for gone in &delta.dropped {
                let range = gone.start.0..gone.end.0.max(gone.start.0);
                let visible = history.lines.visible(line, epoch.0, range);
                absent.extend(visible.iter().map(|&(page, _)| page));
            }
        }
        plan.push(Planned {
            space,
            from,
            line: base,
            absent,
            pages: &delta.pages,
        });
    }
    Ok(plan)
}

fn check_pages(delta: &SpaceDelta<'_>) -> Result<(), CommitError> {
    let space = delta.space;
    for (at, &(page, bytes)) in delta.pages.iter().enumerate() {
        if bytes.len() != PAGE {
            let len = bytes.len();
            return Err(CommitError::PageSize { space, page, len });
        }
        if at > 0 && delta.pages[at - 1].0 >= page {
            return Err(CommitError::Unsorted { space, page });
        }
    }
    Ok(())
}

fn pack(record: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, record.len() as u64);
    out.extend(lz4_flex::block::compress(record));
    out
}

fn total(locs: &[Loc]) -> u64 {
    locs.iter().map(|l| u64::from(l.length)).sum()
}

/// What a logical record of so many payload bytes takes in the log.
fn split_len(payload: usize, fragment: usize) -> u64 {
    let whole = payload / fragment;
    let rest = payload % fragment;
    let last = if rest > 0 || whole == 0 {
        record_len(rest)
    } else {
        0
    };
    (whole * record_len(fragment) + last) as u64
}
