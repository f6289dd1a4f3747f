//! Who descends from whom among processes that are made anew together, and their sessions and
//! process groups.
//!
//! A session is begun by its leader and handed down to those it makes; a process group is one of its
//! session. What a process had from one that is not here any more it has from whoever is in that
//! one's place, or it is named.

use std::collections::BTreeSet;

use sls_keeper::{Arg, Want};
use sls_record::{Process, Record};

use super::files::{close_saved, name_once};
use super::kin::Kin;
use super::{Steps, int, path as path_of};

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
    /// One that had ended is made by its parent, and ends.
    End {
        /// Among the ended.
        child: usize,
        /// Its parent.
        parent: usize,
    },
}

/// How all of them are made. None: they descend from one another in a circle.
pub fn acts(record: &Record) -> Option<Vec<Act>> {
    let all = &record.processes;
    let mut line = Line {
        record,
        acts: Vec::new(),
        made: BTreeSet::new(),
    };
    let has_parent = |p: &Process| all.iter().any(|q| q.pid == p.ppid);
    for at in (0..all.len()).filter(|&at| !has_parent(&all[at])) {
        line.acts.push(Act::Make(at));
        line.made.insert(at);
        // What it was in is its parent's business, which is not here.
        line.acts.push(Act::BeginSession(at));
        line.children(at, |_| true);
    }
    (line.made.len() == all.len()).then_some(line.acts)
}

/// Those that are made so far, and how.
struct Line<'a> {
    record: &'a Record,
    acts: Vec<Act>,
    made: BTreeSet<usize>,
}

impl Line<'_> {
    /// Adds the descendants of one. Its children from before its session are made before it begins
    /// that.
    fn descend(&mut self, at: usize) {
        let own = &self.record.processes[at];
        let (pid, sid) = (own.pid, own.sid);
        if sid != pid {
            return self.children(at, |_| true);
        }
        let is_earlier = |(child, session)| session != pid && session != child;
        self.children(at, is_earlier);
        self.acts.push(Act::BeginSession(at));
        self.children(at, |child| !is_earlier(child));
    }

    /// Adds those children of one, and what descends from them, that are meant by their number and
    /// session.
    fn children(&mut self, parent: usize, is_meant: impl Fn((i32, i32)) -> bool) {
        let record = self.record;
        let pid = record.processes[parent].pid;
        for (child, process) in record.processes.iter().enumerate() {
            let is_child = process.ppid == pid && is_meant((process.pid, process.sid));
            if is_child && self.made.insert(child) {
                self.acts.push(Act::Fork { child, parent });
                self.descend(child);
            }
        }
        for (child, ended) in record.ended.iter().enumerate() {
            if ended.ppid == pid && is_meant((ended.pid, ended.sid)) {
                self.acts.push(Act::End { child, parent });
            }
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
        if id == roots && kin.one(id).is_none() && !kin.has_living() {
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

/// Its controlling terminal it has from when its session began; who leads the session says which
/// group is in the foreground.
pub fn foreground(steps: &mut Steps, kin: &Kin<'_>, skeleton: &Process, to: &Process) {
    let Some(then) = &to.terminal else { return };
    let path = &then.path;
    let now = skeleton.terminal.as_ref();
    if now.is_none_or(|now| now.path != *path) {
        return name_once(steps, format!("{path} as the controlling terminal"));
    }
    if skeleton.sid != to.pid {
        return;
    }
    let group = then.foreground;
    if !kin.has_group(group) {
        return name_once(
            steps,
            format!("process group {group} in the foreground of {path}"),
        );
    }
    let args = vec![
        int(libc::AT_FDCWD),
        path_of("/dev/tty"),
        int(libc::O_RDWR),
        int(0),
    ];
    let what = format!("open {path}");
    steps.call(what, libc::SYS_openat, args, Want::Save(0));
    let group = Arg::Bytes(group.to_le_bytes().to_vec());
    let request = libc::TIOCSPGRP;
    let args = vec![Arg::Saved(0), request.into(), group];
    let what = format!("process group in the foreground of {path}");
    steps.call(&*what, libc::SYS_ioctl, args, Want::Report(what.clone()));
    close_saved(steps, 0);
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

    fn record(processes: Vec<Process>) -> Record {
        let zombie = sls_record::Ended {
            pid: 15,
            ppid: 11,
            sid: 5,
            ..sls_record::Ended::default()
        };
        Record {
            processes,
            ended: vec![zombie],
            ..Record::default()
        }
    }

    #[test]
    fn a_child_from_before_its_parents_session_is_made_first() {
        let all = record(vec![
            process(10, 1, 5),
            process(11, 10, 11),
            process(12, 11, 5),
            process(13, 11, 11),
            process(14, 11, 14),
        ]);
        let fork = |child, parent| Act::Fork { child, parent };
        let acts = acts(&all).unwrap();
        let place = |act| acts.iter().position(|a| *a == act);
        let begin = place(Act::BeginSession(1));
        let zombie = Act::End {
            child: 0,
            parent: 1,
        };
        assert_eq!(acts[..3], [Act::Make(0), Act::BeginSession(0), fork(1, 0)]);
        assert!(place(fork(2, 1)) < begin && begin < place(fork(3, 1)));
        assert!(place(zombie) < begin && place(zombie).is_some());
        assert!(place(fork(4, 1)) < place(Act::BeginSession(4)));
        assert_eq!(acts.len(), 9, "{acts:?}");
    }

    #[test]
    fn a_circle_is_found() {
        let circle = record(vec![process(10, 11, 10), process(11, 10, 10)]);
        assert_eq!(acts(&circle), None);
    }
}
