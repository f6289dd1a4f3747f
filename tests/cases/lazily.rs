//! `restore --lazy`: processes that run before their pages are there.

use std::fs;
use std::time::{Duration, Instant};

use testkit::{Sls, Target, field, kill, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// The tracee lazily, with a round for each file of its folder, killed and ready to come back.
struct Lazily {
    sls: Sls,
    pid: i32,
}

impl Lazily {
    fn new() -> Self {
        let sls = Sls::new();
        let files: Vec<String> = (1..=4).map(|n| Self::file(&sls, n)).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let mut target = Target::tracee(sls.folder(), "lazily", &files);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        sls.run(&["checkpoint", "-m", "-n", "whole"]);
        let pid = target.pid();
        kill(pid, 9);
        target.wait(SOON);
        Self { sls, pid }
    }

    fn file(sls: &Sls, round: u32) -> String {
        sls.folder()
            .join(format!("go{round}"))
            .display()
            .to_string()
    }

    /// It goes on as soon as it runs.
    fn let_check(&self, round: u32) {
        fs::write(Self::file(&self.sls, round), "").unwrap();
    }

    fn restore(&self, how: &[&str]) -> i32 {
        let told = self
            .sls
            .json(&[&["restore", "-m", "-d", "--lazy"], how].concat());
        assert!(told["pages"].as_u64().unwrap() > 32_000, "{told}");
        let pids = told["pids"].as_object().unwrap();
        let pid = pids[&self.pid.to_string()].as_i64().unwrap();
        i32::try_from(pid).unwrap()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.sls.folder().join("lazily.out")).unwrap()
    }

    /// What it writes from here on is at the same place.
    fn forget_output(&self) {
        fs::write(self.sls.folder().join("lazily.out"), "").unwrap();
    }

    fn await_round(&self, round: u32) {
        let right = format!("round {round} is right");
        wait_until(SOON, &right, || {
            let output = self.output();
            assert!(!output.contains("wrong"), "{output}");
            output.contains(&right)
        });
    }

    fn end(&self, pid: i32) {
        kill(pid, 9);
        wait_until(SOON, "its end is known", || field(pid, "State:").is_empty());
    }
}

/// The numbers of those that bring pages for this daemon.
fn pagers(sls: &Sls) -> Vec<i32> {
    let all = testkit::children(sls.daemon());
    let is_one = |pid: &i32| field(*pid, "Name:") == "sls-pager";
    all.into_iter().filter(is_one).collect()
}

#[test]
fn memory_changes_hands_while_it_is_brought() {
    let it = Lazily::new();
    it.let_check(1);
    let pid = it.restore(&["@whole"]);
    it.await_round(1);
    // A checkpoint has all of it, what is brought and what was changed, and so has a lazy restore of that.
    it.sls.run(&["checkpoint", "-m", "-n", "again"]);
    assert_eq!(field(pid, "TracerPid:"), "0");
    it.let_check(2);
    it.await_round(2);
    it.forget_output();
    it.sls.run(&["rewind", "-m", "@again"]);
    it.await_round(2);
    it.end(pid);
    fs::remove_file(Lazily::file(&it.sls, 2)).unwrap();
    it.forget_output();
    let pid = it.restore(&["@again"]);
    // At once, while nearly nothing is there.
    let at = it.sls.json(&["checkpoint", "-m"])["epoch"].clone();
    let changed = it
        .sls
        .json(&["diff", "-m", "@again", &format!("@{at}"), "--pages"]);
    let pages = changed["pages"].as_array().unwrap();
    let count: u64 = pages.iter().map(|p| p["count"].as_u64().unwrap()).sum();
    assert!(count < 50, "{changed}");
    it.let_check(2);
    it.await_round(2);
    it.end(pid);
}

#[test]
fn it_is_carried_through_without_slsd() {
    let it = Lazily::new();
    it.let_check(1);
    let pid = it.restore(&["@whole"]);
    it.sls.kill_daemon();
    it.await_round(1);
    // Whoever attaches waits until it is whole.
    it.sls.run(&["attach", "-p", &pid.to_string(), "-m"]);
    it.sls.run(&["checkpoint", "-m", "-n", "later"]);
    it.end(pid);
    it.let_check(2);
    let pid = it.restore(&["@later"]);
    it.await_round(2);
    it.end(pid);
}

/// Nothing runs on with zeros in the place of what is missing.
#[test]
fn without_its_pager_it_ends() {
    let it = Lazily::new();
    let pid = it.restore(&["@whole"]);
    for pager in pagers(&it.sls) {
        kill(pager, 9);
    }
    it.let_check(1);
    wait_until(SOON, "it ends, or is whole", || {
        field(pid, "State:").is_empty() || it.output().contains("round 1 is right")
    });
    let output = it.output();
    assert!(!output.contains("wrong"), "{output}");
    // It is restored as before.
    if !field(pid, "State:").is_empty() {
        it.end(pid);
    }
    let pid = it.restore(&["@whole"]);
    wait_until(SOON, "all is right", || {
        it.output().contains("round 1 is right")
    });
    assert!(!it.output().contains("wrong"));
    it.end(pid);
}

#[test]
fn in_a_namespace_and_standing_still() {
    let it = Lazily::new();
    let pid = it.restore(&["@whole", "--pidns", "-s"]);
    assert_ne!(pid, it.pid);
    it.let_check(1);
    wait_until(SOON, "all is there", || pagers(&it.sls).is_empty());
    assert_eq!(field(pid, "State:").chars().next(), Some('T'));
    it.sls.run(&["resume", "-m"]);
    it.await_round(1);
    it.end(pid);
}

/// A pager starts later than they are written.
#[test]
fn few_pages_are_written_at_once() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    let pid = target.pid();
    kill(pid, 9);
    target.wait(SOON);
    let begun = Instant::now();
    sls.json(&["restore", "-m", "-d", "--lazy"]);
    assert!(pagers(&sls).is_empty(), "after {:?}", begun.elapsed());
    sls.json(&["checkpoint", "-m"]);
    kill(pid, 9);
}
