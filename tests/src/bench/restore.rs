//! How long a process takes to come back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use testkit::{Sls, Target};

use crate::felt::Observer;
use crate::figures::{Figures, head, ms, ratio, row};
use crate::server::Server;

const LEGEND: &str = "Killed with -9, then `slsctl restore -d`; ms, medians. `restore`: until it runs, as the engine measures it;
`command`: the same with slsctl, seen from outside; `answer`: until redis has answered a PING; `memcpy`: its pages copied into
fresh memory by one thread, page faults included. `lazy`: with --lazy, whose pages come behind; `whole`: until a
checkpoint of that is taken, for which all have to be there. criu, which does not start on every kernel, elsewhere: idle
sleep 7.5, python3 10, 64 MiB 47-59, 1 GiB 490-510 ms.";

/// Restores after death.
#[derive(Debug, Args)]
pub struct Restore {
    /// Restores for each row
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Values of a kilobyte that redis gets first, MiB
    #[arg(long, default_value_t = 500)]
    values: u64,
    /// Resident size of the last row's process, MiB
    #[arg(long, default_value_t = 1024)]
    resident: u64,
}

#[derive(Default)]
struct Measured {
    pages: u64,
    restore: Figures,
    command: Figures,
    answer: Figures,
    memcpy: Figures,
    lazy: Lazy,
}

/// The same on demand.
#[derive(Default)]
struct Lazy {
    restore: Figures,
    command: Figures,
    answer: Figures,
    whole: Figures,
}

impl Restore {
    pub fn run(&self) -> anyhow::Result<()> {
        println!("{LEGEND}");
        head(&[
            "program",
            "pages",
            "restore",
            "command",
            "answer",
            "memcpy",
            "restore/memcpy",
            "lazy",
            "command",
            "answer",
            "whole",
        ]);
        let sls = Sls::new();
        let ticker = Target::tracee(sls.folder(), "ticker", &[]);
        let measured = self.measure(&sls, ticker.pid(), || Ok(()))?;
        measured.print("four threads, hello world");
        let sls = Sls::new();
        let server = Server::start(sls.folder());
        server.fill(self.values)?;
        let pid = server.pid().parse()?;
        self.measure(&sls, pid, || server.ping())?
            .print(&format!("redis, {} MiB of values", self.values));
        let sls = Sls::new();
        let observer = Observer::start(sls.folder(), self.resident, 4096)?;
        let measured = self.measure(&sls, observer.pid(), || Ok(()))?;
        measured.print(&format!("{} MiB", self.resident));
        Ok(())
    }

    fn measure(
        &self,
        sls: &Sls,
        pid: i32,
        answers: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Measured> {
        let mut measured = Measured::default();
        sls.run(&["attach", "-p", &pid.to_string(), "-m"]);
        sls.run(&["checkpoint", "-m", "-n", "it"]);
        let process = Pid::from_raw(pid);
        kill(process, Signal::SIGKILL)?;
        waitpid(process, None)?;
        for _ in 0..self.rounds {
            let begun = Instant::now();
            let told = sls.json(&["restore", "-m", "@it", "-d"]);
            measured.command.add(ns(begun));
            answers()?;
            measured.answer.add(ns(begun));
            measured.restore.add(took(&told)?);
            measured.pages = told["pages"].as_u64().context("pages")?;
            end(process)?;
            measured.memcpy.add(memcpy(measured.pages));
            measured.lazy.measure(sls, &answers)?;
            end(process)?;
        }
        Ok(measured)
    }
}

impl Lazy {
    fn measure(
        &mut self,
        sls: &Sls,
        answers: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let told = sls.json(&["restore", "-m", "@it", "-d", "--lazy"]);
        self.command.add(ns(begun));
        answers()?;
        self.answer.add(ns(begun));
        self.restore.add(took(&told)?);
        sls.run(&["checkpoint", "-m"]);
        self.whole.add(ns(begun));
        Ok(())
    }
}

/// As the engine measured it, ns.
fn took(told: &serde_json::Value) -> anyhow::Result<u64> {
    Ok(told["us"].as_u64().context("us")? * 1000)
}

fn end(process: Pid) -> anyhow::Result<()> {
    kill(process, Signal::SIGKILL)?;
    gone(process.as_raw())
}

fn ns(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// slsd has taken note of its end.
fn gone(pid: i32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&path).exists() {
        ensure!(Instant::now() < deadline, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// So many pages from warm memory into memory that nobody has touched.
fn memcpy(pages: u64) -> u64 {
    let from = vec![1u8; usize::try_from(pages * 4096).unwrap_or(0)];
    let mut to: Vec<u8> = Vec::with_capacity(from.len());
    let begun = Instant::now();
    to.extend_from_slice(&from);
    let took = ns(begun);
    std::hint::black_box(&to);
    took
}

impl Measured {
    fn print(&self, program: &str) {
        let restore = self.restore.median();
        let memcpy = self.memcpy.median();
        row(&[
            program.to_owned(),
            self.pages.to_string(),
            ms(restore),
            ms(self.command.median()),
            ms(self.answer.median()),
            ms(memcpy),
            ratio(restore, memcpy),
            ms(self.lazy.restore.median()),
            ms(self.lazy.command.median()),
            ms(self.lazy.answer.median()),
            ms(self.lazy.whole.median()),
        ]);
    }
}
