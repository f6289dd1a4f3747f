//! When slsd leaves, what it leaves behind, and what must not keep it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Dice, Sls, Target, children, end, kill, leaves, wait_until};

/// An idle daemon leaves after this.
const IDLE: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(8);

fn attached(sls: &Sls, how: &[&str]) -> Target {
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&[&["attach", "-p", &target.p(), "-m"], how].concat());
    target
}

/// A lock or a pipe of whoever made the first request is not to be held for as long as there is a history.
#[test]
fn it_keeps_no_descriptor_of_who_started_it() {
    let sls = Sls::new();
    let lock = sls.folder().join("lock of the caller");
    let mut caller = Command::new("sh");
    caller.args(["-c", r#"exec 9>"$1"; shift; exec "$@""#, "sh"]);
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    let pid = target.p();
    let attach = sls.command(&["attach", "-p", &pid, "-m"]);
    caller.arg(&lock).arg(attach.get_program());
    caller.args(attach.get_args()).stdin(Stdio::null());
    assert!(caller.status().unwrap().success());
    assert!(lock.exists());
    let daemon = sls.daemon();
    for process in children(daemon).into_iter().chain([daemon]) {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let mut files = files.map(|f| std::fs::read_link(f.unwrap().path()).unwrap_or_default());
        assert!(!files.any(|f| f == lock), "{process} holds it");
    }
    target.assert_unharmed();
}

#[test]
fn an_emptied_daemon_leaves_nothing() {
    let sls = Sls::new();
    let mut target = attached(&sls, &["-t", "5"]);
    let daemon = sls.daemon();
    assert!(sls.memory().exists());
    sls.run(&["partdel", "-m"]);
    assert!(!sls.memory().exists(), "an empty folder stays");
    target.assert_unharmed();
    assert!(leaves(daemon, SOON));
    assert!(!sls.socket().exists());
}

#[test]
fn an_asked_daemon_keeps_what_is_worth_keeping() {
    for signal in [15, 2] {
        let sls = Sls::new();
        let mut target = attached(&sls, &[]);
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].clone();
        sls.run(&["partadd", "memory", "-o", "empty"]);
        end(sls.daemon(), signal);
        target.assert_unharmed();
        assert!(!sls.socket().exists());
        assert!(!sls.memory().join("empty").exists());
        let history = sls.json(&["history", "-m"]);
        assert_eq!(history["checkpoints"][0]["epoch"], epoch);
    }
}

/// What a partition was made with is there when its process comes, however late.
#[test]
fn a_partition_that_was_asked_for_waits() {
    let sls = Sls::new();
    sls.run(&["partadd", "memory", "-o", "mem", "--budget", "64M"]);
    let daemon = sls.daemon();
    assert!(
        !leaves(daemon, IDLE + Duration::from_secs(1)),
        "{}",
        sls.log()
    );
    let _target = attached(&sls, &[]);
    assert_eq!(sls.json(&["stat"])["partitions"][0]["budget"], 64 << 20);
    sls.run(&["partdel", "-m"]);
    assert!(leaves(daemon, SOON));
}

#[test]
fn an_asked_daemon_that_holds_nothing_leaves_nothing() {
    let sls = Sls::new();
    let mut target = attached(&sls, &[]);
    end(sls.daemon(), 15);
    target.assert_unharmed();
    assert!(!sls.memory().exists(), "a folder without a history stays");
}

#[test]
fn a_dead_process_without_history_keeps_nobody() {
    let sls = Sls::new();
    let target = attached(&sls, &[]);
    let daemon = sls.daemon();
    drop(target);
    wait_until(Duration::from_secs(1), "its end is known", || {
        sls.json(&["ps"])["processes"][0]["state"] == "dead"
    });
    assert!(leaves(daemon, SOON), "{}", sls.log());
}

#[test]
fn a_killed_keeper_is_replaced_and_keeps_nobody() {
    let sls = Sls::new();
    let mut target = attached(&sls, &["-t", "20"]);
    let daemon = sls.daemon();
    let before = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    let [keeper] = children(daemon)[..] else {
        panic!("one keeper");
    };
    end(keeper, 9);
    wait_until(Duration::from_secs(5), "another keeper", || {
        !children(daemon).is_empty()
    });
    // The attachment goes on, period and all.
    let newest = || {
        let history = sls.json(&["history", "-m"]);
        let last = history["checkpoints"].as_array().unwrap().last().unwrap();
        last["epoch"].as_u64().unwrap()
    };
    wait_until(Duration::from_secs(5), "more checkpoints", || {
        newest() > before + 10
    });
    sls.run(&["rewind", "-m", &format!("@{before}")]);
    for keeper in children(daemon) {
        kill(keeper, 9);
    }
    sls.run(&["partdel", "-m"]);
    target.assert_unharmed();
    assert!(leaves(daemon, SOON), "{}", sls.log());
}

#[test]
fn a_daemon_nobody_can_reach_leaves_its_history_to_the_next() {
    let sls = Sls::new();
    let mut target = attached(&sls, &["-t", "20"]);
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].clone();
    let daemon = sls.daemon();
    std::fs::remove_file(sls.socket()).unwrap();
    assert!(leaves(daemon, SOON), "{}", sls.log());
    target.assert_unharmed();
    let history = sls.json(&["history", "-m"]);
    let epochs: Vec<_> = history["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["epoch"])
        .collect();
    assert!(epochs.contains(&&epoch), "{history}");
}

/// What cannot be read is no empty partition.
#[test]
fn what_cannot_be_recovered_is_not_thrown_away() {
    let sls = Sls::new();
    let foreign = sls.memory().join("web");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("precious"), "x").unwrap();
    let daemon = sls.daemon();
    assert!(leaves(daemon, SOON), "{}", sls.log());
    let kept = foreign.join("precious").exists();
    std::fs::remove_dir_all(sls.memory()).unwrap();
    assert!(kept);
}

/// Everything a test run has going is killed at a random moment: once the partitions are removed,
/// each daemon leaves.
#[test]
fn killed_clients_and_targets_keep_nobody() {
    let mut dice = Dice::new(11);
    let mut left = Vec::new();
    for _ in 0..testkit::rounds(12) {
        let sls = Sls::new();
        let target = Target::tracee(sls.folder(), "ticker", &[]);
        let pid = target.p();
        let live = format!("pid:{pid}");
        let hold: &[&str] = if dice.below(2) == 0 {
            &["--hold"]
        } else {
            &["-t", "2"]
        };
        let attach = [&["attach", "-p", &pid, "-m"], hold].concat();
        let mut clients = vec![started(&sls, &attach)];
        for verb in [
            &["print", &live, "counter"][..],
            &["checkpoint", "-m"],
            &["rewind", "-m", "@1"],
            &["print", &live, "counter"],
        ] {
            std::thread::sleep(Duration::from_micros(dice.below(30_000)));
            clients.push(started(&sls, verb));
        }
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        for mut client in clients {
            client.kill().unwrap();
            client.wait().unwrap();
        }
        drop(target);
        let daemon = sls.daemon();
        // What one had made for a look of its own went with it, at the latest when it was let in.
        wait_until(Duration::from_secs(5), "only mem is left", || {
            let stat = sls.json(&["stat"]);
            let parts = stat["partitions"].as_array().unwrap();
            parts.iter().all(|part| part["partition"] == "mem")
        });
        let removed = sls.try_run(&["partdel", "-m"]);
        assert!(
            removed.code == 0 || removed.stderr.contains("there is no partition"),
            "{removed:?}"
        );
        left.push((daemon, sls));
    }
    for (daemon, sls) in left {
        assert!(leaves(daemon, SOON), "{daemon}: {}", sls.log());
        assert!(!sls.memory().exists());
    }
}

fn started(sls: &Sls, args: &[&str]) -> Child {
    let mut command: Command = sls.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().unwrap()
}

/// Who attaches right after is not told of a debugger that is only letting go.
#[test]
fn the_keeper_may_take_its_time_to_let_go() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m", "--hold"]);
    let keepers = children(sls.daemon());
    assert!(!keepers.is_empty());
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
