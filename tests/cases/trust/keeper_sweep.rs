//! The keeper killed with -9 after its n-th system call, for every n, alone and together with slsd:
//! the target did not notice, or stood halted until the next keeper put it right. Never mixed, never
//! deaf, nothing left behind.

use std::time::{Duration, Instant};

use testkit::{Dice, Row, Sls, adopt, children, field, is_gone, kill, rounds_of, seed, wait_until};

use super::fallback::named;
use super::sweep::{Before, Prey, client, has_scratch, is_halted, keeper, kill_after};

/// A step of the sweep in `./x test`; in `./x soak` it is 1.
const STRIDE: u64 = 17;

const ABOUT: &str = "sls-keeper is killed with -9 after each of its system calls in turn, alone or with slsd: the program runs on, or waits whole for the next keeper";

/// What is being done when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Checkpoint,
    Rewind,
}

/// `both`: slsd dies with it, so that nobody is left to put anything right at once.
fn sweep(without: &str, stride: u64, act: Act, both: bool) {
    let sls = Sls::without(without);
    let campaign = &named(
        match (act, both) {
            (Act::Checkpoint, false) => "keeper killed in a checkpoint",
            (Act::Checkpoint, true) => "keeper and slsd killed in a checkpoint",
            (Act::Rewind, false) => "keeper killed in a rewind",
            (Act::Rewind, true) => "keeper and slsd killed in a rewind",
        },
        without,
    );
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: ABOUT.to_owned(),
        seed: seed(11),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut target = sls.tracee("invariants", &[]);
    let before = Before::of(&target);
    sls.run(&["partadd", "memory", "-o", "mem", "--keep", "last:8"]);
    let target_id = target.p();
    let attach = ["attach", "-p", &target_id, "-m"];
    sls.run(&attach);
    let stride = rounds_of(stride, 1);
    let mut n = 1 + dice.below(stride);
    loop {
        let arguments = command(&sls, act);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let prey = Prey::Process(keeper(&sls));
        let others: Vec<i32> = both.then(|| sls.daemon()).into_iter().collect();
        if !kill_after(prey, n, &others, || client(&sls, &arguments)) {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        target.assert_alive();
        if both && (is_halted(&target) || has_scratch(&target)) {
            // It stands, or runs with a scratch area that nobody is left to take away.
            row.put_right += 1;
        } else {
            row.unharmed += 1;
            before.assert_still(&mut target, 0, &when);
        }
        if both {
            sls.run(&attach);
            before.assert_still(&mut target, 0, &when);
        }
        // Another one has taken its place, or does now.
        sls.run(&["checkpoint", "-m"]);
        wait_until(Duration::from_secs(5), "another keeper", || {
            children(sls.daemon())
                .iter()
                .any(|&pid| field(pid, "Name:") == "sls-keeper")
        });
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    sls.run(&["detach", "-p", &target.p()]);
    before.assert_still(&mut target, 0, campaign);
    row.note = format!("up to its call {n}");
    row.report();
}

fn command(sls: &Sls, act: Act) -> Vec<String> {
    if act == Act::Checkpoint {
        return vec!["checkpoint".to_owned(), "-m".to_owned()];
    }
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].clone();
    std::thread::sleep(Duration::from_millis(5));
    vec!["rewind".to_owned(), "-m".to_owned(), format!("@{epoch}")]
}

#[test]
fn in_a_checkpoint() {
    sweep("", STRIDE, Act::Checkpoint, false);
}

#[test]
fn in_a_rewind() {
    sweep("", STRIDE, Act::Rewind, false);
}

#[test]
fn in_a_checkpoint_with_slsd() {
    sweep("", STRIDE, Act::Checkpoint, true);
}

#[test]
fn in_a_rewind_with_slsd() {
    sweep("", STRIDE, Act::Rewind, true);
}

#[test]
fn in_a_restore() {
    sweep_restore(STRIDE * 5, false);
}

#[test]
fn in_a_restore_with_slsd() {
    sweep_restore(STRIDE * 20, true);
}

#[test]
fn in_an_attach() {
    sweep_attach("", STRIDE);
}

/// Without something: one of them, or all in `./x soak`.
pub fn without(what: &str, stride: u64) {
    sweep(what, stride, Act::Rewind, true);
    if testkit::whole() {
        sweep(what, stride, Act::Rewind, false);
        sweep(what, stride, Act::Checkpoint, true);
        sweep(what, stride, Act::Checkpoint, false);
        sweep_attach(what, stride);
    }
}

/// It is not there yet, or only just, when it is killed: the attach fails and says so, or goes on
/// with another one.
fn sweep_attach(without: &str, stride: u64) {
    let campaign = &named("keeper killed in an attach", without);
    let sls = Sls::without(without);
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: ABOUT.to_owned(),
        seed: seed(11),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut target = sls.tracee("invariants", &[]);
    let before = Before::of(&target);
    let stride = rounds_of(stride, 1);
    let mut n = 1 + dice.below(stride);
    let target_id = target.p();
    let attach = ["attach", "-p", &target_id, "-m"];
    while kill_after(Prey::ChildOf(sls.daemon()), n, &[], || {
        client(&sls, &attach)
    }) {
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        before.assert_still(&mut target, 1, &when);
        // It works the next time, if it did not this time; what was left is put away.
        let _ = sls.try_run(&["detach", "-p", &target_id]);
        sls.run(&attach);
        sls.run(&["checkpoint", "-m"]);
        sls.run(&["detach", "-p", &target_id]);
        before.assert_still(&mut target, 0, &when);
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    row.unharmed = row.tries;
    row.note = format!("up to its call {n}");
    row.report();
}

/// A process that is being made anew is whole and runs, or nothing of it is there; the next restore
/// makes it.
fn sweep_restore(stride: u64, both: bool) {
    let campaign = if both {
        "keeper and slsd killed in a restore"
    } else {
        "keeper killed in a restore"
    };
    adopt();
    let sls = Sls::new();
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: "sls-keeper is killed with -9 after each of its system calls in turn while it makes a process anew, alone or with slsd: the process runs on whole, or nothing of it is left".to_owned(),
        seed: seed(11),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut target = sls.tracee("invariants", &[]);
    let pid = target.pid();
    let output = sls.folder().join("invariants.out");
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    kill(pid, 9);
    target.wait(Duration::from_secs(10));
    let restore = ["restore", "-m", "-d", "@whole"];
    let stride = rounds_of(stride, 1);
    let mut n = 1 + dice.below(stride);
    let mut whole = 0;
    loop {
        let daemon = sls.daemon();
        let others: Vec<i32> = both.then_some(daemon).into_iter().collect();
        let reached = kill_after(Prey::ChildOf(daemon), n, &others, || client(&sls, &restore));
        if !reached {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        whole += u64::from(runs_whole_or_not_at_all(pid, &when));
        let said = std::fs::read_to_string(&output).unwrap();
        assert!(!said.contains("FAIL"), "{when}: {said}");
        end_it(&sls, pid);
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    assert!(runs_whole_or_not_at_all(pid, campaign), "undisturbed");
    end_it(&sls, pid);
    row.unharmed = row.tries;
    row.note = format!("up to its call {n}, {whole} ran already");
    row.report();
}

/// Does it run, with all its threads? If not, nothing of it is there.
fn runs_whole_or_not_at_all(pid: i32, when: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Its end, or the last thread to be let go, may take a moment.
    loop {
        if is_gone(pid) {
            return false;
        }
        let (state, tracer) = (field(pid, "State:"), field(pid, "TracerPid:"));
        let threads: usize = field(pid, "Threads:").parse().unwrap_or(0);
        if threads > 3 && tracer == "0" && !state.starts_with(['t', 'X', 'Z']) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{when}: {state}, {threads} threads, traced by {tracer}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = || std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let then = ran();
    wait_until(Duration::from_secs(10), when, || ran() != then);
    true
}

/// It is gone, and its number is free.
fn end_it(sls: &Sls, pid: i32) {
    if !field(pid, "State:").is_empty() {
        kill(pid, 9);
    }
    // Who is to take note of it may have to be started first.
    sls.run(&["ps"]);
    wait_until(Duration::from_secs(10), "its number is free", || {
        is_gone(pid)
    });
}
