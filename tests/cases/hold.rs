//! `attach --hold`: the state before a crash, an exec, a fork and an exit is there to look at.

use std::time::Duration;

use testkit::{Lives, Sls};

fn held(sls: &Sls, what: &str) -> Lives {
    Lives::attached(sls, what, &["--hold"])
}

fn value(sls: &Sls, at: &str, expression: &str) -> i64 {
    sls.json(&["print", "-m", at, expression])["value"]
        .as_i64()
        .unwrap()
}

#[test]
fn a_crash() {
    let sls = Sls::new();
    let mut target = held(&sls, "crash");
    target.go();
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
    let mut target = held(&sls, "exit");
    target.go();
    let status = target.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(7));
    assert_eq!(value(&sls, "@exit", "before_it"), 42);
}

#[test]
fn a_fork() {
    let sls = Sls::new();
    let mut target = held(&sls, "fork");
    target.go();
    target.assert_both_unharmed(&sls);
    assert_eq!(value(&sls, "@fork", "before_it"), 42);
}

#[test]
fn an_exec() {
    let sls = Sls::new();
    let mut target = held(&sls, "exec");
    target.go();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(value(&sls, "@exec", "before_it"), 42);
    assert_eq!(value(&sls, "@exec", "generation"), 0);
    // The new program is under capture too.
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    assert_eq!(value(&sls, &format!("@{epoch}"), "generation"), 1);
    target.go();
    assert_eq!(target.wait(Duration::from_secs(10)).code(), Some(7));
}
