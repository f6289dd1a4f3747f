//! Processes that exec, fork or end under capture.

use std::time::Duration;

use testkit::{Lives, Sls, Target};

fn lives(sls: &Sls, what: &str) -> Lives {
    Lives::attached(sls, what, &["-t", "5"])
}

#[test]
fn exec_goes_on_in_the_same_history() {
    let sls = Sls::new();
    let mut target = lives(&sls, "exec");
    std::thread::sleep(Duration::from_millis(100));
    let before = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    target.go();
    std::thread::sleep(Duration::from_millis(200));
    let after = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    let generation = |epoch: u64| {
        sls.json(&["print", "-m", &format!("@{epoch}"), "generation"])["value"]
            .as_i64()
            .unwrap()
    };
    assert_eq!((generation(before), generation(after)), (0, 1));
    sls.refused(
        &["rewind", "-m", &format!("@{before}")],
        1,
        "executed another program",
    );
    target.assert_unharmed();
    target.go();
    assert_eq!(target.wait(Duration::from_secs(10)).code(), Some(7));
}

#[test]
fn a_forked_child_runs_on_untouched() {
    let sls = Sls::new();
    let mut target = lives(&sls, "fork");
    target.go();
    target.assert_both_unharmed(&sls);
}

#[test]
fn a_process_that_ends_leaves_its_history() {
    let sls = Sls::new();
    let mut target = lives(&sls, "exit");
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    target.go();
    assert_eq!(target.wait(Duration::from_secs(10)).code(), Some(7));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(sls.json(&["ps"])["processes"][0]["state"], "dead");
    sls.refused(&["checkpoint", "-m"], 1, "has ended");
    let value = sls.json(&["print", "-m", &format!("@{epoch}"), "before_it"])["value"].clone();
    assert_eq!(value, 41);
}

/// A period is of an attachment, or else of the partition.
#[test]
fn the_next_run_is_compared_with_the_last() {
    let sls = Sls::new();
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let mut target = Target::tracee(sls.folder(), "ticker", &[]);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        let taken = sls.json(&["checkpoint", "-m"]);
        epochs.push(format!("@{}", taken["epoch"]));
        testkit::kill(target.pid(), 9);
        target.wait(Duration::from_secs(5));
    }
    let differ = sls.json(&["diff", "-m", &epochs[0], &epochs[1], "--pages"]);
    assert!(!differ["pages"].as_array().unwrap().is_empty(), "{differ}");
}

#[test]
fn a_period_is_not_the_next_ones() {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    let period = |how: &[&str]| {
        sls.run(&[&["attach", "-p", &target.p(), "-m"], how].concat());
        std::thread::sleep(Duration::from_millis(100));
        let ms = sls.json(&["ps"])["processes"][0]["period_ms"].clone();
        sls.run(&["detach", "-o", "mem"]);
        let history = sls.json(&["history", "-m"]);
        (ms, history["checkpoints"].as_array().unwrap().len())
    };
    let (ms, taken) = period(&["-t", "5"]);
    assert_eq!(ms, 5);
    assert!(taken > 0);
    assert_eq!(period(&[]), (serde_json::Value::Null, taken));
    sls.run(&["partdel", "-m"]);
    sls.run(&["partadd", "memory", "-o", "mem", "-t", "7"]);
    assert_eq!(period(&["-t", "5"]).0, 5);
    assert_eq!(period(&[]).0, 7);
}

/// Killed at a random moment of a checkpoint, fifty times: a clear error and a daemon that serves on.
#[test]
fn a_pid_that_dies_between_stop_and_copy() {
    let sls = Sls::new();
    sls.run(&["partadd", "memory", "-o", "mem", "--budget", "256M"]);
    for round in 0..50 {
        let target = Target::tracee(sls.folder(), "ticker", &[]);
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "1"]);
        std::thread::sleep(Duration::from_micros(20_000 + round * 137));
        drop(target);
        std::thread::sleep(Duration::from_millis(5));
        let out = sls.try_run(&["checkpoint", "-m"]);
        assert_eq!(out.code, 1, "{out:?}");
        assert!(out.stderr.contains("has ended"), "{out:?}");
        sls.run(&["detach", "-o", "mem"]);
    }
}
