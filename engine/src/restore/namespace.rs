//! A PID namespace for processes that are made anew, so that it does not matter who has their numbers.
//!
//! - **Invariant**: until its init has been told for whom it is there, it ends with slsd, and all in it
//!   do; from then on it ends with the last of them.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sls_keeper::Within;
use sls_record::Record;
use sls_sys::skeleton::reap;
use sls_sys::{fault, fd, procfs};

use super::SIGKILL;
use crate::error::KeeperError;
use crate::keeper::Keeper;
use crate::plan::kin;
use crate::target::Options;

/// How long all in it may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// One that is ours until it is kept.
#[derive(Debug)]
pub struct Namespace {
    init: Keeper,
    life: Option<OwnedFd>,
    pid: i32,
    lent: i32,
    is_apart: bool,
    /// Where nobody in it can write, although one can outside.
    pub read_only: Vec<String>,
    /// The numbers that are wanted in it.
    wanted: Vec<i32>,
}

impl Namespace {
    /// An empty one, for these. `is_apart`: what they do is not noticed outside.
    pub fn begin(options: &Options, record: &Record, is_apart: bool) -> Result<Self, KeeperError> {
        let all = &record.processes;
        let root = all.first().map_or(0, |root| root.pid);
        let (init, pid, read_only) = Keeper::begin_namespace(&options.keeper, root, is_apart)?;
        let what = format_args!("watch the init of the PID namespace of process {root}");
        let life = fault::step(what, || fd::pidfd_open(pid))?;
        Ok(Self {
            init,
            life: Some(life),
            pid,
            lent: kin::lent(all),
            is_apart,
            read_only,
            wanted: all.iter().map(|p| p.pid).collect(),
        })
    }

    /// As a keeper is told of it.
    pub fn within(&self) -> Within {
        Within {
            init: self.pid,
            lent: self.lent,
            apart: self.is_apart,
        }
    }

    /// It is there for these, by its own numbers, and ends with the last of them.
    pub fn watch(&mut self, pids: Vec<i32>) -> Result<(), KeeperError> {
        self.init.watch(pids)
    }

    /// Its init, of whose end the caller has to take note, and what is readable then.
    pub fn keep(mut self) -> Option<(i32, OwnedFd)> {
        self.life.take().map(|life| (self.pid, life))
    }
}

impl Drop for Namespace {
    /// It ends, and all in it. Those that we are the parent of have to be taken note of before it can.
    fn drop(&mut self) {
        let Some(life) = self.life.take() else {
            return; // It is kept.
        };
        // ESRCH: it has ended.
        let _ = fd::pidfd_signal(life.as_fd(), SIGKILL);
        let deadline = Instant::now() + END_PATIENCE;
        while reap(self.pid).is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
            for child in procfs::children(std::process::id().cast_signed()) {
                let is_ours = |s: &procfs::Status| {
                    s.state == 'Z' && s.own.depth > 0 && self.wanted.contains(&s.own.tgid)
                };
                if procfs::status(child).is_ok_and(|s| is_ours(&s)) {
                    let _ = reap(child); // Its worker may have been as quick.
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
