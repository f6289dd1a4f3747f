//! A target that feels how long it is stopped, and tells.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use sls_sys::RemoteMemory;
use testkit::Target;

use crate::figures::Figures;

/// As in tracees/observer.c.
const SLOTS: u64 = 4096;
const GAP_BYTES: u64 = 16;
/// A gap belongs to a checkpoint when it ends so close to the time the checkpoint is dated.
const NEAR_NS: u64 = 3_000_000;

/// tracees/observer.c, running.
pub struct Observer {
    target: Target,
    memory: RemoteMemory,
    ring: u64,
    fork: u64,
    /// What it dirties.
    pub range: (u64, u64),
}

/// A time in which its watching thread did not run.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// ns since 1970.
    pub end: u64,
    /// ns.
    pub length: u64,
}

impl Observer {
    /// Starts it with `mib` resident, dirtying `bytes` every 100 ms.
    pub fn start(folder: &Path, mib: u64, bytes: u64) -> anyhow::Result<Self> {
        let target = Target::tracee(folder, "observer", &[&mib.to_string(), &bytes.to_string()]);
        let said = target.output();
        let mut addresses = said.split_whitespace().skip(1).map(|word| {
            let digits = word.trim_start_matches("0x");
            u64::from_str_radix(digits, 16).with_context(|| format!("observer said {said:?}"))
        });
        let mut next = || addresses.next().context("observer said too little")?;
        let (ring, fork, start) = (next()?, next()?, next()?);
        let memory = RemoteMemory::open(target.pid())?;
        let range = (start, start + (mib << 20));
        Ok(Self {
            target,
            memory,
            ring,
            fork,
            range,
        })
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        self.target.pid()
    }

    /// Gaps it has noted so far.
    pub fn count(&self) -> anyhow::Result<u64> {
        Ok(self.memory.read_u64(self.ring)?)
    }

    /// Gaps noted since `count` was that, as far as the ring goes back.
    pub fn gaps_since(&self, count: u64) -> anyhow::Result<Vec<Gap>> {
        let now = self.count()?;
        let from = count.max(now.saturating_sub(SLOTS));
        let gap = |n: u64| {
            let at = self.ring + 8 + n % SLOTS * GAP_BYTES;
            Ok(Gap {
                end: self.memory.read_u64(at)?,
                length: self.memory.read_u64(at + 8)?,
            })
        };
        (from..now).map(gap).collect()
    }

    /// How long one fork() takes inside it.
    pub fn fork(&self) -> anyhow::Result<u64> {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        self.memory.write_at(self.fork, &0u64.to_le_bytes())?;
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1)?;
        for _ in 0..400 {
            std::thread::sleep(Duration::from_millis(10));
            let ns = self.memory.read_u64(self.fork)?;
            if ns > 0 {
                return Ok(ns);
            }
        }
        anyhow::bail!("observer does not fork")
    }

    /// The longest gap during `act`.
    pub fn longest_during(&self, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let before = self.count()?;
        act()?;
        let gaps = self.gaps_since(before)?;
        ensure!(!gaps.is_empty(), "observer felt nothing");
        Ok(gaps.iter().map(|g| g.length).max().unwrap_or(0))
    }
}

impl Observer {
    /// What it feels at twenty moments when nobody does anything to it; 0 where that is nothing.
    pub fn idle(&self) -> anyhow::Result<Figures> {
        let before = self.count()?;
        let mut times = Vec::new();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(50));
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            times.push(u64::try_from(now.as_nanos())?);
        }
        std::thread::sleep(Duration::from_millis(10));
        let gaps = self.gaps_since(before)?;
        Ok(times
            .into_iter()
            .map(|t| of_checkpoint(&gaps, t, 0).unwrap_or(0))
            .collect())
    }
}

/// The longest gap that belongs to a checkpoint which is dated `time` and says it took `stop` ns.
pub fn of_checkpoint(gaps: &[Gap], time: u64, stop: u64) -> Option<u64> {
    let begin = time.saturating_sub(stop + NEAR_NS);
    let near = gaps
        .iter()
        .filter(|g| g.end > begin && g.end - g.length < time);
    near.map(|g| g.length).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_a_checkpoint() {
        let gap = |end, length| Gap { end, length };
        let ms = 1_000_000;
        let gaps = [
            gap(10 * ms, 5 * ms),
            gap(100 * ms, ms),
            gap(101 * ms, 100),
            gap(200 * ms, 9 * ms),
        ];
        assert_eq!(of_checkpoint(&gaps, 101 * ms, ms), Some(ms));
        assert_eq!(of_checkpoint(&gaps, 150 * ms, ms), None);
    }
}
