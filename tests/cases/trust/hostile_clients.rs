//! Clients that mean harm: the others are served, the target is checkpointed, nobody is let in.

mod attacks;
mod contents;
mod honest;
mod strangers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use testkit::{Dice, Row, Sls, Target, rounds_of, seed};

use honest::Honest;

/// What clients may make slsd take, MiB above what it takes at rest: the sum that
/// tools/slsd/src/connection.rs states.
const MOST_RSS: u64 = 600;
/// What of it may stay when they have gone: the allocator's, and a history that has grown.
const STAYS_RSS: u64 = 64;
/// 99 of 100 commands of an honest client beside take at most so much longer than at rest, and than
/// twice that: attacker, daemon and client share two cores, maybe with other work.
const SOON: Duration = Duration::from_millis(250);

/// Of the checkpoints at rest at least one in so many: most attacks leave nearly all, but other work
/// on the machine may not.
const PACE_LEFT: u64 = 8;

/// A daemon with a target at `-t 10`.
pub struct Scene {
    sls: Sls,
    target: Target,
    daemon: i32,
    calm: Figures,
    /// What the honest client's commands take when it is alone.
    usual: Duration,
    /// Checkpoints of a hundred periods then.
    pace: u64,
}

/// What the daemon uses.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rss_mib: u64,
    threads: usize,
    descriptors: usize,
}

impl Figures {
    fn of(pid: i32) -> Self {
        let count = |what: &str| {
            std::fs::read_dir(format!("/proc/{pid}/{what}"))
                .unwrap()
                .count()
        };
        Self {
            rss_mib: rss_mib(pid),
            threads: count("task"),
            descriptors: count("fd"),
        }
    }
}

fn rss_mib(pid: i32) -> u64 {
    testkit::rss(pid) >> 20
}

/// Checkpoints taken so far.
fn taken(sls: &Sls) -> u64 {
    let stat = sls.json(&["stat"]);
    stat["partitions"][0]["taken"].as_u64().unwrap()
}

fn periods(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis() / 10).unwrap()
}

impl Scene {
    fn new() -> Self {
        let sls = Sls::new();
        let target = Target::tracee(sls.folder(), "ticker", &[]);
        sls.run(&["partadd", "memory", "-o", "mem", "--keep", "last:300"]);
        sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
        let daemon = sls.daemon();
        let (alone, started) = (Honest::start(&sls, daemon), Instant::now());
        let before = taken(&sls);
        std::thread::sleep(Duration::from_secs(4));
        let alone = alone.stop();
        let pace = (taken(&sls) - before - alone.checkpoints) * 100 / periods(started);
        let calm = Figures::of(daemon);
        Self {
            sls,
            target,
            daemon,
            calm,
            usual: alone.p99,
            pace,
        }
    }

    fn socket(&self) -> PathBuf {
        self.sls.socket()
    }

    /// Lets one attack loose beside an honest client, and looks at what came of it.
    fn under(&mut self, name: &str, attack: impl FnOnce(&Self)) -> honest::Served {
        let (before, started) = (taken(&self.sls), Instant::now());
        let honest = Honest::start(&self.sls, self.daemon);
        attack(self);
        let served = honest.stop();
        let periods = periods(started);
        let taken = taken(&self.sls) - before - served.checkpoints;
        println!("{name}: {served:?}, {taken} checkpoints in {periods} periods");
        assert_eq!(served.failed, None, "{name}");
        let soon = SOON + 2 * self.usual;
        assert!(served.p99 < soon, "{name}: {soon:?}, {served:?}");
        assert!(
            served.most_rss_mib <= self.calm.rss_mib + MOST_RSS,
            "{name}: {served:?}"
        );
        assert!(
            taken * 100 > periods * self.pace / PACE_LEFT,
            "{name}: {taken} checkpoints in {periods} periods"
        );
        self.target.assert_unharmed();
        assert_eq!(self.sls.daemon(), self.daemon, "{name}: {}", self.sls.log());
        self.calms_down(name);
        served
    }

    /// What the attack took is given back, and it leaves nothing.
    fn calms_down(&self, name: &str) {
        let is_calm = |now: Figures| {
            now.threads <= self.calm.threads
                && now.descriptors <= self.calm.descriptors + 4
                && now.rss_mib <= self.calm.rss_mib + STAYS_RSS
        };
        let until = Instant::now() + Duration::from_secs(15);
        while !is_calm(Figures::of(self.daemon)) {
            let now = Figures::of(self.daemon);
            assert!(
                Instant::now() < until,
                "{name}: {now:?}, {:?} at rest",
                self.calm
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut kept: Vec<_> = (std::fs::read_dir(self.sls.memory()).unwrap())
            .map(|entry| entry.unwrap().file_name())
            .collect();
        kept.sort();
        assert_eq!(kept, [".journals", "mem"], "{name}");
        assert!(self.sls.log().len() < 64 << 10, "{name}: the log grows");
    }
}

#[test]
fn clients_that_mean_harm() {
    let row = Row {
        campaign: "hostile clients".to_owned(),
        about: "clients that send nonsense, flood, stall and crowd the daemon, while an honest one works and a program is captured".to_owned(),
        seed: seed(5),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut scene = Scene::new();
    let (mut tries, mut commands, mut slowest, mut most_rss) = (0, 0, Duration::ZERO, 0);
    for _ in 0..rounds_of(1, 20) {
        for (name, attack) in attacks::ALL {
            let served = scene.under(name, |scene| attack(scene, &mut dice));
            tries += 1;
            commands += served.commands;
            slowest = slowest.max(served.p99);
            most_rss = most_rss.max(served.most_rss_mib);
        }
    }
    let note = format!(
        "{commands} commands of an honest client beside, p99 at most {} ms, {} at rest; {}% of the periods kept at rest; slsd at most {most_rss} MiB, {} at rest",
        slowest.as_millis(),
        scene.usual.as_millis(),
        scene.pace,
        scene.calm.rss_mib
    );
    let unharmed = tries;
    Row {
        tries,
        unharmed,
        note,
        ..row
    }
    .report();
}
