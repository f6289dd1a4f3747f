//! Who descends from whom among processes that are made anew together, and their sessions and
//! process groups.
//!
//! A session is begun by its leader and handed down to those it makes; a process group is one of its
//! session. What a process had from one that is not here any more it has from whoever is in that
//! one's place, or it is named.

use std::collections::BTreeSet;

use sls_keeper::Want;
use sls_record::Process;

use super::files::name_once;
use super::kin::Kin;
use super::{Steps, int};

/// What is done, in order, to have all of them, each under its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// This one is made, with nobody of them as its parent.
    Make(usize),
    /// This one is made by its parent.
    Fork {
        /// The child.
        child: usize,
        /// Its parent.
        parent: usize,
    },
    /// This one begins a session.
    BeginSession(usize),
}

/// How all of them are made. None: they descend from one another in a circle.
pub fn acts(all: &[Process]) -> Option<Vec<Act>> {
    let mut acts = Vec::new();
    let mut made = BTreeSet::new();
    let has_parent = |p: &Process| all.iter().any(|q| q.pid == p.ppid);
    for at in (0..all.len()).filter(|&at| !has_parent(&all[at])) {
        acts.push(Act::Make(at));
        made.insert(at);
        // What it was in is its parent's business, which is not here.
        acts.push(Act::BeginSession(at));
        children(all, at, &mut acts, &mut made, |_| false);
    }
    (made.len() == all.len()).then_some(acts)
}

/// Adds the descendants of one. Its children from before its session are made before it begins it.
fn descend(all: &[Process], at: usize, acts: &mut Vec<Act>, made: &mut BTreeSet<usize>) {
    let own = &all[at];
    if own.sid != own.pid {
        return children(all, at, acts, made, |_| false);
    }
    let earlier = |child: &Process| child.sid != own.pid && child.sid != child.pid;
    children(all, at, acts, made, |child| !earlier(child));
    acts.push(Act::BeginSession(at));
    children(all, at, acts, made, earlier);
}

fn children(
    all: &[Process],
    parent: usize,
    acts: &mut Vec<Act>,
    made: &mut BTreeSet<usize>,
    not: impl Fn(&Process) -> bool,
) {
    for (child, process) in all.iter().enumerate() {
        let is_child = process.ppid == all[parent].pid && !not(process);
        if is_child && made.insert(child) {
            acts.push(Act::Fork { child, parent });
            descend(all, child, acts, made);
        }
    }
}

/// A process that leads a group leads it again.
pub fn lead(steps: &mut Steps, skeleton: &Process, to: &Process) {
    if to.pgid == to.pid && skeleton.pgid != to.pid {
        let what = "lead a process group";
        steps.call(what, libc::SYS_setpgid, vec![int(0), int(0)], Want::Success);
    }
}

/// It joins its group, whose leader is there by now; what it was in and is not is named.
pub fn follow(steps: &mut Steps, kin: &Kin<'_>, skeleton: &Process, to: &Process) {
    let root = root_of(kin, to);
    // In the place of those that are not here, the session and group of the root.
    let here = |id: i32, roots: i32| {
        if id == roots && kin.one(id).is_none() {
            root.pid
        } else {
            id
        }
    };
    let (sid, pgid) = (here(to.sid, root.sid), here(to.pgid, root.pgid));
    if root.pid == to.pid && (to.sid, to.pgid) != (to.pid, to.pid) {
        let line = format!("session {} and process group {}", to.sid, to.pgid);
        name_once(steps, format!("{line}: it leads its own now"));
    }
    let session = skeleton.sid;
    if sid != session && root.pid != to.pid {
        let line = format!("session {} of process {}", to.sid, to.pid);
        name_once(steps, format!("{line}: it is in session {session} now"));
    }
    if pgid == to.pid || pgid == skeleton.pgid || root.pid == to.pid {
        return;
    }
    let name = format!("process group {} of process {}", to.pgid, to.pid);
    let args = vec![int(0), int(pgid)];
    let what = "join a process group";
    steps.call(what, libc::SYS_setpgid, args, Want::Report(name));
}

/// The first of its line. A circle ends somewhere.
fn root_of<'a>(kin: &Kin<'a>, of: &'a Process) -> &'a Process {
    let mut root = of;
    for _ in 0..kin.len() {
        match kin.one(root.ppid) {
            Some(parent) => root = parent,
            None => break,
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, ppid: i32, sid: i32) -> Process {
        Process {
            pid,
            ppid,
            sid,
            ..Process::default()
        }
    }

    #[test]
    fn a_child_from_before_its_parents_session_is_made_first() {
        let all = [
            process(10, 1, 5),
            process(11, 10, 11),
            process(12, 11, 5),
            process(13, 11, 11),
            process(14, 11, 14),
        ];
        let fork = |child, parent| Act::Fork { child, parent };
        let acts = acts(&all).unwrap();
        let begin = acts.iter().position(|a| *a == Act::BeginSession(1));
        let place = |act| acts.iter().position(|a| *a == act);
        assert_eq!(acts[..3], [Act::Make(0), Act::BeginSession(0), fork(1, 0)]);
        assert!(place(fork(2, 1)) < begin && begin < place(fork(3, 1)));
        assert!(place(fork(4, 1)) < place(Act::BeginSession(4)));
        assert_eq!(acts.len(), 8, "{acts:?}");
    }

    #[test]
    fn a_circle_is_found() {
        assert_eq!(acts(&[process(10, 11, 10), process(11, 10, 10)]), None);
    }
}
