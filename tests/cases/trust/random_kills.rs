//! slsd killed with -9 at a random moment, on a busy machine: the target runs on, or is put right.

use std::time::Duration;

use testkit::{Dice, Load, Row, Sls, descriptors, rounds_of, seed};

use super::fallback::named;

/// A row of tries that the target survives unharmed, or the test has panicked before.
fn row(campaign: &str, about: &str, without: &str, short: u64, usual_seed: u64) -> Row {
    let tries = rounds_of(short, 1000);
    Row {
        campaign: named(campaign, without),
        about: about.to_owned(),
        seed: seed(usual_seed),
        tries,
        unharmed: tries,
        ..Row::default()
    }
}

#[test]
fn while_checkpointing() {
    checkpointing("", 100);
}

#[test]
fn while_rewinding() {
    rewinding("", 100);
}

/// Without something: one of them, or both in `./x soak`.
pub fn without(what: &str, short: u64) {
    checkpointing(what, short);
    if testkit::whole() {
        rewinding(what, short);
    }
}

/// Kills the daemon while it takes checkpoints at full speed.
fn checkpointing(without: &str, short: u64) {
    let sls = Sls::without(without);
    let _load = Load::begin();
    let row = row(
        "killed while it takes checkpoints",
        "slsd is killed with -9 at a random moment while it takes a checkpoint each millisecond of a program that checks itself",
        without,
        short,
        42,
    );
    let mut dice = Dice::new(row.seed);
    let mut target = sls.tracee("invariants", &[]);
    let before = descriptors(target.pid());
    for _ in 0..row.tries {
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "1"]);
        std::thread::sleep(Duration::from_micros(2_000 + dice.below(30_000)));
        sls.kill_daemon();
        target.assert_unharmed();
    }
    assert!(!target.output().contains("FAIL"), "{}", target.output());
    // A kill between the injected userfaultfd and close may leave one.
    assert!(
        descriptors(target.pid()) <= before + 1,
        "{} were {before}",
        descriptors(target.pid())
    );
    row.report();
}

/// Kills the daemon while it rewinds.
fn rewinding(without: &str, short: u64) {
    let sls = Sls::without(without);
    let _load = Load::begin();
    let row = row(
        "killed while it rewinds",
        "slsd is killed with -9 at a random moment of a rewind of a program that checks itself",
        without,
        short,
        7,
    );
    let mut dice = Dice::new(row.seed);
    let mut target = sls.tracee("invariants", &[]);
    for _ in 0..row.tries {
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let mut rewind = sls
            .command(&["rewind", "-m", &format!("@{epoch}")])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(dice.below(25_000)));
        sls.kill_daemon();
        // Refused because the daemon went, or done before.
        let _ = rewind.wait().unwrap();
        target.assert_unharmed();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(!target.output().contains("FAIL"), "{}", target.output());
    row.report();
}
