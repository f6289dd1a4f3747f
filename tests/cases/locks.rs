//! Locks on files, as the kernel lists them.

use std::time::Duration;

use testkit::{Sls, Target, kill, wait_until};

const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;

/// Kind, rights and range of each lock, by descriptor.
fn locks(pid: i32) -> Vec<String> {
    let mut found = Vec::new();
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
    for entry in folder.into_iter().flatten().flatten() {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for line in info.lines().filter(|line| line.starts_with("lock:")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (kind, rights) = (words[2], words[4]);
            let range = words[words.len() - 2..].join("-");
            found.push(format!("{:?} {kind} {rights} {range}", entry.file_name()));
        }
    }
    found.sort();
    found
}

fn start(sls: &Sls) -> Target {
    let folder = sls.folder().to_string_lossy().into_owned();
    let target = Target::tracee(sls.folder(), "locks", &[&folder]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    target
}

#[test]
fn a_rewind_takes_and_gives_up() {
    let sls = Sls::new();
    let target = start(&sls);
    let pid = target.pid();
    let held = locks(pid);
    assert_eq!(held.len(), 4, "{held:?}");
    sls.run(&["checkpoint", "-m", "-n", "held"]);
    kill(pid, SIGUSR1);
    wait_until(Duration::from_secs(5), "given up", || locks(pid).is_empty());
    sls.run(&["checkpoint", "-m", "-n", "free"]);
    sls.run(&["rewind", "-m", "@held"]);
    assert_eq!(locks(pid), held);
    sls.run(&["rewind", "-m", "@free"]);
    assert_eq!(locks(pid), [""; 0]);
    kill(pid, SIGUSR2);
    wait_until(Duration::from_secs(5), "taken", || locks(pid) == held);
    sls.run(&["detach", "-m"]);
}

#[test]
fn a_restore_takes_them_or_names_who_cannot_be_had() {
    let sls = Sls::new();
    let mut target = start(&sls);
    let pid = target.pid();
    let held = locks(pid);
    sls.run(&["checkpoint", "-m", "-n", "held"]);
    kill(pid, 9);
    target.wait(Duration::from_secs(5));
    let done = sls.json(&["restore", "-m", "@held", "-d"]);
    assert_eq!(locks(pid), held, "{done}");
    kill(pid, 9);
    wait_until(Duration::from_secs(5), "it is gone", || {
        locks(pid).is_empty() && !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    let other = std::fs::File::open(sls.folder().join("lock0")).unwrap();
    other.lock().unwrap();
    let done = sls.json(&["restore", "-m", "@held", "-d"]);
    let named = done["not_restored"].to_string();
    assert!(
        named.contains("lock0") && named.contains("lock on"),
        "{named}"
    );
    assert_eq!(locks(pid), held[1..], "{done}");
    kill(pid, 9);
}
