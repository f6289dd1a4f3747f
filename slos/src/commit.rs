use std::collections::BTreeSet;
use std::ops::Range;

use crate::codec::Encoder;
use crate::error::{CommitError, WriteError};
use crate::format::{COUNTER_LIMIT, RecordType, put_varint, record_len};
use crate::history::CheckpointInfo;
use crate::index::Index;
use crate::log::{Loc, Subject};
use crate::manifest::{Entry, Manifest, ManifestSpace};
use crate::pass::{Change, NewBody, Pass, Planned};
use crate::probes;
use crate::store::{Shared, Writer};
use crate::transfer::{Met, Original};
use crate::tree::{History, NewNode, NewSpace};
use crate::versions::NewVersion;
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

impl Shared {
    pub(crate) fn commit(
        &self,
        id: u32,
        partition: &str,
        draft: &Draft<'_>,
        original: Option<&Original<'_>>,
    ) -> Result<Committed, CommitError> {
        let mut writer = self.writer()?;
        let mut dropped = Vec::new();
        if draft.spaces.iter().any(|space| space.base == Base::Empty) {
            dropped = self.make_room_for_whole(&mut writer, id, draft.parent)?;
        }
        loop {
            match self.try_commit(&mut writer, (id, partition), draft, original) {
                Ok(mut committed) => {
                    committed.dropped.append(&mut dropped);
                    committed.dropped.sort_unstable();
                    return Ok(committed);
                }
                Err(CommitError::Write(full)) if full.is_full() && !writer.log.is_dead() => {
                    match self.shed(&mut writer, id, draft.parent)? {
                        Some(gone) => dropped.extend(gone),
                        None => return Err(full.into()),
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn try_commit(
        &self,
        writer: &mut Writer,
        (id, partition): (u32, &str),
        draft: &Draft<'_>,
        original: Option<&Original<'_>>,
    ) -> Result<Committed, CommitError> {
        match self.file_catalogue_if_due(writer) {
            Err(WriteError::Full { .. }) => {} // It stays due.
            done => done?,
        }
        probes::commit_begun(id);
        let point = writer.log.point();
        let drafted = self.draft(writer, (id, partition), draft, original);
        let written = drafted.and_then(|d| self.write_draft(writer, id, draft.record, d));
        let (drafted, blob, manifest) = match written {
            Err(CommitError::Write(error)) => {
                return Err(writer.log.take_back(point, error).into());
            }
            other => other?,
        };
        probes::sync_begun(id);
        writer.log.sync()?;
        probes::sync_done(id);
        self.finish(
            writer,
            id,
            draft.record.len() as u64,
            (drafted, blob, manifest),
        )
    }

    /// Appends a draft's pages.
    fn draft(
        &self,
        writer: &mut Writer,
        (id, partition): (u32, &str),
        draft: &Draft<'_>,
        original: Option<&Original<'_>>,
    ) -> Result<Drafted, CommitError> {
        let (plan, epoch, depth) = {
            let index = self.read()?;
            let history = history(&index, id, partition)?;
            let epoch = number(history, original)?;
            let parent = draft.parent.and_then(|p| history.node(p));
            (
                plan(history, draft)?,
                epoch,
                parent.map_or(0, |p| p.depth + 1),
            )
        };
        let mut pass = Pass::new(self, writer, id);
        let mut changed = Vec::with_capacity(plan.len());
        let mut encoder = Encoder::new();
        let mut met = Met::default();
        for (at, space) in plan.iter().enumerate() {
            let parent = draft.parent;
            changed.push(match original.map(|o| &o.spaces[at]) {
                None => pass.encode_space(&mut encoder, space, parent)?,
                Some(copied) => pass.copy_space(&mut encoder, (space, copied), parent, &mut met)?,
            });
        }
        pass.out.flush(&mut pass.writer.log)?;
        let (out, bodies) = (pass.out, pass.bodies);
        let info = CheckpointInfo {
            epoch,
            parent: original.map_or(draft.parent, |o| o.info.parent),
            branch: draft.branch.as_str().into(),
            name: draft.name.clone(),
            time_ns: draft.time_ns,
            stop_us: draft.stop_us,
            pages: match original {
                Some(original) => original.info.pages,
                None => changed.iter().map(|c| c.len() as u64).sum(),
            },
            bytes: out.appended,
            meta: draft.meta.as_slice().into(),
            pinned: original.is_some_and(|o| o.info.pinned),
        };
        let spaces = plan.iter().zip(changed).map(|(p, changes)| EncodedSpace {
            space: p.space,
            from: p.from,
            changes,
        });
        Ok(Drafted {
            info,
            base: draft.parent,
            depth,
            spaces: spaces.collect(),
            bodies,
            places: out.placed(),
        })
    }

    /// Writes record and manifest, which makes the checkpoint durable.
    fn write_draft(
        &self,
        writer: &mut Writer,
        id: u32,
        record: &[u8],
        mut drafted: Drafted,
    ) -> Result<(Drafted, Vec<Loc>, Vec<Loc>), CommitError> {
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
        if writer.log.room() == Some(0) {
            return Err(writer.log.full().into());
        }
        Ok((drafted, blob, manifest))
    }

    /// Lists a checkpoint that is durable, and thins the history.
    fn finish(
        &self,
        writer: &mut Writer,
        id: u32,
        record_len: u64,
        (drafted, blob, manifest): (Drafted, Vec<Loc>, Vec<Loc>),
    ) -> Result<Committed, CommitError> {
        let CheckpointInfo {
            epoch,
            pages,
            bytes,
            ..
        } = drafted.info;
        writer.filed.since += bytes;
        self.adopt_segments(writer)?;
        {
            let mut index = self.write()?;
            drafted.enter(&mut index, id, blob, manifest, record_len);
        }
        probes::committed(id, epoch.0, pages, bytes);
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
    /// What its maps build on: the parent, or of a copy the nearest above that is here.
    base: Option<Epoch>,
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
            base: self.base,
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
            up: self.base,
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

/// The number of the next checkpoint.
fn number(history: &History, original: Option<&Original<'_>>) -> Result<Epoch, WriteError> {
    let next = history.next_epoch;
    match original.map(|o| o.info.epoch) {
        None => Ok(Epoch(next)),
        Some(epoch) if (next..COUNTER_LIMIT).contains(&epoch.0) => Ok(epoch),
        Some(epoch) => Err(WriteError::Passed(epoch)),
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
