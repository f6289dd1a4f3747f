//! Many checkpoints and random rewinds of one target.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Dice, Sls, Target};

pub fn epochs(sls: &Sls) -> Vec<u64> {
    let history = sls.json(&["history", "-m"]);
    history["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["epoch"].as_u64().unwrap())
        .collect()
}

fn taken(sls: &Sls) -> u64 {
    sls.json(&["stat"])["partitions"][0]["taken"]
        .as_u64()
        .unwrap()
}

/// Attaches at 1 ms, takes so many checkpoints with so many rewinds among them, detaches. The
/// target must be alive at the end. Gives what no rewind could put back, each line once.
pub fn run(sls: &Sls, target: &mut Target, checkpoints: u64, rewinds: u64) -> Vec<String> {
    sls.run(&[
        "partadd", "memory", "-o", "mem", "--budget", "256M", "--keep", "log",
    ]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "1"]);
    let mut dice = Dice::new(checkpoints + rewinds);
    let mut not_restored = Vec::new();
    let mut known = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(800);
    for n in 0..rewinds {
        let due = checkpoints * (n + 1) / rewinds;
        while taken(sls) < due {
            assert!(
                Instant::now() < deadline,
                "{} of {checkpoints}: {}",
                taken(sls),
                sls.run(&["stat"])
            );
            target.assert_alive();
            std::thread::sleep(Duration::from_millis(10));
        }
        if n % 10 == 0 {
            known = epochs(sls);
        }
        let to = known[dice.below(known.len() as u64) as usize];
        let out = sls.try_run(&["--json", "rewind", "-m", &format!("@{to}")]);
        // Thinned since the list was read; or a thread's number has gone to somebody else, which
        // many short threads bring about when pids go round.
        let told = ["no checkpoint", "belongs to another process by now"];
        if out.code != 0 && told.iter().any(|why| out.stderr.contains(why)) {
            continue;
        }
        assert_eq!(
            out.code,
            0,
            "rewind to @{to}: {}\n{}",
            out.stderr,
            target.output()
        );
        let done: Value = serde_json::from_str(&out.stdout).unwrap();
        for line in done["not_restored"].as_array().unwrap() {
            let line = line.as_str().unwrap().to_owned();
            if !not_restored.contains(&line) {
                not_restored.push(line);
            }
        }
    }
    let stat = sls.json(&["stat"]);
    let part = &stat["partitions"][0];
    assert!(part["taken"].as_u64().unwrap() >= checkpoints, "{part}");
    println!(
        "{checkpoints} checkpoints, {rewinds} rewinds: stop p50 {} us, p99 {} us, failed {}",
        part["stop_us_p50"], part["stop_us_p99"], part["failed"]
    );
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    not_restored
}
