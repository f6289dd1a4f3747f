//! A medium that is full: the oldest checkpoints go, or the new one fails and nothing else does.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::collections::BTreeMap;
use std::path::Path;

use slos::{
    Base, CommitError, Draft, Epoch, Options, PAGE, PageIndex, Partition, Settings, SpaceDelta,
    SpaceId, Store,
};
use workbench::{Disk, noise};

const PAGES: u64 = 48;
const OPTIONS: Options = Options {
    budget: None,
    segment_size: Some(64 << 10),
};

/// A program whose pages are noise of the step at which each was written last.
struct Program {
    disk: Disk,
    store: Store,
    step: u64,
    seeds: [u64; PAGES as usize],
    head: Option<Epoch>,
    /// What each checkpoint should hold.
    model: BTreeMap<Epoch, [u64; PAGES as usize]>,
}

impl Program {
    fn new() -> Program {
        let disk = Disk::default();
        let store = Store::create_on(disk.medium(), Path::new("disk"), OPTIONS).unwrap();
        store.add_partition("p", Settings::default()).unwrap();
        Program {
            disk,
            store,
            step: 0,
            seeds: [0; PAGES as usize],
            head: None,
            model: BTreeMap::new(),
        }
    }

    fn partition(&self) -> Partition {
        self.store.partition("p").unwrap()
    }

    /// Writes two pages, and takes a checkpoint.
    fn commit(&mut self) -> Result<(), CommitError> {
        self.commit_of(2)
    }

    /// Writes so many pages, and takes a checkpoint.
    fn commit_of(&mut self, count: u64) -> Result<(), CommitError> {
        self.step += 1;
        let mut seeds = self.seeds;
        for n in 0..count {
            seeds[((self.step + 3 * n) % PAGES) as usize] = self.step * 100 + n;
        }
        let pages: Vec<_> = seeds.iter().map(|&seed| noise(seed)).collect();
        let changed =
            (0..PAGES).filter(|&p| self.head.is_none() || seeds[p as usize] / 100 == self.step);
        let draft = Draft {
            parent: self.head,
            branch: "main".into(),
            name: None,
            time_ns: self.step,
            stop_us: 0,
            record: &self.step.to_le_bytes(),
            spaces: vec![SpaceDelta {
                space: SpaceId(0),
                base: if self.head.is_some() {
                    Base::Parent
                } else {
                    Base::Empty
                },
                dropped: Vec::new(),
                pages: changed
                    .map(|p| (PageIndex(p), &pages[p as usize][..]))
                    .collect(),
            }],
            meta: Vec::new(),
        };
        let committed = self.partition().commit(&draft)?;
        self.seeds = seeds;
        self.head = Some(committed.epoch);
        self.model.insert(committed.epoch, seeds);
        for epoch in committed.dropped {
            assert!(self.model.remove(&epoch).is_some(), "{epoch} dropped twice");
        }
        Ok(())
    }

    /// What went although the new checkpoint found no room even so.
    fn forget_the_oldest(&mut self) {
        let kept = self.partition().history().unwrap();
        let oldest = kept.first().unwrap().epoch;
        self.model.retain(|&epoch, _| epoch >= oldest);
    }

    /// Every checkpoint that was not dropped is there and is what it was.
    fn assert_exact(&self) {
        let part = self.partition();
        let kept: Vec<Epoch> = part.history().unwrap().iter().map(|i| i.epoch).collect();
        assert_eq!(kept, self.model.keys().copied().collect::<Vec<_>>());
        for (&epoch, seeds) in &self.model {
            for (page, &seed) in seeds.iter().enumerate() {
                let mut out = [0; PAGE];
                let page = PageIndex(page as u64);
                part.read_page(epoch, SpaceId(0), page, &mut out).unwrap();
                assert!(out == *noise(seed), "{epoch} {page}");
            }
        }
    }

    fn reopen(&mut self) {
        let opened = Store::open_on(self.disk.medium(), Path::new("disk"), OPTIONS);
        let (store, report) = opened.unwrap();
        assert!(report.is_clean(), "{report:?}");
        self.store = store;
    }
}

#[test]
fn the_oldest_go_when_there_is_no_room() {
    let mut program = Program::new();
    program.disk.set_room(Some(1 << 20));
    for step in 1..=1000 {
        let done = program.commit();
        assert!(done.is_ok(), "step {step}: {done:?}");
        if step % 50 == 0 {
            program.assert_exact();
        }
        if step % 200 == 0 {
            program.reopen();
            program.assert_exact();
        }
    }
    assert!(program.model.len() > 30, "{} kept", program.model.len());
}

/// Whatever one of them fills, the next finds a way to make room.
#[test]
fn checkpoints_of_any_size_go_on_when_there_is_no_room() {
    let mut program = Program::new();
    program.disk.set_room(Some(1 << 20));
    let mut refused = 0;
    for step in 1..=3000_u64 {
        let count = 1 + step * 7919 % 97 * step % 48;
        match program.commit_of(count) {
            Ok(()) => refused = 0,
            Err(CommitError::Write(error)) if error.is_full() => {
                refused += 1;
                program.forget_the_oldest();
            }
            Err(other) => panic!("step {step}: {other}"),
        }
        assert!(refused < 3, "step {step}");
        if step % 100 == 0 {
            program.assert_exact();
            program.reopen();
        }
    }
}

#[test]
fn a_checkpoint_without_room_fails_alone() {
    let mut program = Program::new();
    let mut refused = 0;
    for step in 1..=300_u64 {
        // Somebody else takes all the room there is, and gives it back.
        let full = step % 10 > 5;
        let room = program.disk.used() + step * 977 % 9000;
        program.disk.set_room(full.then_some(room));
        match program.commit() {
            Ok(()) => {}
            Err(CommitError::Write(error)) if full && error.is_full() => {
                refused += 1;
                program.forget_the_oldest();
            }
            Err(other) => panic!("step {step}: {other}"),
        }
        program.assert_exact();
        if step % 7 == 0 {
            program.reopen();
            program.assert_exact();
        }
    }
    assert!(refused > 10, "{refused}");
}
