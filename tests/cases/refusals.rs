//! What cannot be attached to is refused by name and unharmed.

use std::process::{Command, Stdio};
use std::time::Duration;

use sls_sys::ptrace::{self, Waited};
use testkit::{Sls, Target, threads, wait_until};

#[test]
fn under_another_debugger() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    let mut gdb = Command::new("gdb")
        .args(["-q", "-nx", "-p", &target.p()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..400 {
        if testkit::field(target.pid(), "TracerPid:") != "0" {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    sls.refused(
        &["attach", "-p", &target.p(), "-m"],
        1,
        "under another debugger",
    );
    drop(gdb.stdin.take()); // End of input: gdb detaches and leaves.
    gdb.wait().unwrap();
    target.assert_unharmed();
}

/// The keeper that finds out is waited for, like any other.
#[test]
fn refused_by_the_keeper_again_and_again() {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    let other = *threads(target.pid()).last().unwrap();
    assert_ne!(other, target.pid());
    ptrace::seize(other, 0).unwrap();
    for _ in 0..5 {
        sls.refused(
            &["attach", "-p", &target.p(), "-m"],
            1,
            "under another tracer",
        );
    }
    let daemon = sls.daemon();
    wait_until(Duration::from_secs(5), "no keeper is left", || {
        let folder = format!("/proc/{daemon}/task");
        let tasks = std::fs::read_dir(folder).unwrap().flatten();
        let children = tasks.map(|t| std::fs::read_to_string(t.path().join("children")));
        children.flatten().all(|c| c.trim().is_empty())
    });
    ptrace::interrupt(other).unwrap();
    if let Ok(Some(Waited::Stopped(stopped))) = ptrace::wait(other, true) {
        stopped.detach(0).unwrap();
    }
}

#[test]
fn a_zombie() {
    let sls = Sls::new();
    let mut child = Command::new("true").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    sls.refused(
        &["attach", "-p", &child.id().to_string(), "-m"],
        1,
        "zombie",
    );
    child.wait().unwrap();
}

#[test]
fn no_such_process_and_a_thread() {
    let sls = Sls::new();
    sls.refused(&["attach", "-p", "4194000", "-m"], 1, "no process 4194000");
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    let mut tids = threads(target.pid()).into_iter();
    let tid = tids.find(|&t| t != target.pid()).unwrap().to_string();
    sls.refused(&["attach", "-p", &tid, "-m"], 1, "is a thread of process");
}

#[test]
fn a_32_bit_process() {
    let sls = Sls::new();
    let source = sls.folder().join("small.c");
    let program = sls.folder().join("small");
    std::fs::write(
        &source,
        "#include <unistd.h>\nint main(void){for(;;)pause();}\n",
    )
    .unwrap();
    let built = Command::new("gcc")
        .arg("-m32")
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status();
    assert!(
        built.unwrap().success(),
        "gcc -m32; ./x setup installs gcc-multilib"
    );
    let mut target = Target::start(sls.folder(), Command::new(&program));
    sls.refused(&["attach", "-p", &target.p(), "-m"], 1, "32-bit");
    target.assert_unharmed();
}

/// As a plain user: a process of another user is refused, one's own is not.
#[test]
fn a_plain_user() {
    let sls = Sls::plain();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut roots = Target::tracee(elsewhere.path(), "ticker", &[]);
    let mut own = sls.tracee("ticker", &[]);
    if nix::unistd::geteuid().is_root() {
        sls.refused(&["attach", "-p", &roots.p(), "-m"], 1, "belongs to uid 0");
    }
    roots.assert_unharmed();
    sls.run(&["attach", "-p", &own.p(), "-m", "-t", "10"]);
    std::thread::sleep(Duration::from_millis(300));
    sls.json(&["checkpoint", "-m"]);
    sls.json(&["rewind", "-m", "@1"]);
    sls.run(&["partdel", "-o", "mem"]);
    own.assert_unharmed();
}
