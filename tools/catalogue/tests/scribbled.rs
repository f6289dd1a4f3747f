//! Whatever happens to the folder: an answer, or an error and a new beginning.
#![allow(clippy::unwrap_used)] // a test may panic

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use sls_catalogue::{Catalogue, Change, Entries, InMemory, InSled, Trouble};

/// Over damaged files sled may wait for ever.
const SOON: Duration = Duration::from_secs(1);

fn in_sled(folder: &Path) -> InSled {
    InSled::new(Path::new(env!("CARGO_BIN_EXE_sls-catalogue")), folder).within(SOON)
}

fn put(key: u16, seed: u8) -> Change {
    Change {
        key: key.to_be_bytes().to_vec(),
        value: Some(vec![seed; 40 + usize::from(key) * 7 % 3000]),
    }
}

fn take(key: u16) -> Change {
    Change {
        key: key.to_be_bytes().to_vec(),
        value: None,
    }
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, Index, u8),
    Cut(Index, Index),
    Remove(Index),
    /// What a sled that was killed while it wrote a snapshot leaves.
    Generating,
    Zero(Index, Index),
    Junk(u8),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), at(), 0..8u8).prop_map(|(f, b, bit)| Harm::Flip(f, b, bit)),
        2 => (at(), at()).prop_map(|(f, b)| Harm::Cut(f, b)),
        2 => at().prop_map(Harm::Remove),
        1 => Just(Harm::Generating),
        2 => (at(), at()).prop_map(|(f, b)| Harm::Zero(f, b)),
        1 => any::<u8>().prop_map(Harm::Junk),
    ]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().flatten().map(|e| e.path());
    let mut files: Vec<PathBuf> = all.filter(|p| p.is_file()).collect();
    files.sort();
    files
}

fn inflict(folder: &Path, harm: &Harm) {
    let files = files(folder);
    let file = |at: &Index| &files[at.index(files.len())];
    let place = |path: &Path, at: &Index| {
        let length = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
        // Near the beginning as often as anywhere: most of the file is room.
        let length = if at.index(2) == 0 {
            length.min(20_000)
        } else {
            length
        };
        at.index(length.max(1)) as u64
    };
    let open = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap()
    };
    match harm {
        Harm::Flip(f, at, bit) => {
            let (file, at) = (open(file(f)), place(file(f), at));
            let mut byte = [0];
            if file.read_exact_at(&mut byte, at).is_ok() {
                file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            }
        }
        Harm::Cut(f, at) => open(file(f)).set_len(place(file(f), at)).unwrap(),
        Harm::Remove(f) => fs::remove_file(file(f)).unwrap(),
        Harm::Generating => {
            fs::write(folder.join("snap.0000000000001234.generating"), "").unwrap();
        }
        Harm::Zero(f, at) => {
            let at = place(file(f), at);
            open(file(f)).write_all_at(&[0; 4096], at).unwrap();
        }
        Harm::Junk(byte) => fs::write(folder.join("db"), vec![*byte; 50_000]).unwrap(),
    }
}

/// As a daemon does it: what cannot be loaded is begun anew.
fn load(catalogue: &InSled) -> Entries {
    catalogue.load().unwrap_or_else(|trouble| {
        assert!(matches!(trouble, Trouble::Failed { .. }), "{trouble}");
        catalogue.clear().unwrap();
        catalogue.load().unwrap()
    })
}

#[test]
fn both_keep_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (sled, memory) = (in_sled(&folder.path().join("in/it")), InMemory::default());
    let each: [&dyn Catalogue; 2] = [&sled, &memory];
    for catalogue in each {
        assert!(catalogue.load().unwrap().is_empty());
        let many: Vec<Change> = (0..700).map(|k| put(k, 1)).collect();
        catalogue.save(&many).unwrap();
        catalogue.save(&[put(3, 2), take(4), take(9999)]).unwrap();
    }
    assert_eq!(sled.load().unwrap(), memory.load().unwrap());
    assert_eq!(sled.load().unwrap().len(), 699);
    for catalogue in each {
        catalogue.clear().unwrap();
        assert!(catalogue.load().unwrap().is_empty());
        catalogue.save(&[put(1, 1)]).unwrap();
        assert_eq!(catalogue.load().unwrap().len(), 1);
    }
}

#[test]
fn one_process_at_a_time_and_only_in_a_folder_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = in_sled(folder.path());
    catalogue.save(&[put(1, 1)]).unwrap();
    let lock = fs::File::open(folder.path().join("lock")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert!(matches!(catalogue.load(), Err(Trouble::InUse(_))));
    assert!(matches!(catalogue.clear(), Err(Trouble::InUse(_))));
    drop(lock);
    assert_eq!(catalogue.load().unwrap().len(), 1);
    fs::write(folder.path().join("letter"), "somebody's").unwrap();
    catalogue.clear().unwrap();
    assert!(
        folder.path().join("letter").exists(),
        "what is not ours stays"
    );
    let file = folder.path().join("letter");
    let Err(Trouble::Failed { cause, .. }) = in_sled(&file).load() else {
        panic!("a file is no folder");
    };
    assert!(!cause.is_empty());
    let missing = InSled::new(Path::new("/nonexistent/sls-catalogue"), folder.path());
    assert!(matches!(missing.load(), Err(Trouble::Failed { .. })));
}

/// A dozen, or PROPTEST_CASES.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn harm_costs_entries_at_most(harms in prop::collection::vec((prop::collection::vec(harm(), 1..4), any::<u8>()), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = in_sled(folder.path());
        let first: Vec<Change> = (0..200).map(|k| put(k, 0)).collect();
        catalogue.save(&first).unwrap();
        for (harms, seed) in harms {
            for harm in &harms {
                if !files(folder.path()).is_empty() {
                    inflict(folder.path(), harm);
                }
            }
            load(&catalogue);
            let more: Vec<Change> = (100..150).map(|k| put(k, seed)).collect();
            if catalogue.save(&more).is_err() {
                // It could be read, but not be written to.
                catalogue.clear().unwrap();
                catalogue.save(&more).unwrap();
            }
            let there = load(&catalogue);
            for change in more {
                let value = there.get(&change.key);
                prop_assert!(value.is_none() || value == change.value.as_ref());
            }
        }
    }
}
