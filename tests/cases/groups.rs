//! Several processes in one partition.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::{Ring, Sls, Target, wait_until};

fn epoch_of(taken: &Value) -> u64 {
    taken["epoch"].as_u64().unwrap()
}

#[test]
fn each_checkpoint_is_one_cut_and_a_rewind_goes_back_to_it() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 5, &["-t", "5"]);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        let epoch = epoch_of(&sls.json(&["checkpoint", "-m"]));
        ring.assert_one_cut(&sls, epoch);
        ring.assert_one_cut(&sls, epoch - 1);
        let history = sls.json(&["history", "-m"]);
        let row = history["checkpoints"].as_array().unwrap().last().unwrap();
        assert_eq!(row["pids"].as_array().unwrap().len(), 5, "{row}");
        let back = format!("@{}", epoch - epoch.min(7) / 2);
        sls.run(&["rewind", "-m", &back]);
        ring.assert_goes_round("afterwards");
    }
    sls.run(&["detach", "-p", &ring.target.p()]);
    assert!(sls.pids().is_empty());
    ring.assert_goes_round("afterwards");
}

#[test]
fn a_rewind_takes_back_what_went_through_pipes_between_them() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 3, &[]);
    let epoch = epoch_of(&sls.json(&["checkpoint", "-m"]));
    let at = format!("@{epoch}");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        let done = sls.json(&["rewind", "-m", &at, "-s"]);
        let lines = done["not_restored"].to_string();
        assert!(!lines.contains("pipe"), "{lines}");
        let now = epoch_of(&sls.json(&["checkpoint", "-m"]));
        assert_eq!(ring.notes(&sls, now), ring.notes(&sls, epoch));
        sls.run(&["resume", "-m"]);
    }
    ring.assert_goes_round("afterwards");
}

#[test]
fn those_that_are_born_later_join_and_those_that_end_leave() {
    let sls = Sls::new();
    let mut shell = Command::new("bash");
    // Each child lives for a while, so that several are there at a time.
    shell.args(["-c", "echo ready; while :; do sleep 0.2 & sleep 0.05; done"]);
    let shell = Target::ready(sls.folder(), shell);
    sls.run(&["attach", "-p", &shell.p(), "-m", "-r", "-t", "20"]);
    let mut most = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        most = most.max(sls.pids().len());
    }
    assert!((3..20).contains(&most), "{most}");
    let history = sls.json(&["history", "-m"]);
    let rows = history["checkpoints"].as_array().unwrap();
    let mut seen: Vec<&Value> = rows
        .iter()
        .flat_map(|row| row["pids"].as_array().unwrap())
        .collect();
    seen.sort_by_key(|pid| pid.as_i64());
    seen.dedup();
    assert!(seen.len() > 8, "{} processes, {rows:?}", seen.len());
    assert_eq!(rows.last().unwrap()["pids"][0], shell.pid());
    assert_eq!(sls.json(&["ps"])["processes"][0]["trouble"], Value::Null);
    sls.run(&["detach", "-m"]);
}

#[test]
fn a_process_that_was_made_or_has_ended_since_is_named() {
    let sls = Sls::new();
    let fifo = sls.folder().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut shell = Command::new("bash");
    let script = format!(
        "exec 3<>{}; echo ready; while read -u 3 line; do sleep $line & echo made; done",
        fifo.display()
    );
    shell.args(["-c", &script]);
    let shell = Target::ready(sls.folder(), shell);
    sls.run(&["attach", "-p", &shell.p(), "-m", "-r"]);
    let alone = epoch_of(&sls.json(&["checkpoint", "-m"]));
    std::fs::write(&fifo, "1000\n").unwrap();
    wait_until(Duration::from_secs(10), "a child", || {
        shell.output().contains("made")
    });
    let both = epoch_of(&sls.json(&["checkpoint", "-m"]));
    let child = sls.pids()[1];
    let says = format!("process {child} (sleep) was made since");
    sls.refused(&["rewind", "-m", &format!("@{alone}")], 1, &says);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_until(Duration::from_secs(10), "it is gone", || {
        sls.pids().len() == 1
    });
    sls.refused(&["rewind", "-m", &format!("@{both}")], 1, "has ended since");
    sls.run(&["detach", "-m"]);
}

#[test]
fn one_more_process_joins_a_partition_and_one_leaves_it() {
    let sls = Sls::new();
    let one = Target::tracee(sls.folder(), "ticker", &[]);
    let mut other = Command::new("sleep");
    other.arg("1000").stdin(Stdio::null());
    let mut other = Target::start(sls.folder(), other);
    sls.run(&["attach", "-p", &one.p(), "-m", "-t", "10"]);
    sls.run(&["attach", "-p", &other.p(), "-m"]);
    assert_eq!(sls.pids(), [one.pid(), other.pid()]);
    sls.json(&["checkpoint", "-m"]);
    let maps = sls.json(&["maps", "-m", "--pid", &other.p()]).to_string();
    assert!(maps.contains("/sleep"), "{maps}");
    let ps = sls.json(&["ps"]);
    assert_eq!(ps["processes"][1]["period_ms"], 10);
    sls.run(&["detach", "-p", &other.p()]);
    other.assert_unharmed();
    assert_eq!(sls.pids(), [one.pid()]);
    sls.json(&["checkpoint", "-m"]);
    sls.run(&["detach", "-m"]);
}

#[test]
fn a_daemon_that_is_killed_leaves_a_group_unharmed_and_the_next_takes_it() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 4, &["-t", "5"]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        sls.kill_daemon();
        ring.assert_goes_round("afterwards");
        sls.run(&["attach", "-p", &ring.target.p(), "-m", "-r", "-t", "5"]);
        assert_eq!(sls.pids().len(), 4);
        let epoch = epoch_of(&sls.json(&["checkpoint", "-m"]));
        ring.assert_one_cut(&sls, epoch);
        sls.run(&["rewind", "-m", "@2"]);
        ring.assert_goes_round("afterwards");
    }
}

/// The bar of the group: one stop for all of it.
#[test]
fn a_hundred_processes_in_one_stop() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 100, &[]);
    for _ in 0..3 {
        let taken = sls.json(&["checkpoint", "-m"]);
        ring.assert_one_cut(&sls, epoch_of(&taken));
    }
    sls.run(&["rewind", "-m", "@2"]);
    sls.run(&["detach", "-m"]);
    ring.assert_goes_round("afterwards");
}
