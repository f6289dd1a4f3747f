//! No room for the log: the oldest checkpoints go, or the new one fails by name; the target runs on,
//! and checkpoints are taken again once there is room.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use libsls::Client;
use serde_json::Value;
use testkit::{Dice, Row, Sls, Target, counted, program, rounds_of, seed, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon in a namespace of its own, where /dev/shm is this small.
fn cramped(sls: &Sls, size: &str) -> i32 {
    let mut daemon = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs /dev/shm && exec \"$0\" --background --socket \"$1\""
    );
    daemon
        .args(["-m", "sh", "-c", &script])
        .arg(program("slsd"))
        .arg(sls.socket());
    assert!(daemon.status().unwrap().success());
    wait_until(PATIENCE, "slsd answers", || {
        Client::connect(&sls.socket()).is_ok()
    });
    sls.daemon()
}

/// A file there as the daemon sees it.
fn in_its_memory(daemon: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{daemon}/root/dev/shm")).join(name)
}

fn part(sls: &Sls) -> Value {
    sls.json(&["stat"])["partitions"][0].clone()
}

fn number(part: &Value, name: &str) -> u64 {
    part[name].as_u64().unwrap()
}

/// Compares all that is kept; nothing is taken meanwhile.
fn judge(sls: &Sls, row: &mut Row) {
    let mut client = Client::connect(&sls.socket()).unwrap();
    for checkpoint in client.history(Some("mem")).unwrap().checkpoints {
        let verdict = counted::judge(&mut client, "mem", checkpoint.epoch, &counted::everything());
        row.epochs += 1;
        if let Some(wrong) = verdict.unwrap().wrong {
            println!("WRONG {wrong}");
            row.wrong += 1;
        }
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("only root can have a /dev/shm of its own: nothing is tried");
    }
    root
}

fn row(campaign: &str, about: &str, tries: u64) -> Row {
    Row {
        campaign: campaign.to_owned(),
        about: about.to_owned(),
        seed: seed(3),
        tries,
        ..Row::default()
    }
}

/// The budget is larger than what there is.
#[test]
fn the_oldest_go() {
    if !is_root() {
        return;
    }
    let sls = Sls::new();
    let mut row = row(
        "no room for the budget",
        "the history's budget is larger than all of /dev/shm: the oldest checkpoints go instead of the newest failing",
        rounds_of(3, 100),
    );
    let mut target = Target::tracee(sls.folder(), "counted", &[]);
    cramped(&sls, "24m");
    sls.run(&["partadd", "memory", "-o", "mem", "--budget", "256M"]);
    for _ in 0..row.tries {
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "2"]);
        let due = number(&part(&sls), "taken") + 250;
        wait_until(PATIENCE, "checkpoints go on", || {
            number(&part(&sls), "taken") > due
        });
        sls.run(&["detach", "-p", &target.p()]);
        target.assert_unharmed();
        judge(&sls, &mut row);
        row.unharmed += 1;
    }
    let part = part(&sls);
    assert!(number(&part, "dropped") > 0, "there was room: {part}");
    row.note = format!(
        "{} taken, {} failed, {} dropped",
        part["taken"], part["failed"], part["dropped"]
    );
    row.report();
}

/// Somebody else fills /dev/shm, and clears it again.
#[test]
fn somebody_else_takes_it() {
    if !is_root() {
        return;
    }
    let sls = Sls::new();
    let mut row = row(
        "somebody else fills /dev/shm",
        "another program fills /dev/shm while checkpoints go on and clears it later: checkpoints fail by name, then go on",
        rounds_of(5, 200),
    );
    let mut dice = Dice::new(row.seed);
    let mut target = Target::tracee(sls.folder(), "counted", &[]);
    let daemon = cramped(&sls, "96m");
    let filler = in_its_memory(daemon, "filler");
    sls.run(&["partadd", "memory", "-o", "mem", "--budget", "16M"]);
    let mut refused = 0;
    for _ in 0..row.tries {
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "2"]);
        std::thread::sleep(Duration::from_millis(200 + dice.below(300)));
        let mut file = fs::File::create(&filler).unwrap();
        let full = |_| file.write_all(&[1; 4096]).is_err();
        assert!((0..).any(full));
        std::thread::sleep(Duration::from_millis(500));
        let out = sls.try_run(&["checkpoint", "-m"]);
        if out.code != 0 {
            assert!(
                out.stderr.contains("no room") && out.stderr.contains("/dev/shm"),
                "{out:?}"
            );
            refused += 1;
        }
        target.assert_alive();
        // An open file keeps its room.
        drop(file);
        fs::remove_file(&filler).unwrap();
        let before = number(&part(&sls), "taken");
        wait_until(PATIENCE, "checkpoints are taken again", || {
            number(&part(&sls), "taken") > before + 10
        });
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        sls.run(&["rewind", "-m", &format!("@{epoch}")]);
        sls.run(&["detach", "-p", &target.p()]);
        target.assert_unharmed();
        judge(&sls, &mut row);
        row.unharmed += 1;
    }
    row.note = format!("{refused} explicit checkpoints refused by name");
    row.report();
}
