//! Records that are damaged in the log: a restore says so, and makes nothing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::{Dice, Ring, Sls, Target, children, end_all, is_gone, rounds_of, seed, wait_until};

const SOON: Duration = Duration::from_secs(20);
/// The first bytes of a record.
const MAGIC: &[u8] = b"SLSr";

/// Where the record of the only checkpoint is.
fn record_in(folder: &Path) -> Option<(PathBuf, usize)> {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = if path.is_dir() {
            record_in(&path)
        } else {
            let bytes = fs::read(&path).unwrap();
            let at = bytes.windows(MAGIC.len()).position(|w| w == MAGIC);
            at.map(|at| (path, at))
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Each damage of the record for a moment: the restore fails by name, and none of these is there.
fn never_a_process(sls: &Sls, pids: &[i32]) {
    let (path, at) = record_in(&sls.memory()).expect("the record is in the log");
    let log = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut dice = Dice::new(seed(29));
    for _ in 0..rounds_of(20, 300) {
        let at = (at as u64) + dice.below(500);
        let mut was = [0];
        log.read_exact_at(&mut was, at).unwrap();
        let bits = 1 + u8::try_from(dice.below(255)).unwrap();
        log.write_all_at(&[was[0] ^ bits], at).unwrap();
        sls.refused(
            &["restore", "-m", "-d", "@1"],
            1,
            "the record of checkpoint @1 is damaged",
        );
        assert!(pids.iter().all(|&pid| is_gone(pid)), "a process was made");
        log.write_all_at(&was, at).unwrap();
    }
    let daemon = sls.daemon();
    wait_until(SOON, "no keeper", || children(daemon).is_empty());
}

#[test]
fn a_program_with_threads() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    let pids = [target.pid()];
    end_all(&mut target, &pids);
    never_a_process(&sls, &pids);
    // Found by the next daemon too, which has it from the log.
    let (path, at) = record_in(&sls.memory()).unwrap();
    let log = OpenOptions::new().write(true).open(path).unwrap();
    log.write_all_at(&[0xff; 8], at as u64 + 100).unwrap();
    sls.kill_daemon();
    let out = sls.try_run(&["restore", "-m", "-d", "@1"]);
    assert_eq!(out.code, 1, "{out:?}");
    assert!(is_gone(pids[0]));
}

#[test]
fn a_tree() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 3, &[]);
    sls.run(&["checkpoint", "-m"]);
    let pids = ring.pids.clone();
    end_all(&mut ring.target, &pids);
    never_a_process(&sls, &pids);
    let (again, _) = testkit::Again::made(&sls, &["@1"]);
    again.end();
}
