//! slsd killed with -9 at a random moment, on a busy machine: the target runs on, or is put right.

use std::time::Duration;

use testkit::{Dice, Load, Row, Sls, Target, rounds_of, seed};

fn descriptors(target: &Target) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", target.pid()))
        .unwrap()
        .count()
}

/// A row of tries that the target survives unharmed, or the test has panicked before.
fn row(campaign: &str, usual_seed: u64) -> Row {
    let tries = rounds_of(100, 1000);
    Row {
        campaign: campaign.to_owned(),
        seed: seed(usual_seed),
        tries,
        unharmed: tries,
        ..Row::default()
    }
}

/// Kills the daemon while it takes checkpoints at full speed.
#[test]
fn while_checkpointing() {
    let sls = Sls::new();
    let _load = Load::begin();
    let row = row("killed while it takes checkpoints", 42);
    let mut dice = Dice::new(row.seed);
    let mut target = Target::tracee(sls.folder(), "invariants", &[]);
    let before = descriptors(&target);
    for _ in 0..row.tries {
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "1"]);
        std::thread::sleep(Duration::from_micros(2_000 + dice.below(30_000)));
        sls.kill_daemon();
        target.assert_unharmed();
    }
    assert!(!target.output().contains("FAIL"), "{}", target.output());
    // A kill between the injected userfaultfd and close may leave one.
    assert!(
        descriptors(&target) <= before + 1,
        "{} were {before}",
        descriptors(&target)
    );
    row.report();
}

/// Kills the daemon while it rewinds.
#[test]
fn while_rewinding() {
    let sls = Sls::new();
    let _load = Load::begin();
    let row = row("killed while it rewinds", 7);
    let mut dice = Dice::new(row.seed);
    let mut target = Target::tracee(sls.folder(), "invariants", &[]);
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
