//! The main job from end to end on a program that nobody prepared.

use std::time::Duration;

use serde_json::Value;
use testkit::{Sls, Target, field};

fn ticker(sls: &Sls) -> Target {
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    target
}

fn checkpoint(sls: &Sls) -> u64 {
    let answer = sls.json(&["checkpoint", "-m"]);
    for key in ["partition", "epoch", "stop_us", "pages", "bytes"] {
        assert!(!answer[key].is_null(), "{answer}");
    }
    answer["epoch"].as_u64().unwrap()
}

/// One that has counted on between @1 and @2.
fn ticker_twice(sls: &Sls) -> Target {
    let target = ticker(sls);
    checkpoint(sls);
    std::thread::sleep(Duration::from_millis(50));
    checkpoint(sls);
    target
}

fn counter(sls: &Sls, epoch: u64) -> i64 {
    let answer = sls.json(&["print", "-m", &format!("@{epoch}"), "counter"]);
    assert_eq!(answer["type"], "long");
    assert_eq!(answer["epoch"], epoch);
    answer["value"].as_i64().unwrap()
}

fn counter_along(sls: &Sls, range: &[&str]) -> Vec<i64> {
    let rows = sls.json(&[&["timeline", "-m", "counter"], range].concat());
    let rows = rows["rows"].as_array().unwrap().iter();
    rows.map(|row| row["value"].as_i64().unwrap()).collect()
}

#[test]
fn values_at_any_point_and_back_to_it() {
    let sls = Sls::new();
    let mut target = ticker(&sls);
    let epochs: Vec<u64> = (0..5)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(30));
            checkpoint(&sls)
        })
        .collect();
    assert_eq!(epochs, [1, 2, 3, 4, 5]);
    let counters: Vec<i64> = epochs.iter().map(|&e| counter(&sls, e)).collect();
    assert!(counters.windows(2).all(|w| w[0] < w[1]), "{counters:?}");

    let state = sls.json(&["print", "-m", "@3", "state"])["value"].clone();
    assert_eq!(state["flags"], 5);
    let ticks = state["ticks"].as_i64().unwrap();
    // A checkpoint may fall between two stores of one tick.
    assert!(
        (counters[2] - 1..=counters[2]).contains(&ticks),
        "{state} {counters:?}"
    );
    assert!(
        state["label"].as_str().unwrap().starts_with("tick "),
        "{state}"
    );
    assert!(
        ["RED", "GREEN", "BLUE"].contains(&state["colour"].as_str().unwrap()),
        "{state}"
    );
    let text = sls.json(&["print", "-m", "@3", "ticker.c::hidden"])["value"]
        .as_i64()
        .unwrap();
    assert!(text % 7 == 0, "{text}");
    let squares = sls.json(&["print", "-m", "@3", "squares"])["value"].clone();
    assert_eq!(squares.as_array().unwrap().len(), 8);

    assert_eq!(counter_along(&sls, &["@1..@5"]), counters);

    let done = sls.json(&["rewind", "-m", "@2"]);
    assert_eq!(
        (&done["from"], &done["to"]),
        (&Value::from(6), &Value::from(2))
    );
    assert_eq!(done["not_restored"], Value::Array(vec![]), "{done}");
    let after = checkpoint(&sls);
    let now = counter(&sls, after);
    assert!(
        (counters[1]..counters[1] + 60).contains(&now),
        "{now} after a rewind to {counters:?}"
    );
    // The present that was left is still there, on its own branch.
    assert!(counter(&sls, 6) >= counters[4]);
    let history = sls.json(&["history", "-m"]);
    assert_eq!(history["head"], after);
    let newest = history["checkpoints"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(newest["parent"], 2, "{newest}");
    assert_ne!(newest["branch"], history["checkpoints"][0]["branch"]);

    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    assert_eq!(field(target.pid(), "TracerPid:"), "0");
    assert_eq!(
        counter(&sls, 1),
        counters[0],
        "the history stays after detach"
    );
}

#[test]
fn stacks_locals_registers_files() {
    let sls = Sls::new();
    let target = ticker(&sls);
    checkpoint(&sls);
    let bt = sls.json(&["bt", "-m", "@1", "--all-threads"]);
    let threads = bt["threads"].as_array().unwrap();
    assert_eq!(threads.len(), 4, "{bt}");
    let main = threads.iter().find(|t| t["tid"] == target.pid()).unwrap();
    let functions: Vec<&str> = main["frames"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["function"].as_str())
        .collect();
    assert!(
        functions.contains(&"tick") && functions.contains(&"main"),
        "{functions:?}"
    );
    let workers = threads.iter().filter(|t| {
        t["frames"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["function"] == "work")
    });
    assert_eq!(workers.count(), 3, "{bt}");

    let local = sls.json(&["print", "-m", "@1", "frame(tick).local"]);
    assert_eq!(local["value"], 2, "{local}");
    let locals = sls.json(&["locals", "-m", "@1"]);
    assert!(
        locals["locals"]
            .as_array()
            .unwrap()
            .iter()
            .any(|l| l["name"] == "step"),
        "{locals}"
    );

    let regs = sls.json(&["regs", "-m", "@1"]);
    assert!(regs.to_string().contains("rip"), "{regs}");
    let maps = sls.json(&["maps", "-m", "@1"]);
    assert!(maps.to_string().contains("ticker"), "{maps}");
    let fds = sls.json(&["fds", "-m", "@1"]);
    assert!(fds.to_string().contains("ticker.out"), "{fds}");
    let ps = sls.json(&["ps"]);
    let row = &ps["processes"][0];
    assert_eq!(row["pid"], target.pid());
    for key in ["partition", "state", "threads", "comm"] {
        assert!(!row[key].is_null(), "{row}");
    }
}

#[test]
fn diff_pages_says_which_changed() {
    let sls = Sls::new();
    let _target = ticker_twice(&sls);
    let diff = sls.json(&["diff", "-m", "@1", "@2", "--pages"]);
    assert!(!diff["pages"].as_array().unwrap().is_empty(), "{diff}");
    assert_eq!(
        sls.try_run(&["diff", "-m", "@1", "@2", "--pages", "--exit-code"])
            .code,
        3
    );
    assert_eq!(
        sls.try_run(&["diff", "-m", "@1", "@1", "--pages", "--exit-code"])
            .code,
        0
    );
}

/// As gdb writes it: threads by id and name, where they were and are, registers before and after.
#[test]
fn diff_is_text_for_people() {
    let sls = Sls::new();
    let target = ticker_twice(&sls);
    let main = format!("  Thread {} \"ticker\" changed:", target.p());
    // It may be caught at the same place twice.
    let text = (2..20)
        .map(|newest| {
            let text = sls.run(&["diff", "-m", "@1", &format!("@{newest}")]);
            checkpoint(&sls);
            text
        })
        .find(|text| text.contains(&main))
        .expect("the main thread changes");
    assert!(
        text.contains("  counter: ") && text.contains("  state.ticks: "),
        "{text}"
    );
    // Values may have braces; what is told of threads has none.
    let text = &text[text.find("threads:\n").unwrap()..];
    assert!(!text.contains(['{', '}']), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| *line == main).unwrap();
    assert!(lines[at + 1].contains(" in "), "{text}");
    let registers = lines[at + 2..].iter().take_while(|l| l.starts_with("    "));
    let changed = |line: &&&str| line.contains("  0x") && line.contains(" -> 0x");
    assert!(registers.filter(changed).count() > 0, "{text}");
}

#[test]
fn a_misspelt_option_is_no_expression() {
    let sls = Sls::new();
    let _target = ticker(&sls);
    checkpoint(&sls);
    sls.refused(&["print", "-m", "--frme", "2", "counter"], 2, "'--frame'");
    let value = |expr: &str| sls.json(&["print", "-m", "@1", "--", expr])["value"].as_i64();
    assert_eq!(value("-1+2"), Some(1));
    assert_eq!(value("-counter"), value("0-counter"));
}

#[test]
fn a_hundred_checkpoints_a_second() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
    std::thread::sleep(Duration::from_secs(10));
    let history = sls.json(&["history", "-m"]);
    let count = history["checkpoints"].as_array().unwrap().len();
    // On a busy machine periods are missed, and counted.
    let missed = sls.json(&["stat"])["partitions"][0]["missed_periods"]
        .as_u64()
        .unwrap();
    assert!(
        count >= 300 && count as u64 + missed >= 950,
        "{count} checkpoints in 10 s, {missed} missed"
    );
    let values = counter_along(&sls, &[]);
    assert!(values.len() >= count - 1 && values.windows(2).all(|w| w[0] <= w[1]));
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}

#[test]
fn suspend_shows_and_survives_the_daemon() {
    let sls = Sls::new();
    let mut target = ticker(&sls);
    checkpoint(&sls);
    sls.run(&["suspend", "-o", "mem"]);
    assert!(field(target.pid(), "State:").starts_with('T'));
    assert_eq!(sls.json(&["ps"])["processes"][0]["state"], "suspended");
    let a = checkpoint(&sls);
    let b = checkpoint(&sls);
    assert_eq!(counter(&sls, a), counter(&sls, b));
    sls.kill_daemon();
    assert!(field(target.pid(), "State:").starts_with('T'));
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["resume", "-o", "mem"]);
    target.assert_unharmed();
    let c = checkpoint(&sls);
    std::thread::sleep(Duration::from_millis(50));
    let d = checkpoint(&sls);
    assert!(counter(&sls, c) < counter(&sls, d));
}

#[test]
fn the_history_survives_the_daemon() {
    let sls = Sls::new();
    let mut target = ticker(&sls);
    let first = checkpoint(&sls);
    std::thread::sleep(Duration::from_millis(50));
    let second = checkpoint(&sls);
    let values = (counter(&sls, first), counter(&sls, second));
    sls.kill_daemon();
    target.assert_unharmed();
    assert_eq!((counter(&sls, first), counter(&sls, second)), values);
    // Attached again, the history goes on, and the past is still one to go back to.
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let third = checkpoint(&sls);
    assert!(third > second && counter(&sls, third) > values.1);
    sls.run(&["rewind", "-m", &format!("@{first}")]);
    let after = checkpoint(&sls);
    assert!(counter(&sls, after) < counter(&sls, third));
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}

/// Who connects meanwhile waits in line, however long the history: the socket comes first.
#[test]
fn the_socket_is_there_before_a_history_is_recovered() {
    let sls = Sls::new();
    let _target = ticker(&sls);
    checkpoint(&sls);
    sls.kill_daemon();
    let before = sls.log().len();
    sls.run(&["history", "-m"]);
    let log = sls.log().split_off(before);
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("{what}: {log}"));
    assert!(at("listening") < at("recovered"), "{log}");
    assert!(at("recovered") < at("ready"), "{log}");
}
