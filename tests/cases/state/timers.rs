//! Timers that have rung while their signal was blocked.

use testkit::Obedient;

use super::both_ways;

/// A timer of setitimer(2) stands still until its signal is taken, and goes on then.
#[test]
fn one_that_has_rung_goes_on() {
    let mut it = Obedient::start();
    it.order("import signal, time; rang = []", "made");
    it.order(
        "signal.signal(signal.SIGALRM, lambda *_: rang.append(1))",
        "caught",
    );
    it.order(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})",
        "blocked",
    );
    it.order(
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.02); time.sleep(0.1)",
        "rang",
    );
    let state = "signal.sigpending() == {signal.SIGALRM}, signal.getitimer(signal.ITIMER_REAL)";
    assert_eq!(it.tell(state), "(True, (0.0, 0.02))");
    let rung = it.checkpoint();
    it.order("signal.setitimer(signal.ITIMER_REAL, 0)", "ended");
    it.order("signal.sigwait({signal.SIGALRM})", "taken");
    let ended = it.checkpoint();
    both_ways(&mut it, rung, |it| {
        assert_eq!(it.tell(state), "(True, (0.0, 0.02))");
        it.order(
            "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})",
            "let through",
        );
        let rings = "any(len(rang) > 5 or time.sleep(0.01) for _ in range(900))";
        assert_eq!(it.tell(rings), "True");
    });
    both_ways(&mut it, ended, |it| {
        assert_eq!(
            it.tell("signal.sigpending(), signal.getitimer(0)"),
            "(set(), (0.0, 0.0))"
        );
    });
    it.end();
}

/// A timer rings on while everything stands still and is put back; its signal is nothing that a state
/// without it has.
#[test]
fn one_that_rings_meanwhile_leaves_nothing() {
    let mut it = Obedient::start();
    it.order("import ctypes, signal; libc = ctypes.CDLL(None)", "made");
    it.order("signal.signal(signal.SIGALRM, lambda *_: 0)", "caught");
    it.order("signal.signal(signal.SIGRTMIN, lambda *_: 0)", "caught");
    it.order(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGRTMIN})",
        "blocked",
    );
    let still = it.checkpoint();
    let open = "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGRTMIN})";
    // struct sigevent: value, signal, by signal; struct itimerspec: every 1 ms.
    let posix = "\
        event = (ctypes.c_int * 16)(0, 0, signal.SIGRTMIN, 0); timer = ctypes.c_int(); \
        libc.timer_create(1, event, ctypes.byref(timer)); \
        libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 10**6, 0, 10**6), None)";
    for _ in 0..5 {
        it.order(open, "let through");
        it.order("signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)", "set");
        it.order(posix, "set");
        assert_eq!(it.rewind(still), "[]");
        let told = it.tell("signal.sigpending(), signal.getitimer(signal.ITIMER_REAL)");
        assert_eq!(told, "(set(), (0.0, 0.0))");
    }
    it.end();
}
