//! A rewind in place: the present is saved, both ways are planned in full, then the keepers carry the
//! plans through by themselves, and back if a step fails.
//!
//! Of several processes none goes forward before all have come as far as that: then it is written
//! down (the agreement), and holds whoever is killed after it.

mod journal;
mod members;
mod reborn;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use slos::{Epoch, Partition, SpaceId};
use sls_keeper::{Agreement, Outcome};
use sls_record::{Process, Record};
use sls_sys::procfs;

use crate::ahead::Ahead;
use crate::error::{CaptureError, KeeperError, RewindError};
use crate::group::{Group, Request};
use crate::keeper::Keeper;
use crate::target::{Target, Tracker};
use crate::together::{self, Party};
use crate::{branch, leftover, plan, probes};
use journal::Sources;
use members::{Ends, Leavers, Moment, ends_that_stay};
use reborn::Reborn;

const SIGSTOP: i32 = 19;
/// When more pages than this have changed since the last checkpoint, another one is taken first,
/// while the target runs: encoding them takes 10 us each, which no stop is to last for it.
const KEPT_FIRST: usize = 128;

/// A rewind that was done.
#[derive(Debug, Clone)]
pub struct Rewound {
    /// The present, saved before anything was touched.
    pub from: Epoch,
    /// Where the target goes on from.
    pub to: Epoch,
    /// The branch its next checkpoints are on.
    pub branch: String,
    /// Pages written or given back.
    pub pages: u64,
    /// ns from the first interrupt until the last thread ran again.
    pub stop_ns: u64,
    /// What could not be put back, by name.
    pub not_restored: Vec<String>,
}

impl Group {
    /// Puts all back to `to`, same pids and tids. With `stay_stopped` they are left as by SIGSTOP.
    ///
    /// # Errors
    /// [`RewindError`]; except for `Halted` everybody runs on in the present.
    pub fn rewind(
        &mut self,
        partition: &Partition,
        branch: &str,
        to: Epoch,
        stay_stopped: bool,
    ) -> Result<Rewound, RewindError> {
        let read = |source| RewindError::Read {
            epoch: to.0,
            source,
        };
        let pid = self.members.first().map_or(0, |member| member.pid);
        probes::rewind_begun(pid, to.0);
        // Who stands still because somebody wants it so stays so.
        let halted = self.is_stopped();
        let _held = partition.hold(to).map_err(read)?;
        let record = record(partition, to)?;
        self.bury();
        let then = Moment::of(&record);
        let (pasts, gone) = self.pasts(record.processes, to)?;
        let ended = record.ended;
        let options = self.options.clone();
        let impossible = |why: String| RewindError::Impossible { epoch: to.0, why };
        let reborn = Reborn::new((partition, to), &options, &pasts, gone, ended.clone());
        let mut reborn = reborn.map_err(impossible)?;
        reborn.refuse_early(&self.members).map_err(impossible)?;
        reborn.prepare()?;
        let stay: Vec<i32> = pasts.iter().map(|past| past.pid).collect();
        let mut changed = 0;
        for member in &mut self.members {
            changed += member.look_ahead(&mut self.staging)?.len();
        }
        if changed > KEPT_FIRST {
            self.checkpoint(Request {
                partition,
                branch,
                name: None,
                explicit: false,
                event: None,
                stay_stopped: false,
                begins: false,
            })?;
        }
        let mut ways = Vec::with_capacity(pasts.len());
        for past in pasts {
            let Some(member) = self.members.iter_mut().find(|m| m.own_pid == past.pid) else {
                continue; // Found out below.
            };
            let changed = member.look_ahead(&mut self.staging)?;
            let space = SpaceId(past.space);
            let ahead = Ahead::read(partition, self.parent, to, space, changed).map_err(read)?;
            let brought = member.brought_by_userfaultfd()?;
            ways.push(Way {
                past,
                ahead,
                brought,
            });
        }
        let present = self.checkpoint(Request {
            partition,
            branch,
            name: None,
            explicit: true,
            event: None,
            stay_stopped: true,
            begins: false,
        })?;
        probes::rewind_saved(pid);
        let _urgent = sls_sys::urgent::Urgent::begin();
        let ends = plan::Ends {
            partition,
            from: present.epoch,
            to,
        };
        let mut leave = self.part(&stay, then, &ended);
        let made = reborn.made().iter().chain(&leave.ended);
        let seen: Vec<i32> = made.map(|process| process.pid).collect();
        let mut done =
            match self.put_back(ends, then, ways, (&mut leave, &mut reborn), stay_stopped) {
                Ok(done) => done,
                Err(error) => {
                    self.rejoin(leave);
                    if !(halted || matches!(error, RewindError::Halted { .. })) {
                        self.run_on()?;
                    }
                    return Err(error);
                }
            };
        if stay_stopped {
            self.signal(SIGSTOP)?;
        }
        let stop_ns = if halted { 0 } else { self.run_on()? };
        probes::rewind_done(pid, done.pages);
        self.parent = Some(to);
        for member in &mut self.members {
            if let Tracker::Content(content) = &mut member.tracker {
                // Its hashes are of the state that was left. A program that runs the same way again
                // comes to pages like those, which are not those of the new parent.
                content.invalidate();
            }
            member.told.at = None;
        }
        self.take_up(&mut reborn);
        done.pages += reborn.pages;
        done.note(std::mem::take(&mut reborn.not_restored));
        done.note(ends_that_stay(&ended, &self.zombies, &seen));
        Ok(Rewound {
            from: present.epoch,
            to,
            branch: branch::new(partition, "rewind"),
            pages: done.pages,
            stop_ns,
            not_restored: done.not_restored,
        })
    }

    fn run_on(&mut self) -> Result<u64, RewindError> {
        self.resume_all()
            .map_err(|(_, error)| RewindError::Capture(error.into()))
    }

    fn put_back(
        &mut self,
        ends: plan::Ends<'_>,
        then: Moment,
        ways: Vec<Way>,
        (leave, reborn): (&mut Leavers, &mut Reborn<'_>),
        stay_stopped: bool,
    ) -> Result<Done, RewindError> {
        let agreement = self.agreement(leave, reborn);
        let mut done = Done::default();
        let ended = std::mem::take(&mut leave.ended);
        let journals = self.journals(
            ends,
            (then, ended),
            ways,
            agreement.as_ref(),
            (&mut done, reborn),
        );
        let journals = journals.inspect_err(|_| self.forget(None))?;
        let pid = self.members.first().map_or(0, |member| member.pid);
        probes::rewind_planned(pid, done.pages);
        let others = Ends { leave, reborn };
        let outcomes = self.execute(&journals, agreement.as_ref(), others)?;
        probes::rewind_carried(pid);
        let result = done.judge(outcomes, ends);
        if result.is_ok() {
            reborn.let_go(stay_stopped);
        }
        // Who is halted is put right by them.
        if !matches!(result, Err(RewindError::Halted { .. })) {
            self.forget(agreement.as_ref());
        }
        result.map(|()| done)
    }

    /// Both ways of everybody, written down.
    fn journals(
        &self,
        ends: plan::Ends<'_>,
        (then, ended): (Moment, Vec<Process>),
        ways: Vec<Way>,
        agreement: Option<&Agreement>,
        (done, reborn): (&mut Done, &mut Reborn<'_>),
    ) -> Result<Vec<OwnedFd>, RewindError> {
        let to = ends.to;
        let present = record(ends.partition, ends.from)?;
        let impossible = |why: String| RewindError::Impossible { epoch: to.0, why };
        let mut unmade = self.unmade(&present, then).map_err(impossible)?;
        let untouched: Vec<Process> = unmade.values().flatten().cloned().collect();
        for one in ended {
            unmade.entry(one.ppid).or_default().push(one);
        }
        let nows = self.nows(present);
        if nows.len() != ways.len() || self.members.len() != ways.len() {
            return Err(impossible(
                "a process has ended meanwhile; try again".to_owned(),
            ));
        }
        let pairs = || nows.iter().zip(ways.iter().map(|way| &way.past));
        for ((member, way), now) in self.members.iter().zip(&ways).zip(&nows) {
            let refused = member.refuse_early(now, &way.past, way.brought);
            refused.map_err(impossible)?;
        }
        reborn.begin(&nows, agreement);
        let is_root = self.options.probe.root;
        let mut forth = plan::Common::of(is_root, pairs()).with_anew(reborn.made());
        let back = plan::Common::of(is_root, pairs().map(|(now, past)| (past, now)));
        let mut back = back.beside(&untouched);
        let mut journals = Vec::with_capacity(ways.len());
        for ((member, way), now) in self.members.iter().zip(&ways).zip(&nows) {
            let past = &way.past;
            let forward = plan::build(&ends, now, past, &mut forth);
            let mut forward = forward.map_err(|e| e.of_rewind(to.0))?;
            let returning = plan::build(&ends.reversed(), past, now, &mut back);
            let mut returning = returning.map_err(|e| e.of_rewind(to.0))?;
            if agreement.is_some() {
                forward.forward_together();
                returning.back_together();
            }
            forward.unmake(unmade.remove(&member.own_pid).unwrap_or_default(), past);
            returning.unmake_again(reborn.children_of(member.own_pid), now);
            let is_again = |pid: i32| reborn.made().iter().any(|p| p.pid == pid);
            if now.ppid != past.ppid && is_again(past.ppid) {
                let (pid, then, is) = (now.outside(), past.ppid, now.ppid);
                let line = format!("process {pid}: its parent is process {is} now, not {then}");
                done.note(vec![line]);
            }
            let plans = journal::Plans {
                who: (member.pid, member.start_ticks),
                forward: &forward,
                back: &returning,
                agreement: agreement.cloned(),
            };
            let sources = Sources {
                ends,
                ahead: &way.ahead,
                memory: &member.memory,
                present: now,
            };
            journals.push(journal::write(member.notes.journal(), &sources, &plans)?);
            done.pages += forward.pages;
            done.note(std::mem::take(&mut forward.not_restored));
        }
        Ok(journals)
    }

    /// Nobody needs the journals any more.
    fn forget(&self, agreement: Option<&Agreement>) {
        for member in &self.members {
            leftover::remove(member.notes.journal());
        }
        if let Some(agreement) = agreement {
            agreement.forget();
        }
    }

    /// Where several are put back, or some are not to be there: what tells, to whoever is left,
    /// whether all go forward.
    fn agreement(&self, leave: &Leavers, reborn: &Reborn<'_>) -> Option<Agreement> {
        let several = self.members.len() > 1 || !leave.is_empty() || !reborn.is_empty();
        let root = self.members.first().filter(|_| several)?;
        Some(Agreement {
            path: leftover::agreement(root.pid, &self.options.state),
            token: sls_sys::monotonic(),
            all: self.members.iter().map(|m| m.pid).collect(),
        })
    }

    /// Has each carry its plan through; all go forward, or none.
    fn execute(
        &mut self,
        journals: &[OwnedFd],
        agreement: Option<&Agreement>,
        mut others: Ends<'_, '_>,
    ) -> Result<Vec<Outcome>, RewindError> {
        for (member, journal) in self.members.iter_mut().zip(journals) {
            // One that was killed is found to be when it is to answer.
            let _ = member.keeper.ask_to_execute(journal);
        }
        together::begun(&mut self.members, agreement, &mut others)
            .map_err(|error| RewindError::Capture(error.into()))
    }
}

impl Party for Target {
    fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    fn again(&mut self) -> Result<bool, KeeperError> {
        self.replace_keeper()?;
        self.notes.ask_to_put_right(&mut self.keeper)
    }
}

/// What one member is to be put back to.
struct Way {
    past: Process,
    ahead: Ahead,
    /// Where somebody's userfaultfd brings missing pages.
    brought: Option<u64>,
}

/// The record of an epoch.
fn record(partition: &Partition, epoch: Epoch) -> Result<Record, RewindError> {
    let bytes = partition
        .record(epoch)
        .map_err(|source| RewindError::Read {
            epoch: epoch.0,
            source,
        })?;
    sls_record::decode(&bytes).map_err(|source| RewindError::Record {
        epoch: epoch.0,
        source,
    })
}

impl Target {
    /// Where somebody's userfaultfd brings missing pages. Asked before the stop: it takes a walk of
    /// all page tables, and is left out where tracking tells that there is none.
    fn brought_by_userfaultfd(&self) -> Result<Option<u64>, CaptureError> {
        let pid = self.pid;
        match &self.tracker {
            Tracker::Kernel(space) if !space.is_refused_somewhere() => Ok(None),
            _ => procfs::brought_by_userfaultfd(pid).map_err(|source| CaptureError::System {
                what: "look for userfaultfds",
                pid,
                source,
            }),
        }
    }

    /// Refuses what is known to fail before anything is touched.
    fn refuse_early(
        &self,
        now: &Process,
        past: &Process,
        brought: Option<u64>,
    ) -> Result<(), String> {
        let vdso = |p: &Process| {
            p.mappings
                .iter()
                .find(|m| m.path == "[vdso]")
                .map(|m| m.start)
        };
        if vdso(now) != vdso(past) {
            return Err(format!(
                "the process has executed another program since ({} then, {} now)",
                past.exe, now.exe
            ));
        }
        if let Some(&sibling) = self.siblings.first() {
            let name = procfs::status(sibling).map(|s| s.name).unwrap_or_default();
            return Err(format!(
                "process {sibling} ({name}) shares its memory (CLONE_VM) and would see it change; end that one, or try again when it has executed or ended"
            ));
        }
        plan::faults::refuse(now, brought)?;
        let alive: BTreeSet<i32> = now.threads.iter().map(|t| t.tid).collect();
        for thread in past.threads.iter().filter(|t| !alive.contains(&t.tid)) {
            let tid = thread.tid;
            if !self.options.probe.root {
                return Err(format!(
                    "thread {tid} ({}) has ended since, and only root can make a thread again under its id",
                    thread.name
                ));
            }
            if now.outside() == now.pid && procfs::status(tid).is_ok_and(|s| s.tgid != self.pid) {
                return Err(format!(
                    "thread id {tid} ({}) belongs to another process by now",
                    thread.name
                ));
            }
        }
        Ok(())
    }
}

/// What was done.
#[derive(Default)]
struct Done {
    pages: u64,
    not_restored: Vec<String>,
}

impl Done {
    /// What several have is told once.
    fn note(&mut self, lines: Vec<String>) {
        for line in lines {
            if !self.not_restored.contains(&line) {
                self.not_restored.push(line);
            }
        }
    }

    /// What became of it all: one that is halted is told of, else one that was put back.
    fn judge(&mut self, outcomes: Vec<Outcome>, ends: plan::Ends<'_>) -> Result<(), RewindError> {
        let epoch = ends.to.0;
        let mut put_back = None;
        for outcome in outcomes {
            match outcome {
                Outcome::Done { reports } => self.note(reports),
                Outcome::PutBack { why } => put_back = put_back.or(Some(why)),
                Outcome::Halted { why } => {
                    let present = ends.from.0;
                    return Err(RewindError::Halted {
                        epoch,
                        present,
                        why,
                    });
                }
            }
        }
        put_back.map_or(Ok(()), |why| Err(RewindError::PutBack { epoch, why }))
    }
}
