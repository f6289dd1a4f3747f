//! Programs that are started under checkpoints.

use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::{Again, Sls, is_gone, kill, wait_gone, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn spawn(sls: &Sls, how: &[&str], program: &[&str]) -> testkit::Output {
    sls.try_run(&[&["spawn", "-m"], how, &["--"], program].concat())
}

fn checkpoints(sls: &Sls) -> usize {
    let history = sls.json(&["history", "-m"]);
    history["checkpoints"].as_array().unwrap().len()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_exit_status_is_passed_on() {
    for sls in [Sls::new(), Sls::plain()] {
        let sh = |script| spawn(&sls, &[], &["/bin/sh", "-c", script]).code;
        assert_eq!(sh("exit 7"), 7);
        assert_eq!(sh("kill -TERM $$"), 128 + 15);
        assert_eq!(sh("true"), 0);
        assert_eq!(checkpoints(&sls), 3, "one of the beginning of each");
    }
}

/// It is not stopped there as far as it can tell, and a restore of it runs.
#[test]
fn the_first_checkpoint_is_of_the_beginning() {
    let sls = Sls::new();
    let log = sls.folder().join("log");
    let program = format!(
        "echo begun >> {0}; echo $0 $1 >> {0}; exit 5",
        log.display()
    );
    let out = spawn(&sls, &[], &["/bin/sh", "-c", &program, "name", "argument"]);
    assert_eq!(out.code, 5, "{out:?}");
    assert_eq!(lines(&log), ["begun", "name argument"]);
    assert_eq!(checkpoints(&sls), 1);
    let maps = sls.run(&["maps", "-m", "@1"]);
    assert!(!maps.contains("slsctl"), "{maps}");
    assert!(
        !maps.contains("libc.so"),
        "its loader has not begun: {maps}"
    );
    let out = sls.try_run(&["restore", "-m", "@1"]);
    assert_eq!(out.code, 5, "{out:?}");
    assert_eq!(
        lines(&log),
        ["begun", "name argument", "begun", "name argument"]
    );
}

#[test]
fn its_end_ends_the_recording_and_the_history_stays() {
    let sls = Sls::new();
    let out = spawn(&sls, &["-t", "20"], &["/bin/sh", "-c", "sleep 0.4; exit 3"]);
    assert_eq!(out.code, 3, "{out:?}");
    wait_until(SOON, "its end is known", || {
        sls.json(&["ps"])["processes"][0]["state"] == "dead"
    });
    let kept = checkpoints(&sls);
    assert!(kept > 3, "{kept}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(checkpoints(&sls), kept);
    let name = sls.json(&["threads", "-m", "@-1"]).to_string();
    assert!(name.contains("sh"), "{name}");
}

/// The status is the parent's; who descends from it is checkpointed until all have ended.
#[test]
fn a_parent_that_exits_before_its_child() {
    let sls = Sls::new();
    let pid_of = sls.folder().join("child");
    let program = format!(
        "sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > {}; sleep 0.3; exit 9",
        pid_of.display()
    );
    let out = spawn(&sls, &["-r", "-t", "20"], &["/bin/sh", "-c", &program]);
    assert_eq!(out.code, 9, "{out:?}");
    let child: i32 = lines(&pid_of)[0].parse().unwrap();
    let again = Again(vec![child]); // Ends with the test.
    assert!(!is_gone(child));
    let kept = checkpoints(&sls);
    wait_until(SOON, "its child is checkpointed", || {
        let history = sls.json(&["history", "-m"]);
        let rows = history["checkpoints"].as_array().unwrap();
        rows.len() > kept + 2 && rows.last().unwrap()["pids"] == serde_json::json!([child])
    });
    kill(child, 9);
    wait_gone(&[child]);
    drop(again);
    wait_until(SOON, "the end of all is known", || {
        sls.json(&["ps"])["processes"][0]["state"] == "dead"
    });
    let kept = checkpoints(&sls);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(checkpoints(&sls), kept);
}

#[test]
fn what_cannot_be_executed_is_named_and_leaves_nothing() {
    let sls = Sls::new();
    sls.run(&["partadd", "memory", "-o", "other"]);
    for (program, code) in [
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/etc/passwd", 126),
        ("/", 126),
    ] {
        let out = spawn(&sls, &[], &[program]);
        assert_eq!(out.code, code, "{out:?}");
        assert!(out.stderr.contains(&format!("{program}: ")), "{out:?}");
    }
    let stat = sls.json(&["stat"]);
    assert_eq!(stat["partitions"].as_array().unwrap().len(), 1, "{stat}");
}
