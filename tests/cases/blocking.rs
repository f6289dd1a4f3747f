//! Programs blocked in one call each: nobody sees an EINTR or a timeout that comes early.

use testkit::{Sls, Target, rounds_of};

use crate::campaign;

/// System V semaphores and queues outlive their maker, who names them.
pub struct SystemV(pub String);

impl Drop for SystemV {
    fn drop(&mut self) {
        for (kind, flag) in [("sem ", "-s"), ("msg ", "-q")] {
            for id in self.0.lines().filter_map(|l| l.strip_prefix(kind)) {
                let _ = std::process::Command::new("ipcrm")
                    .args([flag, id])
                    .status();
            }
        }
    }
}

fn blocked_in(call: &str) {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "blocked", &[call]);
    let _sem = SystemV(target.output());
    let not_restored = campaign::run(
        &sls,
        &mut target,
        rounds_of(4_000, 10_000),
        rounds_of(80, 200),
    );
    let sockets_only = not_restored.iter().all(|l| l.starts_with("socket "));
    assert!(
        if call == "recv" {
            sockets_only
        } else {
            not_restored.is_empty()
        },
        "{not_restored:?}"
    );
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

macro_rules! calls {
    ($($name:ident),*) => { $(#[test] fn $name() { blocked_in(stringify!($name)); })* };
}

calls!(
    read,
    futex,
    nanosleep,
    epoll_wait,
    epoll_forever,
    poll,
    wait4,
    sigsuspend,
    sigtimedwait,
    semop,
    semop_forever,
    recv
);

/// Timeouts of calls that a stop ends with EINTR come on time under a hundred stops a second.
#[test]
fn timeouts_are_on_time() {
    for call in [
        "epoll_wait",
        "sigtimedwait",
        "semop",
        "recv",
        "poll",
        "nanosleep",
        "futex",
    ] {
        let sls = Sls::new();
        let mut command = std::process::Command::new(testkit::tracee("blocked"));
        command.arg(call).env("CHECK_LATE", "1");
        let mut target = Target::start(sls.folder(), command);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let _sem = SystemV(target.output());
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
        std::thread::sleep(std::time::Duration::from_secs(3));
        let worst = sls.json(&["print", "-m", "@-1", "worst_ms"]);
        let calls = sls.json(&["print", "-m", "@-1", "calls"]);
        sls.run(&["detach", "-p", &target.p()]);
        target.assert_unharmed();
        let (worst, calls) = (
            worst["value"].as_i64().unwrap(),
            calls["value"].as_i64().unwrap(),
        );
        println!("{call}: {calls} calls of 60 ms, worst {worst} ms");
        assert!(calls > 20, "{call}: only {calls} calls in 3 s");
        assert!(worst < 250, "{call}: a timeout of 60 ms took {worst} ms");
    }
}
