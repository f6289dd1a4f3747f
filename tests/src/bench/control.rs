//! What forward control costs: a step, a hit, a hit whose condition is false, beside gdb doing the same.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use libsls::Client;
use libsls::control::{Act, By, State, Wait, What};
use testkit::{Sls, Target, tracee};

use crate::figures::{head, ms, ratio, row};

const LEGEND: &str = "ms for each, of unoptimised C. `step`: to the next line, one after the other; ours takes a checkpoint at each.
`hit`: `continue` to a breakpoint that is met at once, likewise. `false`: eight threads run into a breakpoint whose condition
is false, nobody is told.";
const PART: Option<&str> = Some("mem");
/// Breakpoints met by the eight threads of `controlled hot` in each of its rounds.
const A_ROUND: u64 = 800;

/// Steps and breakpoints beside gdb
#[derive(Debug, Args)]
pub struct Control {
    /// Steps, and hits
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// Rounds of 800 hits with a false condition
    #[arg(long, default_value_t = 10)]
    rounds: u64,
}

impl Control {
    pub fn run(&self) -> anyhow::Result<()> {
        println!("{LEGEND}");
        head(&["what", "sls", "gdb", "sls/gdb"]);
        let ours = self.walked()?;
        let theirs = [
            self.gdb("walk", "walk", &self.repeated("step"))?,
            self.gdb("walk", "leaf", &self.repeated("continue"))?,
        ];
        let whats = ["step", "hit"];
        for ((what, ours), theirs) in whats.iter().zip(ours).zip(theirs) {
            print(what, ours, theirs);
        }
        let hits = self.rounds * A_ROUND;
        let run = format!(
            "began = time.time(); gdb.execute('delete'); gdb.execute('break hot if rounds > {}', to_string=True); gdb.execute('continue', to_string=True); print('took', (time.time() - began) / {hits})",
            self.rounds
        );
        print("false", self.hot(hits)?, self.gdb("hot", "main", &run)?);
        Ok(())
    }

    fn repeated(&self, command: &str) -> String {
        let count = self.count;
        format!(
            "began = time.time(); [gdb.execute('{command}', to_string=True) for _ in range({count})]; print('took', (time.time() - began) / {count})"
        )
    }

    /// ns of a step, and of a hit.
    fn walked(&self) -> anyhow::Result<[u64; 2]> {
        let (_target, sls) = begun("walk");
        let mut client = Client::connect(&sls.socket())?;
        stop_at(&mut client, "walk", None)?;
        go(&mut client)?;
        let step = Act::Step {
            by: By::Line,
            over: false,
            count: 1,
            tid: None,
            wait: Wait::Stop,
        };
        let steps = self.timed(|| stopped(&mut client, step.clone()))?;
        stop_at(&mut client, "leaf", None)?;
        let hits = self.timed(|| go(&mut client))?;
        Ok([steps, hits])
    }

    fn timed(&self, mut act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let began = Instant::now();
        for _ in 0..self.count {
            act()?;
        }
        let all = u64::try_from(began.elapsed().as_nanos())?;
        Ok(all / u64::from(self.count))
    }

    /// ns of a hit with a false condition.
    fn hot(&self, hits: u64) -> anyhow::Result<u64> {
        let (_target, sls) = begun("hot");
        sls.run(&["pause"]);
        let rounds = sls.json(&["print", "rounds"])["value"].clone();
        let rounds: u64 = rounds.to_string().trim_matches('"').parse()?;
        let mut client = Client::connect(&sls.socket())?;
        let until = format!("rounds > {}", rounds + self.rounds);
        stop_at(&mut client, "hot", Some(until))?;
        let began = Instant::now();
        go(&mut client)?;
        Ok(u64::try_from(began.elapsed().as_nanos())? / hits)
    }

    /// ns of each, as gdb itself says in seconds, of a program that it has stopped at a function.
    fn gdb(&self, what: &str, at: &str, script: &str) -> anyhow::Result<u64> {
        let mut gdb = Command::new("gdb");
        gdb.args(["--nx", "--batch", "-iex", "set debuginfod enabled off"]);
        gdb.args(["-ex", "set pagination off"]);
        gdb.args(["-ex", "handle SIGUSR1 nostop noprint pass"]);
        gdb.args(["-ex", &format!("break {at}"), "-ex", "run"]);
        gdb.args(["-ex", &format!("python import time; {script}")]);
        let program = gdb.arg("--args").arg(tracee("controlled")).arg(what);
        let out = program.output().context("gdb; ./x setup installs it")?;
        let said = String::from_utf8_lossy(&out.stdout);
        let took = said.lines().find_map(|line| line.strip_prefix("took "));
        let seconds: f64 = took
            .with_context(|| format!("gdb said {said}{}", String::from_utf8_lossy(&out.stderr)))?
            .parse()?;
        Ok(u64::try_from(
            std::time::Duration::from_secs_f64(seconds).as_nanos(),
        )?)
    }
}

fn begun(what: &str) -> (Target, Sls) {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "controlled", &[what]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    (target, sls)
}

fn stop_at(client: &mut Client, function: &str, condition: Option<String>) -> anyhow::Result<()> {
    let act = Act::Break {
        what: What::Place(function.to_owned()),
        condition,
        tid: None,
        temporary: false,
    };
    client.breakpoints(PART, None, act)?;
    Ok(())
}

fn go(client: &mut Client) -> anyhow::Result<()> {
    stopped(client, Act::Continue { wait: Wait::Stop })
}

fn stopped(client: &mut Client, act: Act) -> anyhow::Result<()> {
    let stop = client.run(PART, None, act)?;
    ensure!(stop.state == State::Stopped, "it did not stop: {stop:?}");
    Ok(())
}

fn print(what: &str, ours: u64, theirs: u64) {
    row(&[
        what.to_owned(),
        ms(Some(ours)),
        ms(Some(theirs)),
        ratio(Some(ours), Some(theirs)),
    ]);
}
