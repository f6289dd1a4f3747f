//! Taking checkpoints over from another store, with their numbers, names, parents and branches.

use std::collections::HashMap;

use crate::codec::Encoder;
use crate::commit::{Base, Committed, Draft, SpaceDelta};
use crate::error::{CommitError, PageFault, ReadError, TransferError};
use crate::history::CheckpointInfo;
use crate::index::Located;
use crate::partition::{Hold, Partition, live, live_above, space_of};
use crate::pass::{Change, Pass, Planned};
use crate::versions::Value;
use crate::{Epoch, PAGE, SpaceId};

/// Pages looked up at once, so that who writes to the source gets a turn.
const AT_ONCE: usize = 512;

/// What [`Partition::take_over`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub checkpoints: u64,
    pub pages: u64,
    pub bytes: u64,
    /// Older than what is there already: they cannot be put in between.
    pub passed: Vec<Epoch>,
    /// What the budget had no room for beside the newer ones.
    pub dropped: Vec<Epoch>,
}

/// How far a transfer has come: checkpoints of those that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// A checkpoint as it is somewhere else.
pub(crate) struct Original<'a> {
    pub info: &'a CheckpointInfo,
    pub spaces: Vec<Copied<'a>>,
}

/// Pages of one space of an original that differ from what the copy builds on.
pub(crate) struct Copied<'a> {
    from: &'a Partition,
    epoch: Epoch,
    space: SpaceId,
    /// Ascending.
    pages: Vec<u64>,
}

impl Partition {
    /// Takes over the checkpoints of another history from `first` to `last` that are not here yet,
    /// oldest first; whatever stops it, what it has taken by then is whole. Names and pins of those
    /// that are here become what they are there.
    pub fn take_over(
        &self,
        from: &Partition,
        (first, last): (Epoch, Epoch),
        mut progress: impl FnMut(Progress),
    ) -> Result<Taken, TransferError> {
        let infos = from.history()?;
        let infos: Vec<CheckpointInfo> = infos
            .into_iter()
            .filter(|i| (first..=last).contains(&i.epoch))
            .collect();
        self.check_kinship(from)?;
        let total = infos.len() as u64;
        let mut taken = Taken::default();
        let mut next = self.next_epoch()?;
        for (done, info) in (0..).zip(&infos) {
            progress(Progress { done, total });
            if self.info(info.epoch).is_ok() {
                self.rename(info)?;
            } else if info.epoch < next {
                taken.passed.push(info.epoch);
            } else if let Some(committed) = self.take_one(from, info)? {
                next = Epoch(info.epoch.0 + 1);
                taken.checkpoints += 1;
                taken.pages += committed.pages;
                taken.bytes += committed.bytes;
                taken.dropped.extend(committed.dropped);
            }
        }
        progress(Progress { done: total, total });
        Ok(taken)
    }

    /// Do two histories have the same checkpoints under the same numbers?
    fn check_kinship(&self, from: &Partition) -> Result<(), TransferError> {
        for here in self.history()? {
            match from.info(here.epoch) {
                Ok(there) if there.time_ns != here.time_ns || there.parent != here.parent => {
                    return Err(TransferError::Strangers(here.epoch));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn next_epoch(&self) -> Result<Epoch, ReadError> {
        self.with(|_, history| Ok(Epoch(history.next_epoch)))
    }

    fn rename(&self, original: &CheckpointInfo) -> Result<(), TransferError> {
        let epoch = original.epoch;
        let here = self.info(epoch)?;
        if here.name != original.name {
            self.set_name(epoch, original.name.clone())?;
        }
        match (here.pinned, original.pinned) {
            (false, true) => self.pin(epoch)?,
            (true, false) => self.unpin(epoch)?,
            _ => {}
        }
        Ok(())
    }

    /// One checkpoint; none when it was thinned there meanwhile.
    fn take_one(
        &self,
        from: &Partition,
        info: &CheckpointInfo,
    ) -> Result<Option<Committed>, TransferError> {
        let epoch = info.epoch;
        let Ok(_held) = from.hold(epoch) else {
            return Ok(None);
        };
        let base = self.nearest(from, epoch)?;
        let parent = base.as_ref().map(Hold::epoch);
        let record = from.record(epoch)?;
        let mut spaces = Vec::new();
        let mut copied = Vec::new();
        for space in from.spaces(epoch)? {
            let (base, pages) = from.touched(parent, epoch, space)?;
            spaces.push(SpaceDelta {
                space,
                base,
                dropped: Vec::new(),
                pages: Vec::new(),
            });
            copied.push(Copied {
                from,
                epoch,
                space,
                pages,
            });
        }
        let draft = Draft {
            parent,
            branch: info.branch.to_string(),
            name: info.name.clone(),
            time_ns: info.time_ns,
            stop_us: info.stop_us,
            record: &record,
            spaces,
            meta: info.meta.to_vec(),
        };
        let original = Original {
            info,
            spaces: copied,
        };
        Ok(Some(self.commit_original(&draft, &original)?))
    }

    /// The nearest checkpoint above, in the source, that is here too.
    fn nearest(&self, from: &Partition, epoch: Epoch) -> Result<Option<Hold>, ReadError> {
        let mut above = from.with(|_, history| Ok(live_above(history, epoch)))?;
        while let Some(at) = above {
            if self.info(at).is_ok()
                && let Ok(held) = from.hold(at)
            {
                return Ok(Some(held));
            }
            above = from.with(|_, history| Ok(live_above(history, at)))?;
        }
        Ok(None)
    }

    /// What a space's map is best told from, and the pages that differ.
    fn touched(
        &self,
        parent: Option<Epoch>,
        epoch: Epoch,
        space: SpaceId,
    ) -> Result<(Base, Vec<u64>), ReadError> {
        let has = |at: Epoch| self.with(|_, h| Ok(live(h, at)?.space(space).is_some()));
        if let Some(parent) = parent
            && has(parent)?
        {
            let pages = self.touched_pages(parent, epoch, space)?;
            return Ok((Base::Parent, pages.into_iter().map(|p| p.0).collect()));
        }
        self.with(|_, history| {
            let node = live(history, epoch)?;
            let of = node.space(space).and_then(|s| s.from);
            let listed = parent.is_some() && node.up == parent;
            let forked = of.filter(|&of| {
                let above = parent.and_then(|p| history.node(p));
                listed && above.is_some_and(|n| n.space(of).is_some())
            });
            let own = space_of(history, epoch, space)?;
            Ok(match forked {
                Some(of) => (Base::Fork(of), own.changes.to_vec()),
                None => {
                    let visible = history.visible(own, epoch);
                    (Base::Empty, visible.into_iter().map(|v| v.0).collect())
                }
            })
        })
    }
}

impl Copied<'_> {
    /// Some of the pages, each with the version that the source has of it.
    fn locate(&self, pages: &[u64]) -> Result<Vec<(u64, u64, Located)>, ReadError> {
        self.from.with(|index, history| {
            let node = space_of(history, self.epoch, self.space)?;
            let each = pages.iter().map(|&page| {
                let value = history.value(node, self.epoch, page);
                let uid = if value.is_version() {
                    index.versions.get(value).uid
                } else {
                    0
                };
                (page, uid, index.locate(value))
            });
            Ok(each.collect())
        })
    }

    fn damaged(&self, page: u64, cause: PageFault) -> ReadError {
        ReadError::Page {
            epoch: self.epoch,
            space: self.space,
            page: crate::PageIndex(page),
            cause,
        }
    }
}

/// What became of versions of the source in the draft that is being copied.
#[derive(Default)]
pub(crate) struct Met(HashMap<u64, Change>);

impl Pass<'_, '_> {
    /// Appends a space's pages as they are in the source; what changed against its base, ascending.
    pub fn copy_space(
        &mut self,
        encoder: &mut Encoder,
        (space, copied): (&Planned<'_>, &Copied<'_>),
        parent: Option<Epoch>,
        met: &mut Met,
    ) -> Result<Vec<(u64, Change)>, CommitError> {
        let mut changes = Vec::with_capacity(copied.pages.len());
        let mut bytes = Box::new([0; PAGE]);
        for some in copied.pages.chunks(AT_ONCE) {
            for (page, uid, located) in copied.locate(some)? {
                let old = self.old_value(space, parent, page)?;
                let change = match located {
                    Located::Absent => {
                        (old != Value::ABSENT).then_some(Change::Held(Value::ABSENT))
                    }
                    Located::Zero => (old != Value::ZERO).then_some(Change::Held(Value::ZERO)),
                    version => match met.0.get(&uid) {
                        Some(&known) => Some(known),
                        None => {
                            let read = version.read(&mut bytes);
                            read.map_err(|cause| copied.damaged(page, cause))?;
                            self.encode(encoder, old, &bytes, None)?
                        }
                    },
                };
                if let Some(change) = change {
                    changes.push((page, change));
                    if uid != 0 {
                        met.0.insert(uid, change);
                    }
                }
            }
        }
        Ok(changes)
    }
}
