//! What is known of stores that are closed: it spares opening and reading, and changes no answer.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use testkit::{Sls, end, program, wait_until};

use crate::stores::{fsck, history};

const SOON: Duration = Duration::from_secs(20);

/// A store with two histories of a few checkpoints, and nothing left in memory.
fn filled(sls: &Sls) -> (PathBuf, String) {
    let path = sls.folder().join("kept.store");
    let made = Command::new(program("newfs_sls"))
        .args(["--size", "64M"])
        .arg(&path)
        .output();
    assert!(made.unwrap().status.success());
    let store = path.to_str().unwrap().to_owned();
    let target = sls.tracee("ticker", &[]);
    for part in ["web", "db"] {
        sls.run(&["attach", "-p", &target.p(), "-o", part]);
        for n in 0..4 {
            sls.run(&["checkpoint", "-o", part, "-n", &format!("{part}{n}")]);
        }
        sls.run(&["export", "-o", part, "--to", &store]);
        sls.run(&["partdel", "-o", part]);
    }
    (path, store)
}

fn listed(sls: &Sls, store: &str) -> Value {
    sls.json(&["listsnaps", "--store", store])
}

/// Once the daemon has closed it, a listing leaves the store as it is.
fn until_known(sls: &Sls, path: &Path) -> Value {
    wait_until(SOON, "the store is closed", || {
        let file = fs::File::open(path).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
    });
    let before = fs::read(path).unwrap();
    let told = listed(sls, path.to_str().unwrap());
    assert!(before == fs::read(path).unwrap(), "it was opened");
    told
}

fn catalogue(sls: &Sls) -> PathBuf {
    libsls::state_folder(&sls.socket()).join("catalogue")
}

fn files(sls: &Sls) -> Vec<PathBuf> {
    let all = fs::read_dir(catalogue(sls)).unwrap().flatten();
    let mut files: Vec<PathBuf> = all.map(|e| e.path()).filter(|p| p.is_file()).collect();
    files.sort();
    files
}

/// Daemons come and go; each finds what the last one knew, and nobody opens the store to list it.
#[test]
fn a_closed_store_is_listed_and_opened_by_what_is_known_of_it() {
    let sls = Sls::new();
    let (path, store) = filled(&sls);
    let opened = listed(&sls, &store);
    assert_eq!(opened["snapshots"].as_array().unwrap().len(), 8);
    assert_eq!(until_known(&sls, &path), opened);
    end(sls.daemon(), 15);
    let before = fs::read(&path).unwrap();
    assert_eq!(listed(&sls, &store), opened);
    assert!(
        before == fs::read(&path).unwrap(),
        "the next daemon knows it"
    );
    for part in ["once", "twice"] {
        sls.run(&["import", &store, "--from", "web", "-o", part]);
        assert_eq!(history(&sls, part).len(), 4);
        assert_eq!(until_known(&sls, &path), opened);
    }
    let log = sls.log();
    let skims = |line: &&str| line.contains("store opened") && !line.contains("skimmed=0");
    assert!(log.lines().any(|line| skims(&line)), "{log}");
    // A change by somebody else is seen.
    let other = Sls::new();
    other.run(&["partdel", "-o", "db", "--store", &store]);
    end(other.daemon(), 15);
    let left = listed(&sls, &store);
    let left: Vec<&Value> = left["snapshots"].as_array().unwrap().iter().collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.iter().all(|row| row["partition"] == "web"));
    let log = sls.log();
    assert!(!log.contains(" WARN ") && !log.contains("ERROR"), "{log}");
}

/// Whatever becomes of the catalogue between daemons.
#[test]
fn no_answer_changes_when_the_catalogue_is_scribbled_on() {
    let sls = Sls::new();
    let (path, store) = filled(&sls);
    let opened = until_known(&sls, &path);
    sls.run(&["import", &store, "--from", "web", "-o", "first"]);
    let whole = history(&sls, "first");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    for round in 0..testkit::rounds(3) {
        until_known(&sls, &path);
        end(sls.daemon(), if next(2) == 0 { 9 } else { 15 });
        let there = files(&sls);
        let file = &there[next(there.len())];
        let open = || OpenOptions::new().write(true).open(file).unwrap();
        let length = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        match round % 5 {
            3 => fs::remove_dir_all(catalogue(&sls)).unwrap(),
            1 => (0..8).for_each(|_| {
                open()
                    .write_all_at(&[0xa5], next(length.max(1)) as u64)
                    .unwrap()
            }),
            2 => open().set_len(next(length.max(1)) as u64).unwrap(),
            4 => fs::write(catalogue(&sls).join("snap.0000000000000001.generating"), "").unwrap(),
            _ => fs::write(catalogue(&sls).join("db"), vec![0x5a; 40_000]).unwrap(),
        }
        assert_eq!(listed(&sls, &store), opened, "round {round}");
        let part = format!("back{round}");
        sls.run(&["import", &store, "--from", "web", "-o", &part]);
        assert_eq!(history(&sls, &part), whole, "round {round}");
        sls.run(&["partdel", "-o", &part]);
        assert_eq!(fsck(&sls, &store, &[]).0, 0, "round {round}");
    }
    let log = sls.log();
    assert!(
        log.contains("begun anew"),
        "it was there, and damaged: {log}"
    );
}

/// One that cannot be kept is done without, and that is said once.
#[test]
fn a_catalogue_that_somebody_holds_is_done_without() {
    let sls = Sls::new();
    let (path, store) = filled(&sls);
    let opened = until_known(&sls, &path);
    end(sls.daemon(), 15);
    let lock = fs::File::open(catalogue(&sls).join("lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    assert_eq!(listed(&sls, &store), opened);
    assert_eq!(until_known(&sls, &path), opened, "from memory");
    let log = sls.log();
    let said = log.lines().filter(|l| l.contains("WARN")).count();
    assert!(
        said == 1 && log.contains("in use by another process"),
        "{log}"
    );
    drop(lock);
}
