//! slsd killed with -9 at a random moment: the target runs on, or is put right.

use std::time::Duration;

use testkit::{Sls, Target, children, kill, rounds};

use crate::campaign::Dice;

fn descriptors(target: &Target) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", target.pid()))
        .unwrap()
        .count()
}

/// Kills the daemon while it takes checkpoints at full speed.
#[test]
fn while_checkpointing() {
    let sls = Sls::new();
    let mut dice = Dice::new(42);
    let mut target = Target::tracee(sls.folder(), "invariants", &[]);
    let before = descriptors(&target);
    for _ in 0..rounds(100) {
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
}

/// Kills the daemon while it rewinds.
#[test]
fn while_rewinding() {
    let sls = Sls::new();
    let mut dice = Dice::new(7);
    let mut target = Target::tracee(sls.folder(), "invariants", &[]);
    for _ in 0..rounds(100) {
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
}

/// Who attaches right after is not told of a debugger that is only letting go.
#[test]
fn the_keeper_may_take_its_time_to_let_go() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m", "--hold"]);
    let keepers = children(sls.daemon());
    keepers.iter().for_each(|keeper| kill(*keeper, 19));
    sls.kill_daemon();
    let mut attach = sls
        .command(&["attach", "-p", &target.p(), "-m"])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    keepers.iter().for_each(|keeper| kill(*keeper, 18));
    assert!(attach.wait().unwrap().success());
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}
