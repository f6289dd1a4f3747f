//! Everything that changes memory, at once, under checkpoints as close as they can be taken: no torn page, no stale
//! one, nothing newer than its cause. And rewinds, after which the program finds nothing torn itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use libsls::Client;
use libsls::view::CheckpointView;
use testkit::{Causal, Dice, FALLBACKS, Look, Row, Sls, Target, rounds_of, seed};

use super::fallback::named;
use crate::campaign::epochs;

/// Most that one round may keep.
const BUDGET: &str = "2G";

/// The tracee in a folder of its own, and where its directory is.
pub struct Mutator {
    pub target: Target,
    at: u64,
}

impl Mutator {
    pub fn start(sls: &Sls, parts: &str) -> Self {
        let folder = sls.subfolder("of-causal");
        let mut command = sls.program(&testkit::tracee("causal"));
        command.args(parts.split(' ')).current_dir(&folder);
        let target = Target::start(&folder, command);
        let ready = || target.output().contains("ready 0x");
        testkit::wait_until(Duration::from_secs(10), "the tracee is ready", ready);
        let output = target.output();
        let at = output.split("ready 0x").nth(1).unwrap().trim();
        let at = u64::from_str_radix(at, 16).unwrap();
        assert!(!output.contains("skipped"), "{output}");
        Self { target, at }
    }

    /// It must run on, and have found nothing wrong itself.
    pub fn assert_whole(&mut self) {
        self.target.assert_unharmed();
        assert!(
            !self.target.output().contains("FAIL"),
            "{}",
            self.target.output()
        );
    }

    /// Looks at checkpoints.
    pub fn look(&self, sls: &Sls, epochs: &[u64]) -> Vec<Look> {
        let client = Client::connect(&sls.socket()).unwrap();
        let client = Rc::new(RefCell::new(client));
        let look = |&epoch: &u64| {
            let view = CheckpointView::open(&client, "mem", epoch, None).unwrap();
            let mut look = match Causal::read(&view, self.at) {
                Ok(causal) => causal.look(&view),
                Err(why) => Look {
                    wrong: vec![why],
                    ..Look::default()
                },
            };
            for wrong in &mut look.wrong {
                *wrong = format!("@{epoch} {wrong}");
            }
            look
        };
        epochs.iter().map(look).collect()
    }
}

/// Adds looks to the row; every owner must have done something meanwhile.
fn judge(row: &mut Row, looks: &[Look]) {
    row.epochs += looks.len() as u64;
    for look in looks.iter().filter(|l| !l.wrong.is_empty()) {
        row.wrong += 1;
        if row.wrong <= 5 {
            println!("WRONG {:#?}", look.wrong);
        }
    }
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return;
    };
    for ((name, before), (_, after)) in first.rounds.iter().zip(&last.rounds) {
        assert!(after > before, "{name} stands still: {:?}", last.rounds);
    }
    let pages: u64 = looks.iter().map(|l| l.pages).sum();
    let changing: u64 = looks.iter().map(|l| l.changing).sum();
    println!(
        "{} epochs, {pages} pages, {changing} of them being changed",
        looks.len()
    );
}

fn captured(without: &str, parts: &str, least: u64) {
    let mut row = Row {
        campaign: named("memory that changes in every way, captured", without),
        about: "threads, and processes that share the memory, change it in every way there is while checkpoints are taken; in each, sequence and checksum of every page are right, and what came first is there first".into(),
        seed: seed(1),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let sls = Sls::without(without);
    let mut mutator = Mutator::start(&sls, parts);
    let pid = mutator.target.p();
    for _ in 0..rounds_of(1, 30) {
        let period = (1 + dice.below(5)).to_string();
        sls.run(&[
            "partadd", "memory", "-o", "mem", "--budget", BUDGET, "--keep", "all",
        ]);
        sls.run(&["attach", "-p", &pid, "-m", "-t", &period]);
        std::thread::sleep(Duration::from_secs(5));
        testkit::wait_until(Duration::from_secs(60), "enough checkpoints", || {
            epochs(&sls).len() as u64 >= least
        });
        sls.run(&["detach", "-p", &pid]);
        mutator.assert_whole();
        let known = epochs(&sls);
        let looks = mutator.look(&sls, &known);
        judge(&mut row, &looks);
        sls.run(&["partdel", "-o", "mem"]);
    }
    row.tries = row.epochs;
    row.unharmed = row.tries;
    row.report();
}

const ALL: &str = "memory order socket sharing vfork forked uring aio faults";

#[test]
fn captured_by_the_kernels_tracking() {
    captured("", ALL, 20);
}

#[test]
fn captured_by_content() {
    captured(FALLBACKS[0], ALL, 5);
}

#[test]
fn captured_by_content_without_pagemap_scan() {
    captured(FALLBACKS[1], ALL, 5);
}

#[test]
fn captured_without_suspending_seccomp() {
    captured(FALLBACKS[2], ALL, 20);
}

#[test]
fn captured_by_a_plain_user() {
    captured(FALLBACKS[3], ALL, 20);
}

/// Rewound without something, in `./x soak`; one of them is a test of its own.
pub fn without(what: &str) {
    if testkit::whole() && what != FALLBACKS[0] {
        rewound(what);
    }
}

fn rewound(without: &str) {
    let tries = rounds_of(60, 1500);
    let mut row = Row {
        campaign: named("memory that changes in every way, rewound", without),
        about: "the same program is rewound to random checkpoints, runs on from there and judges its memory".into(),
        seed: seed(2),
        tries,
        unharmed: tries,
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let sls = Sls::without(without);
    let mut mutator = Mutator::start(&sls, "memory order faults");
    sls.run(&[
        "partadd", "memory", "-o", "mem", "--budget", BUDGET, "--keep", "log",
    ]);
    sls.run(&["attach", "-p", &mutator.target.p(), "-m", "-t", "5"]);
    testkit::wait_until(Duration::from_secs(10), "a checkpoint", || {
        !epochs(&sls).is_empty()
    });
    for _ in 0..tries {
        std::thread::sleep(Duration::from_millis(20 + dice.below(60)));
        let known = epochs(&sls);
        let to = known[dice.below(known.len() as u64) as usize];
        let out = sls.try_run(&["rewind", "-m", &format!("@{to}")]);
        // Thinned since the list was read.
        let thinned = out.stderr.contains("no checkpoint");
        assert!(
            out.code == 0 || thinned,
            "@{to}: {}\n{}",
            out.stderr,
            mutator.target.output()
        );
        mutator.target.assert_alive();
    }
    sls.run(&["detach", "-p", &mutator.target.p()]);
    std::thread::sleep(Duration::from_millis(200));
    mutator.assert_whole();
    for look in mutator.look(&sls, &epochs(&sls)) {
        row.epochs += 1;
        row.wrong += u64::from(!look.wrong.is_empty());
        if !look.wrong.is_empty() {
            println!("WRONG {:#?}", look.wrong);
        }
    }
    row.report();
}

#[test]
fn rewound_by_the_kernels_tracking() {
    rewound("");
}

#[test]
fn rewound_by_content() {
    rewound(FALLBACKS[0]);
}
