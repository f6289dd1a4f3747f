//! Processes that share the target's memory without being of it: they stand still with it, feel as little of that, and
//! keep it from being rewound.

use std::time::Duration;

use testkit::{Sls, Target, field, wait_until};

use crate::trust::mutator::Mutator;

fn checkpoint(sls: &Sls) -> u64 {
    sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap()
}

/// Children of the process that share its memory.
fn siblings(target: &Target) -> Vec<i32> {
    let mut children = testkit::children(target.pid());
    children.retain(|&child| sls_sys::fd::same_memory(target.pid(), child).unwrap_or(false));
    children
}

#[test]
fn none_of_them_writes_while_a_checkpoint_is_taken() {
    let sls = Sls::new();
    let mut mutator = Mutator::start(&sls, "order sharing vfork");
    sls.run(&["attach", "-p", &mutator.target.p(), "-m"]);
    let epochs: Vec<u64> = (0..200).map(|_| checkpoint(&sls)).collect();
    sls.run(&["detach", "-p", &mutator.target.p()]);
    mutator.assert_whole();
    for look in mutator.look(&sls, &epochs) {
        assert!(look.wrong.is_empty(), "{:#?}", look.wrong);
    }
}

#[test]
fn a_rewind_is_refused_as_long_as_one_lives() {
    let sls = Sls::new();
    let mut mutator = Mutator::start(&sls, "sharing");
    sls.run(&["attach", "-p", &mutator.target.p(), "-m"]);
    let epoch = checkpoint(&sls);
    let says = "shares its memory (CLONE_VM)";
    sls.refused(&["rewind", "-m", &format!("@{epoch}")], 1, says);
    mutator.assert_whole();
    for sibling in siblings(&mutator.target) {
        let free = || ["0", ""].contains(&field(sibling, "TracerPid:").as_str()); // Or it has ended.
        wait_until(Duration::from_secs(5), "nobody traces it", free);
    }
    let next = checkpoint(&sls);
    sls.run(&["detach", "-p", &mutator.target.p()]);
    for look in mutator.look(&sls, &[epoch, next]) {
        assert!(look.wrong.is_empty(), "{:#?}", look.wrong);
    }
}

/// A stop that is given up, since a thread is in vfork, harms no call of those that did stop.
#[test]
fn no_call_is_harmed_by_a_stop_that_is_given_up() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "vforks", &["1500000", "sibling"]);
    wait_until(Duration::from_secs(10), "attached", || {
        sls.try_run(&["attach", "-p", &target.p(), "-m"]).code == 0
    });
    let mut refused = 0;
    let mut taken = 0;
    while refused < 2 || taken < 2 {
        let out = sls.try_run(&["checkpoint", "-m"]);
        match out.code {
            0 => taken += 1,
            _ if out.stderr.contains("did not stop in time") => refused += 1,
            _ => panic!("{}", out.stderr),
        }
        target.assert_alive();
        std::thread::sleep(Duration::from_millis(40));
    }
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

/// Calls of a process that shares the memory end on time and without EINTR.
#[test]
fn their_calls_are_not_harmed() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "vforks", &["2000", "sibling"]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
    std::thread::sleep(Duration::from_secs(3));
    let taken = sls.json(&["stat"])["partitions"][0]["taken"]
        .as_u64()
        .unwrap();
    assert!(taken > 30, "{taken}");
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}
