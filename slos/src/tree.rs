//! One partition's history: the tree of checkpoints over its page map lines.
//!
//! A dropped checkpoint with one child is merged into that child; with several it stays as a
//! *joint*, unlisted, until it has one again. So joints are fewer than live checkpoints, and every
//! page version that only the dropped one needed is let go at the drop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::history::{CheckpointInfo, Settings};
use crate::log::Loc;
use crate::pagemap::{LineId, Lines};
use crate::versions::{Value, Versions};
use crate::{Epoch, SpaceId};

/// A checkpoint, or a joint.
pub(crate) struct Node {
    pub info: CheckpointInfo,
    pub live: bool,
    /// Commits between the root and this checkpoint, dropped ones included.
    pub depth: u64,
    /// The nearest kept ancestor or joint.
    pub up: Option<Epoch>,
    pub down: BTreeSet<Epoch>,
    pub spaces: Vec<SpaceNode>,
    pub holds: u32,
    /// Its drop is being logged: it can no longer be held.
    pub leaving: bool,
    pub record: Vec<Loc>,
    pub record_len: u64,
    pub manifest: Vec<Loc>,
    /// Manifests of merged ancestors that this one's manifest builds on.
    pub absorbed: Vec<Loc>,
}

#[derive(Clone)]
pub(crate) struct SpaceNode {
    pub space: SpaceId,
    pub line: LineId,
    /// The space of the node above that this one's map differs from by `changes`; `None` when it
    /// stands alone, and then all its pages count as changed and are not listed.
    pub from: Option<SpaceId>,
    pub changes: Box<[u64]>,
}

/// A checkpoint about to enter the tree.
pub(crate) struct NewNode {
    pub info: CheckpointInfo,
    pub depth: u64,
    pub up: Option<Epoch>,
    pub spaces: Vec<NewSpace>,
    pub record: Vec<Loc>,
    pub record_len: u64,
    pub manifest: Vec<Loc>,
}

pub(crate) struct NewSpace {
    pub space: SpaceId,
    pub from: Option<SpaceId>,
    pub changes: Vec<(u64, Value)>,
}

pub(crate) struct History {
    pub id: u32,
    pub name: String,
    pub settings: Settings,
    pub next_epoch: u64,
    pub nodes: BTreeMap<Epoch, Node>,
    pub lines: Lines,
    branches: BTreeSet<Arc<str>>,
    live: usize,
    bytes: u64,
    log_bytes: u64,
}

const NODE_COST: u64 = 480;
const SPACE_COST: u64 = 40;

impl Node {
    pub fn space(&self, space: SpaceId) -> Option<&SpaceNode> {
        let at = self.spaces.binary_search_by_key(&space, |s| s.space).ok()?;
        Some(&self.spaces[at])
    }

    pub fn is_kept(&self) -> bool {
        self.info.pinned || self.holds > 0
    }

    pub fn locs(&self) -> impl Iterator<Item = &Loc> {
        self.record
            .iter()
            .chain(&self.manifest)
            .chain(&self.absorbed)
    }

    fn log_len(&self) -> u64 {
        self.locs().map(|l| u64::from(l.length)).sum()
    }

    fn memory(&self) -> u64 {
        let changes = self
            .spaces
            .iter()
            .map(|s| SPACE_COST + s.changes.len() as u64 * 8);
        let locs = self.record.len() + self.manifest.len() + self.absorbed.len();
        let name = self.info.name.as_ref().map_or(0, String::len);
        let flat = self.info.meta.len() + name + locs * size_of::<Loc>();
        NODE_COST + changes.sum::<u64>() + flat as u64
    }
}

impl History {
    pub fn new(id: u32, name: String, settings: Settings) -> History {
        History {
            id,
            name,
            settings,
            next_epoch: 1,
            nodes: BTreeMap::new(),
            lines: Lines::default(),
            branches: BTreeSet::new(),
            live: 0,
            bytes: 0,
            log_bytes: 0,
        }
    }

    /// A live checkpoint.
    pub fn node(&self, epoch: Epoch) -> Option<&Node> {
        self.nodes.get(&epoch).filter(|n| n.live)
    }

    pub fn live(&self) -> impl DoubleEndedIterator<Item = (Epoch, &Node)> {
        let live = self.nodes.iter().filter(|(_, n)| n.live);
        live.map(|(&e, n)| (e, n))
    }

    pub fn live_count(&self) -> usize {
        self.live
    }

    pub fn newest(&self) -> Option<Epoch> {
        self.live().next_back().map(|(e, _)| e)
    }

    /// Estimate of the heap this history takes.
    pub fn memory(&self) -> u64 {
        self.bytes + self.lines.memory()
    }

    /// Bytes of manifests and records in the log.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    fn count(&mut self, memory: u64, log: u64) {
        self.bytes += memory;
        self.log_bytes += log;
    }

    fn discount(&mut self, memory: u64, log: u64) {
        self.bytes -= memory;
        self.log_bytes -= log;
    }

    pub fn branch_name(&mut self, branch: &str) -> Arc<str> {
        if let Some(known) = self.branches.get(branch) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(branch);
        self.branches.insert(Arc::clone(&name));
        name
    }

    pub fn value(&self, node: &SpaceNode, epoch: Epoch, page: u64) -> Value {
        self.lines.value(node.line, epoch.0, page)
    }

    pub fn visible(&self, node: &SpaceNode, epoch: Epoch) -> Vec<(u64, Value)> {
        self.lines.visible(node.line, epoch.0, 0..u64::MAX)
    }

    /// Changes what the memory estimate of a node covers.
    pub fn edit<T>(&mut self, epoch: Epoch, edit: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let node = self.nodes.get_mut(&epoch)?;
        let before = (node.memory(), node.log_len());
        let result = edit(node);
        let after = (node.memory(), node.log_len());
        self.discount(before.0, before.1);
        self.count(after.0, after.1);
        Some(result)
    }

    /// Puts a checkpoint into the tree. The caller has checked that `up` and the spaces it
    /// builds on exist.
    pub fn insert(&mut self, versions: &mut Versions, new: NewNode) {
        let epoch = new.info.epoch;
        let mut spaces: Vec<SpaceNode> = new
            .spaces
            .into_iter()
            .map(|s| self.place(versions, epoch, new.up, s))
            .collect();
        spaces.sort_unstable_by_key(|s| s.space);
        for &loc in new.record.iter().chain(&new.manifest) {
            versions.charge(loc);
        }
        if let Some(up) = new.up {
            self.edit(up, |n| n.down.insert(epoch));
        }
        let node = Node {
            info: new.info,
            live: true,
            depth: new.depth,
            up: new.up,
            down: BTreeSet::new(),
            spaces,
            holds: 0,
            leaving: false,
            record: new.record,
            record_len: new.record_len,
            manifest: new.manifest,
            absorbed: Vec::new(),
        };
        self.count(node.memory(), node.log_len());
        self.live += 1;
        self.next_epoch = self.next_epoch.max(epoch.0 + 1);
        self.nodes.insert(epoch, node);
    }

    fn place(
        &mut self,
        versions: &mut Versions,
        epoch: Epoch,
        up: Option<Epoch>,
        new: NewSpace,
    ) -> SpaceNode {
        let base = up.zip(new.from).and_then(|(up, from)| {
            let node = self.nodes.get(&up)?.space(from)?;
            Some((node.line, up))
        });
        let mut from = new.from;
        let mut changes = new.changes;
        let line = match base {
            None => {
                from = None;
                self.lines.root()
            }
            Some((line, up)) if self.lines.is_deep(line, up.0) => {
                let mut all: BTreeMap<u64, Value> = self
                    .lines
                    .visible(line, up.0, 0..u64::MAX)
                    .into_iter()
                    .collect();
                all.extend(changes);
                changes = all.into_iter().collect();
                from = None;
                self.lines.root()
            }
            Some((line, up)) if new.from == Some(new.space) => self.lines.extend(line, up.0),
            Some((line, up)) => self.lines.branch(line, up.0),
        };
        self.lines.enter(line, epoch.0);
        for &(page, value) in &changes {
            if value == Value::ABSENT && from.is_none() {
                continue;
            }
            versions.hold(value);
            self.lines.put(line, epoch.0, page, value);
        }
        let changes = match from {
            None => Box::default(),
            Some(_) => changes.into_iter().map(|(page, _)| page).collect(),
        };
        SpaceNode {
            space: new.space,
            line,
            from,
            changes,
        }
    }

    /// Drops a live checkpoint and lets go of all that only it held. Its children read as before.
    /// Returns the child it was merged into.
    pub fn drop_epoch(&mut self, versions: &mut Versions, epoch: Epoch) -> Option<Epoch> {
        let node = self.nodes.get_mut(&epoch)?;
        node.live = false;
        self.live -= 1;
        let record = self.edit(epoch, |n| std::mem::take(&mut n.record))?;
        record.into_iter().for_each(|loc| versions.discharge(loc));
        let node = &self.nodes[&epoch];
        for space in &node.spaces {
            self.lines.kill(space.line, epoch.0);
        }
        match node.down.len() {
            0 => {
                self.prune_all(versions, epoch);
                self.remove_leaf(versions, epoch)
            }
            1 => self.merge_down(versions, epoch),
            _ => {
                self.prune_all(versions, epoch);
                None
            }
        }
    }

    fn remove_leaf(&mut self, versions: &mut Versions, epoch: Epoch) -> Option<Epoch> {
        let node = self.unlink(versions, epoch)?;
        for loc in node.manifest.into_iter().chain(node.absorbed) {
            versions.discharge(loc);
        }
        let up = node.up?;
        self.edit(up, |n| n.down.remove(&epoch));
        let above = &self.nodes[&up];
        if above.live || above.down.len() != 1 {
            return None;
        }
        self.merge_down(versions, up)
    }

    /// Merges a dead node into its only child.
    fn merge_down(&mut self, versions: &mut Versions, epoch: Epoch) -> Option<Epoch> {
        let child = *self.nodes[&epoch].down.first()?;
        for (line, page) in self.overridden(epoch, child) {
            self.prune(versions, line, epoch, page);
        }
        let node = self.unlink(versions, epoch)?;
        self.forget_absences(child, &node.spaces);
        if let Some(up) = node.up {
            self.edit(up, |n| {
                n.down.remove(&epoch);
                n.down.insert(child);
            });
        }
        self.edit(child, |n| {
            n.up = node.up;
            n.absorbed.extend(node.absorbed);
            n.absorbed.extend(node.manifest);
            for space in &mut n.spaces {
                inherit(space, &node.spaces);
            }
        });
        Some(child)
    }

    /// A child that comes to stand alone needs no stamps that say a page is not there.
    fn forget_absences(&mut self, child: Epoch, merged: &[SpaceNode]) {
        for heir in &self.nodes[&child].spaces {
            let alone = merged
                .iter()
                .any(|m| heir.from == Some(m.space) && m.from.is_none());
            if alone {
                for &page in &heir.changes {
                    self.lines.forget_absence(heir.line, child.0, page);
                }
            }
        }
    }

    /// Pages of a dead node that its only child may not read through it. A joint reads nothing
    /// itself, and what is below it may override what it lists no change of.
    fn overridden(&self, epoch: Epoch, child: Epoch) -> Vec<(LineId, u64)> {
        let mut pages = Vec::new();
        let heirs = &self.nodes[&child].spaces;
        for space in &self.nodes[&epoch].spaces {
            let mut heired = false;
            for heir in heirs.iter().filter(|h| h.from == Some(space.space)) {
                heired = true;
                pages.extend(heir.changes.iter().map(|&p| (space.line, p)));
            }
            if !heired || !self.nodes[&child].live {
                let all = self.candidates(epoch, space);
                pages.extend(all.into_iter().map(|p| (space.line, p)));
            }
        }
        pages
    }

    fn prune_all(&mut self, versions: &mut Versions, epoch: Epoch) {
        let mut pages = Vec::new();
        for space in &self.nodes[&epoch].spaces {
            let all = self.candidates(epoch, space);
            pages.extend(all.into_iter().map(|p| (space.line, p)));
        }
        for (line, page) in pages {
            self.prune(versions, line, epoch, page);
        }
    }

    /// Pages whose values a dying node may have been the last to read: what it changed, or,
    /// when it stands alone or below a joint, all it saw.
    fn candidates(&self, epoch: Epoch, space: &SpaceNode) -> Vec<u64> {
        let up = self.nodes[&epoch].up;
        let below_joint = up.is_some_and(|up| !self.nodes[&up].live);
        if space.from.is_none() || below_joint {
            let mut pages: Vec<u64> = self.visible(space, epoch).iter().map(|v| v.0).collect();
            // Stamps of absence are not visible, but are let go of all the same.
            pages.extend(space.changes.iter());
            pages
        } else {
            space.changes.to_vec()
        }
    }

    fn prune(&mut self, versions: &mut Versions, line: LineId, epoch: Epoch, page: u64) {
        if let Some(value) = self.lines.prune(line, epoch.0, page) {
            versions.unhold(value);
        }
    }

    fn unlink(&mut self, versions: &mut Versions, epoch: Epoch) -> Option<Node> {
        let node = self.nodes.remove(&epoch)?;
        self.discount(node.memory(), node.log_len());
        for space in &node.spaces {
            for value in self.lines.leave(space.line) {
                versions.unhold(value);
            }
        }
        Some(node)
    }

    /// Lets go of everything, for a partition that is removed.
    pub fn clear(&mut self, versions: &mut Versions) {
        for node in std::mem::take(&mut self.nodes).into_values() {
            let locs = node.record.into_iter().chain(node.manifest);
            locs.chain(node.absorbed)
                .for_each(|loc| versions.discharge(loc));
        }
        let held: Vec<Value> = self.lines.held().collect();
        held.into_iter().for_each(|value| versions.unhold(value));
        self.lines = Lines::default();
        self.live = 0;
        self.bytes = 0;
        self.log_bytes = 0;
    }
}

/// The child's map as a difference from what the merged node's map differed from.
fn inherit(heir: &mut SpaceNode, merged: &[SpaceNode]) {
    let Some(from) = heir.from else { return };
    let Ok(at) = merged.binary_search_by_key(&from, |s| s.space) else {
        return;
    };
    heir.from = merged[at].from;
    heir.changes = match heir.from {
        None => Box::default(),
        Some(_) => union(&heir.changes, &merged[at].changes),
    };
}

fn union(a: &[u64], b: &[u64]) -> Box<[u64]> {
    let mut all = Vec::with_capacity(a.len() + b.len());
    all.extend_from_slice(a);
    all.extend_from_slice(b);
    all.sort_unstable();
    all.dedup();
    all.into_boxed_slice()
}
