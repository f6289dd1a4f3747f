//! Several processes in one partition.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::{Ring, Sls, Target, children, is_gone, kill, wait_gone, wait_until};

const SOON: Duration = Duration::from_secs(10);

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

/// A shell that does what it reads from a pipe with a name, and tells of every child's end.
struct Obeys {
    shell: Target,
    fifo: PathBuf,
}

impl Obeys {
    fn begun(sls: &Sls) -> Self {
        let fifo = sls.folder().join("go");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "trap 'echo child' CHLD; exec 3<>{} >>{} 2>/dev/null; echo ready; while :; do read -u 3 line && eval \"$line\"; done",
            fifo.display(),
            // What it said before a rewind is not written over.
            sls.folder().join("bash.out").display()
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        let shell = Target::ready(sls.folder(), command);
        Self { shell, fifo }
    }

    /// Has it do something, which it says to have done.
    fn does(&self, what: &str) {
        let said = self.shell.output().matches("done").count();
        std::fs::write(&self.fifo, format!("{what}\necho done\n")).unwrap();
        wait_until(SOON, what, || {
            self.shell.output().matches("done").count() > said
        });
    }
}

#[test]
fn a_process_that_was_made_since_is_unmade() {
    let sls = Sls::new();
    let obeys = Obeys::begun(&sls);
    sls.run(&["attach", "-p", &obeys.shell.p(), "-m", "-r", "-t", "10"]);
    for round in 0..5 {
        let alone = epoch_of(&sls.json(&["checkpoint", "-m"]));
        obeys.does("sleep 1000 & (setsid sleep 1001 & sleep 1002; :) &");
        wait_until(SOON, "three sleep", || sls.pids().len() == 5);
        let made = sls.pids();
        let done = sls.json(&["rewind", "-m", &format!("@{alone}")]);
        let lines = done["not_restored"].to_string();
        assert!(!lines.contains("process"), "{lines}");
        assert!(is_gone(made[1]), "a child of its own");
        wait_gone(&made[2..]); // Orphans, of whom init takes note.
        assert_eq!(sls.pids(), [obeys.shell.pid()], "round {round}");
        // Not a word of them: no job, nobody to wait for, no signal.
        obeys.does("jobs; wait");
        let said = obeys.shell.output();
        assert!(!said.contains("child") && !said.contains("sleep"), "{said}");
    }
    obeys.does("sleep 0.01; wait");
    let said = obeys.shell.output();
    assert!(said.contains("child"), "its trap works: {said}");
    sls.run(&["detach", "-m"]);
}

#[test]
fn orphans_made_since_are_unmade_with_who_takes_them_in() {
    const REAPER: &str = "
import ctypes, os, time, sys
ctypes.CDLL(None).prctl(36, 1)
print('ready', flush=True)
while True:
    if os.path.exists('go'):
        os.unlink('go')
        if os.fork() == 0:
            if os.fork() == 0:
                while True: time.sleep(0.01)
            while True: time.sleep(0.01)
        print('made', flush=True)
    try:
        print('an end', os.waitpid(-1, os.WNOHANG), flush=True) if not os.path.exists('quiet') else 0
    except ChildProcessError: pass
    time.sleep(0.01)
";
    let sls = Sls::new();
    let folder = sls.folder();
    std::fs::write(folder.join("quiet"), "").unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", REAPER]).current_dir(folder);
    let mut python = Target::ready(folder, python);
    sls.run(&["attach", "-p", &python.p(), "-m", "-r"]);
    let alone = epoch_of(&sls.json(&["checkpoint", "-m"]));
    std::fs::write(folder.join("go"), "").unwrap();
    wait_until(SOON, "it has made two", || {
        sls.run(&["checkpoint", "-m"]);
        sls.pids().len() == 3
    });
    let made = sls.pids();
    sls.run(&["rewind", "-m", &format!("@{alone}")]);
    assert!(made[1..].iter().all(|&pid| is_gone(pid)), "{made:?}");
    // It asks for any end there is: there is no child at all.
    std::fs::remove_file(folder.join("quiet")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let said = python.output();
    assert!(!said.contains("an end"), "{said}");
    python.assert_unharmed();
    sls.run(&["detach", "-m"]);
}

#[test]
fn one_that_was_there_already_is_not_unmade() {
    let sls = Sls::new();
    let obeys = Obeys::begun(&sls);
    obeys.does("sleep 1000 &");
    sls.run(&["attach", "-p", &obeys.shell.p(), "-m"]);
    let without = epoch_of(&sls.json(&["checkpoint", "-m"]));
    let mut stranger = Command::new("sleep");
    stranger.arg("1000").stdin(Stdio::null());
    let mut stranger = Target::start(sls.folder(), stranger);
    sls.run(&["attach", "-p", &stranger.p(), "-m"]);
    let back = format!("@{without}");
    let is_named = |pid: i32, name: &str| {
        let says = format!("process {pid} ({name}) is of the partition now, and was not then");
        sls.refused(&["rewind", "-m", &back], 1, &says);
    };
    // Not made by them, although since.
    is_named(stranger.pid(), "sleep");
    sls.run(&["detach", "-p", &stranger.p()]);
    sls.run(&["rewind", "-m", &back]);
    // A child from before, which was attached to later.
    let child = children(obeys.shell.pid())[0];
    sls.run(&["attach", "-p", &child.to_string(), "-m"]);
    is_named(child, "sleep");
    stranger.assert_unharmed();
    sls.run(&["detach", "-m"]);
    assert!(!is_gone(child));
    kill(child, 9);
}

#[test]
fn one_that_was_killed_since_is_there_again() {
    let sls = Sls::new();
    let obeys = Obeys::begun(&sls);
    sls.run(&["attach", "-p", &obeys.shell.p(), "-m", "-r"]);
    obeys.does("sleep 1000 &");
    let both = epoch_of(&sls.json(&["checkpoint", "-m"]));
    let pids = sls.pids();
    for _ in 0..3 {
        kill(pids[1], 9);
        wait_until(SOON, "it is gone", || is_gone(pids[1]));
        let told = obeys.shell.output().matches("child").count();
        let done = sls.json(&["rewind", "-m", &format!("@{both}")]);
        assert_eq!(sls.pids(), pids, "{done}");
        obeys.does(&format!("kill -0 {} && echo it runs", pids[1]));
        assert!(obeys.shell.output().ends_with("it runs\ndone\n"));
        // Its end is told of once, by the signal of this one.
        kill(pids[1], 9);
        wait_until(SOON, "it is taken note of", || is_gone(pids[1]));
        obeys.does(":");
        assert_eq!(obeys.shell.output().matches("child").count(), told + 1);
    }
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
