//! Those that were there then and have ended since: they are made anew, by their parents, which live,
//! and come to their state when these have come to theirs.
//!
//! - Until all go forward for sure they end with their keepers, and their parents never hear of it.
//! - What they had together with those that live they have from them; a pipe that nobody has any more is
//!   made again by the one of the two that lives.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use slos::{Epoch, Partition, SpaceId};
use sls_keeper::Agreement;
use sls_record::{Ended, File, Process, Record, Renamed};
use sls_sys::{fd, procfs};

use crate::ahead::Ahead;
use crate::error::{KeeperError, RestoreError, RewindError};
use crate::group::Group;
use crate::keeper::Keeper;
use crate::plan::birth;
use crate::plan::family::{self, Act};
use crate::plan::kin::Kin;
use crate::plan::pipes::{is_unnamed_pipe, is_writer};
use crate::renamed;
use crate::restore::births::end_of;
use crate::restore::lines::Lines;
use crate::restore::segments::Prepared;
use crate::restore::terminals::Terminals;
use crate::restore::{Maker, recorded};
use crate::target::{Options, Target};

/// Capabilities to give a child a number: CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE.
const NUMBERS: u64 = 1 << 21 | 1 << 40;

/// Those that are made anew.
pub struct Reborn<'a> {
    partition: &'a Partition,
    epoch: Epoch,
    options: Options,
    /// Those that live first, as they were.
    all: Vec<Process>,
    living: usize,
    record: Record,
    acts: Vec<Act>,
    keepers: Vec<Option<Keeper>>,
    ahead: Ahead,
    segments: Prepared,
    agreement: Option<Agreement>,
    /// Pipes that those that live have, when the others come to them.
    pipes: BTreeSet<(i32, String)>,
    /// Those that had ended, for the others to take note of.
    pub ended: Vec<i32>,
    pub pages: u64,
    pub not_restored: Vec<String>,
}

impl<'a> Reborn<'a> {
    /// Of the checkpoint's processes those that have `gone`; the others live.
    pub fn new(
        (partition, epoch): (&'a Partition, Epoch),
        options: &Options,
        living: &[Process],
        gone: Vec<Process>,
        ended: Vec<Ended>,
    ) -> Result<Self, String> {
        let mut all = living.to_vec();
        if !gone.is_empty() {
            recorded::check(&gone)?;
        }
        all.extend(gone);
        root_descriptions(&mut all);
        let record = Record {
            processes: all.clone(),
            ended,
            ..Record::default()
        };
        let acts = family::acts(&record).ok_or("its processes are no tree")?;
        let living = living.len();
        let keepers = all[living..].iter().map(|_| None).collect();
        Ok(Self {
            partition,
            epoch,
            options: options.clone(),
            all,
            living,
            record,
            acts,
            keepers,
            ahead: Ahead::default(),
            segments: Prepared::default(),
            agreement: None,
            pipes: BTreeSet::new(),
            ended: Vec::new(),
            pages: 0,
            not_restored: Vec::new(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.living == self.all.len()
    }

    /// Those that are made.
    pub fn made(&self) -> &[Process] {
        &self.all[self.living..]
    }

    /// Those of them whose parent is this one.
    pub fn children_of(&self, parent: i32) -> impl Iterator<Item = &Process> {
        self.made().iter().filter(move |p| p.ppid == parent)
    }

    /// Refuses what is known to fail before anything is touched.
    pub fn refuse_early(&self, members: &[Target]) -> Result<(), String> {
        let Some(first) = self.made().first() else {
            return Ok(());
        };
        let gone = |p: &Process| format!("process {} ({}) has ended since", p.pid, p.comm);
        if !self.options.probe.root {
            let why = "only root can make a process again under its number";
            return Err(format!("{}, and {why}", gone(first)));
        }
        if members.iter().any(|member| member.pid != member.own_pid) {
            let why = "in a PID namespace of its own a rewind cannot make it again; a restore can";
            return Err(format!("{}; {why}", gone(first)));
        }
        if members.iter().any(Target::is_stopped) {
            let why = "it cannot be made again while the others are held still: `slsctl continue -d` first";
            return Err(format!("{}; {why}", gone(first)));
        }
        for process in self.made() {
            let ours = |pid: i32| members.iter().find(|member| member.own_pid == pid);
            let parent = process.ppid;
            let is_made = self.made().iter().any(|p| p.pid == parent);
            match ours(parent) {
                None if !is_made => {
                    let why = "its parent then is none of the partition, so a rewind cannot make it again; a restore can";
                    return Err(format!("{}; {why} ({parent})", gone(process)));
                }
                Some(member) => {
                    refuse_parent(member.pid).map_err(|why| format!("{}; {why}", gone(process)))?;
                }
                None => {}
            }
            for thread in &process.threads {
                let Ok(status) = procfs::status(thread.tid) else {
                    continue;
                };
                // One that has ended is taken note of.
                let is_it = status.state == 'Z' && status.tgid == process.pid;
                if !(is_it && status.ppid == parent) {
                    let (tid, name) = (thread.tid, status.name);
                    let why = format!("{tid} is the number of {name} by now");
                    return Err(format!("{}; {why}", gone(process)));
                }
            }
        }
        Ok(())
    }

    /// What can be done before anybody stands still: their keepers are there, and their pages decoded.
    pub fn prepare(&mut self) -> Result<(), RewindError> {
        for at in self.living..self.all.len() {
            let process = &self.all[at];
            let keeper = Keeper::spawn(&self.options.keeper, process.pid);
            let keeper = keeper.map_err(|error| RewindError::Capture(error.into()))?;
            self.keepers[at - self.living] = Some(keeper);
            let space = SpaceId(process.space);
            let read = self.ahead.read_all(self.partition, self.epoch, space);
            read.map_err(|source| RewindError::Read {
                epoch: self.epoch.0,
                source,
            })?;
        }
        Ok(())
    }

    /// The others are about to go from `nows` to where these will come to them.
    pub fn begin(&mut self, nows: &[Process], agreement: Option<&Agreement>) {
        self.agreement = agreement.cloned();
        self.pipes = self.pipes_of_living(nows);
    }

    /// Has each made by its parent, with nothing in it.
    fn bear(&mut self, keepers: &mut [&mut Keeper]) -> Result<(), String> {
        let page = birth::page(&self.all).ok_or("no free address")?;
        for act in self.acts.clone() {
            let done = self.act(act, keepers, page);
            done.map_err(|error| error.to_string())?;
        }
        self.segments = Prepared::of(self.made());
        Ok(())
    }

    /// `keepers` of those that live, in their order.
    fn act(&mut self, act: Act, keepers: &mut [&mut Keeper], page: u64) -> Result<(), KeeperError> {
        let living = self.living;
        match act {
            Act::Fork { child, parent } if child >= living => {
                let (pid, signal) = (self.all[child].pid, self.all[child].exit_signal);
                let made = if parent < living {
                    if signal != libc::SIGCHLD {
                        let line = format!(
                            "process {pid}: its parent gets SIGCHLD at its end, not signal {signal}"
                        );
                        self.not_restored.push(line);
                    }
                    let keeper = keepers.get_mut(parent).ok_or_else(no_parent)?;
                    keeper.bear_again(pid, page)?
                } else {
                    self.keeper(parent)?.fork(pid, signal, None)?
                };
                self.all[child].outside = made;
                let probe = self.options.probe;
                self.keeper(child)?.take_up(made, &probe)?;
            }
            Act::End { child, parent } if parent >= living => {
                let ended = self.record.ended[child].clone();
                let end = Some(end_of(&ended));
                let made = self.keeper(parent)?;
                let pid = made.fork(ended.pid, ended.exit_signal, end)?;
                self.ended.push(pid);
            }
            Act::BeginSession(at) if at >= living => {
                let terminal = self.all[at].terminal.as_ref();
                let path = terminal.map(|terminal| terminal.path.clone());
                self.keeper(at)?.begin_session(path)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn keeper(&mut self, at: usize) -> Result<&mut Keeper, KeeperError> {
        let keeper = self.keepers[at - self.living].as_mut();
        keeper.ok_or_else(no_parent)
    }

    /// What is there when they come: what is there now, and what is made again.
    fn pipes_of_living(&self, nows: &[Process]) -> BTreeSet<(i32, String)> {
        let ends = |p: &'_ Process, target: &str, writer: bool| {
            let is_it = |f: &File| f.target == target && is_writer(f) == writer;
            p.files.iter().any(|f| is_unnamed_pipe(f) && is_it(f))
        };
        let mut pipes = BTreeSet::new();
        let mut halved: BTreeSet<&str> = BTreeSet::new();
        for then in &self.all[..self.living] {
            for file in then.files.iter().filter(|f| is_unnamed_pipe(f)) {
                let target = &file.target;
                let other = !is_writer(file);
                let is_there = nows.iter().any(|now| {
                    now.pid == then.pid && now.files.iter().any(|f| f.target == *target)
                });
                let has_both = ends(then, target, other);
                let nobody = || {
                    !nows
                        .iter()
                        .any(|n| n.files.iter().any(|f| f.target == *target))
                };
                let is_halved = || nobody() && self.made().iter().any(|p| ends(p, target, other));
                if is_there || has_both || is_halved() && halved.insert(target) {
                    pipes.insert((then.pid, target.clone()));
                }
            }
        }
        pipes
    }

    fn with_maker<T>(&mut self, act: impl FnOnce(&Maker<'_>, &mut [Keeper]) -> T) -> T {
        let terminals = Terminals::make(&[]);
        let pipes = &self.pipes;
        let have =
            |process: &Process, file: &File| pipes.contains(&(process.pid, file.target.clone()));
        let kin = Kin::beside(&self.all, self.living, &self.segments.all, have);
        let maker = Maker {
            partition: self.partition,
            epoch: self.epoch,
            all: &self.all[self.living..],
            kin: &kin,
            terminals: &terminals,
            options: &self.options,
            lazy: false,
            force: false,
            agreement: self.agreement.clone(),
            ahead: Some(&self.ahead),
        };
        let mut keepers: Vec<Keeper> = self.keepers.drain(..).flatten().collect();
        let done = act(&maker, &mut keepers);
        self.keepers = keepers.into_iter().map(Some).collect();
        done
    }

    /// They are made, by the others, who wait, and brought to their state; they stand still.
    pub fn come(&mut self, keepers: &mut [&mut Keeper]) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        self.bear(keepers)?;
        let come = self.with_maker(|maker, keepers| {
            let mut told = Lines::new(maker.all);
            let journals = maker.journals(&mut told)?;
            for (keeper, journal) in keepers.iter_mut().zip(&journals) {
                keeper.ask_to_execute(journal)?;
            }
            let (pages, _) = maker.lead(keepers, None, &mut told)?;
            Ok::<_, RestoreError>((pages, told.lines()))
        });
        let (pages, told) = come.map_err(|error| error.to_string())?;
        self.segments.attached();
        self.pages = pages;
        self.not_restored.extend(told);
        Ok(())
    }

    /// They end with their keepers; the plans of their parents see to the rest.
    pub fn end(&mut self) {
        self.keepers.clear();
    }

    /// They run. One whose keeper was killed has ended with it.
    pub fn let_go(&mut self, stay_stopped: bool) {
        let mut keepers: Vec<Keeper> = self.keepers.drain(..).flatten().collect();
        for (process, keeper) in self.all[self.living..].iter().zip(&mut keepers) {
            let pid = process.outside();
            if stay_stopped || process.stopped {
                let stop = |life: OwnedFd| fd::pidfd_signal(life.as_fd(), libc::SIGSTOP);
                let _ = fd::pidfd_open(pid).and_then(stop); // It has ended, as is told below.
            }
            if let Err(error) = keeper.resume() {
                let line = format!("process {pid} ({}): {error}", process.comm);
                self.not_restored.push(line);
            }
        }
        keepers.into_iter().for_each(Keeper::leave);
        std::mem::take(&mut self.segments).keep();
    }

    /// What they have under other names than then.
    pub fn renamed(&self) -> Vec<Renamed> {
        renamed::since(self.made(), false)
    }
}

fn no_parent() -> KeeperError {
    KeeperError::OutOfTurn("no parent".to_owned())
}

/// May it have a child under a number of choice, which has nothing but what it is to have?
fn refuse_parent(pid: i32) -> Result<(), String> {
    let status = procfs::status(pid).map_err(|_| format!("its parent {pid} ends"))?;
    let name = &status.name;
    let [_, _, effective, ..] = status.capabilities;
    if effective & NUMBERS == 0 {
        return Err(format!(
            "its parent {pid} ({name}) may not have a child under a number of choice (CAP_CHECKPOINT_RESTORE), so a rewind cannot make it again; a restore can"
        ));
    }
    if status.seccomp != 0 {
        return Err(format!(
            "its parent {pid} ({name}) runs under seccomp filters, which it would have as well, so a rewind cannot make it again; a restore can"
        ));
    }
    Ok(())
}

/// What several share is told of the first that has it: those that live come before the others now.
fn root_descriptions(all: &mut [Process]) {
    type Description = (i32, i32);
    let is_lowest = |file: &File| file.shares.is_none();
    let of = |pid: i32, file: &File| file.shared_with.unwrap_or((pid, file.fd));
    let mut first: BTreeMap<Description, Description> = BTreeMap::new();
    for process in all.iter() {
        for file in process.files.iter().filter(|f| is_lowest(f)) {
            let own = (process.pid, file.fd);
            first.entry(of(process.pid, file)).or_insert(own);
        }
    }
    for process in all {
        let pid = process.pid;
        for file in process.files.iter_mut().filter(|f| is_lowest(f)) {
            let root = first.get(&of(pid, file)).copied();
            file.shared_with = root.filter(|&root| root != (pid, file.fd));
        }
    }
}

impl Group {
    /// Those that were made anew are members again, each with its past.
    pub(super) fn take_up(&mut self, reborn: &mut Reborn<'_>) {
        let renamed = reborn.renamed();
        let ended = std::mem::take(&mut reborn.ended);
        let mut lines = Vec::new();
        for process in reborn.made() {
            let pid = process.outside();
            if let Err(error) = self.attach_again(process) {
                lines.push(format!(
                    "attachment of process {pid} ({}): {error}",
                    process.comm
                ));
            }
        }
        self.note_restored(ended, renamed);
        reborn.not_restored.extend(lines);
    }
}

#[cfg(test)]
mod tests {
    use sls_record::FileKind;

    use super::*;

    #[test]
    fn a_description_is_of_those_that_live() {
        let file = |fd, shared_with| File {
            fd,
            target: String::new(),
            flags: 0,
            offset: 0,
            dev: 0,
            inode: 0,
            kind: FileKind::Other,
            shares: None,
            shared_with,
            locks: Vec::new(),
            unnamed: None,
        };
        let process = |pid, files| Process {
            pid,
            files,
            ..Process::default()
        };
        // 5 had it first, then 3 and 4 from it; 5 has ended.
        let mut all = vec![
            process(3, vec![file(0, Some((5, 7))), file(1, None)]),
            process(4, vec![file(2, Some((5, 7)))]),
            process(5, vec![file(7, None)]),
        ];
        root_descriptions(&mut all);
        assert_eq!(all[0].files[0].shared_with, None);
        assert_eq!(all[0].files[1].shared_with, None);
        assert_eq!(all[1].files[0].shared_with, Some((3, 0)));
        assert_eq!(all[2].files[0].shared_with, Some((3, 0)));
    }
}
