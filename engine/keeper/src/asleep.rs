//! When threads fell asleep: the start of a timeout that a stop is about to interrupt.
//!
//! The kernel notes it by the scheduler's clock, of which each CPU has its own: it stands still
//! while the CPU serves interrupts or another virtual machine, so two CPUs may be seconds apart. Each is
//! compared with CLOCK_MONOTONIC on the CPU itself. A clock that stood still since makes the sleep
//! begin later than it did, never earlier.

use std::collections::HashMap;

use sls_sys::cpus::Wandering;
use sls_sys::procfs;

use sls_sys::monotonic;

/// Sleep starts are looked up for so many threads before each stop.
const SAMPLED_THREADS: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Sleep {
    /// CLOCK_MONOTONIC ns.
    since: u64,
    /// How often the thread had run.
    runs: u64,
}

/// Of the threads of one process.
pub struct Asleep {
    pid: i32,
    known: bool,
    sleeps: HashMap<i32, Sleep>,
}

impl Asleep {
    /// `known`: does the kernel tell (CONFIG_SCHED_DEBUG)?
    pub fn new(pid: i32, known: bool) -> Self {
        let sleeps = HashMap::new();
        Self { pid, known, sleeps }
    }

    /// Looks them up. Before a stop: stopping wakes them.
    pub fn sample(&mut self) {
        self.sleeps.clear();
        let Some(tids) = self.known.then(|| procfs::tasks(self.pid).ok()).flatten() else {
            return;
        };
        if tids.len() > SAMPLED_THREADS {
            return;
        }
        let mut by_cpu: HashMap<usize, Vec<(i32, Sleep)>> = HashMap::new();
        for tid in tids {
            if let Some((cpu, sleep)) = self.look_at(tid) {
                by_cpu.entry(cpu).or_default().push((tid, sleep));
            }
        }
        let Ok(wandering) = Wandering::begin() else {
            return;
        };
        for (cpu, sleeps) in by_cpu {
            // A CPU that we may not go to tells nothing.
            let Some(shift) = wandering.go(cpu).ok().and_then(|()| clock_shift()) else {
                continue;
            };
            for (tid, mut sleep) in sleeps {
                sleep.since = sleep.since.saturating_add_signed(shift);
                self.sleeps.insert(tid, sleep);
            }
        }
    }

    /// A sleeping thread's CPU, and its sleep by that CPU's clock.
    fn look_at(&self, tid: i32) -> Option<(usize, Sleep)> {
        let cpu = procfs::sleeps_on(self.pid, tid)?;
        let runs = procfs::times_run(self.pid, tid)?;
        let since = procfs::last_ran_ns(self.pid, tid)?;
        // One that woke up meanwhile may have been given another CPU.
        (procfs::sleeps_on(self.pid, tid)? == cpu).then_some((cpu, Sleep { since, runs }))
    }

    /// When a thread that a stop has just woken fell asleep. None where it ran for another reason
    /// since: it may sleep in another call by then.
    pub fn since(&self, tid: i32) -> Option<u64> {
        let sleep = self.sleeps.get(&tid)?;
        (procfs::times_run(self.pid, tid)? <= sleep.runs + 1).then_some(sleep.since)
    }
}

/// CLOCK_MONOTONIC minus the clock of the CPU we are on. Yielding brings this thread's own entry
/// up to the present, so that the two can be compared.
fn clock_shift() -> Option<i64> {
    let me = nix::unistd::gettid().as_raw();
    std::thread::yield_now();
    let own = procfs::last_ran_ns(me, me)?;
    Some(monotonic().cast_signed() - own.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// On every CPU, whatever its clock says.
    #[test]
    fn a_sleep_is_known_to_begin_when_it_did() {
        let pid = std::process::id().cast_signed();
        if procfs::last_ran_ns(pid, pid).is_none() {
            return; // A kernel without it.
        }
        let cpus = std::thread::available_parallelism().unwrap().get();
        for cpu in 0..cpus {
            let (told, hears) = std::sync::mpsc::channel();
            let sleeper = std::thread::spawn(move || {
                let _there = Wandering::begin().unwrap().go(cpu);
                told.send((nix::unistd::gettid().as_raw(), monotonic()))
                    .unwrap();
                std::thread::sleep(Duration::from_millis(300));
            });
            let (tid, before) = hears.recv().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let asleep = Asleep::new(pid, true);
            let (on, sleep) = asleep.look_at(tid).unwrap();
            let wandering = Wandering::begin().unwrap();
            wandering.go(on).unwrap();
            let since = sleep.since.saturating_add_signed(clock_shift().unwrap());
            assert!(since >= before, "CPU {cpu}: {} ns early", before - since);
            assert!(since - before < 40_000_000, "CPU {cpu}: {}", since - before);
            drop(wandering);
            sleeper.join().unwrap();
        }
    }
}
