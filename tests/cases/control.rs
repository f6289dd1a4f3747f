//! Forward control of live processes: pause, continue, step, next, finish, break, watch.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::{
    Redis, Sls, Target, children, end, field, kill, rounds, threads, tracee, wait_until,
};

const SOON: Duration = Duration::from_secs(20);
/// Long enough for any stop, short enough for a test that fails.
const PATIENCE: [&str; 2] = ["--timeout", "20"];

/// A tracee in a partition that takes checkpoints.
fn begun(what: &str) -> (Sls, Target) {
    begun_by(Sls::new(), what)
}

fn begun_by(sls: Sls, what: &str) -> (Sls, Target) {
    let target = sls.tracee("controlled", &[what]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "50"]);
    (sls, target)
}

/// Where it stops next.
fn stop(sls: &Sls, how: &[&str]) -> Value {
    let patience: &[&str] = if how == ["pause"] { &[] } else { &PATIENCE };
    let stop = sls.json(&[how, patience].concat());
    assert_eq!(stop["state"], "stopped", "{how:?}: {stop}");
    assert!(stop["epoch"].is_u64(), "{how:?}: {stop}");
    stop
}

fn asked(sls: &Sls, expr: &str) -> i64 {
    let told = sls.json(&["print", expr]);
    told["value"]
        .as_i64()
        .unwrap_or_else(|| panic!("{expr}: {told}"))
}

/// Breakpoints are gone, and the program with its checks runs on by itself.
fn runs_on(sls: &Sls, target: &mut Target) {
    for point in sls.json(&["break"])["breakpoints"].as_array().unwrap() {
        sls.run(&["break", "--delete", &point["number"].to_string()]);
    }
    let went = sls.json(&["continue", "-d"]);
    assert_eq!(went["state"], "running", "{went}");
    target.assert_unharmed();
    assert_eq!(text_of(target.pid()), text_of_file());
    goes_round(sls, target);
}

fn goes_round(sls: &Sls, target: &mut Target) {
    sls.run(&["checkpoint", "-m"]);
    let before = asked(sls, "rounds");
    wait_until(SOON, "it goes round", || {
        sls.run(&["checkpoint", "-m"]);
        asked(sls, "rounds") > before + 1
    });
    target.assert_alive();
}

/// The text of the tracee in memory, whatever is in it now.
pub fn text_of(pid: i32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps
        .lines()
        .find(|l| l.contains("r-xp") && l.ends_with("/controlled"));
    let (from, to) = line
        .unwrap()
        .split_once(' ')
        .unwrap()
        .0
        .split_once('-')
        .unwrap();
    let at = |text| u64::from_str_radix(text, 16).unwrap();
    let mut bytes = vec![0; (at(to) - at(from)) as usize];
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, at(from)).unwrap();
    bytes
}

/// The same of the file, as a process has it that nobody has looked at.
pub fn text_of_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let other = Target::tracee(folder.path(), "controlled", &["walk"]);
    text_of(other.pid())
}

#[test]
fn where_it_stops_is_told() {
    let (sls, mut target) = begun("walk");
    let point = sls.json(&["break", "leaf"]);
    assert_eq!(point["number"], 1, "{point}");
    // It may have met it by now, or not; a stop that nobody has waited for is told by the next that does.
    let met = stop(&sls, &["continue"]);
    assert_eq!(met["reason"], "breakpoint");
    assert_eq!(
        (&met["number"], &met["function"]),
        (&1.into(), &"leaf".into())
    );
    assert_eq!(
        (&met["pid"], &met["tid"]),
        (&target.pid().into(), &target.pid().into())
    );
    assert!(
        met["file"].as_str().unwrap().ends_with("controlled.c"),
        "{met}"
    );
    // What stands still can be looked at as any checkpoint, and has no trace of it.
    assert_eq!(text_of(target.pid()), text_of_file());
    let n = asked(&sls, "n");
    let bt = sls.json(&["bt"]);
    let frames = bt["threads"][0]["frames"]
        .as_array()
        .unwrap_or_else(|| panic!("{bt}"));
    let names = frames.iter().map(|f| f["function"].as_str().unwrap_or("?"));
    assert_eq!(names.take(3).collect::<Vec<_>>(), ["leaf", "walk", "main"]);
    let left = stop(&sls, &["finish"]);
    assert_eq!(left["reason"], "finish");
    assert_eq!(
        (&left["function"], &left["value"]),
        (&"walk".into(), &(2 * n + 1).to_string().into())
    );
    let stepped = stop(&sls, &["step"]);
    assert_eq!(
        (&stepped["reason"], &stepped["function"]),
        (&"step".into(), &"walk".into())
    );
    let insn = stop(&sls, &["step", "--insn"]);
    assert_ne!(insn["pc"], stepped["pc"]);
    // Each stop is a checkpoint, in order.
    let epochs = [&met, &left, &stepped, &insn].map(|s| s["epoch"].as_u64().unwrap());
    assert!(epochs.is_sorted(), "{epochs:?}");
    let rows = sls.json(&["history"]);
    let row = |e: u64| {
        let rows = rows["checkpoints"].as_array().unwrap();
        let row = rows.iter().find(|r| r["epoch"] == e);
        row.unwrap_or_else(|| panic!("@{e}: {rows:?}"))["name"].clone()
    };
    assert_eq!(
        (row(epochs[0]), row(epochs[1])),
        ("breakpoint".into(), "finish".into())
    );
    runs_on(&sls, &mut target);
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}

#[test]
fn what_cannot_be_is_refused() {
    let (sls, mut target) = begun("walk");
    sls.refused(&["step"], 2, "it is running: stop it first");
    sls.refused(&["break", "nosuch"], 1, "no function nosuch");
    sls.refused(&["break", "controlled.c:99999"], 1, "controlled.c");
    sls.refused(&["break", "leaf", "--if", "((("], 2, "column");
    sls.refused(&["break", "--delete", "7"], 1, "7");
    sls.refused(&["watch", "nosuch"], 1, "nosuch");
    sls.refused(&["watch", "back"], 1, "bytes");
    sls.run(&["pause"]);
    sls.refused(&["step", "--tid", "1"], 1, "no thread 1");
    runs_on(&sls, &mut target);
}

/// What is built without optimisation, in which each line is left where it ends.
const OURS: [&str; 5] = ["main", "walk", "leaf", "deep", "table"];

/// Line by line as gdb goes, until it is lost in libc.
#[test]
fn steps_are_those_of_gdb() {
    // Up to where gdb steps over a longjmp: without libc's debug information it never comes back.
    for (way, count) in [("step", 46), ("next", 14)] {
        let theirs = lines_of_gdb(way, count);
        let (sls, mut target) = begun("walk");
        sls.run(&["break", "walk", "--if", "n % 6 == 1", "--temporary"]);
        stop(&sls, &["continue"]);
        let mut ours = Vec::new();
        while ours.len() < theirs.len() {
            let at = stop(&sls, &[way]);
            ours.push((
                at["function"].as_str().unwrap().to_owned(),
                at["line"].as_u64().unwrap(),
            ));
        }
        assert_eq!(ours, theirs, "{way}");
        runs_on(&sls, &mut target);
    }
}

fn lines_of_gdb(way: &str, count: usize) -> Vec<(String, u64)> {
    let mut gdb = Command::new("timeout");
    gdb.args([
        "60",
        "gdb",
        "-nx",
        "-q",
        "-batch",
        "-ex",
        "set debuginfod enabled off",
        "-ex",
        "tbreak walk",
        "-ex",
        "run",
    ]);
    gdb.args(["-ex", "handle SIGUSR1 nostop noprint pass"]);
    for _ in 0..count {
        gdb.args(["-ex", way]);
        let said = r#"python f = gdb.selected_frame(); print("at", f.name(), f.find_sal().line)"#;
        gdb.args(["-ex", said]);
    }
    let out = gdb
        .arg("--args")
        .arg(tracee("controlled"))
        .arg("walk")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let lines = text.lines().filter_map(|line| {
        let (function, line) = line.strip_prefix("at ")?.split_once(' ')?;
        Some((function.to_owned(), line.parse().ok()?))
    });
    let lines: Vec<(String, u64)> = lines
        .take_while(|(name, _)| OURS.contains(&name.as_str()))
        .collect();
    assert!(
        lines.len() > 10,
        "{text} {}",
        String::from_utf8_lossy(&out.stderr)
    );
    lines
}

/// Eight threads run into one breakpoint at once; none passes it unseen, and none is led astray.
#[test]
fn every_hit_is_counted() {
    let (sls, mut target) = begun("hot");
    sls.run(&["pause"]);
    sls.run(&["break", "hot", "--if", "n == 50"]);
    sls.run(&["break", "leaf"]);
    for round in 0..rounds(3) {
        let before = asked(&sls, "rounds");
        let mut met = Vec::new();
        while met.len() < 8 {
            let at = stop(&sls, &["continue"]);
            assert_eq!(
                (&at["reason"], asked(&sls, "n")),
                (&"breakpoint".into(), 50),
                "{at}"
            );
            met.push(at["tid"].as_i64().unwrap());
        }
        met.sort_unstable();
        met.dedup();
        // Who stands at its 50th has not been there before; a round has eight threads, each of it once.
        assert!(
            met.len() == 8 || asked(&sls, "rounds") > before,
            "round {round}: {met:?}"
        );
    }
    let all = sls.json(&["break"]);
    assert_eq!(all["breakpoints"][0]["hits"], 8 * rounds(3), "{all}");
    runs_on(&sls, &mut target);
}

/// No change is missed, whichever thread makes it; those of one moment are told of together.
#[test]
fn no_change_is_missed() {
    let (sls, mut target) = begun("watch");
    sls.run(&["watch", "watched"]);
    let mut last: Option<i64> = None;
    for _ in 0..rounds(12) {
        let (old, new) = change(&sls);
        assert!(new > old && new <= old + 4, "{old} to {new}");
        assert!(
            last.is_none_or(|last| last == old),
            "{last:?}, {old} to {new}"
        );
        last = Some(new);
    }
    sls.run(&["break", "--delete", "1"]);
    sls.run(&["watch", "watched", "--if", "watched % 10 == 0"]);
    assert_eq!(change(&sls).1 % 10, 0);
    sls.run(&["break", "--delete", "2"]);
    sls.run(&["continue", "-d"]);
    target.assert_unharmed();
    for tid in threads(target.pid()) {
        assert_eq!(field(tid, "TracerPid:"), "0");
    }
}

#[test]
fn each_change_of_one_thread_is_told() {
    let (sls, mut target) = begun("walk");
    sls.run(&["watch", "rounds"]);
    let mut last = None;
    for _ in 0..rounds(20) {
        let (old, new) = change(&sls);
        assert!(
            new == old + 1 && last.is_none_or(|last| last == old),
            "{last:?}, {old} to {new}"
        );
        last = Some(new);
    }
    runs_on(&sls, &mut target);
}

/// What a watchpoint that is met says, before and after.
fn change(sls: &Sls) -> (i64, i64) {
    let at = stop(sls, &["continue"]);
    assert_eq!(at["reason"], "watchpoint", "{at}");
    let value = |name: &str| at[name].as_str().unwrap().parse().unwrap();
    (value("old"), value("new"))
}

/// Children of fork and of vfork have no breakpoint to run into.
#[test]
fn children_do_not_meet_them() {
    let (sls, mut target) = begun("fork");
    sls.run(&["break", "hot"]);
    sls.run(&["break", "leaf"]);
    let went = sls.json(&["continue", "--timeout", "2"]);
    assert_eq!(went["state"], "running", "{went}");
    goes_round(&sls, &mut target);
    runs_on(&sls, &mut target);
}

#[test]
fn breakpoints_survive_rewinds() {
    let (sls, mut target) = begun("walk");
    sls.run(&["break", "leaf"]);
    let first = stop(&sls, &["continue"]);
    let at = |sls: &Sls| (asked(sls, "rounds"), asked(sls, "n"));
    let (then, epoch) = (at(&sls), first["epoch"].as_u64().unwrap());
    let second = stop(&sls, &["continue"]);
    let later = at(&sls);
    assert_ne!(then, later);
    for _ in 0..rounds(5) {
        let back = sls.json(&["rewind", "-m", &format!("@{epoch}")]);
        assert_eq!(back["not_restored"], serde_json::json!([]), "{back}");
        let now = stop(&sls, &["pause"]);
        assert_eq!(
            (&now["function"], &now["pc"]),
            (&"leaf".into(), &first["pc"])
        );
        assert_eq!(at(&sls), then);
        let again = stop(&sls, &["continue"]);
        assert_eq!(
            (&again["reason"], &again["pc"]),
            (&"breakpoint".into(), &second["pc"])
        );
        assert_eq!(at(&sls), later);
    }
    runs_on(&sls, &mut target);
}

/// A signal that would end it is told of while it still stands, and its end after that.
#[test]
fn its_end_is_told() {
    let (sls, mut target) = begun("walk");
    sls.run(&["break", "table", "--if", "n == 99"]);
    kill(target.pid(), 15);
    let fatal = stop(&sls, &["continue"]);
    assert_eq!(
        (&fatal["reason"], &fatal["status"]),
        (&"signal".into(), &15.into())
    );
    assert!(asked(&sls, "rounds") > 0);
    let gone = sls.json(&[&["continue"][..], &PATIENCE].concat());
    assert_eq!(
        (&gone["state"], &gone["status"]),
        (&"killed".into(), &15.into()),
        "{fatal} {gone}"
    );
    target.wait(SOON);
    sls.refused(&["continue"], 1, "has ended");
}

/// slsd is killed while they stand still, and while they run with breakpoints set: they run on.
#[test]
fn nobody_is_left_standing() {
    for stands in [true, false] {
        let (sls, mut target) = begun("hot");
        sls.run(&["break", "hot", "--if", "n == 1000000"]);
        if stands {
            sls.run(&["pause"]);
        }
        sls.kill_daemon();
        target.assert_unharmed();
        assert_eq!(text_of(target.pid()), text_of_file(), "stands: {stands}");
        target.assert_goes_on();
        // And the next one finds it as any other.
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        goes_round(&sls, &mut target);
    }
}

/// A keeper is killed while all stand still: they run on, and stop again.
#[test]
fn a_keeper_is_killed() {
    let (sls, mut target) = begun("walk");
    sls.run(&["break", "table"]);
    stop(&sls, &["continue"]);
    for keeper in children(sls.daemon()) {
        end(keeper, 9);
    }
    let again = stop(&sls, &["pause"]);
    assert!(again["pc"].is_string(), "{again}");
    let met = stop(&sls, &["continue"]);
    assert_eq!(met["function"], "table", "{met}");
    runs_on(&sls, &mut target);
}

/// A keeper is killed while they run with breakpoints that none of them meets just now: slsd takes them
/// out, and sets them again.
#[test]
fn a_keeper_of_running_ones_is_killed() {
    let (sls, mut target) = begun("walk");
    sls.run(&["break", "children"]);
    sls.run(&["break", "walk", "--if", "n == -1", "--temporary"]);
    sls.run(&["break", "--delete", "2"]);
    for _ in 0..rounds(3) {
        for keeper in children(sls.daemon()) {
            end(keeper, 9);
        }
        goes_round(&sls, &mut target);
    }
    sls.run(&["break", "leaf"]);
    let met = stop(&sls, &["continue"]);
    assert_eq!(met["function"], "leaf", "{met}");
    runs_on(&sls, &mut target);
}

#[test]
fn a_plain_user_does_the_same() {
    let (sls, mut target) = begun_by(Sls::plain(), "walk");
    sls.run(&["break", "leaf"]);
    let met = stop(&sls, &["continue"]);
    let n = asked(&sls, "n");
    let left = stop(&sls, &["finish"]);
    assert_eq!(left["value"], (2 * n + 1).to_string(), "{left}");
    let epoch = format!("@{}", met["epoch"]);
    sls.run(&["rewind", "-m", &epoch]);
    assert_eq!(asked(&sls, "n"), n);
    assert_eq!(stop(&sls, &["finish"])["value"], left["value"]);
    runs_on(&sls, &mut target);
}

/// A server stands still at a breakpoint, and its client waits; then it is answered.
#[test]
fn a_client_of_redis_waits() {
    let sls = Sls::new();
    let mut redis = Redis::start(sls.folder());
    sls.run(&["attach", "-p", &redis.p(), "-m", "-t", "50"]);
    // It comes home from epoll_wait ten times a second; it has no debug information.
    let waits = stop(&sls, &["pause"]);
    let place = format!("*{}", waits["pc"].as_str().unwrap());
    sls.run(&["break", &place]);
    for _ in 0..3 {
        let met = stop(&sls, &["continue"]);
        assert_eq!(
            (&met["reason"], &met["pc"]),
            (&"breakpoint".into(), &waits["pc"])
        );
    }
    let mut client = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    client.write_all(b"PING\r\n").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut reply = [0; 7];
    client.read_exact(&mut reply).unwrap_err();
    sls.run(&["break", "--delete", "1"]);
    sls.run(&["continue", "-d"]);
    client.set_read_timeout(Some(SOON)).unwrap();
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
    redis.assert_unharmed();
}
