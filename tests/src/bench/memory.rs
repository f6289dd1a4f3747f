//! What a history takes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;
use testkit::Sls;

use crate::felt::Observer;
use crate::figures::{Figures, head, row, size};
use crate::server::Server;

const DIRTY: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 10 << 20];
const BUDGET: u64 = 256 << 20;

/// Bytes of a history.
#[derive(Debug, Args)]
pub struct Memory {
    /// Checkpoints of redis under load in a budget of 256 MiB
    #[arg(long, default_value_t = 10_000)]
    checkpoints: u64,
    /// Milliseconds between them
    #[arg(long, default_value_t = 2)]
    period: u64,
    /// Seconds of checkpoints for each row of the first table
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

impl Memory {
    pub fn run(&self) -> anyhow::Result<()> {
        head(&[
            "64 MiB resident, dirties",
            "pages dirtied",
            "bytes kept a checkpoint",
            "per page",
            "held in all",
        ]);
        for dirty in DIRTY {
            self.one(dirty)?;
        }
        self.many()
    }

    fn one(&self, dirty: u64) -> anyhow::Result<()> {
        let sls = Sls::new();
        let observer = Observer::start(sls.folder(), 64, dirty)?;
        sls.run(&[
            "attach",
            "-p",
            &observer.pid().to_string(),
            "-m",
            "-t",
            "100",
        ]);
        std::thread::sleep(Duration::from_secs(self.seconds));
        sls.run(&["detach", "-p", &observer.pid().to_string()]);
        let history = sls.json(&["history", "-m"]);
        let of = |key: &str| -> Figures {
            let rows = history["checkpoints"]
                .as_array()
                .into_iter()
                .flatten()
                .skip(1);
            rows.filter_map(|r| r[key].as_u64()).collect()
        };
        let (pages, bytes) = (
            of("pages").median().unwrap_or(0),
            of("bytes").median().unwrap_or(0),
        );
        let held = sls.json(&["stat"])["partitions"][0]["held_bytes"]
            .as_u64()
            .unwrap_or(0);
        row(&[
            size(dirty),
            pages.to_string(),
            size(bytes),
            size(bytes / pages.max(1)),
            size(held),
        ]);
        Ok(())
    }

    fn many(&self) -> anyhow::Result<()> {
        let sls = Sls::new();
        let server = Server::start(sls.folder());
        server.serve(200_000)?;
        sls.run(&[
            "partadd",
            "memory",
            "-o",
            "mem",
            "--budget",
            &BUDGET.to_string(),
            "--keep",
            "all",
        ]);
        sls.run(&[
            "attach",
            "-p",
            &server.pid(),
            "-m",
            "-t",
            &self.period.to_string(),
        ]);
        let mut load = server.serve_on()?;
        let watched = self.watch(&sls);
        load.kill()?;
        load.wait()?;
        let (most, rss, last, took) = watched?;
        let part = &last["partitions"][0];
        println!();
        println!(
            "{} checkpoints of redis under load in {} s, budget {}: {} failed, {} dropped, {} kept; held at most {}, slsd resident at most {}; stop p50 {} p99 {} us",
            part["taken"],
            took.as_secs(),
            size(BUDGET),
            part["failed"],
            part["dropped"],
            part["checkpoints"],
            size(most),
            size(rss),
            part["stop_us_p50"],
            part["stop_us_p99"]
        );
        ensure!(most <= BUDGET, "held {most} bytes, over the budget");
        ensure!(
            part["failed"] == 0,
            "checkpoints failed: {}",
            part["last_error"]
        );
        Ok(())
    }

    /// Most bytes held, largest resident size of slsd, the last figures.
    fn watch(&self, sls: &Sls) -> anyhow::Result<(u64, u64, Value, Duration)> {
        let clock = Instant::now();
        let (mut most, mut rss) = (0, 0);
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let stat = sls.json(&["stat"]);
            let part = &stat["partitions"][0];
            most = most.max(part["held_bytes"].as_u64().context("stat has held_bytes")?);
            rss = rss.max(stat["rss_bytes"].as_u64().unwrap_or(0));
            let done = part["taken"].as_u64().unwrap_or(0) >= self.checkpoints;
            if done || part["failed"].as_u64().unwrap_or(0) > self.checkpoints {
                return Ok((most, rss, stat, clock.elapsed()));
            }
        }
    }
}
