//! Real and multi-threaded programs keep their own invariants through checkpoints and rewinds.

use std::process::Command;

use testkit::{Sls, Target, rounds, rounds_of};

use crate::campaign;

fn keeps_its_invariants(tracee: &str) {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), tracee, &[]);
    let not_restored = campaign::run(&sls, &mut target, rounds(10_000), 200);
    assert!(not_restored.is_empty(), "{not_restored:?}");
    target.assert_goes_on();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

#[test]
fn cpp_with_threads() {
    keeps_its_invariants("invariants");
}

#[test]
fn rust_with_threads() {
    keeps_its_invariants("channels");
}

#[test]
fn sixty_four_threads_that_come_and_go() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "churn", &[]);
    let not_restored = campaign::run(&sls, &mut target, rounds(2000), 200);
    assert!(not_restored.is_empty(), "{not_restored:?}");
    target.assert_goes_on();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

pub const PYTHON: &str = r#"
import threading, time, sys, os
lock = threading.Lock()
d = {}
def work(me):
    n = 0
    while True:
        with lock:
            d[(me, n % 20000)] = n
            d["sum"] = d.get("sum", 0) + 1
            d["count", me] = d.get(("count", me), 0) + 1
        n += 1
        if n % 100 == 0:
            time.sleep(0.001)
for i in range(4):
    threading.Thread(target=work, args=(i,), daemon=True).start()
print("ready", flush=True)
while True:
    time.sleep(0.002)
    with lock:
        total = sum(d.get(("count", i), 0) for i in range(4))
        if total != d.get("sum", 0):
            print("FAIL", total, d.get("sum"), flush=True)
            os.abort()
"#;

#[test]
fn python_with_four_threads_and_a_growing_dict() {
    let sls = Sls::new();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]);
    let mut target = Target::start(sls.folder(), command);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let not_restored = campaign::run(&sls, &mut target, rounds_of(2_500, 10_000), 200);
    assert!(not_restored.is_empty(), "{not_restored:?}");
    target.assert_goes_on();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}
