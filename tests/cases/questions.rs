//! Questions to a history whose answers are known: a tracee that takes one named step a checkpoint.

use std::time::Duration;

use serde_json::Value;
use testkit::{Sls, Target, kill, wait_until};

/// Checkpoint `@n + 1` is that after step `n`; `@1` that before the first.
struct Steps {
    sls: Sls,
    target: Target,
    taken: usize,
}

impl Steps {
    fn new() -> Self {
        let sls = Sls::new();
        let target = Target::tracee(sls.folder(), "steps", &[]);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        sls.run(&["checkpoint", "-m"]);
        Self {
            sls,
            target,
            taken: 0,
        }
    }

    /// With so many steps taken, each kept.
    fn taken(steps: usize) -> Self {
        let mut this = Self::new();
        (0..steps).for_each(|_| this.step());
        this
    }

    fn step(&mut self) {
        self.taken += 1;
        kill(self.target.pid(), 10);
        let line = format!("step {}\n", self.taken);
        wait_until(Duration::from_secs(10), &line, || {
            self.target.output().contains(&line)
        });
        self.sls.run(&["checkpoint", "-m"]);
    }

    fn json(&self, args: &[&str]) -> Value {
        self.sls.json(args)
    }
}

#[test]
fn bisect_names_the_first_bad_checkpoint_on_any_branch() {
    let mut steps = Steps::taken(9);
    let bisect = |steps: &Steps, expr: &str, good: &str, bad: &str| {
        steps.json(&["bisect", "-m", expr, "--good", good, "--bad", bad])
    };
    let found = bisect(&steps, "accounts[2].balance >= 0", "@1", "@-1");
    assert_eq!(found["first_bad"], 8, "{found}");
    assert_eq!(
        (&found["good"], &found["bad"]),
        (&true.into(), &false.into())
    );
    assert!(found["evaluations"].as_u64().unwrap() <= 4, "{found}");
    // What it is at the bad end is what bad means.
    assert_eq!(bisect(&steps, "counter > 5", "@1", "@10")["first_bad"], 7);
    assert_eq!(bisect(&steps, "counter > 5", "@10", "@1")["first_bad"], 6);
    let text = steps
        .sls
        .run(&["bisect", "-m", "counter < 4", "--good", "@1", "--bad", "@9"]);
    assert!(text.starts_with("first bad: @5\n"), "{text}");

    // @11 is the present that the rewind keeps, @12 the first of the new branch, where step 4 comes again.
    steps.sls.run(&["rewind", "-m", "@4"]);
    steps.sls.run(&["checkpoint", "-m"]);
    let over = bisect(&steps, "counter > 3", "@10", "@12");
    assert_eq!(over["first_bad"], 4, "{over}");

    let refused = |args: &[&str], says: &str| steps.sls.refused(args, 1, says);
    refused(
        &[
            "bisect",
            "-m",
            "counter >= 0",
            "--good",
            "@1",
            "--bad",
            "@9",
        ],
        "is true at both ends",
    );
    refused(
        &["bisect", "-m", "head", "--good", "@1", "--bad", "@1"],
        "two different checkpoints",
    );
    refused(
        &["bisect", "-m", "accounts", "--good", "@1", "--bad", "@2"],
        "neither true nor false",
    );
    refused(
        &["bisect", "-m", "1 + countr", "--good", "@1", "--bad", "@2"],
        "did you mean counter?",
    );
    refused(
        &["bisect", "-m", "1 + countr", "--good", "@1", "--bad", "@2"],
        "  1 + countr\n      ^",
    );
    steps.target.assert_unharmed();
}

#[test]
fn memory_is_searched_named_and_counted() {
    let mut steps = Steps::taken(9);
    // accounts[2].balance is 100 until @8.
    let scan = |args: &[&str]| {
        let hits = steps.json(&[&["scan", "-m"], args].concat())["hits"].clone();
        let paths = hits.as_array().unwrap().iter();
        paths
            .filter_map(|hit| hit["path"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let all = scan(&["@1", "--type", "long", "100"]);
    assert!(
        all.contains(&"accounts[2].balance".to_owned()) && all.len() >= 4,
        "{all:?}"
    );
    let narrowed = scan(&[
        "@1",
        "--type",
        "long",
        "100",
        "--then",
        "@7",
        "unchanged",
        "--then",
        "@8",
        "less",
    ]);
    assert_eq!(narrowed, ["accounts[2].balance"]);
    assert_eq!(
        scan(&["@8", "--type", "long", "-5"]),
        ["accounts[2].balance"]
    );
    let counted = scan(&[
        "@3", "--type", "long", "2", "--then", "@4", "3", "--then", "@9", "more",
    ]);
    assert!(counted.contains(&"counter".to_owned()), "{counted:?}");
    let refused = |args: &[&str], code, says: &str| steps.sls.refused(args, code, says);
    refused(&["scan", "-m", "--type", "complex", "1"], 2, "no type");
    refused(&["scan", "-m", "--type", "u8", "256"], 2, "no u8");

    let refs = steps.json(&["refs", "-m", "@10", "head"]);
    assert_eq!(refs["object"]["type"], "Node", "{refs}");
    assert!(
        refs["refs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["path"] == "head"),
        "{refs}"
    );
    // 13, the head of the list until step 2, is pointed at by 22 for one step and by nobody then.
    let along = steps.json(&["refs", "-m", "@1..@2", "head"]);
    let address = along["object"]["address"].as_str().unwrap();
    let along = steps.json(&["refs", "-m", "@1..@10", address]);
    let rows = along["refs"].as_array().unwrap();
    let by_head = rows.iter().find(|row| row["path"] == "head").unwrap();
    assert_eq!(
        (&by_head["from"], &by_head["until"]),
        (&1.into(), &2.into()),
        "{along}"
    );

    let grown = steps.json(&["heap", "-m", "@8", "@9"]);
    let rows = grown["types"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["type"], &rows[0]["grown_count"]),
        (1, &"Node".into(), &100.into()),
        "{grown}"
    );
    let heap = steps.json(&["heap", "-m", "@9"]);
    let nodes = heap["types"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["type"] == "Node")
        .unwrap();
    assert_eq!(
        (&nodes["count"], &nodes["bytes"]),
        (&103.into(), &(103 * 24).into()),
        "{heap}"
    );
    let way = steps.json(&["heap", "-m", "@9", "--path", "bag->next->next"]);
    let steps_back: Vec<&str> = way["path"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["path"].as_str())
        .collect();
    assert_eq!(
        steps_back,
        ["*bag->next->next", "*bag->next", "*bag", "bag"]
    );

    let disas = steps.json(&["disas", "-m", "@1", "push"]);
    let code = disas["instructions"].as_array().unwrap();
    assert!(
        code[0]["text"].as_str().unwrap().starts_with("push")
            && code.last().unwrap()["text"] == "ret",
        "{disas}"
    );
    assert!(
        code.iter()
            .all(|one| one["file"].as_str().unwrap().ends_with("steps.cpp"))
    );
    let here = steps.json(&["disas", "-m", "@1", "--frame", "main", "--intel"]);
    let current = here["instructions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["current"] == true);
    assert_eq!(current.count(), 1, "{here}");
    let text = steps.sls.run(&["disas", "-m", "@1", "push"]);
    assert!(
        text.contains("    *list = new Node{'n', key, *list};"),
        "{text}"
    );
    steps.target.assert_unharmed();
}

/// The paths that differ between two checkpoints, the test's own bookkeeping in `main` aside.
fn changed(steps: &Steps, old: &str, new: &str) -> Vec<(String, Value, Value)> {
    let diff = steps.json(&["diff", "-m", old, new]);
    let changes = diff["changes"].as_array().unwrap().iter();
    let all = changes.map(|change| {
        let path = change["path"].as_str().unwrap().to_owned();
        (path, change["old"].clone(), change["new"].clone())
    });
    all.filter(|(path, ..)| path != "counter" && !path.starts_with("frame(main)."))
        .collect()
}

#[test]
fn diff_names_what_changed_and_nothing_else() {
    let steps = Steps::taken(8);
    let named = |old: &str, new: &str| -> Vec<String> {
        let rows = changed(&steps, old, new).into_iter();
        let shown = |value: Value| match value {
            Value::Object(node) if node.contains_key("key") => format!("node {}", node["key"]),
            Value::Object(ptr) if ptr.contains_key("ptr") => "ptr".to_owned(),
            other => other.to_string(),
        };
        rows.map(|(path, old, new)| format!("{path}: {} -> {}", shown(old), shown(new)))
            .collect()
    };
    assert_eq!(named("@1", "@2"), ["table[\"k7\"]: 7 -> 8"]);
    assert_eq!(
        named("@2", "@3"),
        ["head: ptr -> ptr", "*head: null -> node 22"]
    );
    assert_eq!(
        named("@3", "@4"),
        ["head->next: ptr -> ptr", "*head->next: node 13 -> null"]
    );
    let containers = [
        "members{5}: 5 -> null",
        "table[\"k1\"]: 1 -> null",
        "table[\"new\"]: null -> 1",
    ];
    assert_eq!(named("@4", "@5"), containers);
    let grown = ["numbers[3]: null -> 40", "phase: \"IDLE\" -> \"BUSY\""];
    assert_eq!(named("@5", "@6"), grown);
    let opened = steps.json(&["diff", "-m", "@6", "@7"]);
    assert_eq!(opened["changes"][1]["path"], "mapped", "{opened}");
    let fds = opened["fds"].as_array().unwrap();
    let added = fds.iter().filter(|fd| fd["change"] == "added");
    assert_eq!(added.count(), 1, "{opened}");
    let maps = opened["maps"].as_array().unwrap();
    assert!(
        maps.iter()
            .any(|map| map["change"] == "added" || map["change"] == "changed"),
        "{opened}"
    );
    assert_eq!(named("@7", "@8"), ["accounts[2].balance: 100 -> -5"]);
    let bag = named("@8", "@9");
    assert_eq!(bag.len(), 101, "{bag:?}");
    assert_eq!(bag[2], "*bag->next: null -> node 98", "{bag:?}");
    // Back over several steps.
    let back = named("@8", "@1");
    for path in [
        "accounts[2].balance: -5 -> 100",
        "table[\"k7\"]: 8 -> 7",
        "members{5}: null -> 5",
    ] {
        assert!(back.iter().any(|row| row == path), "{path}: {back:?}");
    }
    let code = |args: &[&str]| steps.sls.try_run(args).code;
    assert_eq!(code(&["diff", "-m", "@7", "@8", "--exit-code"]), 3);
    assert_eq!(code(&["diff", "-m", "@7", "@7", "--exit-code"]), 0);
    let text = steps.sls.run(&["diff", "-m", "@7", "@8"]);
    assert!(
        text.contains("variables:\n  accounts[2].balance: 100 -> -5\n"),
        "{text}"
    );
    let all = steps.json(&["diff", "-m", "@7", "@8", "--all"]);
    assert!(
        !all["pages"].as_array().unwrap().is_empty()
            && all["changes"].as_array().unwrap().len() > 1
    );
}

#[test]
fn blame_and_assert_know_the_step() {
    let mut steps = Steps::taken(9);
    let blame = |expr: &str| -> Vec<(String, Value)> {
        let answer = steps.json(&["blame", "-m", expr]);
        let rows = answer["rows"].as_array().unwrap().iter();
        rows.map(|row| {
            (
                row["path"].as_str().unwrap().to_owned(),
                row["epoch"].clone(),
            )
        })
        .collect()
    };
    for (path, epoch) in blame("accounts") {
        let expected = match path.as_str() {
            "accounts[2].balance" => Value::from(8),
            _ => Value::Null,
        };
        assert_eq!(epoch, expected, "{path}");
    }
    let expected = [("table[\"k7\"]", 2), ("table[\"new\"]", 5)];
    assert_eq!(
        blame("table"),
        expected.map(|(path, epoch)| (path.to_owned(), epoch.into()))
    );
    assert_eq!(blame("counter"), [("counter".to_owned(), 10.into())]);
    let text = steps.sls.run(&["blame", "-m", "table", "@1..@4"]);
    assert!(text.contains("@2     table[\"k7\"]  8\n"), "{text}");

    let check = |expr: &str| steps.sls.try_run(&["--json", "assert", "-m", expr]);
    let broken = check("all(accounts, _.balance >= 0)");
    let verdict: Value = serde_json::from_str(&broken.stdout).unwrap();
    assert_eq!(
        (broken.code, &verdict["first_breach"]),
        (3, &8.into()),
        "{verdict}"
    );
    assert_eq!(check("sum(accounts, _.balance) == 400").code, 3);
    assert_eq!(
        check("count(table) == 2 && any(table, k, v, v > 6)").code,
        0
    );
    assert_eq!(check("no_such_name > 1").code, 1);
    let text = steps
        .sls
        .try_run(&["assert", "-m", "accounts[2].balance > 0"])
        .stdout;
    assert!(
        text.starts_with("broken: accounts[2].balance > 0 is false at @8"),
        "{text}"
    );
    steps.target.assert_unharmed();
}

#[test]
fn states_are_asked_in_sql() {
    let steps = Steps::taken(7);
    let rows = |words: &[&str]| steps.json(&[&["query", "-m"], words].concat())["rows"].clone();
    let counts = rows(&[
        "@1..@8",
        "SELECT epoch, number FROM variables WHERE name = 'counter' ORDER BY epoch",
    ]);
    let counts: Vec<i64> = counts
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["number"].as_i64().unwrap())
        .collect();
    assert_eq!(counts, [0, 1, 2, 3, 4, 5, 6, 7]);
    // /dev/null is opened by step 6.
    let opened = rows(&[
        "@1..@8",
        "SELECT epoch, count(*) AS n FROM fds WHERE target = '/dev/null' GROUP BY epoch",
    ]);
    let opened: Vec<i64> = opened
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["n"].as_i64().unwrap())
        .collect();
    // It may have been given more of them.
    let since: Vec<i64> = opened.iter().map(|count| count - opened[0]).collect();
    assert_eq!(since, [0, 0, 0, 0, 0, 0, 1, 1]);
    let taken = rows(&[
        "@8",
        "SELECT v.text FROM variables v JOIN frames f USING (epoch, tid, frame) WHERE f.function = 'main' AND v.name = 'taken'",
    ]);
    assert_eq!(taken[0]["text"], "7", "{taken}");
    let history = rows(&["SELECT count(*) AS n, min(epoch) AS first FROM checkpoints"]);
    assert_eq!(
        (&history[0]["n"], &history[0]["first"]),
        (&8.into(), &1.into())
    );
    let refused = |sql: &str, says: &str| steps.sls.refused(&["query", "-m", sql], 2, says);
    refused("SELECT * FROM thread", "no such table");
    refused("DROP TABLE threads", "only a SELECT");
    let text = steps
        .sls
        .run(&["query", "-m", "SELECT tid, blocked FROM threads"]);
    assert!(text.contains("rt_sigtimedwait"), "{text}");
}

/// Checked by the daemon as they come; a breach and its neighbours stay however few checkpoints are kept.
#[test]
fn a_watched_condition_keeps_its_breach() {
    let sls = Sls::new();
    sls.run(&["partadd", "memory", "-o", "few", "--keep", "last:2"]);
    let mut target = Target::tracee(sls.folder(), "steps", &[]);
    sls.run(&["attach", "-p", &target.p(), "-o", "few"]);
    let step = |number: usize| {
        kill(target.pid(), 10);
        let line = format!("step {number}\n");
        wait_until(Duration::from_secs(10), &line, || {
            target.output().contains(&line)
        });
        sls.run(&["checkpoint", "-o", "few"]);
    };
    step(1);
    let watch = ["--json", "assert", "-o", "few", "--watch"];
    let mut watcher = sls.command(&[&watch[..], &["all(accounts, _.balance >= 0)"]].concat());
    watcher.stdout(std::process::Stdio::piped());
    let watcher = watcher.spawn().unwrap();
    // It has time to come to the newest; what it looked at last stays until it has looked at the next.
    std::thread::sleep(Duration::from_millis(500));
    (2..=6).for_each(&step);
    std::thread::sleep(Duration::from_millis(500));
    step(7);
    let out = watcher.wait_with_output().unwrap();
    let verdict: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(3), "{verdict}");
    assert_eq!(
        (&verdict["first_breach"], &verdict["name"]),
        (&7.into(), &"breach".into()),
        "{verdict}"
    );
    assert!(verdict["evaluations"].as_u64().unwrap() <= verdict["checked"].as_u64().unwrap());
    (8..=14).for_each(&step);
    let history = sls.json(&["history", "-o", "few"]);
    let rows = history["checkpoints"].as_array().unwrap();
    let epochs: Vec<u64> = rows
        .iter()
        .filter_map(|row| row["epoch"].as_u64())
        .collect();
    assert_eq!(epochs, [6, 7, 8, 13, 14], "{history}");
    let broken = sls.json(&["print", "-o", "few", "@breach", "accounts[2].balance"]);
    assert_eq!(broken["value"], -5);
    let refused = sls.try_run(&["assert", "-o", "few", "--watch", "no_such > 1"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("no symbol `no_such`"),
        "{refused:?}"
    );
    target.assert_unharmed();
}
