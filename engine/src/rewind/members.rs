//! Who was there then, and who is there now.
//!
//! Those that were made since are saved with the present, stand still while the others are put back,
//! and end when all of them go forward for sure. Their parents take note of that without running, and
//! so never hear of them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use slos::Epoch;
use sls_keeper::{Step, Which};
use sls_record::{Ended, Process, Record, SigInfo};
use sls_sys::{fd, procfs};

use crate::error::RewindError;
use crate::group::Group;
use crate::keeper::Keeper;
use crate::renamed;
use crate::target::Target;
use crate::together::Others;

use super::reborn::Reborn;

/// A tick of start times, in ns.
const TICK_NS: u64 = 10_000_000;

/// What a checkpoint tells of who was made after it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    taken_ns: u64,
    is_family: bool,
}

impl Moment {
    pub fn of(record: &Record) -> Self {
        Self {
            taken_ns: record.taken_ns,
            is_family: record.is_family,
        }
    }

    /// Was a descendant made after it, that it knows nothing of?
    fn is_before(self, start_ticks: u64) -> bool {
        let then = self.taken_ns / TICK_NS;
        // In the same tick: it would know of one that was there.
        start_ticks > then || start_ticks == then && self.is_family
    }
}

/// What hangs on the way that all go: those that are not to be there, and those that are again.
pub struct Ends<'a, 'p> {
    pub leave: &'a mut Leavers,
    pub reborn: &'a mut Reborn<'p>,
}

impl Others for Ends<'_, '_> {
    fn come(&mut self, keepers: &mut [&mut Keeper]) -> Result<(), String> {
        self.reborn.come(keepers)
    }

    fn agreed(&mut self) {
        self.leave.end();
    }

    fn turned(&mut self) {
        self.reborn.end();
    }
}

/// Those that are not to be there.
#[derive(Default)]
pub struct Leavers {
    /// Each with its place among the members.
    alive: Vec<(usize, Target)>,
    /// Children that were made since and have ended, which their parents have not taken note of.
    pub ended: Vec<Process>,
}

impl Leavers {
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// There is no way back: they end. Should we be killed before, the keepers of their parents end
    /// them.
    pub fn end(&mut self) {
        for (_, member) in self.alive.drain(..) {
            // It may have been killed by somebody else.
            let _ = fd::pidfd_signal(member.pidfd.as_fd(), libc::SIGKILL);
            // Whose child it is can take note of it only when its keeper has.
            member.detach();
        }
    }
}

impl Group {
    /// What those members were at an epoch that are to be put back to it.
    ///
    /// And those that have ended since.
    pub(super) fn pasts(
        &self,
        processes: Vec<Process>,
        epoch: Epoch,
    ) -> Result<(Vec<Process>, Vec<Process>), RewindError> {
        let impossible = |why: String| RewindError::Impossible {
            epoch: epoch.0,
            why,
        };
        let mut pasts = Vec::with_capacity(processes.len());
        let mut gone = Vec::new();
        for mut process in processes {
            renamed::apply(&self.renamed, &mut process);
            if let Some(member) = self.members.iter().find(|member| is_of(&process, member)) {
                process.outside = member.pid; // It may have had another then.
                pasts.push(process);
            } else {
                gone.push(process);
            }
        }
        let root = self.members.first();
        if let Some(root) = root.filter(|root| !pasts.iter().any(|p| is_of(p, root))) {
            return Err(impossible(format!(
                "it is not of the process that is attached now (pid {})",
                root.pid
            )));
        }
        // In the order of the members.
        let place = |p: &Process| self.members.iter().position(|member| is_of(p, member));
        pasts.sort_by_key(place);
        Ok((pasts, gone))
    }

    /// What those members are that stay.
    pub(super) fn nows(&self, present: Record) -> Vec<Process> {
        let mut processes = present.processes;
        let own = |member: &Target| {
            let found = processes.iter().position(|p| is_of(p, member))?;
            let mut now = processes.swap_remove(found);
            renamed::apply(&self.renamed, &mut now);
            now.outside = member.pid;
            Some(now)
        };
        self.members.iter().filter_map(own).collect()
    }

    /// Takes those out of the group that are not to stay.
    pub(super) fn part(&mut self, stay: &[i32], then: Moment, ended: &[Ended]) -> Leavers {
        let mut leave = Leavers {
            alive: Vec::new(),
            ended: self.ended_since(then, ended),
        };
        let mut at = 0;
        while at < self.members.len() {
            let place = at + leave.alive.len();
            if stay.contains(&self.members[at].own_pid) {
                at += 1;
            } else {
                leave.alive.push((place, self.members.remove(at)));
            }
        }
        leave
    }

    /// Children of members that were made since, and not among the `ended` of then, and have ended.
    fn ended_since(&self, then: Moment, ended: &[Ended]) -> Vec<Process> {
        let ours = |pid: i32| {
            self.members
                .iter()
                .any(|m| m.pid == pid && m.own_pid == pid)
        };
        let now = self.zombies.iter().filter(|e| ours(e.ppid));
        let since = now.filter(|e| ended.iter().all(|then| then.pid != e.pid));
        let known = since.filter_map(|e| Some((e, procfs::stat(e.pid).ok()?.start_ticks)));
        known
            .filter(|&(_, start_ticks)| then.is_before(start_ticks))
            .map(|(e, start_ticks)| Process {
                pid: e.pid,
                ppid: e.ppid,
                comm: e.comm.clone(),
                exit_signal: e.exit_signal,
                start_ticks,
                ..Process::default()
            })
            .collect()
    }

    /// Those that were to leave stay.
    pub(super) fn rejoin(&mut self, leave: Leavers) {
        for (at, member) in leave.alive {
            self.members.insert(at.min(self.members.len()), member);
        }
    }

    /// Of all that are there now those that are no members any more; each under the member that it
    /// descends from, its ancestors first: that one has their orphans then, where it asked for them.
    /// One that may have been there then is nothing to be ended.
    pub(super) fn unmade(
        &self,
        present: &Record,
        then: Moment,
    ) -> Result<BTreeMap<i32, Vec<Process>>, String> {
        let mut unmade: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
        let is_member = |pid: i32| self.members.iter().any(|member| member.own_pid == pid);
        let all = &present.processes;
        for process in all.iter().filter(|p| !is_member(p.pid)) {
            let mut parent = process.ppid;
            // A circle ends somewhere.
            for _ in all {
                match all.iter().find(|p| p.pid == parent && !is_member(parent)) {
                    Some(one) => parent = one.ppid,
                    None => break,
                }
            }
            if !is_member(parent) || !then.is_before(process.start_ticks) {
                let (pid, name) = (process.outside(), &process.comm);
                return Err(format!(
                    "process {pid} ({name}) is of the partition now, and was not then, but it is not known to have been made since; let it go first: slsctl detach -p {pid}"
                ));
            }
            unmade.entry(parent).or_default().push(process.clone());
        }
        Ok(unmade)
    }
}

impl crate::plan::Built {
    /// On the way back: those that were made again are gone.
    pub(super) fn unmake_again<'p>(
        &mut self,
        these: impl Iterator<Item = &'p Process>,
        to: &Process,
    ) {
        let unmade = these.map(|process| {
            // One that has ended may have the number still.
            let ended = procfs::stat(process.pid).map_or(0, |stat| stat.start_ticks);
            let what = format!("process {} ({}), made again", process.pid, process.comm);
            unmake(what, process, Which::ChildBut(ended), libc::SIGCHLD, to)
        });
        self.plan.steps.extend(unmade);
    }

    /// At its end, when there is no way back, these end, which were made since.
    pub(super) fn unmake(&mut self, these: Vec<Process>, to: &Process) {
        let unmade = these.into_iter().map(|process| {
            let what = format!(
                "process {} ({}), made since",
                process.outside(),
                process.comm
            );
            let which = Which::Started(process.start_ticks);
            unmake(what, &process, which, process.exit_signal, to)
        });
        self.plan.steps.extend(unmade);
    }
}

fn unmake(what: String, process: &Process, which: Which, signal: i32, to: &Process) -> Step {
    let waits = |info: &SigInfo| info.signo() == signal;
    // One that waits in that state as well is the one that waits again.
    let waits = to.signals.pending.iter().any(waits);
    Step::Unmake {
        what,
        pid: process.outside(),
        known_as: process.pid,
        which,
        signal: if waits { 0 } else { signal },
    }
}

fn is_of(process: &Process, member: &Target) -> bool {
    process.pid == member.own_pid && member.was(process.start_ticks)
}

/// Children that had ended then, or have since and are not `seen` to: nobody makes their end again, or
/// unmakes it.
pub fn ends_that_stay(then: &[Ended], now: &[Ended], seen: &[i32]) -> Vec<String> {
    let not_in = |others: &[Ended], one: &Ended| others.iter().all(|other| other.pid != one.pid);
    let noted = then.iter().filter(|one| not_in(now, one));
    let noted = noted.map(|e| (e, "its parent has taken note of its end since"));
    let ended = now
        .iter()
        .filter(|one| not_in(then, one) && !seen.contains(&one.pid));
    let ended = ended.map(|e| (e, "has ended since, as its parent will note"));
    let line = |(e, what): (&Ended, &str)| format!("child {} ({}): {what}", e.pid, e.comm);
    noted.chain(ended).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_cannot_be_taken_back_are_told() {
        let ended = |pid| Ended {
            pid,
            comm: "sh".to_owned(),
            ..Ended::default()
        };
        let told = ends_that_stay(&[ended(2), ended(3)], &[ended(3), ended(4)], &[]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("child 2 (sh): its parent"), "{told:?}");
        assert!(told[1].starts_with("child 4 (sh): has ended"), "{told:?}");
    }
}
