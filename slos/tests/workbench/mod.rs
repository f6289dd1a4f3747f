//! A store with its naive model.
#![allow(dead_code)] // each test binary uses its own part of it

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use outlines::Kept;
use slos::{
    Base, CommitError, Draft, Epoch, Keep, Medium, Options, PAGE, PageIndex, Partition, Presence,
    RecoveryReport, Settings, SpaceDelta, SpaceId, Store,
};

pub mod device;
pub mod disk;
pub mod outlines;
pub mod script;
pub use device::SimDevice;
pub use disk::Disk;
#[allow(unused_imports)] // as above
pub use script::script;

pub type Page = Box<[u8; PAGE]>;
pub type Space = BTreeMap<u64, Page>;
pub type Spaces = BTreeMap<u32, Space>;

#[derive(Clone, Debug)]
pub enum Content {
    Zero,
    /// Incompressible, by seed.
    Noise(u64),
    /// Compressible, by seed.
    Text(u64),
    /// Noise with one byte changed: a small delta against its like.
    Edit(u64, u16, u8),
    /// Noise with half of it changed: too large a delta.
    Rewrite(u64, u8),
}

#[derive(Clone, Debug)]
pub enum PageOp {
    Write(u64, Content),
    Unmap(u64, u64),
    Fork(u32, u32),
    Exec(u32),
    Exit(u32),
}

#[derive(Clone, Debug)]
pub enum Op {
    Commit(Vec<(u32, PageOp)>),
    Branch(proptest::sample::Index, Vec<(u32, PageOp)>),
    Drop(proptest::sample::Index),
    Name(proptest::sample::Index),
    Pin(proptest::sample::Index),
    Settle(Keep),
    /// So many checkpoints of nothing but new noise, each dropped once the next one is made.
    Churn(u64),
    Reopen,
}

#[derive(Clone)]
pub struct Model {
    pub spaces: Spaces,
    pub record: Vec<u8>,
    pub parent: Option<Epoch>,
    pub name: Option<String>,
    pub pinned: bool,
}

pub struct Bench {
    pub disk: Disk,
    /// It lies there instead.
    pub device: Option<SimDevice>,
    /// It is opened by these.
    pub outlines: Option<Arc<Kept>>,
    options: Options,
    store: Option<Store>,
    pub model: BTreeMap<Epoch, Model>,
    last: Option<Epoch>,
    keep: Keep,
}

impl Content {
    pub fn page(&self) -> Page {
        match *self {
            Content::Zero => Box::new([0; PAGE]),
            Content::Noise(seed) => noise(seed),
            Content::Text(seed) => {
                let mut page = Box::new([0; PAGE]);
                for (at, byte) in page.iter_mut().enumerate() {
                    *byte = (at as u64 / 64 + seed) as u8;
                }
                page
            }
            Content::Edit(seed, at, byte) => {
                let mut page = noise(seed);
                page[at as usize] ^= byte;
                page
            }
            Content::Rewrite(seed, byte) => {
                let mut page = noise(seed);
                let other = noise(1000 + u64::from(byte));
                page[..PAGE / 2].copy_from_slice(&other[..PAGE / 2]);
                page
            }
        }
    }
}

pub fn noise(seed: u64) -> Page {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = Box::new([0; PAGE]);
    for chunk in page.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    page
}

impl Bench {
    pub fn new(budget: Option<u64>) -> Bench {
        Bench::sized(budget, 64 << 10)
    }

    pub fn sized(budget: Option<u64>, segment_size: u64) -> Bench {
        let disk = Disk::default();
        let options = Options {
            budget,
            segment_size: Some(segment_size),
        };
        let store = Store::create_on(disk.medium(), Path::new("disk"), options).unwrap();
        store.add_partition("p", Settings::default()).unwrap();
        Bench {
            disk,
            device: None,
            outlines: None,
            options,
            store: Some(store),
            model: BTreeMap::new(),
            last: None,
            keep: Keep::All,
        }
    }

    /// On a device of so many bytes.
    pub fn on_device(bytes: usize) -> Bench {
        let device = SimDevice::new(bytes);
        let (store, report) = Store::open_device(device.device(), Path::new("device")).unwrap();
        assert!(report.is_clean());
        store.add_partition("p", Settings::default()).unwrap();
        Bench {
            disk: Disk::default(),
            device: Some(device),
            outlines: None,
            options: Options::default(),
            store: Some(store),
            model: BTreeMap::new(),
            last: None,
            keep: Keep::All,
        }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn partition(&self) -> Partition {
        self.store().partition("p").unwrap()
    }

    pub fn forget(&mut self, epoch: Epoch) {
        self.model.remove(&epoch);
        if self.last == Some(epoch) {
            self.last = self.model.keys().next_back().copied();
        }
    }

    pub fn close(&mut self) {
        self.store = None;
    }

    pub fn reopen(&mut self) {
        let report = self.recover();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.torn_bytes, 0);
        assert_eq!(report.checkpoints, self.model.len() as u64);
    }

    /// Opens the store as it lies, whatever happened to it.
    pub fn recover(&mut self) -> RecoveryReport {
        self.close();
        let (store, report) = match &self.device {
            Some(device) => {
                let (device, label) = (device.device(), Path::new("device"));
                match &self.outlines {
                    Some(kept) => Store::open_device_by(device, label, &**kept).unwrap(),
                    None => Store::open_device(device, label).unwrap(),
                }
            }
            None => {
                let medium: Box<dyn Medium> = self.disk.medium();
                Store::open_on(medium, Path::new("disk"), self.options).unwrap()
            }
        };
        self.store = Some(store);
        report
    }

    pub fn commit_noise(&mut self, seed: u64) -> Epoch {
        self.commit(self.last, &[(0, PageOp::Write(seed, Content::Noise(seed)))])
    }

    /// Applies an operation that a fault may interrupt: then the model stays as it was.
    pub fn attempt(&mut self, op: &Op) -> bool {
        let before = (self.model.clone(), self.last, self.keep);
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.apply(op)));
        std::panic::set_hook(quiet);
        if done.is_err() {
            let device = self.device.as_ref();
            let failed = device.map_or(self.disk.has_failed(), SimDevice::has_failed);
            assert!(failed, "only a fault may stop {op:?}");
            (self.model, self.last, self.keep) = before;
        }
        done.is_ok()
    }

    pub fn apply(&mut self, op: &Op) {
        let epochs: Vec<Epoch> = self.model.keys().copied().collect();
        let pick = |at: &proptest::sample::Index| {
            (!epochs.is_empty()).then(|| epochs[at.index(epochs.len())])
        };
        match op {
            Op::Commit(ops) => {
                self.commit(self.last, ops);
            }
            Op::Branch(at, ops) => {
                self.commit(pick(at), ops);
            }
            Op::Drop(at) => {
                if let Some(epoch) = pick(at) {
                    let pinned = self.model[&epoch].pinned;
                    assert_eq!(self.partition().drop_epoch(epoch).is_err(), pinned);
                    if !pinned {
                        self.forget(epoch);
                    }
                }
            }
            Op::Name(at) => {
                if let Some(epoch) = pick(at) {
                    let name = Some(format!("name of {epoch}"));
                    self.partition().set_name(epoch, name.clone()).unwrap();
                    self.model.get_mut(&epoch).unwrap().name = name;
                }
            }
            Op::Pin(at) => {
                if let Some(epoch) = pick(at) {
                    self.partition().pin(epoch).unwrap();
                    self.model.get_mut(&epoch).unwrap().pinned = true;
                }
            }
            Op::Settle(keep) => {
                self.keep = *keep;
                let settings = Settings {
                    keep: *keep,
                    budget: None,
                };
                let dropped = self.partition().set_settings(settings).unwrap();
                self.thin(&dropped);
            }
            Op::Churn(count) => self.churn(*count),
            Op::Reopen => self.reopen(),
        }
        self.check_history();
    }

    fn churn(&mut self, count: u64) {
        for _ in 0..count {
            let seed = self.model.keys().next_back().map_or(0, |e| e.0) * 100 + 2000;
            let write = |p| (0, PageOp::Write(p, Content::Noise(seed + p)));
            let writes: Vec<(u32, PageOp)> = (0..20).map(write).collect();
            let old = self.last;
            self.commit(old, &writes);
            if let Some(old) = old.filter(|old| self.model.contains_key(old)) {
                let pinned = self.model[&old].pinned;
                assert_eq!(self.partition().drop_epoch(old).is_err(), pinned);
                if !pinned {
                    self.forget(old);
                }
            }
        }
    }

    /// What thinning dropped is what the policy says, no more and no less.
    fn thin(&mut self, dropped: &[Epoch]) {
        if let Keep::Last(n) = self.keep {
            let surplus = self.model.len().saturating_sub(n as usize);
            let due: BTreeSet<Epoch> = self
                .model
                .iter()
                .take(surplus)
                .filter(|(_, m)| !m.pinned && m.name.is_none())
                .map(|(&e, _)| e)
                .collect();
            assert_eq!(due, dropped.iter().copied().collect());
        } else {
            assert!(dropped.is_empty());
        }
        for &epoch in dropped {
            self.forget(epoch);
        }
    }

    pub fn commit(&mut self, parent: Option<Epoch>, ops: &[(u32, PageOp)]) -> Epoch {
        self.try_commit(parent, ops).unwrap()
    }

    pub fn try_commit(
        &mut self,
        parent: Option<Epoch>,
        ops: &[(u32, PageOp)],
    ) -> Result<Epoch, CommitError> {
        let old = parent.map_or(Spaces::new(), |p| self.model[&p].spaces.clone());
        let mut staged = Staged::new(&old);
        for (space, op) in ops {
            staged.apply(*space, op);
        }
        if staged.spaces.is_empty() {
            staged.exec(0);
        }
        let record = format!("record {} {}", self.model.len(), "x".repeat(ops.len() * 50));
        let draft = Draft {
            parent,
            branch: "main".to_owned(),
            name: None,
            time_ns: 1,
            stop_us: 2,
            record: record.as_bytes(),
            spaces: staged.deltas(),
            meta: vec![7; 3],
        };
        let committed = self.partition().commit(&draft)?;
        let epoch = committed.epoch;
        let spaces = staged.spaces.iter().map(|(&s, d)| (s, d.now.clone()));
        let model = Model {
            spaces: spaces.collect(),
            record: record.into_bytes(),
            parent,
            name: None,
            pinned: false,
        };
        assert!(self.model.keys().all(|&e| e < epoch));
        self.model.insert(epoch, model);
        self.last = Some(epoch);
        self.thin(&committed.dropped);
        Ok(epoch)
    }

    /// After a fault in the midst of an operation: all that was acknowledged before is there, but
    /// for what the operation itself may have dropped.
    pub fn check_after_fault(&mut self, op: &Op) {
        let listed: BTreeSet<Epoch> = self
            .partition()
            .history()
            .unwrap()
            .iter()
            .map(|i| i.epoch)
            .collect();
        let missing: Vec<Epoch> = self
            .model
            .keys()
            .filter(|e| !listed.contains(e))
            .copied()
            .collect();
        let may_drop = match (op, &self.keep) {
            (Op::Settle(Keep::Last(n)), _) | (Op::Commit(_) | Op::Branch(..), Keep::Last(n)) => {
                let surplus = (self.model.len() + 1).saturating_sub(*n as usize);
                self.model.keys().take(surplus).copied().collect()
            }
            (Op::Churn(_), _) => self.model.keys().copied().collect(),
            (Op::Drop(at), _) => {
                let epochs: Vec<Epoch> = self.model.keys().copied().collect();
                BTreeSet::from([epochs[at.index(epochs.len())]])
            }
            _ => BTreeSet::new(),
        };
        for epoch in missing {
            assert!(may_drop.contains(&epoch), "{epoch} is gone after {op:?}");
            self.model.remove(&epoch);
        }
        for epoch in self.model.keys().copied().collect::<Vec<_>>() {
            self.check(epoch);
        }
        let report = self.store().verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        self.last = self.model.keys().next_back().copied();
    }

    /// A recovered store takes the next checkpoint, and has it after another recovery.
    pub fn check_it_goes_on(&mut self) {
        let settings = Settings::default();
        self.partition().set_settings(settings).unwrap();
        self.keep = settings.keep;
        let epoch = self.commit(self.last, &[(0, PageOp::Write(5, Content::Noise(77)))]);
        self.check(epoch);
        assert!(self.recover().is_clean());
        self.check(epoch);
    }

    pub fn check_history(&self) {
        let history = self.partition().history().unwrap();
        let listed: Vec<_> = history
            .iter()
            .map(|i| (i.epoch, i.parent, i.name.clone(), i.pinned))
            .collect();
        let expected: Vec<_> = self
            .model
            .iter()
            .map(|(&e, m)| (e, m.parent, m.name.clone(), m.pinned))
            .collect();
        assert_eq!(listed, expected);
    }

    pub fn check_all(&self) {
        self.check_history();
        for &epoch in self.model.keys() {
            self.check(epoch);
        }
        self.check_differences();
        let report = self.store().verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }

    pub fn check(&self, epoch: Epoch) {
        let part = self.partition();
        let model = &self.model[&epoch];
        assert_eq!(part.record(epoch).unwrap(), model.record);
        let spaces: Vec<u32> = part.spaces(epoch).unwrap().iter().map(|s| s.0).collect();
        assert!(spaces.iter().eq(model.spaces.keys()));
        let mut page = [1; PAGE];
        for (&space, pages) in &model.spaces {
            let map = part.page_map(epoch, SpaceId(space)).unwrap();
            assert!(map.iter().map(|p| &p.0).eq(pages.keys()), "{epoch} {space}");
            for at in 0..40 {
                let found = part
                    .read_page(epoch, SpaceId(space), PageIndex(at), &mut page)
                    .unwrap();
                match pages.get(&at) {
                    Some(expected) => {
                        assert_eq!(found, Presence::Present);
                        assert!(page == **expected, "{epoch} space {space} page {at}");
                    }
                    None => assert_eq!((found, page), (Presence::Absent, [0; PAGE])),
                }
            }
        }
    }

    fn check_differences(&self) {
        let epochs: Vec<Epoch> = self.model.keys().copied().take(12).collect();
        let part = self.partition();
        for (&a, &b) in epochs
            .iter()
            .flat_map(|a| epochs.iter().map(move |b| (a, b)))
        {
            for (&space, old) in &self.model[&a].spaces {
                let Some(new) = self.model[&b].spaces.get(&space) else {
                    continue;
                };
                let expected: Vec<PageIndex> = (0..40)
                    .filter(|p| old.get(p) != new.get(p))
                    .map(PageIndex)
                    .collect();
                let found = part.diff_pages(a, b, SpaceId(space)).unwrap();
                assert_eq!(found, expected, "{a} {b} {space}");
                let set = [PageIndex(3), PageIndex(5)];
                let changed = part.changed(a, b, SpaceId(space), &set).unwrap();
                assert_eq!(changed, set.iter().any(|p| expected.contains(p)));
                self.check_change_points(a, b, space);
            }
        }
    }

    fn check_change_points(&self, a: Epoch, b: Epoch, space: u32) {
        let part = self.partition();
        let mut path = vec![b];
        while let Some(up) = part.ancestor(path[path.len() - 1]).unwrap() {
            path.push(up);
        }
        let set = [PageIndex(2), PageIndex(7)];
        let found = part.change_points(a, b, SpaceId(space), &set);
        let Some(end) = path.iter().position(|&e| e == a) else {
            assert!(found.is_err());
            return;
        };
        path.truncate(end + 1);
        path.reverse();
        let page = |epoch: Epoch, p: PageIndex| {
            self.model[&epoch]
                .spaces
                .get(&space)
                .and_then(|s| s.get(&p.0))
        };
        let steps = path.windows(2);
        let changed = steps.filter(|s| set.iter().any(|&p| page(s[0], p) != page(s[1], p)));
        let expected: Vec<Epoch> = changed.map(|s| s[1]).collect();
        assert_eq!(found.unwrap(), expected);
    }

    pub fn drop_all(&mut self) {
        for epoch in self.model.keys().copied().collect::<Vec<_>>() {
            self.partition().unpin(epoch).unwrap();
            self.partition().drop_epoch(epoch).unwrap();
        }
        self.model.clear();
        self.last = None;
    }
}

/// Spaces on their way to the next checkpoint.
struct Staged<'a> {
    old: &'a Spaces,
    spaces: BTreeMap<u32, StagedSpace>,
}

struct StagedSpace {
    base: Base,
    now: Space,
    dropped: Vec<std::ops::Range<PageIndex>>,
    written: BTreeSet<u64>,
}

impl<'a> Staged<'a> {
    fn new(old: &'a Spaces) -> Staged<'a> {
        let spaces = old.iter().map(|(&space, pages)| {
            let staged = StagedSpace {
                base: Base::Parent,
                now: pages.clone(),
                dropped: Vec::new(),
                written: BTreeSet::new(),
            };
            (space, staged)
        });
        Staged {
            old,
            spaces: spaces.collect(),
        }
    }

    fn exec(&mut self, space: u32) {
        let empty = StagedSpace {
            base: Base::Empty,
            now: Space::new(),
            dropped: Vec::new(),
            written: BTreeSet::new(),
        };
        self.spaces.insert(space, empty);
    }

    fn apply(&mut self, space: u32, op: &PageOp) {
        match op {
            PageOp::Write(page, content) => {
                if !self.spaces.contains_key(&space) {
                    self.exec(space);
                }
                let staged = self.spaces.get_mut(&space).unwrap();
                staged.now.insert(*page, content.page());
                staged.written.insert(*page);
            }
            PageOp::Unmap(page, count) => {
                if let Some(staged) = self.spaces.get_mut(&space) {
                    staged
                        .dropped
                        .push(PageIndex(*page)..PageIndex(page + count));
                    for gone in *page..page + count {
                        staged.now.remove(&gone);
                        staged.written.remove(&gone);
                    }
                }
            }
            PageOp::Fork(of, to) => {
                if let (Some(pages), false) = (self.old.get(of), of == to) {
                    let forked = StagedSpace {
                        base: Base::Fork(SpaceId(*of)),
                        now: pages.clone(),
                        dropped: Vec::new(),
                        written: BTreeSet::new(),
                    };
                    self.spaces.insert(*to, forked);
                }
            }
            PageOp::Exec(space) => self.exec(*space),
            PageOp::Exit(space) => {
                self.spaces.remove(space);
            }
        }
    }

    fn deltas(&self) -> Vec<SpaceDelta<'_>> {
        self.spaces
            .iter()
            .map(|(&space, staged)| SpaceDelta {
                space: SpaceId(space),
                base: staged.base,
                dropped: staged.dropped.clone(),
                pages: staged
                    .written
                    .iter()
                    .map(|&p| (PageIndex(p), &staged.now[&p][..]))
                    .collect(),
            })
            .collect()
    }
}
