//! slsd, or a keeper, killed with -9 after the n-th system call while several processes are made
//! anew: all of them run, or none is there.

use std::fs;
use std::time::{Duration, Instant};

use testkit::{Dice, Ring, Row, Sls, adopt, field, is_gone, rounds_of, seed, wait_until};

use super::sweep::{Prey, client, kill_after};

/// A step of the sweep in `./x test`; in `./x soak` it is 1.
const STRIDE: u64 = 397;
/// Of a keeper, which makes fewer calls than slsd does.
const KEEPER_STRIDE: u64 = 197;
const PROCESSES: usize = 3;
const SETTLES: Duration = Duration::from_secs(15);

/// `how`: what else is asked of the restore.
fn sweep(campaign: &str, stride: u64, how: &[&str], prey: impl Fn(&Sls) -> Prey) {
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
    end(&ring.pids);
    ring.target.wait(SETTLES);
    let restore = [&["restore", "-m", "-d", "@whole"], how].concat();
    let there = || {
        if how.is_empty() {
            ring.pids
                .iter()
                .copied()
                .filter(|&pid| is_there(pid))
                .collect()
        } else {
            apart(&ring.pids)
        }
    };
    let stride = rounds_of(stride, 1);
    let mut n = 1 + dice.below(stride);
    let mut whole = 0;
    loop {
        let reached = kill_after(prey(&sls), n, &[], || client(&sls, &restore));
        if !reached {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        whole += u64::from(runs_or_is_gone(&ring, there, &when));
        end(&there());
        // Who is to take note of their end may have to be started first.
        sls.run(&["ps"]);
        wait_until(SETTLES, "their numbers are free", || there().is_empty());
        wait_until(SETTLES, "no init is left", || inits(&sls).is_empty());
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    assert!(runs_or_is_gone(&ring, there, "undisturbed"), "it was made");
    end(&there());
    row.unharmed = row.tries;
    row.note = format!("up to call {n}, {whole} ran already");
    row.report();
}

fn end(pids: &[i32]) {
    pids.iter().filter(|&&pid| is_there(pid)).for_each(|&pid| {
        // It may end with another.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    });
}

fn is_there(pid: i32) -> bool {
    !is_gone(pid)
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(number).collect()
}

/// Those that have these numbers in a PID namespace of their own.
fn apart(pids: &[i32]) -> Vec<i32> {
    let is_one = |&pid: &i32| {
        let numbers = field(pid, "NSpid:");
        let mut inner = numbers.split_whitespace().skip(1);
        inner.any(|number| pids.iter().any(|pid| number.parse() == Ok(*pid)))
    };
    let all = processes().into_iter().filter(is_one);
    all.filter(|&pid| is_there(pid)).collect()
}

/// Inits of PID namespaces that were made for this test.
fn inits(sls: &Sls) -> Vec<i32> {
    let folder = sls.folder().to_str().unwrap();
    let is_ours = |&pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        field(pid, "Name:") == "sls-init" && String::from_utf8_lossy(&environment).contains(folder)
    };
    processes().into_iter().filter(is_ours).collect()
}

/// Do all of them run? If not, none is there.
fn runs_or_is_gone(ring: &Ring, there: impl Fn() -> Vec<i32>, when: &str) -> bool {
    let rounds = ring.rounds();
    let deadline = Instant::now() + SETTLES;
    loop {
        let states: Vec<String> = there()
            .into_iter()
            .map(|pid| field(pid, "State:"))
            .collect();
        if states.is_empty() {
            return false;
        }
        let runs = |state: &String| state.starts_with(['R', 'S', 'D']);
        let run = states.len() == PROCESSES && states.iter().all(runs);
        if run && ring.rounds() > rounds + 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{when}: {states:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = ring.target.output();
    assert!(!output.contains("WRONG"), "{when}: {output}");
    for pid in there() {
        assert_eq!(field(pid, "TracerPid:"), "0", "{when}");
    }
    true
}

#[test]
fn slsd() {
    sweep("slsd killed in a restore of a group", STRIDE, &[], |sls| {
        Prey::Process(sls.daemon())
    });
}

#[test]
fn a_keeper() {
    sweep(
        "a keeper killed in a restore of a group",
        KEEPER_STRIDE,
        &[],
        |sls| Prey::ChildOf(sls.daemon()),
    );
}

#[test]
fn slsd_with_a_namespace() {
    let campaign = "slsd killed in a restore into a PID namespace";
    sweep(campaign, STRIDE, &["--pidns"], |sls| {
        Prey::Process(sls.daemon())
    });
}
