//! Commands that run around a checkpoint and a restore.

use std::fs;

use testkit::{Again, Sls, Target, end_all, field, is_gone};

/// A command that writes down what it is told, and fails where `failing` is the action.
fn script(sls: &Sls, failing: &str) -> String {
    let log = sls.folder().join("told");
    let log = log.display();
    format!(
        "echo \"$CRTOOLS_SCRIPT_ACTION $SLS_PARTITION ${{SLS_EPOCH:--}} $SLS_PID $CRTOOLS_INIT_PID\" >> {log}; \
         echo printed; [ $CRTOOLS_SCRIPT_ACTION != '{failing}' ] || exit 7"
    )
}

/// What was written down since the last time.
fn told(sls: &Sls) -> Vec<String> {
    let path = sls.folder().join("told");
    let text = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, "").unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn they_are_told_what_happens_and_can_stop_it() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    let (pid, p) = (target.pid(), target.p());
    sls.run(&["attach", "-p", &p, "-m"]);
    let plain = script(&sls, "");
    let twice = ["--action-script", &plain, "--action-script", &plain];
    let taken = sls.json(&[&["checkpoint", "-m"][..], &twice].concat());
    assert_eq!(taken["epoch"], 1, "what they print is not in the answer");
    let before = format!("pre-dump mem - {p} {p}");
    let after = format!("post-dump mem 1 {p} {p}");
    assert_eq!(
        told(&sls),
        [&before, &before, &after, &after].map(String::clone)
    );

    let stops = script(&sls, "pre-dump");
    let checkpoint = ["checkpoint", "-m", "--action-script", &stops];
    sls.refused(&checkpoint, 1, "for pre-dump: exit status: 7");
    let late = script(&sls, "post-dump");
    let checkpoint = ["checkpoint", "-m", "--action-script", &late];
    sls.refused(&checkpoint, 1, "for post-dump: exit status: 7");
    let history = sls.json(&["history", "-m"]);
    let kept = history["checkpoints"].as_array().unwrap().len();
    assert_eq!(
        kept, 2,
        "the first and the one before the late failure: {history}"
    );
    end_all(&mut target, &[pid]);
    told(&sls);

    let stops = script(&sls, "pre-restore");
    sls.refused(
        &["restore", "-m", "-d", "@1", "--action-script", &stops],
        1,
        "for pre-restore: exit status: 7",
    );
    assert!(is_gone(pid), "nothing is made");
    told(&sls);
    let (again, _) = Again::made(&sls, &["@1", "--action-script", &plain]);
    let lines = ["pre-restore", "post-resume"].map(|a| format!("{a} mem 1 {p} {p}"));
    assert_eq!(told(&sls), lines);
    again.end();
    let (again, _) = Again::made(&sls, &["@1", "-s", "--action-script", &plain]);
    let lines = ["pre-restore", "post-restore"].map(|a| format!("{a} mem 1 {p} {p}"));
    assert_eq!(told(&sls), lines);
    assert!(field(pid, "State:").starts_with('T'), "it stands still");
    again.end();
    // It waits for nobody then, and the program runs.
    let late = script(&sls, "post-resume");
    sls.refused(
        &["restore", "-m", "@1", "--action-script", &late],
        1,
        "for post-resume: exit status: 7",
    );
    let again = Again(vec![pid]);
    assert!(field(pid, "State:").starts_with(['S', 'R']), "it runs");
    again.end();
}
