//! `attach --hold`: the state before a crash, an exec, a fork and an exit is there to look at.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use testkit::{Sls, Target};

fn held(sls: &Sls, what: &str) -> (Target, PathBuf) {
    let fifo = sls.folder().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = std::process::Command::new(testkit::tracee("lives"));
    command.arg(what).arg(&fifo);
    let target = Target::start(sls.folder(), command);
    std::thread::sleep(Duration::from_millis(100));
    sls.run(&["attach", "-p", &target.p(), "-m", "--hold"]);
    (target, fifo)
}

fn go(fifo: &PathBuf) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(fifo)
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
}

fn value(sls: &Sls, at: &str, expression: &str) -> i64 {
    sls.json(&["print", "-m", at, expression])["value"]
        .as_i64()
        .unwrap()
}

#[test]
fn a_crash() {
    let sls = Sls::new();
    let (mut target, fifo) = held(&sls, "crash");
    go(&fifo);
    let status = target.wait(Duration::from_secs(10));
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(11)
    );
    assert_eq!(value(&sls, "@crash", "before_it"), 42);
    let bt = sls.json(&["bt", "-m", "@crash"]);
    assert!(bt.to_string().contains("main"), "{bt}");
}

#[test]
fn an_exit() {
    let sls = Sls::new();
    let (mut target, fifo) = held(&sls, "exit");
    go(&fifo);
    let status = target.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(7));
    assert_eq!(value(&sls, "@exit", "before_it"), 42);
}

#[test]
fn a_fork() {
    let sls = Sls::new();
    let (mut target, fifo) = held(&sls, "fork");
    go(&fifo);
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(value(&sls, "@fork", "before_it"), 42);
    assert!(
        target.output().contains("child unharmed"),
        "{}",
        target.output()
    );
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}

#[test]
fn an_exec() {
    let sls = Sls::new();
    let (mut target, fifo) = held(&sls, "exec");
    go(&fifo);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(value(&sls, "@exec", "before_it"), 42);
    assert_eq!(value(&sls, "@exec", "generation"), 0);
    // The new program is under capture too.
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    assert_eq!(value(&sls, &format!("@{epoch}"), "generation"), 1);
    go(&fifo);
    assert_eq!(target.wait(Duration::from_secs(10)).code(), Some(7));
}
