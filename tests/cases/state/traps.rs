//! SIGTRAP, which a process that is made anew meets on the way: what the program wants of it stays.

use testkit::Obedient;

use super::both_ways;

/// Is it ignored, caught, blocked, pending, as the kernel has it?
const TOLD: &str = "[int(line.split()[1], 16) >> 4 & 1 for line in open('/proc/self/status') \
                    if line[:6] in ('SigIgn', 'SigCgt', 'SigBlk', 'SigPnd', 'ShdPnd')]";

fn comes_back(how: &str, as_told: &str) {
    let mut it = Obedient::start();
    it.order("import os, signal", "made");
    it.order(how, "set");
    assert_eq!(it.tell(TOLD), as_told);
    let set = it.checkpoint();
    both_ways(&mut it, set, |it| assert_eq!(it.tell(TOLD), as_told));
    it.end();
}

#[test]
fn one_that_is_ignored() {
    // SigPnd, ShdPnd, SigBlk, SigIgn, SigCgt.
    let how = "signal.signal(signal.SIGTRAP, signal.SIG_IGN)";
    comes_back(how, "[0, 0, 0, 1, 0]");
}

#[test]
fn one_that_is_caught_and_blocked() {
    let how = "signal.signal(signal.SIGTRAP, lambda *_: 0); \
               signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTRAP})";
    comes_back(how, "[0, 0, 1, 0, 1]");
}

#[test]
fn one_that_waits() {
    let how = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTRAP}); \
               os.kill(os.getpid(), signal.SIGTRAP)";
    comes_back(how, "[0, 1, 1, 0, 0]");
}
