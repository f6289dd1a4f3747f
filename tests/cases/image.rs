//! A checkpoint's memory equals what gdb's gcore takes at the same stop, byte for byte.

use std::process::Command;
use std::time::Duration;

use testkit::{Dice, Sls, Target, compare_with_core, rounds_of, wait_until};

/// Suspends at random moments, takes a checkpoint and a core, compares.
fn equals_gcore(sls: &Sls, target: &mut Target, times: u64) {
    sls.run(&["partadd", "memory", "-o", "mem", "--budget", "1G"]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "20"]);
    let mut dice = Dice::new(times);
    let mut bytes = 0;
    for _ in 0..times {
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        sls.run(&["suspend", "-o", "mem"]);
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        let prefix = sls.folder().join("core").display().to_string();
        let core = sls.folder().join(format!("core.{}", target.pid()));
        // Refused while a periodic checkpoint has the process.
        wait_until(Duration::from_secs(60), "a core", || {
            let mut gcore = Command::new("gcore");
            gcore.args(["-o", &prefix, &target.p()]).output().unwrap();
            core.exists()
        });
        bytes += compare_with_core(&sls.socket(), "mem", epoch, &core);
        std::fs::remove_file(core).unwrap();
        sls.run(&["resume", "-o", "mem"]);
        target.assert_alive();
    }
    println!("{times} checkpoints, {bytes} bytes equal");
    assert!(bytes > times * 100_000);
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

fn of_the_mutator(mask: &str, times: u64) {
    let sls = Sls::masked(mask);
    let mut target = Target::tracee(sls.folder(), "mutator", &["50"]);
    equals_gcore(&sls, &mut target, times);
}

#[test]
fn of_a_mutator() {
    of_the_mutator("", rounds_of(30, 200));
}

#[test]
fn of_a_mutator_without_wp_async() {
    of_the_mutator("wp_async", rounds_of(30, 200));
}

#[test]
fn of_a_mutator_without_pagemap_scan() {
    of_the_mutator("wp_async,pagemap_scan", rounds_of(25, 200));
}

#[test]
fn of_redis() {
    let sls = Sls::new();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", "0", "--unixsocket"])
        .arg(sls.folder().join("redis"));
    command.args(["--save", "", "--dir"]).arg(sls.folder());
    let mut target = Target::start(sls.folder(), command);
    std::thread::sleep(Duration::from_millis(500));
    equals_gcore(&sls, &mut target, rounds_of(30, 200));
}
