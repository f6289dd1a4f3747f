//! slsd, a keeper, or both killed with -9 after the n-th system call while several processes are
//! rewound together: all of them are put back, or none.

use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{
    Dice, Ring, Row, Sls, Target, children, field, is_gone, rounds_of, seed, wait_until,
};

use super::sweep::{Prey, client, kill_after, mapped_low};

/// A step of the sweep in `./x test`; in `./x soak` it is 1.
const STRIDE: u64 = 13;
const PROCESSES: usize = 3;
/// The ring takes less for a round that it tells of.
const STANDS: Duration = Duration::from_millis(800);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Slsd,
    Keeper,
    Both,
}

fn sweep(who: Who) {
    let sls = Sls::new();
    let campaign = match who {
        Who::Slsd => "slsd killed in a rewind of a group",
        Who::Keeper => "a keeper killed in a rewind of a group",
        Who::Both => "slsd and a keeper killed in a rewind of a group",
    };
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: "Three processes that pass a number round are rewound together, and slsd, one of their keepers or both are killed with -9 after each system call in turn: the number is neither lost nor told twice, so all are put back or none".to_owned(),
        seed: seed(17),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    sls.run(&["partadd", "memory", "-o", "mem", "--keep", "last:8"]);
    let mut ring = Ring::attached(&sls, PROCESSES, &[]);
    let stride = rounds_of(STRIDE, 1);
    let mut n = 1 + dice.below(stride);
    loop {
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].to_string();
        std::thread::sleep(Duration::from_millis(5));
        let keeper = keepers(&sls)[sls_sys::size(dice.below(PROCESSES as u64))];
        let (prey, others) = match who {
            Who::Slsd => (sls.daemon(), Vec::new()),
            Who::Keeper => (keeper, Vec::new()),
            Who::Both => (keeper, vec![sls.daemon()]),
        };
        let arguments = ["rewind", "-m", &format!("@{epoch}")];
        if !kill_after(Prey::Process(prey), n, &others, || client(&sls, &arguments)) {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        if who == Who::Both && stands(&ring) {
            row.put_right += 1;
        } else {
            row.unharmed += 1;
        }
        ring.assert_alive(&when);
        // A client whose daemon goes asks the next one.
        let _ = sls.try_run(&["detach", "-m"]);
        sls.run(&["attach", "-p", &ring.target.p(), "-m", "-r"]);
        ring.assert_goes_round(&when);
        for &pid in &ring.pids {
            assert!(!mapped_low(pid), "{when}: a stray mapping in {pid}");
        }
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    sls.run(&["detach", "-m"]);
    ring.assert_goes_round(campaign);
    row.note = format!("up to call {n}");
    row.report();
}

/// Those of the daemon, by number.
fn keepers(sls: &Sls) -> Vec<i32> {
    let mut found = children(sls.daemon());
    found.retain(|&pid| field(pid, "Name:") == "sls-keeper");
    found.sort_unstable();
    // One that has let go may stay a moment.
    found.split_off(found.len() - PROCESSES)
}

fn stands(ring: &Ring) -> bool {
    let before = ring.rounds();
    let begun = Instant::now();
    while begun.elapsed() < STANDS {
        if ring.rounds() > before {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Has a child, or has none, as its own memory says; else it tells.
const PARENT: &str = "
import os, sys, time
# What it said before a rewind is not written over.
sys.stdout = open('python3.out', 'a')
child = None
print('ready', flush=True)
while True:
    if child is None and os.path.exists('make'):
        os.unlink('make'); child = os.fork()
        if child == 0:
            while True: time.sleep(0.001)
        print('made', child, flush=True)
    if child and os.path.exists('end'):
        os.unlink('end'); os.kill(child, 9); os.waitpid(child, 0); child = None
        print('ended', flush=True)
    try:
        found = os.waitpid(-1, os.WNOHANG)
        if not child or found != (0, 0): print('WRONG', child, found, flush=True)
    except ChildProcessError:
        if child: print('WRONG', child, 'is not there', flush=True)
    time.sleep(0.001)
";

/// What becomes of the child in the rewind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Child {
    /// It was made since.
    Unmade,
    /// It has ended since.
    Reborn,
}

/// There is a child, and its parent knows of it, or neither.
fn sweep_child(who: Who, child: Child) {
    let killed = match who {
        Who::Slsd => "slsd",
        Who::Keeper => "a keeper",
        Who::Both => "slsd and a keeper",
    };
    let (what, to) = match child {
        Child::Unmade => ("unmakes a process", "before it made a child"),
        Child::Reborn => ("makes a process again", "before its child ended"),
    };
    let campaign = &format!("{killed} killed in a rewind that {what}");
    let sls = Sls::new();
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: format!(
            "A process is rewound to {to}, and slsd, its keeper or both are killed with -9 after each system call in turn: there is a child and its parent knows of it, or neither"
        ),
        seed: seed(23),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    sls.run(&["partadd", "memory", "-o", "mem", "--keep", "last:8"]);
    let mut python = Command::new("python3");
    python.args(["-c", PARENT]).current_dir(sls.folder());
    let mut parent = Target::ready(sls.folder(), python);
    let id = parent.p();
    let told = |file: &str, word: &str| {
        let said = parent.output().len();
        std::fs::write(sls.folder().join(file), "").unwrap();
        wait_until(Duration::from_secs(10), word, || {
            parent
                .output()
                .get(said..)
                .is_some_and(|new| new.contains(word))
        });
    };
    sls.run(&["attach", "-p", &id, "-m", "-r"]);
    let calls = match child {
        Child::Unmade => 5,
        Child::Reborn => 20,
    };
    let stride = rounds_of(STRIDE * calls, 1);
    let mut n = 1 + dice.below(stride);
    let mut gone = 0;
    loop {
        let alone = sls.json(&["checkpoint", "-m"])["epoch"].to_string();
        told("make", "made");
        let both = sls.json(&["checkpoint", "-m"])["epoch"].to_string();
        let pid = sls.pids()[1];
        let to = match child {
            Child::Unmade => alone,
            Child::Reborn => {
                told("end", "ended");
                both
            }
        };
        let arguments = ["rewind", "-m", &format!("@{to}")];
        let (prey, others) = match who {
            Who::Slsd => (sls.daemon(), Vec::new()),
            Who::Keeper => (first_keeper(&sls), Vec::new()),
            Who::Both => (first_keeper(&sls), vec![sls.daemon()]),
        };
        if !kill_after(Prey::Process(prey), n, &others, || client(&sls, &arguments)) {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        let _ = sls.try_run(&["detach", "-m"]);
        sls.run(&["attach", "-p", &id, "-m", "-r"]);
        let is_there = !is_gone(pid);
        gone += u64::from(!is_there);
        std::thread::sleep(Duration::from_millis(50));
        let said = parent.output();
        assert!(!said.contains("WRONG"), "{when}: {said}");
        assert!(!mapped_low(parent.pid()), "{when}: a stray mapping");
        if is_there {
            told("end", "ended");
        }
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    sls.run(&["detach", "-m"]);
    parent.assert_unharmed();
    row.unharmed = row.tries;
    row.note = format!("up to call {n}, {gone} were gone then");
    row.report();
}

/// That of the root, which was attached to first.
fn first_keeper(sls: &Sls) -> i32 {
    let mut found = children(sls.daemon());
    found.retain(|&pid| field(pid, "Name:") == "sls-keeper");
    found.sort_unstable();
    found[0]
}

#[test]
fn unmaking() {
    sweep_child(Who::Slsd, Child::Unmade);
}

#[test]
fn unmaking_a_keeper() {
    sweep_child(Who::Keeper, Child::Unmade);
}

#[test]
fn unmaking_both() {
    sweep_child(Who::Both, Child::Unmade);
}

#[test]
fn making_again() {
    sweep_child(Who::Slsd, Child::Reborn);
}

#[test]
fn making_again_a_keeper() {
    sweep_child(Who::Keeper, Child::Reborn);
}

#[test]
fn making_again_both() {
    sweep_child(Who::Both, Child::Reborn);
}

#[test]
fn slsd() {
    sweep(Who::Slsd);
}

#[test]
fn a_keeper() {
    sweep(Who::Keeper);
}

#[test]
fn both() {
    sweep(Who::Both);
}
