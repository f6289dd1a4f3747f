//! Histories in one file with the programs they are of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Sls, Target, end_all};

use crate::stores::{fsck, history};

/// A program of the test's own, so that it can be taken away.
const MOVING: &str = r#"
#include <stdio.h>
#include <unistd.h>
struct node { int key; const char *name; struct node *next; };
struct node b = {2, "two", 0}, a = {1, "one", &b};
struct node *head = &a;
volatile int counter;
static void work(int depth) { if (depth) { work(depth - 1); return; } counter++; usleep(1000); }
int main(void) { puts("ready"); fflush(stdout); for (;;) work(3); }
"#;

fn moving(sls: &Sls) -> (PathBuf, Target) {
    let source = sls.folder().join("moving.c");
    fs::write(&source, MOVING).unwrap();
    let path = sls.folder().join("moving");
    let built = Command::new("gcc")
        .args(["-g", "-O0", "-o"])
        .arg(&path)
        .arg(&source)
        .status();
    assert!(built.unwrap().success());
    let target = Target::ready(sls.folder(), sls.program(&path));
    (path, target)
}

/// Another daemon answers the same after the program is gone, from the bundle alone, and gives it on.
#[test]
fn a_bundle_opens_where_its_program_is_not() {
    let sls = Sls::new();
    let (path, mut target) = moving(&sls);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
    std::thread::sleep(Duration::from_millis(300));
    sls.run(&["checkpoint", "-m", "-n", "here"]);
    let file = sls.folder().join("moved.sls");
    let text = file.to_str().unwrap();
    let told = sls.json(&["export", "-m", "--to", text]);
    assert_eq!(told["left_out"], json!([]));
    let has = |told: &Value, path: &Path| {
        let files = told["files"].as_array().unwrap();
        files.iter().any(|file| file.as_str() == path.to_str())
    };
    assert!(has(&told, &path), "{told}");
    assert_eq!(told["file_bytes"], fs::metadata(&file).unwrap().len());
    assert!(told["file_bytes"].as_u64().unwrap() < 64 << 20, "{told}");
    let questions: [&[&str]; 3] = [&["bt"], &["print", "*head->next"], &["print", "work"]];
    let answers = |sls: &Sls, part: &str| -> Vec<Value> {
        let ask = |of: &[&str]| {
            let (verb, rest) = of.split_first().unwrap();
            sls.json(&[&[verb, "-o", part, "@here"], rest].concat())
        };
        questions.iter().map(|of| ask(of)).collect()
    };
    let before = answers(&sls, "mem");
    assert_eq!(before[0]["threads"][0]["frames"][3]["function"], "work");
    let checkpoints = told["checkpoints"].as_u64().unwrap();
    let checkpoints = usize::try_from(checkpoints).unwrap();
    end_all(&mut target, &sls.pids());
    sls.run(&["partdel", "-m"]);
    fs::remove_file(&path).unwrap();

    let other = Sls::new();
    let whole = fs::read(&file).unwrap();
    other.run(&["import", text, "-o", "moved"]);
    assert_eq!(answers(&other, "moved"), before);
    assert_eq!(history(&other, "moved").len(), checkpoints);
    let timeline = other.json(&["timeline", "-o", "moved", "counter"]);
    assert_eq!(timeline["rows"].as_array().unwrap().len(), checkpoints);
    // What came along survives the daemon, and goes into the next bundle; the first is as it was.
    other.kill_daemon();
    assert_eq!(answers(&other, "moved"), before);
    let second = other.folder().join("second.sls");
    let second = second.to_str().unwrap();
    for _ in 0..2 {
        let told = other.json(&["export", "-o", "moved", "@here", "--to", second]);
        assert_eq!(
            (&told["left_out"], &told["checkpoints"]),
            (&json!([]), &json!(1))
        );
    }
    assert!(fs::read(&file).unwrap() == whole, "reading it changed it");
    assert_eq!(fsck(&other, text, &[]).0, 0);
    let folder = other.memory().join("moved");
    assert!(folder.join("files").is_dir());
    other.run(&["partdel", "-o", "moved"]);
    assert!(!folder.exists());
    other.run(&["import", second, "-o", "again"]);
    assert_eq!(answers(&other, "again"), before);
    let snaps = other.json(&["listsnaps", "--store", second]);
    assert_eq!(snaps["snapshots"].as_array().unwrap().len(), 1);
}

/// Half a bundle, a damaged one and what is none are told, and nothing of anybody else's is replaced.
#[test]
fn what_is_no_bundle_is_told() {
    let sls = Sls::new();
    let (_, mut target) = moving(&sls);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    let at = |name: &str| sls.folder().join(name).to_str().unwrap().to_owned();
    let mine = at("letter.sls");
    fs::write(&mine, "dear friend").unwrap();
    sls.refused(
        &["export", "-m", "--to", &mine],
        1,
        "is there already, and is no bundle",
    );
    assert_eq!(fs::read(&mine).unwrap(), b"dear friend");
    sls.refused(&["import", &mine, "-o", "x"], 1, "holds no store");
    sls.refused(&["import", &at("none.sls")], 1, "there is no ");
    sls.refused(
        &["export", "-m", "--to", &at("no/such.sls")],
        1,
        "No such file",
    );
    // Nor what is in the way of a new one; what is empty, or was a bundle, is.
    let whole = at("whole.sls");
    let half = format!("{whole}.part");
    fs::write(&half, "also mine").unwrap();
    sls.refused(
        &["export", "-m", "--to", &whole],
        1,
        "whole.sls.part is there already",
    );
    assert_eq!(fs::read(&half).unwrap(), b"also mine");
    fs::write(&half, [0; 9000]).unwrap();
    fs::write(&whole, "").unwrap();
    for _ in 0..2 {
        sls.run(&["export", "-m", "--to", &whole]);
    }
    let bytes = fs::read(&whole).unwrap();
    let half = at("half.sls");
    for cut in [0, 1 << 18, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&half, &bytes[..cut]).unwrap();
        let out = sls.try_run(&["import", &half, "-o", "half"]);
        assert_eq!(out.code, 1, "{cut} bytes: {}", out.stdout);
    }
    // Any byte of it another: the history is right, or it is told.
    let right = sls.json(&["print", "-m", "@-1", "head"])["value"].clone();
    for n in 0..24 {
        let mut other = bytes.clone();
        let place = (n * 0x9e37_79b9_usize) % (4 << 20);
        other[place] ^= 0x40;
        fs::write(&half, &other).unwrap();
        if sls.try_run(&["import", &half, "-o", "half"]).code == 0 {
            let out = sls.try_run(&["--json", "print", "-o", "half", "@-1", "head"]);
            if out.code == 0 {
                let told: Value = serde_json::from_str(&out.stdout).unwrap();
                let same = told["value"] == right || told["value"].get("unavailable").is_some();
                assert!(same, "byte {place}: {told}");
            }
            sls.run(&["partdel", "-o", "half"]);
        }
    }
    assert!(!Path::new(&at("whole.sls.part")).exists());
    sls.run(&["partdel", "-m"]);
    target.assert_unharmed();
}
