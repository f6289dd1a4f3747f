//! Three programs under one daemon for an hour: twenty checkpoints a second each, a rewind each ten
//! seconds, the daemon killed each thirty. No wrong answer, and nothing grows.

mod growth;
mod store;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Dice, Redis, Row, Sls, Target, rounds_of, seed, wait_until, whole};

use crate::invariants::PYTHON;
use growth::{Daemon, Was};
use store::Store;

/// Of the whole time, this share at the end is without kills: a daemon that grows shows it then.
const QUIET: u32 = 4;
const PERIOD: &str = "50";
const BUDGET: u64 = 256 << 20;
const KEPT: u64 = 200;

struct Soak {
    sls: Sls,
    dice: Dice,
    row: Row,
    redis: Redis,
    store: Store,
    python: Target,
    cpp: Target,
    was: [Was; 3],
    taken: u64,
    missed: u64,
    failed: u64,
    refused: Vec<String>,
    stops: Vec<u64>,
}

const PARTITIONS: [&str; 3] = ["redis", "python", "cpp"];

impl Soak {
    fn pids(&self) -> [i32; 3] {
        [self.redis.pid(), self.python.pid(), self.cpp.pid()]
    }

    fn attach(&self) {
        for (part, pid) in PARTITIONS.iter().zip(self.pids()) {
            self.sls
                .run(&["attach", "-p", &pid.to_string(), "-o", part, "-t", PERIOD]);
        }
    }

    /// Each program is there and has found nothing wrong with itself.
    fn assert_well(&mut self) {
        for target in [&mut *self.redis, &mut self.python, &mut self.cpp] {
            target.assert_alive();
            assert!(!target.output().contains("FAIL"), "{}", target.output());
        }
    }

    /// Rewinds one program to any of its checkpoints.
    fn rewind(&mut self, which: usize) {
        let part = PARTITIONS[which];
        let history = self.sls.json(&["history", "-o", part]);
        let known = history["checkpoints"].as_array().unwrap();
        if known.is_empty() {
            return;
        }
        let to =
            known[usize::try_from(self.dice.below(known.len() as u64)).unwrap()]["epoch"].clone();
        if which == 0 {
            self.store.leave();
        }
        let out = self
            .sls
            .try_run(&["--json", "rewind", "-o", part, &format!("@{to}")]);
        self.row.tries += 1;
        let told = ["no checkpoint", "belongs to another process by now"];
        if out.code != 0 {
            assert!(
                told.iter().any(|why| out.stderr.contains(why)),
                "{part} @{to}: {out:?}"
            );
            self.refused.push(out.stderr);
        } else {
            let done: Value = serde_json::from_str(&out.stdout).unwrap();
            for line in done["not_restored"].as_array().unwrap() {
                // Clients come and go; nothing else of these programs may be lost.
                assert!(
                    which == 0 && line.as_str().unwrap().starts_with("socket "),
                    "{part}: {line}"
                );
            }
            self.row.epochs += 1;
        }
        if which == 0
            && let Err(wrong) = self.store.judge(to.as_u64())
        {
            println!("WRONG after a rewind to @{to}: {wrong}");
            self.row.wrong += 1;
        }
        self.row.unharmed += 1;
    }

    /// A checkpoint of redis of which it is known what it holds.
    fn remember(&mut self) {
        let epoch = self.sls.json(&["checkpoint", "-o", "redis"])["epoch"]
            .as_u64()
            .unwrap();
        self.store.remember(epoch);
    }

    fn count(&mut self) {
        for part in self.sls.json(&["stat"])["partitions"].as_array().unwrap() {
            let number = |name: &str| part[name].as_u64().unwrap();
            self.taken += number("taken");
            self.missed += number("missed_periods");
            self.failed += number("failed");
            self.stops.push(number("stop_us_p99"));
            assert_eq!(number("budget"), BUDGET, "{part}");
            assert!(number("held_bytes") <= BUDGET, "{part}");
            assert!(number("checkpoints") <= KEPT + 2, "{part}");
            assert_eq!(part["last_error"], Value::Null, "{part}");
        }
    }

    fn kill_daemon(&mut self) {
        self.count();
        std::thread::sleep(Duration::from_micros(self.dice.below(50_000)));
        self.sls.kill_daemon();
        for target in [&mut *self.redis, &mut self.python, &mut self.cpp] {
            target.assert_unharmed();
        }
        self.row.tries += 1;
        self.row.unharmed += 1;
        self.attach();
    }

    /// Rewinds, and kills while `kills`, until the time is over.
    fn run(&mut self, time: Duration, kills: bool, daemon: &mut Daemon) {
        let (rewind_each, kill_each) = if whole() { (10, 30) } else { (2, 6) };
        let begun = Instant::now();
        let (mut rewinds, mut killed) = (0, 0);
        while begun.elapsed() < time {
            let seconds = begun.elapsed().as_secs();
            self.store.work();
            self.assert_well();
            if seconds / rewind_each > rewinds {
                rewinds += 1;
                self.remember();
                // All three in each round, so that each is rewound as often as was promised.
                (0..PARTITIONS.len()).for_each(|which| self.rewind(which));
                daemon.sample(self.sls.daemon());
            }
            if kills && seconds / kill_each > killed {
                killed += 1;
                self.kill_daemon();
            }
        }
    }
}

fn start() -> Soak {
    let sls = Sls::new();
    let redis = Redis::start(sls.folder());
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", PYTHON]);
    let python = Target::start(sls.folder(), python);
    let cpp = Target::tracee(sls.folder(), "invariants", &["16"]);
    wait_until(Duration::from_secs(10), "python is ready", || {
        python.output().contains("ready")
    });
    let (budget, keep) = (BUDGET.to_string(), format!("last:{KEPT}"));
    for part in PARTITIONS {
        sls.run(&[
            "partadd", "memory", "-o", part, "--budget", &budget, "--keep", &keep,
        ]);
    }
    let row = Row {
        campaign: "soak".into(),
        about: "redis, python3 and a C++ program of 16 threads under one daemon for an hour: 20 checkpoints a second each, a rewind of each every 10 s, a kill of the daemon every 30 s".into(),
        seed: seed(30),
        ..Row::default()
    };
    let store = Store::new(redis.port());
    Soak {
        was: Default::default(),
        dice: Dice::new(row.seed),
        sls,
        row,
        redis,
        store,
        python,
        cpp,
        taken: 0,
        missed: 0,
        failed: 0,
        refused: Vec::new(),
        stops: Vec::new(),
    }
}

#[test]
fn three_programs_for_an_hour() {
    let time = Duration::from_secs(rounds_of(18, 3600));
    let mut soak = start();
    // What each program takes when it has all its data, and has been captured and rewound once.
    soak.store.fill();
    std::thread::sleep(Duration::from_secs(3));
    soak.attach();
    (0..PARTITIONS.len()).for_each(|which| {
        std::thread::sleep(Duration::from_millis(300));
        soak.rewind(which);
    });
    soak.was = soak.pids().map(Was::of);
    let mut daemon = Daemon::default();
    soak.run(time - time / QUIET, true, &mut daemon);
    let mut quiet = Daemon::default();
    soak.run(time / QUIET, false, &mut quiet);
    soak.count();
    for pid in soak.pids() {
        soak.sls.run(&["detach", "-p", &pid.to_string()]);
    }
    soak.store.leave();
    soak.store.judge(None).unwrap();
    soak.store.leave();
    soak.assert_well();
    for (part, (pid, was)) in PARTITIONS
        .iter()
        .zip(soak.pids().into_iter().zip(&soak.was))
    {
        was.assert_no_growth(part, pid);
    }
    quiet.assert_no_growth(time / QUIET);
    let stop = soak.stops.iter().max().unwrap();
    soak.row.note = format!(
        "{} checkpoints, {} periods missed, {} failed, {} rewinds refused by name, stops p99 at most {stop} us; {quiet}",
        soak.taken,
        soak.missed,
        soak.failed,
        soak.refused.len(),
    );
    // On a machine that is busy otherwise, periods are missed; they are counted, not forgotten.
    let due = soak.taken + soak.missed;
    assert!(due > 30 * time.as_secs(), "{}", soak.row.note);
    assert!(soak.taken > 5 * time.as_secs(), "{}", soak.row.note);
    assert_eq!(soak.failed, 0, "{}", soak.row.note);
    soak.row.report();
}
