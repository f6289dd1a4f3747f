//! Every checkpoint that is kept is exact, whatever goes on around it: thinning, the budget, the
//! cleaner, readers, a reader that stops in the middle of an answer, and the end of the daemon.

mod readers;

use std::time::Duration;

use libsls::{Client, ClientError};
use testkit::{
    Dice, Held, Prints, Row, Sls, Target, counted, descriptors, rounds_of, rss, seed, wait_until,
};

use super::fallback::named;
use readers::Readers;

const BUDGET: u64 = 32 << 20;
/// What slsd may take besides the history, whose bytes the budget counts: what one checkpoint
/// copies before it is encoded, and answers that are being read.
const WORKING: u64 = 48 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known of the history by others than slsd.
struct Audit {
    sls: Sls,
    target: Target,
    dice: Dice,
    row: Row,
    prints: Vec<Prints>,
    pages_hashed: usize,
    cleaned: u64,
    dropped: u64,
}

impl Audit {
    fn attach(&self) {
        self.sls
            .run(&["attach", "-p", &self.target.p(), "-m", "-t", "1"]);
    }

    /// A checkpoint of the process as it stands still, and hashes of it from /proc/PID/mem.
    fn hash_one(&mut self) {
        self.sls.run(&["suspend", "-o", "mem"]);
        let epoch = self.sls.json(&["checkpoint", "-m"])["epoch"]
            .as_u64()
            .unwrap();
        let socket = self.sls.socket();
        let prints = Prints::of_process(self.target.pid(), &socket, "mem", epoch).unwrap();
        self.sls.run(&["resume", "-o", "mem"]);
        self.pages_hashed += prints.pages();
        self.prints.push(prints);
    }

    /// Compares everything that is kept with what it should be. Nothing may change meanwhile.
    fn judge_all(&mut self) {
        let socket = self.sls.socket();
        let mut client = Client::connect(&socket).unwrap();
        let history = client.history(Some("mem")).unwrap();
        let mut before = Vec::new();
        for checkpoint in &history.checkpoints {
            let epoch = checkpoint.epoch;
            let verdict = counted::judge(&mut client, "mem", epoch, &counted::everything());
            let verdict = verdict.unwrap_or_else(|e| panic!("@{epoch}: {e}"));
            // Time goes on in every thread, from one checkpoint to the next.
            let back = verdict
                .steps
                .iter()
                .zip(&before)
                .any(|(now, then)| now < then);
            self.count(
                verdict
                    .wrong
                    .or(back.then(|| format!("@{epoch} is older than the one before"))),
            );
            before = verdict.steps;
        }
        for prints in std::mem::take(&mut self.prints) {
            match prints.differ(&socket, "mem") {
                Ok(wrong) => {
                    self.count(wrong);
                    self.prints.push(prints);
                }
                Err(ClientError::Failed { message, .. }) if message.contains("no checkpoint") => {}
                Err(other) => panic!("@{}: {other}", prints.epoch()),
            }
        }
    }

    fn count(&mut self, wrong: Option<String>) {
        self.row.epochs += 1;
        if let Some(wrong) = wrong {
            println!("WRONG {wrong}");
            self.row.wrong += 1;
        }
    }

    /// What is in the history survives the daemon, killed in the middle of its work.
    fn kill_daemon(&mut self) -> u64 {
        let part = self.sls.json(&["stat"])["partitions"][0].clone();
        self.cleaned += part["cleaned_segments"].as_u64().unwrap();
        self.dropped += part["dropped"].as_u64().unwrap();
        let known = self.sls.json(&["checkpoint", "-m"])["epoch"]
            .as_u64()
            .unwrap();
        std::thread::sleep(Duration::from_micros(self.dice.below(20_000)));
        self.sls.kill_daemon();
        self.row.tries += 1;
        self.target.assert_unharmed();
        let head = self.sls.json(&["history", "-m"])["head"].as_u64().unwrap();
        assert!(
            head >= known,
            "@{known} was acknowledged, the newest is @{head}"
        );
        self.row.unharmed += 1;
        head
    }
}

#[test]
fn every_epoch_kept_is_exact() {
    under_pressure("", rounds_of(800, 10_000));
}

/// Without something.
pub fn without(what: &str) {
    under_pressure(what, rounds_of(800, 3_000));
}

fn under_pressure(without: &str, due: u64) {
    let sls = Sls::without(without);
    let target = sls.tracee("counted", &[]);
    let daemon = sls.daemon();
    // Keeps the daemon there when it holds nothing.
    let _connected = Client::connect(&sls.socket()).unwrap();
    let at_first = (rss(daemon), descriptors(daemon));
    let row = Row {
        campaign: named("audit under pressure", without),
        about: "thousands of checkpoints of a program whose memory can be told from counters in it, under a small budget, with readers and daemon kills; each one kept is compared whole".into(),
        seed: seed(5),
        ..Row::default()
    };
    let budget = BUDGET.to_string();
    sls.run(&[
        "partadd", "memory", "-o", "mem", "--budget", &budget, "--keep", "log",
    ]);
    let held = Held::watch(sls.memory().join("mem"), daemon);
    let readers = Readers::start(&sls, row.seed);
    let mut audit = Audit {
        dice: Dice::new(row.seed),
        sls,
        target,
        row,
        prints: Vec::new(),
        pages_hashed: 0,
        cleaned: 0,
        dropped: 0,
    };
    loop {
        audit.attach();
        held.is_now(audit.sls.daemon());
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(500 + audit.dice.below(1000)));
            audit.hash_one();
        }
        let newest = audit.kill_daemon();
        held.is_now(audit.sls.daemon());
        audit.judge_all();
        // Whether there was something to clean is a matter of what was dropped between two kills.
        let pressed = audit.cleaned > 0 && audit.dropped > 0;
        if newest >= due && (pressed || newest >= 5 * due) {
            break;
        }
    }
    let read = readers.stop();
    println!(
        "{read:?}; {} segments cleaned, {} dropped",
        audit.cleaned, audit.dropped
    );
    audit.row.epochs += read.epochs;
    audit.row.wrong += read.wrong;
    assert!(read.epochs > 100 && read.stopped > 0, "{read:?}");
    assert!(audit.cleaned > 0 && audit.dropped > 0, "nothing pressed");
    assert!(
        !audit.target.output().contains("FAIL"),
        "{}",
        audit.target.output()
    );
    let most = held.stop();
    let Audit {
        sls,
        mut row,
        pages_hashed,
        ..
    } = audit;
    assert!(most.files <= BUDGET, "{most:?}");
    let working = (most.together - at_first.0).saturating_sub(BUDGET);
    assert!(
        working <= WORKING,
        "{working} besides the budget: {most:?}, {at_first:?} at first"
    );
    // Given back.
    let connected = Client::connect(&sls.socket()).unwrap();
    let daemon = sls.daemon();
    sls.run(&["partdel", "-o", "mem"]);
    assert!(!sls.memory().exists(), "{}", sls.memory().display());
    // The reader that stopped is found out by the next write to it.
    wait_until(PATIENCE, "descriptors are given back", || {
        descriptors(daemon) <= at_first.1
    });
    let at_last = (rss(daemon), descriptors(daemon));
    println!(
        "resident and descriptors: {at_first:?} at first, {at_last:?} after partdel; {most:?}"
    );
    assert!(
        at_last.0 <= at_first.0 + (8 << 20),
        "{at_last:?}, {at_first:?} at first"
    );
    drop(connected);
    row.note = format!(
        "{pages_hashed} pages hashed from /proc/PID/mem; budget {} MiB: files at most {} MiB, with slsd's memory {} MiB",
        BUDGET >> 20,
        most.files >> 20,
        (most.together - at_first.0) >> 20,
    );
    row.report();
}
