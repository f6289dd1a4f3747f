//! Processes that are ended and made anew.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::daemon::{Sls, all_children, wait_until};
use crate::target::{Target, field};

/// Where init takes note of the ended once a second.
const SOON: Duration = Duration::from_secs(20);

/// Processes that were restored; they end with their test.
#[derive(Debug)]
pub struct Again(pub Vec<i32>);

impl Drop for Again {
    fn drop(&mut self) {
        end(&self.0);
    }
}

impl Again {
    /// Restores a checkpoint of the memory partition; with what was told of it.
    ///
    /// # Panics
    /// It does not work.
    #[must_use]
    pub fn made(sls: &Sls, how: &[&str]) -> (Self, Value) {
        let told = sls.json(&[&["restore", "-m", "-d"], how].concat());
        (Self::of(&told), told)
    }

    /// Those of a restore that was told of.
    ///
    /// # Panics
    /// It was none.
    #[must_use]
    pub fn of(told: &Value) -> Self {
        let pids = told["pids"].as_object().expect("numbers").values();
        let pid = |pid: &Value| i32::try_from(pid.as_i64().unwrap_or(0)).expect("a number");
        Self(pids.map(pid).collect())
    }

    /// Ends them; their numbers are free then.
    pub fn end(self) {
        let pids = self.0.clone();
        drop(self);
        wait_gone(&pids);
    }
}

fn end(pids: &[i32]) {
    // None is to see another's end.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for &pid in pids {
            // It may have ended by itself, or with another.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Kills all of them, the first of which is a child of the test; their numbers are free then.
pub fn end_all(target: &mut Target, pids: &[i32]) {
    end(pids);
    target.wait(SOON);
    wait_gone(pids);
}

/// Kills processes that somebody else takes note of; their numbers are free then.
pub fn end_those(pids: &[i32]) {
    end(pids);
    wait_gone(pids);
}

/// Waits until somebody has taken note of the end of each.
pub fn wait_gone(pids: &[i32]) {
    wait_until(SOON, "all are gone", || {
        pids.iter().all(|&pid| is_gone(pid))
    });
}

/// Has it ended, and somebody taken note of it? Where it is ours by [`adopt`], we do.
#[must_use]
pub fn is_gone(pid: i32) -> bool {
    // Not our child, or still alive: nothing happens.
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    field(pid, "State:").is_empty()
}

/// From here on the orphans among our descendants are ours, and not init's, which may take note of
/// the ended only once a second: long for those who end thousands. Of daemons, keepers and the like we
/// take note in the background; of others when they are asked about.
///
/// # Panics
/// The kernel is older than 3.4.
pub fn adopt() {
    nix::sys::prctl::set_child_subreaper(true).expect("orphans can be had");
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let ours = [
                "slsd",
                "sls-keeper",
                "sls-init",
                "sls-pager",
                "sls-catalogue",
            ];
            let is_ours = |pid: &i32| {
                field(*pid, "State:").starts_with('Z') && ours.contains(&&*field(*pid, "Name:"))
            };
            let all = all_children(std::process::id().cast_signed());
            for pid in all.into_iter().filter(is_ours) {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    });
}
