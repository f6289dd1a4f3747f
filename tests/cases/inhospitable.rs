//! Targets that leave little room: each works, or is refused by name, and is unharmed.

use std::path::Path;
use std::time::Duration;

use testkit::{FALLBACKS, Sls, Target, wait_until};

fn counter(sls: &Sls, view: &str) -> i64 {
    let answer = sls.json(&["print", "-m", view, "counter"]);
    answer["value"].as_i64().unwrap()
}

/// Checkpoints under way, rewinds among them: the counter goes back, and on again. `halted`: it is
/// left stopped by the rewind, so that the counter can be compared.
fn goes_back_and_on(sls: &Sls, pid: &str, halted: bool) {
    sls.run(&["attach", "-p", pid, "-m", "-t", "5"]);
    for _ in 0..10 {
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        let then = counter(sls, &format!("@{epoch}"));
        std::thread::sleep(Duration::from_millis(50));
        let to = format!("@{epoch}");
        if halted {
            sls.run(&["rewind", "-m", "-s", &to]);
        } else {
            sls.run(&["rewind", "-m", &to]);
        }
        let back = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        let now = counter(sls, &format!("@{back}"));
        if halted {
            assert_eq!(now, then);
            sls.run(&["resume", "-o", "mem"]);
        }
        wait_until(Duration::from_secs(5), "it counts on", || {
            counter(sls, "@-1") > now
        });
    }
    sls.run(&["detach", "-p", pid]);
}

/// With everything there is, and without each of those that may be missing.
fn everywhere(case: impl Fn(&Sls)) {
    for without in [""].iter().chain(&FALLBACKS) {
        println!("without: {without}");
        case(&Sls::without(without));
    }
}

fn of_a_tracee(sls: &Sls, name: &str) {
    let mut target = sls.tracee(name, &[]);
    std::thread::sleep(Duration::from_millis(50));
    goes_back_and_on(sls, &target.p(), true);
    target.assert_unharmed();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

#[test]
fn a_seccomp_filter_that_kills() {
    for without in ["", FALLBACKS[0], FALLBACKS[1]] {
        of_a_tracee(&Sls::without(without), "strict");
    }
}

/// By the kernel, or by a plain user.
#[test]
fn a_seccomp_filter_that_may_not_be_suspended() {
    for without in [FALLBACKS[2], FALLBACKS[3]] {
        is_looked_at_only(&Sls::without(without));
    }
}

/// Nothing can be injected.
fn is_looked_at_only(sls: &Sls) {
    is_not_rewound(sls, sls.tracee("strict", &[]), "seccomp");
}

/// Nobody in a stopped process brings its pages, or reads what it is told of them.
#[test]
fn a_userfaultfd_that_is_served_elsewhere_or_is_told() {
    everywhere(|sls| {
        let elsewhere = sls.tracee("served", &["elsewhere"]);
        is_not_rewound(sls, elsewhere, "that another process has");
        sls.run(&["partdel", "-o", "mem"]);
        is_not_rewound(sls, sls.tracee("served", &["events"]), "UFFD_FEATURE_EVENT");
    });
}

/// Looked at, but a rewind is refused with this reason.
fn is_not_rewound(sls: &Sls, mut target: Target, why: &str) {
    std::thread::sleep(Duration::from_millis(50));
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "5"]);
    std::thread::sleep(Duration::from_millis(300));
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    let then = counter(sls, &format!("@{epoch}"));
    assert!(then > counter(sls, "@2"));
    let out = sls.try_run(&["rewind", "-m", &format!("@{epoch}")]);
    assert!(out.code == 1 && out.stderr.contains(why), "{}", out.stderr);
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

/// Attached before there was a filter.
#[test]
fn a_seccomp_filter_that_comes_later() {
    everywhere(|sls| {
        let refused = !sls.suspends_seccomp();
        let mut target = sls.tracee("strict", &["500"]);
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "5"]);
        sls.run(&["checkpoint", "-m"]);
        wait_until(Duration::from_secs(10), "it is filtered and counts", || {
            counter(sls, "@-1") > 0
        });
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        std::thread::sleep(Duration::from_millis(1500)); // Facts are asked once a second.
        let out = sls.try_run(&["rewind", "-m", &format!("@{epoch}")]);
        assert_eq!(out.code, i32::from(refused), "{}", out.stderr);
        sls.run(&["detach", "-p", &target.p()]);
        target.assert_unharmed();
        assert!(!target.output().contains("FAIL"), "{}", target.output());
    });
}

#[test]
fn a_full_descriptor_table() {
    everywhere(|sls| of_a_tracee(sls, "crowded"));
}

/// Its parent waits for it to stop or to continue, and is told of neither.
#[test]
fn a_parent_that_waits_for_stops() {
    everywhere(|sls| {
        let mut parent = sls.tracee("watched", &[]);
        let output = parent.output();
        let child = output.trim().rsplit(' ').next().unwrap();
        goes_back_and_on(sls, child, false);
        parent.assert_unharmed();
        assert!(!parent.output().contains("FAIL"), "{}", parent.output());
    });
}

/// What a shell on a terminal of its own prints while its foreground job is looked at.
const SHELL: &str = r#"
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "-i"])
os.write(fd, f"{sys.argv[1]}; echo 'it has' ended\n".encode())
while True:
    if select.select([fd], [], [], 1.0)[0]:
        os.write(1, os.read(fd, 4096))
"#;

#[test]
fn the_foreground_job_of_a_shell() {
    everywhere(is_not_stopped);
}

fn is_not_stopped(sls: &Sls) {
    let mut python = sls.program(Path::new("/usr/bin/python3"));
    let ticker = sls.program(&testkit::tracee("ticker"));
    python.args(["-c", SHELL]).arg(ticker.get_program());
    let mut shell = Target::start(sls.folder(), python);
    wait_until(Duration::from_secs(10), "the job runs", || {
        shell.output().contains("ready\r")
    });
    let bash = only_child(shell.pid());
    let job = only_child(bash).to_string();
    sls.run(&["attach", "-p", &job, "-m", "-t", "5"]);
    for _ in 0..10 {
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        sls.run(&["rewind", "-m", &format!("@{epoch}")]);
    }
    sls.run(&["detach", "-p", &job]);
    let said = shell.output();
    assert!(!said.contains("Stopped"), "{said}");
    assert!(!said.contains("it has ended"), "{said}");
    shell.assert_unharmed();
    testkit::end(job.parse().unwrap(), 15);
    wait_until(Duration::from_secs(5), "the shell goes on", || {
        shell.output().contains("it has ended")
    });
}

fn only_child(pid: i32) -> i32 {
    match testkit::children(pid)[..] {
        [child] => child,
        ref all => panic!("children of {pid}: {all:?}"),
    }
}

/// gdb comes and goes in the middle of a history.
#[test]
fn gdb_in_between() {
    everywhere(gdb_comes_and_goes);
}

fn gdb_comes_and_goes(sls: &Sls) {
    let mut target = sls.tracee("ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
    let mut stacks = 0;
    for _ in 0..5 {
        let mut gdb = sls.program(Path::new("/usr/bin/gdb"));
        gdb.args(["-q", "-nx", "--batch", "-p", &target.p(), "-ex", "bt"]);
        let out = gdb.output().unwrap();
        stacks += usize::from(String::from_utf8_lossy(&out.stdout).contains("main"));
        target.assert_alive();
    }
    assert!(stacks > 0, "gdb never got through");
    let before = counter(sls, "@-1");
    wait_until(Duration::from_secs(5), "the history goes on", || {
        counter(sls, "@-1") > before
    });
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}
