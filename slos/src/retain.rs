//! What a partition keeps: thinning by policy, and by the budget.

use crate::Epoch;
use crate::catalogue::Mark;
use crate::error::WriteError;
use crate::history::{Keep, log_keeps, log_thresholds};
use crate::index::Index;
use crate::manifest::estimate;
use crate::store::{Shared, Writer};
use crate::tree::{History, Node};

/// Under pressure, history is thinned until this share of the budget is live, so that the cleaner
/// always finds segments worth cleaning.
const LOW_WATER: (u64, u64) = (9, 10);

/// Room kept free below a budget, so that it also holds while a checkpoint is written and while a
/// segment is cleaned, whose content is there twice for a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headroom {
    segment: u64,
    /// Bytes of the largest checkpoint of late; None when the next may be larger than any.
    checkpoint: Option<u64>,
    /// More room that the medium must have, since a checkpoint did not fit into the rest.
    pressed: u64,
}

impl Headroom {
    /// Of a budget, at most this share is kept free: a checkpoint that is larger comes seldom.
    const MOST: u64 = 8;
    /// Index and rounding of a checkpoint besides its bytes.
    const OVERHEAD: u64 = 64 << 10;

    pub fn new(segment_size: u32) -> Self {
        Self {
            segment: u64::from(segment_size),
            checkpoint: Some(0),
            pressed: 0,
        }
    }

    /// A checkpoint of so many bytes was written.
    pub fn note(&mut self, bytes: u64) {
        let fading = self.checkpoint.map_or(0, |largest| largest - largest / 16);
        self.checkpoint = Some((bytes + bytes / 4 + Self::OVERHEAD).max(fading));
        self.pressed = 0;
    }

    fn below(self, budget: u64) -> u64 {
        let most = budget / Self::MOST;
        let room = self.checkpoint.map_or(most, |c| self.segment.max(c));
        budget - room.min(most)
    }
}

impl Shared {
    /// Thins a partition after a commit; returns what went. If even that leaves the budget
    /// short, the new checkpoint itself goes and the commit fails.
    pub(crate) fn thin(
        &self,
        writer: &mut Writer,
        id: u32,
        newest: Epoch,
    ) -> Result<Vec<Epoch>, WriteError> {
        let due = self.read()?.history_due(id, newest);
        let mut dropped = match self.drop_free(writer, id, &due) {
            Err(WriteError::Full { .. }) => Vec::new(),
            done => done?,
        };
        let mut more = Vec::new();
        let kept = self.keep_within_budget(writer, &mut more);
        let own = more.into_iter().filter(|&(of, _)| of == id);
        dropped.extend(own.map(|(_, epoch)| epoch));
        match kept {
            // The checkpoint is kept; the next one thins again.
            Ok(()) | Err(WriteError::Full { .. }) => {}
            Err(WriteError::Budget { budget, held }) => {
                self.drop_epochs(writer, id, &[newest])?;
                self.reclaim(writer)?;
                // The rest was within the budget before; if it no longer is, the caller learns
                // of this shortage all the same.
                self.keep_within_budget(writer, &mut Vec::new())?;
                return Err(WriteError::Budget { budget, held });
            }
            Err(other) => return Err(other),
        }
        match self.reclaim(writer) {
            Err(WriteError::Full { .. }) => {}
            done => done?,
        }
        dropped.sort_unstable();
        Ok(dropped)
    }

    /// Thins a whole history anew, after its settings changed.
    pub(crate) fn thin_fully(
        &self,
        writer: &mut Writer,
        id: u32,
    ) -> Result<Vec<Epoch>, WriteError> {
        let due = match self.read()?.histories.get(&id) {
            Some(history) => history.all_due(),
            None => return Ok(Vec::new()),
        };
        let mut dropped = self.drop_free(writer, id, &due)?;
        let mut more = Vec::new();
        self.keep_within_budget(writer, &mut more)?;
        let own = more.into_iter().filter(|&(of, _)| of == id);
        dropped.extend(own.map(|(_, epoch)| epoch));
        self.reclaim(writer)?;
        Ok(dropped)
    }

    /// Drops those of the checkpoints that nobody pinned or holds, and returns them. From the
    /// verdict on none of them can be held, so the log says what will be done.
    pub(crate) fn drop_free(
        &self,
        writer: &mut Writer,
        id: u32,
        epochs: &[Epoch],
    ) -> Result<Vec<Epoch>, WriteError> {
        let mut free = Vec::with_capacity(epochs.len());
        if let Some(history) = self.write()?.histories.get_mut(&id) {
            for &epoch in epochs {
                let node = history.nodes.get_mut(&epoch);
                if let Some(node) = node.filter(|n| n.live && !n.is_kept()) {
                    node.leaving = true;
                    free.push(epoch);
                }
            }
        }
        if let Err(error) = self.drop_epochs(writer, id, &free) {
            if let Some(history) = self.write()?.histories.get_mut(&id) {
                for epoch in &free {
                    let node = history.nodes.get_mut(epoch);
                    node.into_iter().for_each(|n| n.leaving = false);
                }
            }
            return Err(error);
        }
        Ok(free)
    }

    /// Drops checkpoints, in the log first.
    fn drop_epochs(
        &self,
        writer: &mut Writer,
        id: u32,
        epochs: &[Epoch],
    ) -> Result<(), WriteError> {
        if epochs.is_empty() {
            return Ok(());
        }
        let mark = Mark::Drop {
            id,
            epochs: epochs.iter().map(|e| e.0).collect(),
        };
        self.mark(writer, &[mark])?;
        let mut heirs = Vec::new();
        {
            let mut guard = self.write()?;
            let index = &mut *guard;
            if let Some(history) = index.histories.get_mut(&id) {
                for &epoch in epochs {
                    heirs.extend(history.drop_epoch(&mut index.versions, epoch));
                }
            }
        }
        heirs.sort_unstable();
        heirs.dedup();
        for heir in heirs {
            if self.read()?.is_worth_rewriting(id, heir) {
                match self.rewrite_manifest(writer, id, heir) {
                    Err(WriteError::Full { .. }) => {} // It only saves room.
                    done => done?,
                }
            }
        }
        Ok(())
    }

    /// Makes room for a draft that did not fit on the medium. `None` when nothing more could be given
    /// back, be it that there is not even room to note what goes.
    pub(crate) fn shed(
        &self,
        writer: &mut Writer,
        id: u32,
        parent: Option<Epoch>,
    ) -> Result<Option<Vec<Epoch>>, WriteError> {
        self.adopt_segments(writer)?;
        if let Some(left) = writer.log.slots_left() {
            return self.clean_for_slots(writer, left);
        }
        let before = self.read()?.versions.file_bytes();
        let mut own = Vec::new();
        loop {
            own.extend(self.make_room(writer, id, parent)?);
            if self.read()?.versions.file_bytes() < before {
                return Ok(Some(own));
            }
            let pressed = &mut writer.headroom.pressed;
            if *pressed > before {
                *pressed = 0;
                return Ok(None);
            }
            *pressed = (*pressed * 2).max(Headroom::OVERHEAD);
        }
    }

    /// On a device nothing goes that nobody asked to go: only what is dead makes room.
    fn clean_for_slots(
        &self,
        writer: &mut Writer,
        before: u64,
    ) -> Result<Option<Vec<Epoch>>, WriteError> {
        // Each once at most: copying what lives leaves some room unused every time.
        for _ in 0..self.read()?.versions.segments.len() {
            if !self.gains_a_slot(writer)? || !self.clean_if_it_fits(writer)? {
                break;
            }
            if writer.log.slots_left().is_some_and(|left| left > before) {
                return Ok(Some(Vec::new()));
            }
        }
        Ok(None)
    }

    /// Makes room for a checkpoint that builds on nothing: it may be as large as many others.
    pub(crate) fn make_room_for_whole(
        &self,
        writer: &mut Writer,
        id: u32,
        parent: Option<Epoch>,
    ) -> Result<Vec<Epoch>, WriteError> {
        writer.headroom.checkpoint = None;
        self.make_room(writer, id, parent)
    }

    /// Brings what is held below budget and headroom, as far as it goes, for a draft that builds on
    /// `parent`; the partition's checkpoints that went.
    fn make_room(
        &self,
        writer: &mut Writer,
        id: u32,
        parent: Option<Epoch>,
    ) -> Result<Vec<Epoch>, WriteError> {
        let mut dropped = Vec::new();
        self.keep_parent(id, parent, |holds| holds + 1)?;
        let shed = self.keep_within_budget(writer, &mut dropped);
        self.keep_parent(id, parent, |holds| holds - 1)?;
        match shed {
            Ok(()) | Err(WriteError::Full { .. } | WriteError::Budget { .. }) => {}
            other => other?,
        }
        let own = dropped.into_iter().filter(|&(of, _)| of == id);
        Ok(own.map(|(_, epoch)| epoch).collect())
    }

    /// The draft that waits for room builds on its parent.
    fn keep_parent(
        &self,
        id: u32,
        parent: Option<Epoch>,
        count: impl Fn(u32) -> u32,
    ) -> Result<(), WriteError> {
        let mut index = self.write()?;
        let history = index.histories.get_mut(&id);
        let node = parent.and_then(|p| history?.nodes.get_mut(&p));
        if let Some(node) = node {
            node.holds = count(node.holds);
        }
        Ok(())
    }

    /// What lives in a segment may have no room to be copied to: then others have to go.
    fn clean_if_it_fits(&self, writer: &mut Writer) -> Result<bool, WriteError> {
        match self.clean_one(writer) {
            Err(WriteError::Full { .. }) => Ok(false),
            done => done,
        }
    }

    /// Cleans, and drops the oldest checkpoints where that is not enough, until every budget
    /// holds; `dropped` takes what went. `Budget` when there is nothing left that may go.
    pub(crate) fn keep_within_budget(
        &self,
        writer: &mut Writer,
        dropped: &mut Vec<(u32, Epoch)>,
    ) -> Result<(), WriteError> {
        // Least bytes held since the last drop: cleaning that does not get below is futile.
        let mut least = u64::MAX;
        loop {
            let Some(short) = self.read()?.shortage(self.budget, writer) else {
                return Ok(());
            };
            let gaining = short.held < least;
            least = least.min(short.held);
            let sparse = short.live <= short.budget / LOW_WATER.1 * LOW_WATER.0;
            if gaining && sparse && self.clean_if_it_fits(writer)? {
                continue;
            }
            let oldest = self.read()?.oldest_droppable(short.partition);
            if let Some((id, epochs)) = oldest {
                let epochs = self.drop_free(writer, id, &epochs)?;
                dropped.extend(epochs.into_iter().map(|epoch| (id, epoch)));
                least = u64::MAX;
            } else if !gaining || !self.clean_if_it_fits(writer)? {
                let (budget, held) = (short.budget, short.held);
                if held <= budget || short.of_medium {
                    return Ok(()); // Only the headroom is missing.
                }
                return Err(WriteError::Budget { budget, held });
            }
        }
    }
}

struct Shortage {
    /// The medium has no more room: what is held does fit, whatever is missing.
    of_medium: bool,
    /// The partition that is over its own budget; `None` when the store is.
    partition: Option<u32>,
    budget: u64,
    held: u64,
    live: u64,
}

impl Index {
    fn history_due(&self, id: u32, newest: Epoch) -> Vec<Epoch> {
        let history = self.histories.get(&id);
        history.map_or(Vec::new(), |h| h.due(newest))
    }

    fn is_worth_rewriting(&self, id: u32, epoch: Epoch) -> bool {
        let node = self.histories.get(&id).and_then(|h| h.nodes.get(&epoch));
        node.is_some_and(|node| {
            let absorbed: u64 = node.absorbed.iter().map(|l| u64::from(l.length)).sum();
            let own: u64 = node.manifest.iter().map(|l| u64::from(l.length)).sum();
            let changes: usize = node.spaces.iter().map(|s| s.changes.len()).sum();
            // A map that stands alone is as large as the largest manifest it was read from.
            let whole = node.spaces.iter().any(|s| s.from.is_none());
            let largest = node.absorbed.iter().map(|l| u64::from(l.length)).max();
            let alone = if whole { largest.unwrap_or(0) } else { 0 };
            absorbed + own > 2 * (estimate(changes as u64) + alone)
        })
    }

    fn shortage(&self, store_budget: Option<u64>, writer: &Writer) -> Option<Shortage> {
        let headroom = writer.headroom;
        let files = self.versions.file_bytes();
        if let Some(budget) = writer.log.room().map(|room| files.saturating_add(room))
            && files > headroom.below(budget).saturating_sub(headroom.pressed)
        {
            return Some(Shortage {
                of_medium: true,
                partition: None,
                budget,
                held: files,
                live: self.versions.live_bytes(),
            });
        }
        let memory = self.memory();
        let held = self.held_bytes();
        if let Some(budget) = store_budget.filter(|&b| held > headroom.below(b)) {
            return Some(Shortage {
                of_medium: false,
                partition: None,
                budget,
                held,
                live: self.versions.live_bytes() + memory,
            });
        }
        self.histories.values().find_map(|history| {
            let budget = history.settings.budget?;
            let held = self.partition_bytes(history.id);
            let own = self.versions.owned_bytes(history.id) + history.log_bytes();
            (held > headroom.below(budget)).then(|| Shortage {
                of_medium: false,
                partition: Some(history.id),
                budget,
                held,
                live: own + history.memory(),
            })
        })
    }

    /// A share of the oldest checkpoints that may go: unnamed ones before named ones, never the
    /// newest two, never pinned or held ones.
    fn oldest_droppable(&self, partition: Option<u32>) -> Option<(u32, Vec<Epoch>)> {
        let candidates = self.histories.values();
        let history = match partition {
            Some(id) => self.histories.get(&id)?,
            None => candidates
                .filter(|h| h.droppable().next().is_some())
                .max_by_key(|h| self.partition_bytes(h.id))?,
        };
        let count = (history.live_count() / 64).max(1);
        let unnamed = history.droppable().filter(|(_, n)| n.info.name.is_none());
        let mut epochs: Vec<Epoch> = unnamed.take(count).map(|(e, _)| e).collect();
        if epochs.is_empty() {
            epochs.extend(history.droppable().take(1).map(|(e, _)| e));
        }
        (!epochs.is_empty()).then_some((history.id, epochs))
    }
}

impl History {
    /// What the policy no longer keeps once `newest` was committed.
    fn due(&self, newest: Epoch) -> Vec<Epoch> {
        match self.settings.keep {
            Keep::All => Vec::new(),
            Keep::Last(_) => self.all_due(),
            Keep::Log => {
                let at = log_thresholds().filter_map(|age| {
                    let epoch = Epoch(newest.0.checked_sub(age)?);
                    let node = self.node(epoch)?;
                    self.is_due(epoch, node, newest).then_some(epoch)
                });
                at.collect()
            }
        }
    }

    fn all_due(&self) -> Vec<Epoch> {
        let Some(newest) = self.newest() else {
            return Vec::new();
        };
        match self.settings.keep {
            Keep::All => Vec::new(),
            Keep::Last(n) => {
                let keep = usize::try_from(n.max(1)).unwrap_or(usize::MAX);
                let surplus = self.live_count().saturating_sub(keep);
                let oldest = self.live().take(surplus);
                oldest.filter(|(_, n)| is_free(n)).map(|(e, _)| e).collect()
            }
            Keep::Log => {
                let due = self.live().filter(|(e, n)| self.is_due(*e, n, newest));
                due.map(|(e, _)| e).collect()
            }
        }
    }

    fn is_due(&self, epoch: Epoch, node: &Node, newest: Epoch) -> bool {
        epoch != newest && is_free(node) && !log_keeps(node.depth, newest.0 - epoch.0)
    }

    fn droppable(&self) -> impl Iterator<Item = (Epoch, &Node)> {
        let keep = self.live_count().saturating_sub(2);
        self.live().take(keep).filter(|(_, n)| !n.is_kept())
    }
}

/// Whether a policy may thin the checkpoint: a name is a reason to stay.
fn is_free(node: &Node) -> bool {
    !node.is_kept() && node.info.name.is_none()
}
