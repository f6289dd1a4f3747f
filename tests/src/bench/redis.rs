//! Requests that redis keeps while it is checkpointed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use testkit::Sls;

use crate::figures::{head, row};
use crate::server::{Served, Server};

/// Redis under load.
#[derive(Debug, Args)]
pub struct Redis {
    /// Rounds of all ways in turn; the median of each counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests of each run
    #[arg(long, default_value_t = 300_000)]
    requests: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone,
    Every(u64),
    Bgsave,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Alone, "nothing"),
    (Way::Every(100), "10 checkpoints a second"),
    (Way::Every(10), "100 checkpoints a second"),
    (Way::Bgsave, "BGSAVE back to back"),
];

impl Redis {
    pub fn run(&self) -> anyhow::Result<()> {
        let sls = Sls::new();
        let server = Server::start(sls.folder());
        server.serve(self.requests)?; // Every key is there before anything counts.
        let mut served: Vec<Vec<Served>> = vec![Vec::new(); WAYS.len()];
        for _ in 0..self.rounds {
            for (runs, (way, _)) in served.iter_mut().zip(WAYS) {
                runs.push(self.once(&sls, &server, way)?);
            }
        }
        let medians: Vec<Served> = served.iter().map(|runs| median(runs)).collect();
        head(&[
            "redis-benchmark SET, 20 clients",
            "requests/s",
            "kept",
            "worst request, ms",
        ]);
        let alone = medians.first().map_or(1.0, |s| s.rate);
        for ((_, name), served) in WAYS.iter().zip(&medians) {
            row(&[
                (*name).to_owned(),
                format!("{:.0}", served.rate),
                format!("{:.0} %", 100.0 * served.rate / alone),
                format!("{:.1}", served.worst_ms),
            ]);
        }
        Ok(())
    }

    fn once(&self, sls: &Sls, server: &Server, way: Way) -> anyhow::Result<Served> {
        match way {
            Way::Alone => server.serve(self.requests),
            Way::Bgsave => self.under_bgsave(server),
            Way::Every(ms) => {
                sls.run(&[
                    "partadd", "memory", "-o", "mem", "--budget", "1G", "--keep", "last:50",
                ]);
                sls.run(&["attach", "-p", &server.pid(), "-m", "-t", &ms.to_string()]);
                std::thread::sleep(Duration::from_millis(500)); // The first one is whole.
                let served = server.serve(self.requests);
                let stat = sls.json(&["stat"]);
                let part = &stat["partitions"][0];
                println!(
                    "every {ms} ms: {} taken, {} failed, {} periods missed, stop p50 {} p99 {} us",
                    part["taken"],
                    part["failed"],
                    part["missed_periods"],
                    part["stop_us_p50"],
                    part["stop_us_p99"]
                );
                sls.run(&["partdel", "-o", "mem"]);
                served
            }
        }
    }

    fn under_bgsave(&self, server: &Server) -> anyhow::Result<Served> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let saver = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    server.save()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                anyhow::Ok(())
            });
            let served = server.serve(self.requests);
            over.store(true, Ordering::Relaxed);
            saver
                .join()
                .map_err(|_| anyhow::anyhow!("BGSAVE thread"))??;
            served
        })
    }
}

fn median(runs: &[Served]) -> Served {
    let mut sorted = runs.to_vec();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    sorted.get(sorted.len() / 2).copied().unwrap_or(Served {
        rate: 0.0,
        worst_ms: 0.0,
    })
}
