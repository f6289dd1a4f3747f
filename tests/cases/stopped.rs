//! Processes that are stopped by a signal before they are attached to: they stay so.

use std::time::{Duration, Instant};

use testkit::{Sls, Target, field, kill, threads, wait_until};

fn is_stopped(target: &Target) -> bool {
    field(target.pid(), "State:").starts_with('T')
}

/// A ticker that SIGSTOP has stopped, then attached to.
fn stopped(sls: &Sls, how: &[&str]) -> Target {
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    // Its threads have started by then: what a thread is while libc makes it is not asked here.
    std::thread::sleep(Duration::from_millis(100));
    kill(target.pid(), 19);
    wait_until(Duration::from_secs(5), "it is stopped", || {
        is_stopped(&target)
    });
    sls.run(&[&["attach", "-p", &target.p(), "-m"], how].concat());
    target
}

fn counter(sls: &Sls, target: &Target) -> i64 {
    let live = format!("pid:{}", target.p());
    sls.json(&["print", &live, "counter"])["value"]
        .as_i64()
        .unwrap()
}

/// It does nothing for a while. Nobody looks at it by a stop meanwhile: that would stop it again.
fn assert_stands(sls: &Sls, target: &Target, after: &str) {
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        let states = threads(target.pid())
            .into_iter()
            .map(|tid| field(tid, "State:"));
        // R: on its way into the stop, which is not the program's code.
        let sleeps = states.filter(|s| s.starts_with('S')).count();
        assert_eq!(sleeps, 0, "so many threads go on after {after}");
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = counter(sls, target);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(counter(sls, target), before, "it runs after {after}");
}

fn assert_goes_on(sls: &Sls, target: &Target) {
    kill(target.pid(), 18);
    let before = counter(sls, target);
    wait_until(Duration::from_secs(5), "it runs on", || {
        counter(sls, target) > before
    });
}

fn checkpoint(sls: &Sls) -> String {
    format!("@{}", sls.json(&["checkpoint", "-m"])["epoch"])
}

fn stays_as_it_was(how: &[&str]) {
    let sls = Sls::new();
    let mut target = stopped(&sls, how);
    assert_stands(&sls, &target, "attach");
    let epoch = checkpoint(&sls);
    assert_stands(&sls, &target, "a checkpoint");
    sls.run(&["rewind", "-m", &epoch]);
    assert_stands(&sls, &target, "a rewind");
    sls.run(&["detach", "-p", &target.p()]);
    wait_until(Duration::from_secs(5), "it is stopped and untraced", || {
        is_stopped(&target) && field(target.pid(), "TracerPid:") == "0"
    });
    kill(target.pid(), 18);
    target.assert_unharmed();
}

fn goes_on_when_told(how: &[&str]) {
    let sls = Sls::new();
    let mut target = stopped(&sls, how);
    let epoch = checkpoint(&sls);
    sls.run(&["rewind", "-m", &epoch]);
    assert_stands(&sls, &target, "a rewind");
    assert_goes_on(&sls, &target);
    let then = sls.json(&["print", "-m", &epoch, "counter"])["value"]
        .as_i64()
        .unwrap();
    assert!(counter(&sls, &target) > then);
    sls.run(&["rewind", "-m", &epoch]);
    sls.run(&["detach", "-p", &target.p()]);
    kill(target.pid(), 18);
    target.assert_unharmed();
}

#[test]
fn held_it_stays_stopped() {
    stays_as_it_was(&["--hold"]);
}

#[test]
fn held_it_goes_on_when_told() {
    goes_on_when_told(&["--hold"]);
}

#[test]
fn held_and_checkpointed_it_goes_on_when_told() {
    goes_on_when_told(&["--hold", "-t", "5"]);
}

#[test]
fn untraced_it_stays_stopped() {
    stays_as_it_was(&[]);
}

#[test]
fn untraced_it_goes_on_when_told() {
    goes_on_when_told(&[]);
}
