use std::ops::Range;
use std::sync::Arc;

use crate::catalogue::Mark;
use crate::commit::{Committed, Draft};
use crate::error::{CommitError, PageFault, ReadError, RecordFault, WriteError};
use crate::format::Cursor;
use crate::history::{CheckpointInfo, Settings};
use crate::index::{Index, Located};
use crate::log::{Loc, Segment, read_record};
use crate::store::Shared;
use crate::transfer::Original;
use crate::tree::{History, Node, SpaceNode};
use crate::versions::Value;
use crate::{Epoch, PAGE, PageIndex, SpaceId};

/// A handle on one partition's history; cheap to clone. Readers wait for a committing thread only
/// while it enters its checkpoint into the index, not while it encodes and appends.
#[derive(Clone)]
pub struct Partition {
    shared: Arc<Shared>,
    id: u32,
    name: Arc<str>,
}

/// Whether a page is in a map; one that is absent reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    Absent,
}

/// Keeps a checkpoint from being thinned or dropped for as long as it lives. Not persistent:
/// see [`Partition::pin`] for bookmarks.
pub struct Hold {
    partition: Partition,
    epoch: Epoch,
}

impl Partition {
    pub(crate) fn new(shared: Arc<Shared>, id: u32, name: &str) -> Partition {
        let name = Arc::from(name);
        Partition { shared, id, name }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a checkpoint of a draft. Once this returns it survives `kill -9` of the process, and on a
    /// device a power cut.
    pub fn commit(&self, draft: &Draft<'_>) -> Result<Committed, CommitError> {
        self.shared.commit(self.id, &self.name, draft, None)
    }

    /// Makes a checkpoint under the number it has elsewhere.
    pub(crate) fn commit_original(
        &self,
        draft: &Draft<'_>,
        original: &Original<'_>,
    ) -> Result<Committed, CommitError> {
        let shared = &self.shared;
        shared.commit(self.id, &self.name, draft, Some(original))
    }

    pub fn read_page(
        &self,
        epoch: Epoch,
        space: SpaceId,
        page: PageIndex,
        out: &mut [u8; PAGE],
    ) -> Result<Presence, ReadError> {
        let located = self.with(|index, history| {
            let node = space_of(history, epoch, space)?;
            Ok(index.locate(history.value(node, epoch, page.0)))
        })?;
        read_located(&located, out).map_err(|cause| ReadError::Page {
            epoch,
            space,
            page,
            cause,
        })
    }

    /// Reads pages one after another into `out`, which is as long as they are together.
    pub fn read_pages(
        &self,
        epoch: Epoch,
        space: SpaceId,
        pages: &[PageIndex],
        out: &mut [u8],
    ) -> Result<Vec<Presence>, ReadError> {
        if out.len() != pages.len() * PAGE {
            let (len, pages) = (out.len(), pages.len());
            return Err(ReadError::Buffer { len, pages });
        }
        let located: Vec<Located> = self.with(|index, history| {
            let node = space_of(history, epoch, space)?;
            let values = pages.iter().map(|p| history.value(node, epoch, p.0));
            Ok(values.map(|v| index.locate(v)).collect())
        })?;
        let (buffers, _) = out.as_chunks_mut::<PAGE>();
        let each = located.iter().zip(pages).zip(buffers);
        each.map(|((located, &page), out)| {
            read_located(located, out).map_err(|cause| ReadError::Page {
                epoch,
                space,
                page,
                cause,
            })
        })
        .collect()
    }

    /// Which of these pages a space has, without reading them.
    pub fn presence(
        &self,
        epoch: Epoch,
        space: SpaceId,
        pages: &[PageIndex],
    ) -> Result<Vec<Presence>, ReadError> {
        self.with(|_, history| {
            let node = space_of(history, epoch, space)?;
            let absent = |p: &PageIndex| history.value(node, epoch, p.0) == Value::ABSENT;
            let presence = |p| {
                if absent(p) {
                    Presence::Absent
                } else {
                    Presence::Present
                }
            };
            Ok(pages.iter().map(presence).collect())
        })
    }

    /// The pages a space has, ascending.
    pub fn page_map(&self, epoch: Epoch, space: SpaceId) -> Result<Vec<PageIndex>, ReadError> {
        self.with(|_, history| {
            let node = space_of(history, epoch, space)?;
            let map = history.visible(node, epoch);
            Ok(map.into_iter().map(|(page, _)| PageIndex(page)).collect())
        })
    }

    /// The pages a space has, as ranges, ascending and apart.
    pub fn page_ranges(
        &self,
        epoch: Epoch,
        space: SpaceId,
    ) -> Result<Vec<Range<PageIndex>>, ReadError> {
        let mut ranges: Vec<Range<PageIndex>> = Vec::new();
        for page in self.page_map(epoch, space)? {
            let next = PageIndex(page.0 + 1);
            match ranges.last_mut() {
                Some(last) if last.end == page => last.end = next,
                _ => ranges.push(page..next),
            }
        }
        Ok(ranges)
    }

    /// The spaces of a checkpoint, ascending.
    pub fn spaces(&self, epoch: Epoch) -> Result<Vec<SpaceId>, ReadError> {
        self.with(|_, history| {
            let node = live(history, epoch)?;
            Ok(node.spaces.iter().map(|s| s.space).collect())
        })
    }

    /// The opaque record the checkpoint was committed with.
    pub fn record(&self, epoch: Epoch) -> Result<Vec<u8>, ReadError> {
        let parts = self.with(|index, history| {
            let locs = &live(history, epoch)?.record;
            Ok(locs
                .iter()
                .map(|&l| (segment(index, l), l))
                .collect::<Vec<_>>())
        })?;
        unpack(&parts).map_err(|cause| ReadError::Record { epoch, cause })
    }

    /// The live checkpoints, ascending.
    pub fn history(&self) -> Result<Vec<CheckpointInfo>, ReadError> {
        self.with(|_, history| Ok(history.live().map(|(_, n)| n.info.clone()).collect()))
    }

    pub fn info(&self, epoch: Epoch) -> Result<CheckpointInfo, ReadError> {
        self.with(|_, history| Ok(live(history, epoch)?.info.clone()))
    }

    /// The nearest live ancestor: the parent, or what is left above where it was dropped.
    pub fn ancestor(&self, epoch: Epoch) -> Result<Option<Epoch>, ReadError> {
        self.with(|_, history| {
            live(history, epoch)?;
            Ok(live_above(history, epoch))
        })
    }

    /// The newest checkpoint of a branch.
    pub fn head(&self, branch: &str) -> Result<Option<Epoch>, ReadError> {
        self.with(|_, history| {
            let mut newest = history.live().rev();
            Ok(newest
                .find(|(_, n)| &*n.info.branch == branch)
                .map(|(e, _)| e))
        })
    }

    pub fn newest(&self) -> Result<Option<Epoch>, ReadError> {
        self.with(|_, history| Ok(history.newest()))
    }

    pub fn settings(&self) -> Result<Settings, ReadError> {
        self.with(|_, history| Ok(history.settings))
    }

    pub fn set_name(&self, epoch: Epoch, name: Option<String>) -> Result<(), WriteError> {
        let mark = Mark::Name {
            id: self.id,
            epoch: epoch.0,
            name: name.clone(),
        };
        self.mark_epoch(epoch, mark, |node| node.info.name = name)
    }

    /// A bookmark: the checkpoint is never thinned, not even for the budget, until unpinned.
    pub fn pin(&self, epoch: Epoch) -> Result<(), WriteError> {
        self.set_pinned(epoch, true)
    }

    pub fn unpin(&self, epoch: Epoch) -> Result<(), WriteError> {
        self.set_pinned(epoch, false)
    }

    /// Keeps a checkpoint while a reader works on it.
    pub fn hold(&self, epoch: Epoch) -> Result<Hold, ReadError> {
        // Taken under the write lock, so that no drop can come between the look-up and the hold.
        let mut index = self.shared.write().map_err(|_| ReadError::Dead)?;
        let history = index.histories.get_mut(&self.id);
        let node = history.and_then(|h| h.nodes.get_mut(&epoch));
        let node = node
            .filter(|n| n.live && !n.leaving)
            .ok_or(ReadError::NoEpoch(epoch))?;
        node.holds += 1;
        let partition = self.clone();
        Ok(Hold { partition, epoch })
    }

    /// Drops a checkpoint; its children stay readable, and what only it held is freed.
    pub fn drop_epoch(&self, epoch: Epoch) -> Result<(), WriteError> {
        let mut writer = self.shared.writer()?;
        self.with(|_, history| live(history, epoch).map(|_| ()))
            .map_err(|_| WriteError::NoEpoch(epoch))?;
        let dropped = self.shared.drop_free(&mut writer, self.id, &[epoch])?;
        if dropped.is_empty() {
            return Err(WriteError::Pinned(epoch));
        }
        self.shared.reclaim(&mut writer)?;
        writer.log.sync()
    }

    /// Changes what the partition may keep, and thins it accordingly; returns what was dropped.
    pub fn set_settings(&self, settings: Settings) -> Result<Vec<Epoch>, WriteError> {
        let mut writer = self.shared.writer()?;
        let id = self.id;
        self.shared
            .mark(&mut writer, &[Mark::Settings { id, settings }])?;
        if let Some(history) = self.shared.write()?.histories.get_mut(&id) {
            history.settings = settings;
        }
        let dropped = self.shared.thin_fully(&mut writer, id)?;
        writer.log.sync()?;
        Ok(dropped)
    }

    /// Runs with the index locked for reading.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Index, &History) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let index = self.shared.read()?;
        let history = index.histories.get(&self.id);
        let history = history.ok_or_else(|| ReadError::NoPartition(self.name.to_string()))?;
        read(&index, history)
    }

    fn set_pinned(&self, epoch: Epoch, pinned: bool) -> Result<(), WriteError> {
        let mark = Mark::Pin {
            id: self.id,
            epoch: epoch.0,
            pinned,
        };
        self.mark_epoch(epoch, mark, |node| node.info.pinned = pinned)
    }

    fn mark_epoch(
        &self,
        epoch: Epoch,
        mark: Mark,
        edit: impl FnOnce(&mut Node),
    ) -> Result<(), WriteError> {
        let mut writer = self.shared.writer()?;
        self.with(|_, history| live(history, epoch).map(|_| ()))
            .map_err(|_| WriteError::NoEpoch(epoch))?;
        self.shared.mark(&mut writer, &[mark])?;
        writer.log.sync()?;
        if let Some(history) = self.shared.write()?.histories.get_mut(&self.id) {
            history.edit(epoch, edit);
        }
        Ok(())
    }
}

impl Hold {
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A dead store has nothing left to thin, so the hold may stay counted there.
        if let Ok(mut index) = self.partition.shared.write() {
            let history = index.histories.get_mut(&self.partition.id);
            if let Some(node) = history.and_then(|h| h.nodes.get_mut(&self.epoch)) {
                node.holds -= 1;
            }
        }
    }
}

pub(crate) fn live(history: &History, epoch: Epoch) -> Result<&Node, ReadError> {
    history.node(epoch).ok_or(ReadError::NoEpoch(epoch))
}

pub(crate) fn space_of(
    history: &History,
    epoch: Epoch,
    space: SpaceId,
) -> Result<&SpaceNode, ReadError> {
    let node = live(history, epoch)?.space(space);
    node.ok_or(ReadError::NoSpace { epoch, space })
}

pub(crate) fn live_above(history: &History, epoch: Epoch) -> Option<Epoch> {
    let mut up = history.nodes.get(&epoch)?.up;
    while let Some(above) = up {
        let node = &history.nodes[&above];
        if node.live {
            return Some(above);
        }
        up = node.up;
    }
    None
}

pub(crate) fn read_value(
    index: &Index,
    value: Value,
    out: &mut [u8; PAGE],
) -> Result<Presence, PageFault> {
    read_located(&index.locate(value), out)
}

pub(crate) fn segment(index: &Index, loc: Loc) -> Option<Arc<Segment>> {
    let entry = index.versions.segments.get(&loc.segment)?;
    Some(Arc::clone(&entry.segment))
}

/// Puts a logical record's payload together from its fragments.
pub(crate) fn load(parts: &[(Option<Arc<Segment>>, Loc)]) -> Result<Vec<u8>, RecordFault> {
    let mut payload = Vec::new();
    for (segment, loc) in parts {
        let segment = segment.as_ref().ok_or(RecordFault::Decode)?;
        payload.extend(read_record(&*segment.file, *loc)?.1);
    }
    Ok(payload)
}

fn unpack(parts: &[(Option<Arc<Segment>>, Loc)]) -> Result<Vec<u8>, RecordFault> {
    let payload = load(parts)?;
    let mut c = Cursor(&payload);
    let len = c.varint().and_then(|l| usize::try_from(l).ok());
    // An lz4 block expands at most 255 times; a longer claim is not worth the allocation.
    let len = len.filter(|&l| l <= c.0.len().saturating_mul(255));
    let len = len.ok_or(RecordFault::Decode)?;
    let record = lz4_flex::block::decompress(c.0, len).map_err(|_| RecordFault::Decode)?;
    if record.len() == len {
        Ok(record)
    } else {
        Err(RecordFault::Decode)
    }
}

fn read_located(located: &Located, out: &mut [u8; PAGE]) -> Result<Presence, PageFault> {
    Ok(if located.read(out)? {
        Presence::Present
    } else {
        Presence::Absent
    })
}
