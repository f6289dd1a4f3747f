//! Who was there then, and who is there now.
//!
//! Those that were made since are saved with the present, stand still while the others are put back,
//! and end when all of them go forward for sure. Their parents take note of that without running, and
//! so never hear of them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use slos::Epoch;
use sls_keeper::Step;
use sls_record::{Ended, Process, Record};
use sls_sys::fd;

use crate::error::RewindError;
use crate::group::Group;
use crate::renamed;
use crate::target::Target;

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

/// Those that are not to be there, each with its place among the members.
#[derive(Default)]
pub struct Leavers(Vec<(usize, Target)>);

impl Leavers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// There is no way back: they end. Should we be killed before, the keepers of their parents end
    /// them.
    pub fn end(&mut self) {
        for (_, member) in self.0.drain(..) {
            // It may have been killed by somebody else.
            let _ = fd::pidfd_signal(member.pidfd.as_fd(), libc::SIGKILL);
            // Whose child it is can take note of it only when its keeper has.
            member.detach();
        }
    }
}

impl Group {
    /// What those members were at an epoch that are to be put back to it: all that were there.
    pub(super) fn pasts(&self, record: Record, epoch: Epoch) -> Result<Vec<Process>, RewindError> {
        let impossible = |why: String| RewindError::Impossible {
            epoch: epoch.0,
            why,
        };
        let mut pasts = Vec::with_capacity(record.processes.len());
        let mut gone = Vec::new();
        for mut process in record.processes {
            if let Some(member) = self.members.iter().find(|member| is_of(&process, member)) {
                renamed::apply(&self.renamed, &mut process);
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
        if let Some(gone) = gone.first() {
            return Err(impossible(format!(
                "process {} ({}) has ended since, and a rewind cannot make it again",
                gone.pid, gone.comm
            )));
        }
        // In the order of the members.
        let place = |p: &Process| self.members.iter().position(|member| is_of(p, member));
        pasts.sort_by_key(place);
        Ok(pasts)
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
    pub(super) fn part(&mut self, stay: &[i32]) -> Leavers {
        let mut leave = Leavers::default();
        let mut at = 0;
        while at < self.members.len() {
            let place = at + leave.0.len();
            if stay.contains(&self.members[at].own_pid) {
                at += 1;
            } else {
                leave.0.push((place, self.members.remove(at)));
            }
        }
        leave
    }

    /// Those that were to leave stay.
    pub(super) fn rejoin(&mut self, leave: Leavers) {
        for (at, member) in leave.0 {
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
    /// At its end, when there is no way back, these end, which were made since.
    pub(super) fn unmake(&mut self, these: Vec<Process>, to: &Process) {
        let waits = |signal: i32| to.signals.pending.iter().any(|info| info.signo() == signal);
        self.plan
            .steps
            .extend(these.into_iter().map(|process| Step::Unmake {
                what: format!(
                    "process {} ({}), made since",
                    process.outside(),
                    process.comm
                ),
                pid: process.outside(),
                known_as: process.pid,
                start_ticks: process.start_ticks,
                // One that waited then as well is the one that waits again.
                signal: if waits(process.exit_signal) {
                    0
                } else {
                    process.exit_signal
                },
            }));
    }
}

fn is_of(process: &Process, member: &Target) -> bool {
    process.pid == member.own_pid && member.was(process.start_ticks)
}

/// Children that had ended then, or have since: nobody makes them again, or unmakes their end.
pub fn ends_that_stay(then: &[Ended], now: &[Ended]) -> Vec<String> {
    let not_in = |others: &[Ended], one: &Ended| others.iter().all(|other| other.pid != one.pid);
    let noted = then.iter().filter(|one| not_in(now, one));
    let noted = noted.map(|e| (e, "its parent has taken note of its end since"));
    let ended = now.iter().filter(|one| not_in(then, one));
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
        let told = ends_that_stay(&[ended(2), ended(3)], &[ended(3), ended(4)]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("child 2 (sh): its parent"), "{told:?}");
        assert!(told[1].starts_with("child 4 (sh): has ended"), "{told:?}");
    }
}
