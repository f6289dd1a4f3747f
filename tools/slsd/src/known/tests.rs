#![allow(clippy::unwrap_used)] // a test may panic

use libsls::protocol::HistoryRow;

use super::*;

fn print(store: u8, log: u8) -> Fingerprint {
    Fingerprint {
        store: [store; 16],
        log: [log; 32],
    }
}

fn history(name: &str, checkpoints: u64) -> History {
    let row = |epoch| HistoryRow {
        epoch,
        parent: Some(epoch - 1).filter(|p| *p > 0),
        branch: "main".to_owned(),
        name: epoch.is_multiple_of(100).then(|| format!("n{epoch}")),
        ..HistoryRow::default()
    };
    History {
        partition: name.to_owned(),
        head: checkpoints,
        branch: "main".to_owned(),
        checkpoints: (1..=checkpoints).map(row).collect(),
    }
}

/// Shared by several daemons, one after the other; fails as it is told.
#[derive(Clone, Default)]
struct Shelf {
    kept: Arc<InMemory>,
    fails: Arc<Mutex<u32>>,
    saved: Arc<Mutex<usize>>,
}

impl Shelf {
    fn fail(&self) -> Result<(), Trouble> {
        let mut fails = self.fails.lock().unwrap();
        if *fails == 0 {
            return Ok(());
        }
        *fails -= 1;
        Err(Trouble::Failed {
            folder: "/there".into(),
            cause: "told to".to_owned(),
        })
    }
}

impl Catalogue for Shelf {
    fn load(&self) -> Result<Entries, Trouble> {
        self.fail()?;
        self.kept.load()
    }
    fn save(&self, changes: &[Change]) -> Result<(), Trouble> {
        self.fail()?;
        *self.saved.lock().unwrap() += changes.len();
        self.kept.save(changes)
    }
    fn clear(&self) -> Result<(), Trouble> {
        self.fail()?;
        self.kept.clear()
    }
}

fn known(shelf: &Shelf) -> Known {
    let known = Known::begin(Box::new(shelf.clone())).unwrap();
    known.settle(Duration::from_secs(10));
    known
}

#[test]
fn what_was_closed_is_known_to_the_next_daemon_as_long_as_it_is_there() {
    let (shelf, folder) = (Shelf::default(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.store");
    std::fs::write(&path, "").unwrap();
    let first = known(&shelf);
    assert_eq!(first.listing(&print(1, 1)), None);
    let held = vec![history("web", 600), history("db", 0), history("x", 256)];
    first.close(&path, &print(1, 1), &held);
    first.settle(Duration::from_secs(10));
    assert_eq!(first.listing(&print(1, 1)), Some(held.clone()));
    let second = known(&shelf);
    assert!(second.knows(&path) && !second.knows(Path::new("/b.store")));
    assert_eq!(second.listing(&print(1, 1)), Some(held.clone()));
    assert_eq!(second.listing(&print(1, 2)), None, "it has changed");
    assert_eq!(second.listing(&print(2, 1)), None, "it is another one");
    // Less is in it now; and only what differs is saved.
    let before = *shelf.saved.lock().unwrap();
    second.close(&path, &print(1, 3), &[history("web", 599)]);
    second.settle(Duration::from_secs(10));
    assert_eq!(
        *shelf.saved.lock().unwrap() - before,
        3,
        "the store, a last piece, one that is gone"
    );
    assert_eq!(
        second.listing(&print(1, 3)),
        Some(vec![history("web", 599)])
    );
    std::fs::remove_file(&path).unwrap();
    let third = known(&shelf);
    assert!(!third.knows(&path));
    third.settle(Duration::from_secs(10));
    assert!(
        shelf.kept.load().unwrap().is_empty(),
        "nothing is left of it"
    );
}

#[test]
fn another_store_in_its_place_takes_its_place() {
    let (shelf, path) = (Shelf::default(), Path::new("/dev/null"));
    let known = known(&shelf);
    known.close(path, &print(1, 1), &[history("a", 3)]);
    known.close(path, &print(2, 1), &[history("b", 3)]);
    assert_eq!(known.listing(&print(1, 1)), None);
    assert_eq!(known.listing(&print(2, 1)), Some(vec![history("b", 3)]));
}

#[test]
fn a_catalogue_that_fails_is_begun_anew_or_done_without() {
    let path = Path::new("/dev/null");
    for fails in 1..4 {
        let shelf = Shelf::default();
        let first = known(&shelf);
        first.close(path, &print(1, 1), &[history("a", 3)]);
        first.settle(Duration::from_secs(10));
        *shelf.fails.lock().unwrap() = fails;
        let second = known(&shelf);
        second.close(path, &print(1, 2), &[history("a", 4)]);
        second.settle(Duration::from_secs(10));
        let listed = second.listing(&print(1, 2));
        assert_eq!(
            listed,
            Some(vec![history("a", 4)]),
            "after {fails} failures"
        );
        *shelf.fails.lock().unwrap() = 0;
        let third = known(&shelf);
        let kept = third.listing(&print(1, 2));
        assert_eq!(kept.is_some(), fails == 1, "after {fails} failures");
    }
}

#[test]
fn a_save_that_fails_once_saves_all() {
    let shelf = Shelf::default();
    let path = Path::new("/dev/null");
    let first = known(&shelf);
    first.close(path, &print(1, 1), &[history("a", 3)]);
    first.settle(Duration::from_secs(10));
    *shelf.fails.lock().unwrap() = 1;
    first.close(path, &print(1, 2), &[history("a", 3)]);
    first.settle(Duration::from_secs(10));
    let second = known(&shelf);
    assert_eq!(second.listing(&print(1, 2)), Some(vec![history("a", 3)]));
}

#[test]
fn an_entry_that_is_not_what_was_put_there_is_none() {
    let shelf = Shelf::default();
    let path = Path::new("/dev/null");
    let first = known(&shelf);
    let held = vec![history("a", 300)];
    first.close(path, &print(1, 1), &held);
    first.settle(Duration::from_secs(10));
    let entries = shelf.kept.load().unwrap();
    for (key, value) in &entries {
        for at in (0..value.len()).step_by(37) {
            let mut other = value.clone();
            other[at] ^= 4;
            let change = |value: &[u8]| Change {
                key: key.clone(),
                value: Some(value.to_vec()),
            };
            shelf.kept.save(&[change(&other)]).unwrap();
            assert_eq!(known(&shelf).listing(&print(1, 1)), None);
            shelf.kept.clear().unwrap();
            let all: Vec<Change> = entries
                .iter()
                .map(|(key, value)| Change {
                    key: key.clone(),
                    value: Some(value.clone()),
                })
                .collect();
            shelf.kept.save(&all).unwrap();
        }
    }
    assert_eq!(known(&shelf).listing(&print(1, 1)), Some(held));
}

#[test]
fn what_was_seen_longest_ago_goes_when_there_is_too_much() {
    let mut state = State::default();
    for store in 1..=4u8 {
        let path = format!("/{store}");
        let print = print(store, 1);
        for (key, body) in listing::entries(Path::new(&path), &print, &[history("a", 500)]) {
            state.put_body(key, &body);
        }
    }
    let all: usize = state.entries.iter().map(|(k, v)| k.len() + v.len()).sum();
    state.keep_within(all * 5 / 8);
    let left: Vec<u8> = listing::stores(&state.entries).map(|(s, _)| s[0]).collect();
    assert_eq!(left, [3, 4]);
    assert!(state.entries.keys().all(|key| key[0] > 2));
}
