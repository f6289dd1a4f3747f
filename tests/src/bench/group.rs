//! How long several processes stand still for one checkpoint.

use std::time::Instant;

use anyhow::Context;
use clap::Args;
use sls_sys::urgent::Urgent;
use testkit::{Ring, Sls};

use crate::figures::{Figures, head, ms, ratio, row};
use crate::limit;

const LEGEND: &str = "Processes that pass a number round in pipes, one partition; ms, medians. `stop`: from the first interrupt until the last runs
again; `rewind`: the same of a rewind; `limit`: every process seized, interrupted, waited for and let go by one tracer.";

/// Checkpoints of several processes in one stop.
#[derive(Debug, Args)]
pub struct Group {
    /// Checkpoints and rewinds for each row
    #[arg(long, default_value_t = 20)]
    rounds: u32,
}

impl Group {
    pub fn run(&self) -> anyhow::Result<()> {
        println!("{LEGEND}");
        head(&[
            "processes",
            "pages",
            "stop",
            "stop p99",
            "rewind",
            "limit",
            "stop/limit",
        ]);
        for processes in [2, 10, 100] {
            self.measure(processes)?;
        }
        Ok(())
    }

    fn measure(&self, processes: usize) -> anyhow::Result<()> {
        let sls = Sls::new();
        let mut ring = Ring::attached(&sls, processes, &[]);
        let (mut stop, mut rewind, mut limit) =
            (Figures::default(), Figures::default(), Figures::default());
        let mut pages = 0;
        sls.run(&["checkpoint", "-m"]);
        for _ in 0..self.rounds {
            let taken = sls.json(&["checkpoint", "-m"]);
            stop.add(taken["stop_us"].as_u64().context("stop_us")? * 1000);
            pages = taken["pages"].as_u64().context("pages")?;
            let back = format!("@{}", taken["epoch"]);
            let done = sls.json(&["rewind", "-m", &back]);
            rewind.add(done["stop_us"].as_u64().context("stop_us")? * 1000);
            limit.add(stop_and_let_go(&ring.pids)?);
        }
        ring.assert_goes_round("measured");
        row(&[
            processes.to_string(),
            pages.to_string(),
            ms(stop.median()),
            ms(stop.p99()),
            ms(rewind.median()),
            ms(limit.median()),
            ratio(stop.median(), limit.median()),
        ]);
        Ok(())
    }
}

/// ns from the first interrupt until the last is let go.
fn stop_and_let_go(pids: &[i32]) -> anyhow::Result<u64> {
    let urgent = Urgent::begin();
    let begun = Instant::now();
    limit::let_go(limit::stop(pids)?)?;
    let took = begun.elapsed();
    drop(urgent);
    Ok(u64::try_from(took.as_nanos())?)
}
