//! slsd, or a keeper, killed with -9 after the n-th system call while several processes are made
//! anew: all of them run, or none is there.

use std::time::{Duration, Instant};

use testkit::{Dice, Ring, Row, Sls, adopt, field, is_gone, kill, rounds_of, seed, wait_until};

use super::sweep::{Prey, client, kill_after};

/// A step of the sweep in `./x test`; in `./x soak` it is 1.
const STRIDE: u64 = 397;
const PROCESSES: usize = 3;
const SETTLES: Duration = Duration::from_secs(15);

fn sweep(campaign: &str, prey: impl Fn(&Sls) -> Prey) {
    adopt();
    let sls = Sls::new();
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: "Three processes that pass a number round are made anew, and slsd or the first of their keepers is killed with -9 after each system call in turn: all of them run and pass it on, or none is there".to_owned(),
        seed: seed(19),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut ring = Ring::attached(&sls, PROCESSES, &[]);
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    end(&ring);
    ring.target.wait(SETTLES);
    let restore = ["restore", "-m", "-d", "@whole"];
    let stride = rounds_of(STRIDE, 1);
    let mut n = 1 + dice.below(stride);
    let mut whole = 0;
    loop {
        let reached = kill_after(prey(&sls), n, &[], || client(&sls, &restore));
        if !reached {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        whole += u64::from(runs_or_is_gone(&ring, &when));
        end(&ring);
        // Who is to take note of their end may have to be started first.
        sls.run(&["ps"]);
        wait_until(SETTLES, "their numbers are free", || {
            ring.pids.iter().all(|&pid| is_gone(pid))
        });
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    assert!(runs_or_is_gone(&ring, "undisturbed"), "it was made");
    end(&ring);
    row.unharmed = row.tries;
    row.note = format!("up to call {n}, {whole} ran already");
    row.report();
}

fn end(ring: &Ring) {
    for &pid in &ring.pids {
        if !field(pid, "State:").is_empty() {
            kill(pid, 9);
        }
    }
}

/// Do all of them run? If not, none is there.
fn runs_or_is_gone(ring: &Ring, when: &str) -> bool {
    let rounds = ring.rounds();
    let deadline = Instant::now() + SETTLES;
    loop {
        if ring.pids.iter().all(|&pid| is_gone(pid)) {
            return false;
        }
        let states: Vec<String> = ring.pids.iter().map(|&pid| field(pid, "State:")).collect();
        let runs = |state: &String| state.starts_with(['R', 'S', 'D']);
        if states.iter().all(runs) && ring.rounds() > rounds + 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{when}: {states:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = ring.target.output();
    assert!(!output.contains("WRONG"), "{when}: {output}");
    for &pid in &ring.pids {
        assert_eq!(field(pid, "TracerPid:"), "0", "{when}");
    }
    true
}

#[test]
fn slsd() {
    sweep("slsd killed in a restore of a group", |sls| {
        Prey::Process(sls.daemon())
    });
}

#[test]
fn a_keeper() {
    sweep("a keeper killed in a restore of a group", |sls| {
        Prey::ChildOf(sls.daemon())
    });
}
