//! How long a target is stopped.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use testkit::Sls;

use crate::felt::{self, Observer};
use crate::figures::{Figures, head, ms, ratio, row, size};
use crate::limit::{Limit, WarmCopy};
use crate::peers;

const DIRTY: [u64; 5] = [4 << 10, 64 << 10, 1 << 20, 10 << 20, 100 << 20];
const PERIOD_MS: u64 = 100;
const REWOUND: u64 = 1 << 20;
const LEGEND: &str = "A checkpoint every PERIOD ms; ms, medians. `engine`: as the engine measures it; `felt`: the longest gap
around it that a thread of the target saw which does nothing but look at the clock; `felt without`:
the same where there is no checkpoint; `limit`: stop and go, map list, one scan, a warm copy of the
dirty bytes, added up. Most of the dirty bytes are copied before the stop, so it may be below that.";

/// Stop times.
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds of checkpoints for each row
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds of the limit, of fork and of rewinds for each row
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Resident sizes, MiB
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1024])]
    resident: Vec<u64>,
    /// Leave out gcore and criu
    #[arg(long)]
    alone: bool,
}

/// One row.
struct Measured {
    first_ns: u64,
    first_pages: u64,
    engine: Figures,
    felt: Figures,
    pages: Figures,
    limit: Limit,
    idle: Figures,
    fork: Figures,
    gcore: Option<u64>,
    criu: Option<u64>,
    rewind: Option<Rewinds>,
}

struct Rewinds {
    stop: Figures,
    pages: Figures,
}

impl Stop {
    pub fn run(&self) -> anyhow::Result<()> {
        println!("{}", LEGEND.replace("PERIOD", &PERIOD_MS.to_string()));
        head(&[
            "resident",
            "dirty",
            "pages",
            "engine",
            "felt",
            "felt p99",
            "felt without",
            "limit",
            "engine/limit",
            "fork",
            "gcore",
            "criu",
        ]);
        let mut notes = Vec::new();
        for &mib in &self.resident {
            for dirty in DIRTY.into_iter().filter(|&d| d <= mib << 20) {
                let measured = self.measure(mib, dirty)?;
                measured.print(mib, dirty);
                notes.extend(measured.notes(mib, dirty));
            }
        }
        println!();
        notes.iter().for_each(|note| println!("- {note}"));
        Ok(())
    }

    fn measure(&self, mib: u64, dirty: u64) -> anyhow::Result<Measured> {
        let sls = Sls::new();
        let observer = Observer::start(sls.folder(), mib, dirty)?;
        let fork = (0..self.rounds.min(5))
            .map(|_| observer.fork())
            .collect::<anyhow::Result<Figures>>()?;
        let (mut gcore, mut criu) = (None, None);
        if !self.alone {
            gcore = Some(peers::gcore(&observer)?);
            criu = peers::criu(&observer)?;
        }
        let idle = observer.idle()?;
        let (rows, gaps) = self.checkpoints(&sls, &observer)?;
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap_or(0);
        let mut measured = Measured {
            first_ns: rows.first().map_or(0, |r| number(r, "stop_us") * 1000),
            first_pages: rows.first().map_or(0, |r| number(r, "pages")),
            engine: Figures::default(),
            felt: Figures::default(),
            pages: Figures::default(),
            limit: Limit::default(),
            idle,
            fork,
            gcore,
            criu,
            rewind: None,
        };
        for row in rows.iter().skip(1) {
            let stop = number(row, "stop_us") * 1000;
            measured.engine.add(stop);
            measured.pages.add(number(row, "pages"));
            if let Some(ns) = felt::of_checkpoint(&gaps, number(row, "time"), stop) {
                measured.felt.add(ns);
            }
        }
        measured.limit = self.limit(&sls, &observer, dirty)?;
        if dirty == REWOUND {
            measured.rewind = Some(self.rewinds(&sls));
        }
        Ok(measured)
    }

    fn checkpoints(
        &self,
        sls: &Sls,
        observer: &Observer,
    ) -> anyhow::Result<(Vec<Value>, Vec<felt::Gap>)> {
        let pid = observer.pid().to_string();
        sls.run(&["partadd", "memory", "-o", "mem", "--keep", "last:200"]);
        let before = observer.count()?;
        sls.run(&["attach", "-p", &pid, "-m", "-t", &PERIOD_MS.to_string()]);
        first_kept(sls)?;
        std::thread::sleep(Duration::from_secs(self.seconds));
        sls.run(&["detach", "-p", &pid]);
        let gaps = observer.gaps_since(before)?;
        let history = sls.json(&["history", "-m"]);
        Ok((
            history["checkpoints"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
            gaps,
        ))
    }

    /// Attached, so that pages are protected, but without periodic checkpoints in the way.
    fn limit(&self, sls: &Sls, observer: &Observer, dirty: u64) -> anyhow::Result<Limit> {
        let mut limit = Limit::default();
        let mut copy = WarmCopy::new(dirty);
        // The old partition has a period, and keeps it over attach and detach.
        sls.run(&["partdel", "-o", "mem"]);
        sls.run(&["attach", "-p", &observer.pid().to_string(), "-m"]);
        for _ in 0..self.rounds {
            sls.run(&["checkpoint", "-m"]);
            std::thread::sleep(Duration::from_millis(PERIOD_MS));
            let round = limit.measure(observer, &mut copy);
            round.with_context(|| sls.log())?;
        }
        Ok(limit)
    }

    fn rewinds(&self, sls: &Sls) -> Rewinds {
        let mut rewinds = Rewinds {
            stop: Figures::default(),
            pages: Figures::default(),
        };
        for _ in 0..self.rounds {
            let epoch = sls.json(&["checkpoint", "-m"])["epoch"].clone();
            std::thread::sleep(Duration::from_millis(PERIOD_MS));
            let done = sls.json(&["rewind", "-m", &format!("@{epoch}")]);
            rewinds
                .stop
                .add(done["stop_us"].as_u64().unwrap_or(0) * 1000);
            rewinds.pages.add(done["pages"].as_u64().unwrap_or(0));
        }
        rewinds
    }
}

/// The first checkpoint is everything; encoding it takes its time, and the next waits for that.
fn first_kept(sls: &Sls) -> anyhow::Result<()> {
    for _ in 0..600 {
        let stat = sls.json(&["stat"]);
        if stat["partitions"][0]["taken"].as_u64().unwrap_or(0) > 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("no checkpoint in a minute: {}", sls.log())
}

impl Measured {
    fn print(&self, mib: u64, dirty: u64) {
        let engine = self.engine.median();
        let limit = self.limit.total();
        row(&[
            format!("{mib} MiB"),
            size(dirty),
            self.pages.median().unwrap_or(0).to_string(),
            ms(engine),
            ms(self.felt.median()),
            ms(self.felt.p99()),
            ms(self.idle.median()),
            ms(limit),
            ratio(engine, limit),
            ms(self.fork.median()),
            ms(self.gcore),
            ms(self.criu),
        ]);
    }

    fn notes(&self, mib: u64, dirty: u64) -> Vec<String> {
        let dirty = size(dirty);
        let [interrupt, maps, scan, copy] = self.limit.parts().map(ms);
        let mut notes = vec![format!(
            "{mib} MiB, {dirty}: first checkpoint {} ms for {} pages, then {} of {} ms; the limit: stop and go {interrupt}, map list {maps}, scan {scan}, copy {copy} ms",
            ms(Some(self.first_ns)),
            self.first_pages,
            self.engine.len(),
            ms(self.engine.median()),
        )];
        if let Some(rewind) = &self.rewind {
            notes.push(format!(
                "{mib} MiB, {dirty}: a rewind over {} pages stops for {} ms (p99 {})",
                rewind.pages.median().unwrap_or(0),
                ms(rewind.stop.median()),
                ms(rewind.stop.p99()),
            ));
        }
        notes
    }
}
