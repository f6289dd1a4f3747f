//! What prctl(2) sets.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Sls, Target, kill, wait_until};

const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;

/// What it has said. Always at the end of a file: the offset goes back, what it said does not.
fn said(sls: &Sls) -> String {
    std::fs::read_to_string(sls.folder().join("said")).unwrap_or_default()
}

/// The target does what the signal tells it to; what it then says.
fn tell(sls: &Sls, pid: i32, signal: i32) -> String {
    let before = said(sls);
    kill(pid, signal);
    wait_until(Duration::from_secs(5), "it answers", || {
        said(sls).ends_with('\n') && said(sls) != before
    });
    let line = said(sls).lines().next_back().map(ToOwned::to_owned);
    line.unwrap_or_default()
}

#[test]
fn a_rewind_and_a_restore_put_it_back() {
    let sls = Sls::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" >> \"$1\""]);
    shell.arg(testkit::tracee("conduct"));
    shell.arg(sls.folder().join("said"));
    let mut target = Target::start(sls.folder(), shell);
    wait_until(Duration::from_secs(5), "ready", || {
        said(&sls).contains("ready")
    });
    let pid = target.pid();
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let first = tell(&sls, pid, SIGUSR2);
    assert!(first.starts_with("has 1 1 1 main 100010"), "{first}");
    sls.run(&["checkpoint", "-m", "-n", "first"]);
    tell(&sls, pid, SIGUSR1);
    let changed = tell(&sls, pid, SIGUSR2);
    assert!(changed.starts_with("has 0 0 0 main 100021"), "{changed}");
    sls.run(&["checkpoint", "-m", "-n", "changed"]);
    sls.run(&["rewind", "-m", "@first"]);
    assert_eq!(tell(&sls, pid, SIGUSR2), first);
    sls.run(&["rewind", "-m", "@changed"]);
    assert_eq!(tell(&sls, pid, SIGUSR2), changed);
    kill(pid, 9);
    target.wait(Duration::from_secs(5));
    for (at, was) in [("@first", &first), ("@changed", &changed)] {
        wait_until(Duration::from_secs(5), "it is gone", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
        let done = sls.json(&["restore", "-m", at, "-d"]);
        assert!(
            done["not_restored"]
                .to_string()
                .contains("parent-death signal"),
            "{done}"
        );
        // All but the signal: it has another parent.
        let is = tell(&sls, pid, SIGUSR2);
        let words = |line: &str| {
            let words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
            [words[..6].to_vec(), words[7..9].to_vec()].concat()
        };
        assert_eq!(words(&is), words(was));
        assert_eq!(is.split(' ').nth(6), Some("0"), "{is}");
        kill(pid, 9);
    }
}
