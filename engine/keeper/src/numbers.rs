//! Numbers of processes and threads in a PID namespace that is not this keeper's: plans and records
//! have those, as the program itself does; ptrace and /proc have the keeper's own.

use std::collections::BTreeMap;
use std::io;

use sls_sys::procfs;

/// Has a process numbers of its own, by a namespace below this keeper's?
pub fn are_others(pid: i32) -> bool {
    procfs::status(pid).is_ok_and(|s| s.own.depth > 0)
}

/// The number here of the child that has this number in the namespace of `parent`.
pub fn child(parent: i32, own: i32) -> io::Result<i32> {
    if !are_others(parent) {
        return Ok(own);
    }
    let is_it = |&pid: &i32| procfs::status(pid).is_ok_and(|s| s.own.tgid == own);
    let found = procfs::children(parent).into_iter().find(is_it);
    found.ok_or_else(|| io::Error::other(format!("child {own} is not to be found")))
}

/// Those of the threads of a process that a plan is carried through in.
#[derive(Debug)]
pub struct Numbers {
    pid: i32,
    /// By its own numbers; None: they are the same.
    others: Option<BTreeMap<i32, i32>>,
}

impl Numbers {
    pub fn of<'a>(pid: i32, tids: impl IntoIterator<Item = &'a i32>) -> Self {
        let pair = |&tid: &i32| Some((procfs::status(tid).ok()?.own.tid, tid));
        let others = are_others(pid).then(|| tids.into_iter().filter_map(pair).collect());
        Self { pid, others }
    }

    /// Its number here; one that nobody has if it is not there.
    pub fn here(&self, own: i32) -> i32 {
        match &self.others {
            None => own,
            Some(others) => others.get(&own).copied().unwrap_or(-own),
        }
    }

    /// Looks for a thread that was just made; its number here.
    pub fn meet(&mut self, own: i32) -> io::Result<i32> {
        if let Some(others) = &mut self.others {
            let is_it = |&tid: &i32| procfs::status(tid).is_ok_and(|s| s.own.tid == own);
            let found = procfs::tasks(self.pid)?.into_iter().find(is_it);
            let here = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            others.insert(own, here);
        }
        Ok(self.here(own))
    }

    pub fn forget(&mut self, own: i32) {
        if let Some(others) = &mut self.others {
            others.remove(&own);
        }
    }
}
