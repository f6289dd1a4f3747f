//! Budgets that hold, and what thinning leaves.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

use std::path::Path;

use slos::{
    Base, Draft, Epoch, Keep, Options, PAGE, PageIndex, Partition, Settings, SpaceDelta, SpaceId,
    Store,
};

const IMAGE: u64 = 64;
const DIRTY: u64 = 8;

/// A program that dirties a few pages of its image between checkpoints.
struct Program {
    pages: Vec<Box<[u8; PAGE]>>,
    step: u64,
}

impl Program {
    fn new() -> Program {
        let page = |n: u64| {
            let mut page = Box::new([0; PAGE]);
            for (at, word) in page.chunks_exact_mut(8).enumerate() {
                let value = (at as u64 % 50)
                    .wrapping_mul(n + 3)
                    .wrapping_mul(0x9e37_79b9);
                word.copy_from_slice(&value.to_le_bytes());
            }
            page
        };
        Program {
            pages: (0..IMAGE).map(page).collect(),
            step: 0,
        }
    }

    fn run(&mut self) -> Vec<u64> {
        self.step += 1;
        let dirty = (0..DIRTY).map(|i| (self.step * 7 + i * 5) % IMAGE);
        let mut dirty: Vec<u64> = dirty.collect();
        dirty.sort_unstable();
        dirty.dedup();
        for &page in &dirty {
            let at = (self.step * 13 + page) as usize % 500 * 8;
            let value = self.step.wrapping_mul(0x2545_f491_4f6c_dd1d);
            self.pages[page as usize][at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        dirty
    }

    fn commit(&mut self, part: &Partition, parent: Option<Epoch>) -> slos::Committed {
        let dirty = match parent {
            Some(_) => self.run(),
            None => (0..IMAGE).collect(),
        };
        let pages = dirty
            .iter()
            .map(|&p| (PageIndex(p), &self.pages[p as usize][..]));
        let draft = Draft {
            parent,
            branch: "main".to_owned(),
            name: None,
            time_ns: self.step,
            stop_us: 0,
            record: &self.step.to_le_bytes(),
            spaces: vec![SpaceDelta {
                space: SpaceId(0),
                base: parent.map_or(Base::Empty, |_| Base::Parent),
                dropped: Vec::new(),
                pages: pages.collect(),
            }],
            meta: Vec::new(),
        };
        part.commit(&draft).unwrap()
    }

    fn check(&self, part: &Partition, epoch: Epoch) {
        let mut out = [0; PAGE];
        for page in 0..IMAGE {
            part.read_page(epoch, SpaceId(0), PageIndex(page), &mut out)
                .unwrap();
            assert!(out == *self.pages[page as usize], "{epoch} page {page}");
        }
    }
}

fn store(dir: &Path, budget: u64, keep: Keep) -> (Store, Partition) {
    let options = Options {
        budget: Some(budget),
        segment_size: None,
    };
    let store = Store::create(dir, options).unwrap();
    let settings = Settings { keep, budget: None };
    let part = store.add_partition("p", settings).unwrap();
    (store, part)
}

fn run(keep: Keep, budget: u64, commits: u64) -> Vec<Epoch> {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (store, part) = store(dir.path(), budget, keep);
    let mut program = Program::new();
    let mut parent = None;
    let mut dropped = 0;
    for step in 0..commits {
        let committed = program.commit(&part, parent);
        dropped += committed.dropped.len() as u64;
        parent = Some(committed.epoch);
        let held = store.held().unwrap();
        assert!(held <= budget, "{held} after {step}, {:?}", store.stats());
        if step % 500 == 0 {
            program.check(&part, committed.epoch);
        }
    }
    program.check(&part, parent.unwrap());
    let history = part.history().unwrap();
    assert_eq!(
        history.len() as u64 + dropped,
        commits,
        "drops are reported"
    );
    let verified = store.verify().unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    let files: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert!(files <= budget, "{files} bytes of files");
    history.iter().map(|i| i.epoch).collect()
}

const COMMITS: u64 = if cfg!(debug_assertions) { 1500 } else { 10_000 };

#[test]
fn a_budget_holds_under_all() {
    let kept = run(Keep::All, 4 << 20, COMMITS);
    assert!(kept.len() as u64 > COMMITS / 20, "{} kept", kept.len());
    if !cfg!(debug_assertions) {
        assert!((kept.len() as u64) < COMMITS, "the budget was short");
    }
    let oldest_first = kept.windows(2).all(|w| w[0].0 + 1 == w[1].0);
    assert!(oldest_first, "only the oldest went");
    assert_eq!(kept.last(), Some(&Epoch(COMMITS)));
}

#[test]
fn a_budget_holds_under_last() {
    let kept = run(Keep::Last(100), 4 << 20, COMMITS);
    let expected: Vec<Epoch> = (COMMITS - 99..=COMMITS).map(Epoch).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_budget_holds_under_log_and_spacing_doubles_with_age() {
    let kept = run(Keep::Log, 4 << 20, COMMITS);
    for pair in kept.windows(2) {
        let (gap, age) = (pair[1].0 - pair[0].0, COMMITS - pair[0].0);
        assert!(gap == 1 || gap * 256 <= 2 * age, "gap {gap} at age {age}");
        assert!(age < 512 || gap * 512 >= age, "gap {gap} at age {age}");
    }
}

#[test]
fn pins_names_and_holds_outlive_thinning() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (_store, part) = store(dir.path(), 4 << 20, Keep::Last(3));
    let mut program = Program::new();
    let first = program.commit(&part, None).epoch;
    part.pin(first).unwrap();
    let second = program.commit(&part, Some(first)).epoch;
    part.set_name(second, Some("kept".to_owned())).unwrap();
    let third = program.commit(&part, Some(second)).epoch;
    let hold = part.hold(third).unwrap();
    let mut last = third;
    for _ in 0..10 {
        last = program.commit(&part, Some(last)).epoch;
    }
    let listed = || -> Vec<u64> { part.history().unwrap().iter().map(|i| i.epoch.0).collect() };
    assert_eq!(listed(), [1, 2, 3, 11, 12, 13]);
    assert!(part.drop_epoch(third).is_err());
    drop(hold);
    part.unpin(first).unwrap();
    last = program.commit(&part, Some(last)).epoch;
    assert_eq!(listed(), [2, 12, 13, 14]);
    program.check(&part, last);
}

#[test]
fn a_checkpoint_that_cannot_fit_is_refused_and_the_history_stays() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let budget = 2 << 20;
    let (store, part) = store(dir.path(), budget, Keep::All);
    let mut program = Program::new();
    let first = program.commit(&part, None).epoch;
    let second = program.commit(&part, Some(first)).epoch;
    let noise: Vec<[u8; PAGE]> = (0..600u64)
        .map(|n| {
            let mut state = n + 1;
            std::array::from_fn(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
        })
        .collect();
    let pages = noise.iter().zip(100..).map(|(b, p)| (PageIndex(p), &b[..]));
    let draft = Draft {
        parent: Some(second),
        branch: "main".to_owned(),
        name: None,
        time_ns: 0,
        stop_us: 0,
        record: b"",
        spaces: vec![SpaceDelta {
            space: SpaceId(0),
            base: Base::Parent,
            dropped: Vec::new(),
            pages: pages.collect(),
        }],
        meta: Vec::new(),
    };
    let error = part.commit(&draft).unwrap_err();
    assert!(error.to_string().contains("budget"), "{error}");
    assert!(store.held().unwrap() <= budget);
    program.check(&part, second);
    let third = program.commit(&part, Some(second)).epoch;
    program.check(&part, third);
}

#[test]
fn a_partitions_own_budget_holds_beside_another() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = Options {
        budget: None,
        segment_size: Some(256 << 10),
    };
    let store = Store::create(dir.path(), options).unwrap();
    let small = Settings {
        keep: Keep::All,
        budget: Some(2 << 20),
    };
    let a = store.add_partition("a", small).unwrap();
    let b = store.add_partition("b", Settings::default()).unwrap();
    let (mut left, mut right) = (Program::new(), Program::new());
    let (mut at, mut bt) = (None, None);
    for _ in 0..COMMITS / 5 {
        at = Some(left.commit(&a, at).epoch);
        bt = Some(right.commit(&b, bt).epoch);
        let held = store.partitions().unwrap()[0].held;
        assert!(held <= 2 << 20, "{held}");
    }
    assert_eq!(b.history().unwrap().len() as u64, COMMITS / 5);
    left.check(&a, at.unwrap());
    right.check(&b, bt.unwrap());
}

/// Whoever opens a store after a crash does not know what its partitions may hold.
#[test]
fn a_partitions_own_budget_holds_for_all_that_is_held_after_a_crash() {
    const BUDGET: u64 = 4 << 20;
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = Options {
        budget: Some(BUDGET),
        segment_size: None,
    };
    let settings = Settings {
        keep: Keep::All,
        budget: Some(BUDGET),
    };
    let store = Store::create(dir.path(), options).unwrap();
    let part = store.add_partition("p", settings).unwrap();
    let mut program = Program::new();
    let mut parent = None;
    let mut commit = |part: &Partition| parent = Some(program.commit(part, parent).epoch);
    (0..COMMITS / 5).for_each(|_| commit(&part));
    drop((store, part));
    let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
    let part = store.partition("p").unwrap();
    for _ in 0..COMMITS / 5 {
        commit(&part);
        let held = store.stats().unwrap().total();
        assert!(held <= BUDGET, "{held}");
    }
}

#[test]
fn without_a_budget_dead_segments_do_not_pile_up() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = Options {
        budget: None,
        segment_size: Some(64 << 10),
    };
    let store = Store::create(dir.path(), options).unwrap();
    let settings = Settings {
        keep: Keep::Last(10),
        budget: None,
    };
    let part = store.add_partition("p", settings).unwrap();
    let mut program = Program::new();
    let mut parent = None;
    for _ in 0..COMMITS / 2 {
        parent = Some(program.commit(&part, parent).epoch);
    }
    let stats = store.stats().unwrap();
    assert!(stats.segments < 3 * stats.live + (512 << 10), "{stats:?}");
    program.check(&part, parent.unwrap());
}
