//! The version index: which version a page has at an epoch.
//!
//! A *line* is a stretch of history of one space without branches. For each page it holds the
//! stamps (epoch, value) at which the page changed, ascending; a page without a stamp at or before
//! an epoch is looked up in the line's origin at the epoch where this line left it. Lookups
//! therefore cost a few binary searches, and memory follows the changes. A line that would stand
//! deeper than [`MAX_DEPTH`] below its last keyframe begins with one: stamps for all its pages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::versions::Value;

const MAX_DEPTH: u8 = 8;
/// Estimated bytes of a page's place in a line's tree, leaves being three quarters full.
const PAGE_COST: u64 = 36;
/// Estimated bytes of an epoch's place in a line's set.
const EPOCH_COST: u64 = 16;
const LINE_COST: u64 = 320;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LineId(u32);

/// Epochs are 64-bit on disk; split so that a stamp takes 12 bytes.
#[derive(Clone, Copy)]
struct Stamp {
    high: u32,
    low: u32,
    value: Value,
}

enum Stamps {
    One(Stamp),
    // The second word keeps an entry at 16 bytes: nine pages in ten have one stamp.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Stamp>>),
}

pub(crate) struct Line {
    origin: Option<(LineId, u64)>,
    depth: u8,
    tip: u64,
    pages: BTreeMap<u64, Stamps>,
    live: BTreeSet<u64>,
    /// Lines that left this one, by the epoch they left at.
    children: BTreeSet<(u64, LineId)>,
    /// Checkpoints, dropped ones that still join branches included, that stand on this line.
    nodes: u32,
}

#[derive(Default)]
pub(crate) struct Lines {
    lines: BTreeMap<LineId, Line>,
    next: u32,
    bytes: u64,
}

struct Found {
    line: LineId,
    from: u64,
    until: u64,
    value: Value,
}

impl Stamp {
    fn new(epoch: u64, value: Value) -> Stamp {
        Stamp {
            high: u32::try_from(epoch >> 32).expect("32 bits are left"),
            low: u32::try_from(epoch & 0xffff_ffff).expect("32 bits are left"),
            value,
        }
    }

    fn epoch(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

impl Stamps {
    fn slice(&self) -> &[Stamp] {
        match self {
            Stamps::One(stamp) => std::slice::from_ref(stamp),
            Stamps::Many(stamps) => stamps,
        }
    }

    /// How many stamps stand at or before the epoch.
    fn count_until(&self, at: u64) -> usize {
        self.slice().partition_point(|s| s.epoch() <= at)
    }

    fn value_at(&self, at: u64) -> Option<Value> {
        let count = self.count_until(at);
        Some(self.slice()[count.checked_sub(1)?].value)
    }

    fn heap(&self) -> u64 {
        match self {
            Stamps::One(_) => 0,
            Stamps::Many(stamps) => (40 + stamps.capacity() * size_of::<Stamp>()) as u64,
        }
    }

    fn push(&mut self, stamp: Stamp) {
        match self {
            Stamps::One(first) => *self = Stamps::Many(Box::new(vec![*first, stamp])),
            Stamps::Many(stamps) => {
                if stamps.len() == stamps.capacity() {
                    stamps.reserve_exact(stamps.len() / 4 + 2);
                }
                stamps.push(stamp);
            }
        }
    }
}

impl Lines {
    /// Estimate of the heap taken.
    pub fn memory(&self) -> u64 {
        self.bytes
    }

    pub fn value(&self, line: LineId, at: u64, page: u64) -> Value {
        self.find(line, at, page).map_or(Value::ABSENT, |f| f.value)
    }

    /// The pages present at an epoch, ascending.
    pub fn visible(&self, line: LineId, at: u64, range: Range<u64>) -> Vec<(u64, Value)> {
        let mut chain = vec![(line, at)];
        while let Some(origin) = self.lines[&chain[chain.len() - 1].0].origin {
            chain.push(origin);
        }
        let mut map: Vec<(u64, Value)> = Vec::new();
        for (line, at) in chain.into_iter().rev() {
            let pages = self.lines[&line].pages.range(range.clone());
            let over = pages.filter_map(|(&page, stamps)| Some((page, stamps.value_at(at)?)));
            map = overlay(map, over);
        }
        map.retain(|&(_, value)| value != Value::ABSENT);
        map
    }

    /// The line on which a child of a checkpoint at `parent` goes on: the same one at its tip,
    /// else a new one.
    pub fn extend(&mut self, line: LineId, parent: u64) -> LineId {
        if self.lines[&line].tip == parent {
            line
        } else {
            self.branch(line, parent)
        }
    }

    /// A new line that leaves another at a checkpoint.
    pub fn branch(&mut self, line: LineId, parent: u64) -> LineId {
        let depth = self.lines[&line].depth + 1;
        let child = self.add(Some((line, parent)), depth);
        let origin = self.lines.get_mut(&line).expect("the parent's line exists");
        origin.children.insert((parent, child));
        child
    }

    /// Whether a line that leaves this one has to begin with a keyframe.
    pub fn is_deep(&self, line: LineId, parent: u64) -> bool {
        let line = &self.lines[&line];
        line.depth >= MAX_DEPTH && line.tip != parent
    }

    /// A new line that holds nothing.
    pub fn root(&mut self) -> LineId {
        self.add(None, 0)
    }

    /// A checkpoint stands on the line.
    pub fn enter(&mut self, line: LineId, epoch: u64) {
        let line = self.lines.get_mut(&line).expect("the line was just made");
        line.tip = line.tip.max(epoch);
        line.live.insert(epoch);
        line.nodes += 1;
        self.bytes += EPOCH_COST;
    }

    /// The checkpoint was dropped, but may still join branches.
    pub fn kill(&mut self, line: LineId, epoch: u64) {
        let line = self.lines.get_mut(&line).expect("a node's line exists");
        if line.live.remove(&epoch) {
            self.bytes -= EPOCH_COST;
        }
    }

    /// The checkpoint no longer stands on the line; returns what lines that ended held.
    pub fn leave(&mut self, line: LineId) -> Vec<Value> {
        let mut let_go = Vec::new();
        self.lines
            .get_mut(&line)
            .expect("a node's line exists")
            .nodes -= 1;
        let mut next = Some(line);
        while let Some(id) = next {
            let line = &self.lines[&id];
            if line.nodes > 0 || !line.children.is_empty() {
                break;
            }
            let line = self.lines.remove(&id).expect("it was just read");
            self.bytes -= LINE_COST;
            for stamps in line.pages.values() {
                self.bytes -= PAGE_COST + stamps.heap();
                let_go.extend(stamps.slice().iter().map(|s| s.value));
            }
            next = line.origin.map(|(origin, at)| {
                let parent = self.lines.get_mut(&origin).expect("origins outlive lines");
                parent.children.remove(&(at, id));
                origin
            });
        }
        let_go
    }

    /// The page has this value from this epoch on; epochs of a line only ascend.
    pub fn put(&mut self, line: LineId, epoch: u64, page: u64, value: Value) {
        let line = self.lines.get_mut(&line).expect("the line was just made");
        let stamp = Stamp::new(epoch, value);
        match line.pages.entry(page) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Stamps::One(stamp));
                self.bytes += PAGE_COST;
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let before = entry.get().heap();
                entry.get_mut().push(stamp);
                self.bytes += entry.get().heap() - before;
            }
        }
    }

    /// Removes the stamp that gives the page its value at an epoch, unless some live checkpoint
    /// still reads it; returns what it held.
    pub fn prune(&mut self, line: LineId, at: u64, page: u64) -> Option<Value> {
        let found = self.find(line, at, page)?;
        if self.needed(found.line, page, found.from..found.until) {
            return None;
        }
        self.remove(&found, page);
        Some(found.value)
    }

    /// Removes a stamp of absence that nothing older lies under.
    pub fn forget_absence(&mut self, line: LineId, at: u64, page: u64) {
        let Some(found) = self.find(line, at, page) else {
            return;
        };
        let line = &self.lines[&found.line];
        let first = line.pages[&page].slice()[0];
        if found.value == Value::ABSENT && first.epoch() == found.from && line.origin.is_none() {
            self.remove(&found, page);
        }
    }

    fn remove(&mut self, found: &Found, page: u64) {
        let line = self.lines.get_mut(&found.line).expect("it was just found");
        let stamps = line.pages.get_mut(&page).expect("it was just found");
        self.bytes -= stamps.heap();
        match stamps {
            Stamps::Many(many) if many.len() > 1 => {
                many.retain(|s| s.epoch() != found.from);
                if many.len() == 1 {
                    *stamps = Stamps::One(many[0]);
                }
                self.bytes += stamps.heap();
            }
            _ => {
                line.pages.remove(&page);
                self.bytes -= PAGE_COST;
            }
        }
    }

    /// The live checkpoints that read each of the given values.
    pub fn readers(&self, wanted: impl Fn(Value) -> bool) -> BTreeSet<u64> {
        let mut readers = BTreeSet::new();
        for (&id, line) in &self.lines {
            for (&page, stamps) in &line.pages {
                let stamps = stamps.slice();
                for (at, stamp) in stamps.iter().enumerate() {
                    if wanted(stamp.value) {
                        let until = stamps.get(at + 1).map_or(u64::MAX, |s| s.epoch());
                        self.collect_readers(id, page, stamp.epoch()..until, &mut readers);
                    }
                }
            }
        }
        readers
    }

    fn collect_readers(
        &self,
        line: LineId,
        page: u64,
        epochs: Range<u64>,
        readers: &mut BTreeSet<u64>,
    ) {
        let line = &self.lines[&line];
        readers.extend(line.live.range(epochs.clone()));
        let children = (epochs.start, LineId(0))..(epochs.end, LineId(0));
        for &(_, child) in line.children.range(children) {
            let stamps = self.lines[&child].pages.get(&page);
            let until = stamps.map_or(u64::MAX, |s| s.slice()[0].epoch());
            self.collect_readers(child, page, 0..until, readers);
        }
    }

    /// Versions and zero pages that stamps hold, but that no live checkpoint reads.
    pub fn idle(&self) -> usize {
        let lines = self.lines.iter();
        let stamps = lines.flat_map(|(&id, l)| l.pages.iter().map(move |(&p, s)| (id, p, s)));
        let idle = stamps.map(|(id, page, stamps)| {
            let stamps = stamps.slice();
            let ends = stamps[1..].iter().map(|s| s.epoch()).chain([u64::MAX]);
            let held = stamps
                .iter()
                .zip(ends)
                .filter(|(s, _)| s.value != Value::ABSENT);
            held.filter(|(s, until)| !self.needed(id, page, s.epoch()..*until))
                .count()
        });
        idle.sum()
    }

    /// Every value that a stamp holds, for checking reference counts.
    pub fn held(&self) -> impl Iterator<Item = Value> {
        let stamps = self.lines.values().flat_map(|l| l.pages.values());
        stamps.flat_map(|s| s.slice().iter().map(|s| s.value))
    }

    /// Whether a live checkpoint reads the page through this line at one of these epochs.
    /// Depth is bounded by [`MAX_DEPTH`].
    fn needed(&self, line: LineId, page: u64, epochs: Range<u64>) -> bool {
        let line = &self.lines[&line];
        if line.live.range(epochs.clone()).next().is_some() {
            return true;
        }
        let children = (epochs.start, LineId(0))..(epochs.end, LineId(0));
        line.children.range(children).any(|&(_, child)| {
            let stamps = self.lines[&child].pages.get(&page);
            let until = stamps.map_or(u64::MAX, |s| s.slice()[0].epoch());
            self.needed(child, page, 0..until)
        })
    }

    fn find(&self, mut line: LineId, mut at: u64, page: u64) -> Option<Found> {
        loop {
            let here = &self.lines[&line];
            if let Some(stamps) = here.pages.get(&page) {
                let count = stamps.count_until(at);
                if count > 0 {
                    let stamps = stamps.slice();
                    let until = stamps.get(count).map_or(u64::MAX, |s| s.epoch());
                    let stamp = stamps[count - 1];
                    let (from, value) = (stamp.epoch(), stamp.value);
                    return Some(Found {
                        line,
                        from,
                        until,
                        value,
                    });
                }
            }
            (line, at) = here.origin?;
        }
    }

    fn add(&mut self, origin: Option<(LineId, u64)>, depth: u8) -> LineId {
        self.next += 1;
        let id = LineId(self.next);
        let line = Line {
            origin,
            depth,
            tip: 0,
            pages: BTreeMap::new(),
            live: BTreeSet::new(),
            children: BTreeSet::new(),
            nodes: 0,
        };
        self.lines.insert(id, line);
        self.bytes += LINE_COST;
        id
    }
}

/// Merges two ascending lists; the second wins.
fn overlay(
    under: Vec<(u64, Value)>,
    over: impl Iterator<Item = (u64, Value)>,
) -> Vec<(u64, Value)> {
    let mut merged = Vec::with_capacity(under.len());
    let mut under = under.into_iter().peekable();
    for (page, value) in over {
        while let Some(entry) = under.next_if(|&(p, _)| p < page) {
            merged.push(entry);
        }
        under.next_if(|&(p, _)| p == page);
        merged.push((page, value));
    }
    merged.extend(under);
    merged
}
