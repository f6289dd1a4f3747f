//! What no checkpoint on this kernel can go below: stop and let go, read the map list once, one
//! PAGEMAP_SCAN walk, copy the dirty bytes within warm memory.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use sls_sys::procfs::{self, Reread};
use sls_sys::ptrace::{self, Waited, Why};
use sls_sys::urgent::Urgent;

use crate::felt::Observer;
use crate::figures::Figures;

/// Measured parts.
#[derive(Debug, Default)]
pub struct Limit {
    interrupt: Figures,
    maps: Figures,
    scan: Figures,
    copy: Figures,
}

/// Copies within memory that has been touched.
pub struct WarmCopy {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl WarmCopy {
    pub fn new(bytes: u64) -> Self {
        let n = sls_sys::size(bytes);
        Self {
            from: vec![1; n],
            to: vec![2; n],
        }
    }

    /// ns of one copy.
    pub fn once(&mut self) -> u64 {
        let clock = Instant::now();
        self.to.copy_from_slice(&self.from);
        std::hint::black_box(&self.to);
        ns(clock)
    }
}

fn ns(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Limit {
    /// One round, on a target whose pages are protected and that nobody else is stopping.
    pub fn measure(&mut self, observer: &Observer, copy: &mut WarmCopy) -> anyhow::Result<()> {
        let pid = observer.pid();
        let mut maps = Reread::open(pid, "maps")?;
        let tids = procfs::tasks(pid)?;
        // As the engine does: else the machine's load is measured and not the limit.
        let urgent = Urgent::begin();
        let clock = Instant::now();
        let stopped = stop(&tids)?;
        let stopping = ns(clock);
        let clock = Instant::now();
        let read = maps.read().map(|text| std::hint::black_box(text).len());
        let reading = ns(clock);
        let clock = Instant::now();
        let_go(stopped)?;
        let letting_go = ns(clock);
        read?;
        drop(urgent);
        self.interrupt.add(stopping + letting_go);
        self.maps.add(reading);
        self.scan.add(scan(observer)?);
        self.copy.add(copy.once());
        Ok(())
    }

    /// Medians added up.
    pub fn total(&self) -> Option<u64> {
        self.parts().into_iter().sum()
    }

    /// Stopping and letting go, the map list, the scan, the copy: medians.
    pub fn parts(&self) -> [Option<u64>; 4] {
        [&self.interrupt, &self.maps, &self.scan, &self.copy].map(Figures::median)
    }
}

/// By a program of its own (tracees/scan.c): the engine's own scan asks the kernel for more.
fn scan(observer: &Observer) -> anyhow::Result<u64> {
    let (start, end) = observer.range;
    let mut command = Command::new(testkit::tracee("scan"));
    command.arg(observer.pid().to_string());
    let out = command
        .args([format!("{start:x}"), format!("{end:x}")])
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{said}; is the target attached and checkpointed?"
    );
    Ok(String::from_utf8_lossy(&out.stdout).trim().parse()?)
}

/// Stops each of these threads.
pub fn stop(tids: &[i32]) -> anyhow::Result<Vec<ptrace::Stopped>> {
    for &tid in tids {
        ptrace::seize(tid, ptrace::option::SYSGOOD).context("seize the target")?;
        ptrace::interrupt(tid)?;
    }
    let wait = |&tid: &i32| match ptrace::wait(tid, true)? {
        Some(Waited::Stopped(stopped)) => Ok(stopped),
        other => anyhow::bail!("thread {tid}: {other:?}"),
    };
    tids.iter().map(wait).collect()
}

/// Lets them run on.
pub fn let_go(stopped: Vec<ptrace::Stopped>) -> anyhow::Result<()> {
    for thread in stopped {
        let signal = match thread.why() {
            Why::Signal(signal) => signal,
            _ => 0,
        };
        thread.detach(signal)?;
    }
    Ok(())
}
