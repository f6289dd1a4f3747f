//! Processes made anew from a checkpoint, under their old numbers: skeletons are made, each by its
//! parent, their keepers bring them to the recorded state by plans, and their pages are written from
//! the log. Until the very end each lives only as long as its keeper.
//!
//! - **Invariant**: all of them run in the end, or none is left. Before the first is let go that is
//!   written down; a keeper whose slsd is gone by then lets go too.

mod fill;
mod lines;
mod segments;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use slos::{Epoch, Partition};
use sls_keeper::{Agreement, End, Journal, Outcome, Refusal, Way};
use sls_record::{Ended, Process, Record, Renamed, Signals, Thread};
use sls_sys::{fd, procfs, skeleton};

use crate::attributes::{self, Outside};
use crate::error::{KeeperError, RestoreError};
use crate::keeper::{Keeper, Progress};
use crate::plan::birth::{self, Await};
use crate::plan::family::{self, Act};
use crate::plan::kin::Kin;
use crate::record::plain_mappings;
use crate::target::Options;
use crate::{branch, leftover, renamed};
use lines::Lines;
use segments::Prepared;

const SIGSTOP: i32 = 19;
const SIGKILL: i32 = 9;
/// How long those that failed may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// A restore that was done.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The processes, the root first.
    pub pids: Vec<i32>,
    /// Those of them whose parent is the caller, who has to reap them.
    pub roots: Vec<i32>,
    /// Those that had ended, for their parents to take note of.
    pub ended: Vec<i32>,
    /// What they have under other names than then.
    pub renamed: Vec<Renamed>,
    /// Start times of those whose past is each one's own, oldest first.
    pub former: Vec<Vec<u64>>,
    /// The branch their checkpoints are on.
    pub branch: String,
    /// Pages written.
    pub pages: u64,
    /// From the start until they ran.
    pub took: Duration,
    /// What could not be put back, by name.
    pub not_restored: Vec<String>,
    /// They stand still: so it was asked for, or they did so then.
    pub stopped: bool,
}

/// Makes the processes of a checkpoint anew. The caller is the parent of those that have none among
/// them, and has to reap them. With `stay_stopped` they are left as by SIGSTOP; with `force` they are
/// made although something of them is not as it was.
///
/// # Errors
/// [`RestoreError`]; nothing of them is left then.
pub fn restore(
    partition: &Partition,
    epoch: Epoch,
    options: &Options,
    stay_stopped: bool,
    force: bool,
) -> Result<Restored, RestoreError> {
    let begun = Instant::now();
    let read = |source| RestoreError::Read {
        epoch: epoch.0,
        source,
    };
    let _held = partition.hold(epoch).map_err(read)?;
    let record = record(partition, epoch)?;
    let all = &record.processes;
    let impossible = |why: &str| RestoreError::Impossible {
        epoch: epoch.0,
        why: why.to_owned(),
    };
    let acts = family::acts(&record).ok_or_else(|| impossible("its processes are no tree"))?;
    let mut segments = Prepared::of(all);
    let known = segments.all.clone();
    let maker = Maker {
        partition,
        epoch,
        record: &record,
        all,
        kin: &Kin::new(all, &known),
        options,
        force,
        token: sls_sys::monotonic(),
    };
    let stopped = stay_stopped || all.iter().all(|p| p.stopped);
    let mut made = Vec::new();
    let done = maker.make(&acts, &mut made, &mut segments, stay_stopped);
    let Done {
        pages,
        renamed,
        not_restored,
    } = done.inspect_err(|_| await_ends(&made))?;
    segments.keep();
    let root = |act: &Act| match act {
        Act::Make(at) => Some(all[*at].pid),
        _ => None,
    };
    let former = |p: &Process| [&p.former[..], &[p.start_ticks]].concat();
    Ok(Restored {
        pids: all.iter().map(|p| p.pid).collect(),
        ended: record.ended.iter().map(|e| e.pid).collect(),
        roots: acts.iter().filter_map(root).collect(),
        former: all.iter().map(former).collect(),
        branch: branch::new(partition, "restore"),
        renamed,
        pages,
        took: begun.elapsed(),
        not_restored,
        stopped,
    })
}

/// Takes note of the end of those that were not let go, if there are any, so that their numbers are
/// free again.
fn await_ends(made: &[i32]) {
    let deadline = Instant::now() + END_PATIENCE;
    // Of a child its parent takes note, or who is in the place of that.
    let is_there = |&pid: &i32| match skeleton::reap(pid) {
        Ok(status) => status.is_none(),
        Err(_) => procfs::stat(pid).is_ok(),
    };
    while made.iter().any(is_there) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn refused(epoch: Epoch) -> impl Fn(KeeperError) -> RestoreError {
    move |error| match error {
        KeeperError::Refused {
            refusal: Refusal::Taken,
            message,
        } => RestoreError::Taken {
            epoch: epoch.0,
            why: message,
        },
        other => other.into(),
    }
}

/// The record of a checkpoint, whose processes can be made.
fn record(partition: &Partition, epoch: Epoch) -> Result<Record, RestoreError> {
    let bytes = partition
        .record(epoch)
        .map_err(|source| RestoreError::Read {
            epoch: epoch.0,
            source,
        })?;
    let record: Record = sls_record::decode(&bytes).map_err(|source| RestoreError::Record {
        epoch: epoch.0,
        source,
    })?;
    let impossible = |why: String| {
        Err(RestoreError::Impossible {
            epoch: epoch.0,
            why,
        })
    };
    let all = &record.processes;
    if all.is_empty() {
        return impossible("it holds no process".to_owned());
    }
    for (at, process) in all.iter().enumerate() {
        let pid = process.pid;
        if process.threads.first().is_none_or(|t| t.tid != pid) {
            return impossible(format!(
                "the main thread of process {pid} had ended already"
            ));
        }
        if all[..at].iter().any(|other| other.pid == pid) {
            return impossible(format!("it holds process {pid} twice"));
        }
    }
    Ok(record)
}

/// What was done.
struct Done {
    pages: u64,
    renamed: Vec<Renamed>,
    /// What is not as it was.
    not_restored: Vec<String>,
}

struct Maker<'a> {
    partition: &'a Partition,
    epoch: Epoch,
    record: &'a Record,
    all: &'a [Process],
    kin: &'a Kin<'a>,
    options: &'a Options,
    force: bool,
    /// Tells this restore from others.
    token: u64,
}

impl Maker<'_> {
    /// Makes all of them and lets them go. In `made` are the
    /// numbers of those that may be there.
    fn make(
        &self,
        acts: &[Act],
        made: &mut Vec<i32>,
        segments: &mut Prepared,
        stay_stopped: bool,
    ) -> Result<Done, RestoreError> {
        let mut keepers = self.skeletons(acts, made)?;
        let mut told = Lines::new(self.all);
        let journals = self.journals(&mut told)?;
        for (keeper, journal) in keepers.iter_mut().zip(&journals) {
            keeper.ask_to_execute(journal)?;
        }
        let pages = self.lead(&mut keepers, &mut told)?;
        segments.attached();
        for process in self.all {
            if stay_stopped || process.stopped {
                signal(process.pid, SIGSTOP)?;
            }
        }
        let renamed = renamed::since(self.all);
        self.let_go(keepers)?;
        Ok(Done {
            pages,
            renamed,
            not_restored: told.lines(),
        })
    }

    /// Each with nothing in it, in the charge of its keeper.
    fn skeletons(&self, acts: &[Act], made: &mut Vec<i32>) -> Result<Vec<Keeper>, RestoreError> {
        let impossible = |why: &str| RestoreError::Impossible {
            epoch: self.epoch.0,
            why: why.to_owned(),
        };
        let page = birth::page(self.all).ok_or_else(|| impossible("no free address"))?;
        let (program, probe) = (&self.options.keeper, &self.options.probe);
        let mut keepers: Vec<Option<Keeper>> = self.all.iter().map(|_| None).collect();
        for act in acts {
            match *act {
                Act::Make(at) => {
                    let pid = self.all[at].pid;
                    let keeper = Keeper::create(program, pid, page, probe);
                    note(made, pid, &keeper);
                    keepers[at] = Some(keeper.map_err(refused(self.epoch))?);
                }
                Act::Fork { child, parent } => {
                    let process = &self.all[child];
                    if let Some(parent) = &mut keepers[parent] {
                        let forked = parent.fork(process.pid, process.exit_signal, None);
                        note(made, process.pid, &forked);
                        forked.map_err(refused(self.epoch))?;
                    }
                    keepers[child] = Some(Keeper::take_up(program, process.pid, probe)?);
                }
                Act::End { child, parent } => {
                    let ended = &self.record.ended[child];
                    if let Some(parent) = &mut keepers[parent] {
                        let end = Some(end_of(ended));
                        let forked = parent.fork(ended.pid, ended.exit_signal, end);
                        note(made, ended.pid, &forked);
                        forked.map_err(refused(self.epoch))?;
                    }
                }
                Act::BeginSession(at) => {
                    if let Some(keeper) = &mut keepers[at] {
                        keeper.begin_session()?;
                    }
                }
            }
        }
        Ok(keepers.into_iter().flatten().collect())
    }

    /// Plans the way of each from its skeleton.
    fn journals<'b>(&'b self, told: &mut Lines<'b>) -> Result<Vec<OwnedFd>, RestoreError> {
        let epoch = self.epoch.0;
        let impossible = |why: String| RestoreError::Impossible { epoch, why };
        let agreement = self.agreement();
        let mut objections = Lines::new(self.all);
        let mut journals = Vec::with_capacity(self.all.len());
        for to in self.all {
            let skeleton = skeleton_of(to.pid)?;
            fill::check_vdso(self.partition, self.epoch, to).map_err(impossible)?;
            let born = birth::build(self.kin, &skeleton, to).map_err(impossible)?;
            told.add(to.pid, born.not_restored);
            objections.add(to.pid, born.objections);
            let journal = Journal {
                pid: to.pid,
                start_ticks: skeleton.start_ticks,
                forward: born.plan,
                back: None,
                agreement: agreement.clone(),
            };
            journals.push(written(&journal, &born.data)?);
        }
        if !objections.is_empty() && !self.force {
            return Err(RestoreError::Objections {
                epoch,
                why: objections.lines(),
            });
        }
        told.append(objections);
        Ok(journals)
    }

    /// Leads all through their plans; the number of pages written.
    fn lead(&self, keepers: &mut [Keeper], told: &mut Lines<'_>) -> Result<u64, RestoreError> {
        let mut pages = 0;
        for what in Await::all(self.kin) {
            for (keeper, process) in keepers.iter_mut().zip(self.all) {
                if let Progress::Ended(outcome) = keeper.progress()? {
                    return Err(self.failed(process, outcome));
                }
            }
            if what == Await::Pages {
                let filled = fill::pages(self.partition, self.epoch, self.all);
                pages = filled.map_err(|why| RestoreError::Failed {
                    epoch: self.epoch.0,
                    why: format!("write the pages: {why}"),
                })?;
            }
            for keeper in keepers.iter_mut() {
                keeper.tell(&Ok(()))?;
            }
        }
        for (keeper, process) in keepers.iter_mut().zip(self.all) {
            match keeper.progress()? {
                Progress::Ended(Outcome::Done { reports }) => told.add(process.pid, reports),
                Progress::Ended(outcome) => return Err(self.failed(process, outcome)),
                Progress::Awaits => {
                    let error = KeeperError::OutOfTurn("Awaits".to_owned());
                    return Err(error.into());
                }
            }
        }
        Ok(pages)
    }

    fn failed(&self, process: &Process, outcome: Outcome) -> RestoreError {
        let why = match outcome {
            Outcome::PutBack { why } | Outcome::Halted { why } => why,
            Outcome::Done { .. } => "it did not wait for the others".to_owned(),
        };
        let why = match self.all.len() {
            1 => why,
            _ => format!("process {} ({}): {why}", process.pid, process.comm),
        };
        RestoreError::Failed {
            epoch: self.epoch.0,
            why,
        }
    }

    /// All run, or none.
    fn let_go(&self, mut keepers: Vec<Keeper>) -> Result<(), RestoreError> {
        let agreement = self.agreement();
        if let Some(agreement) = &agreement {
            agreement.reach(Way::Forward)?;
        }
        let mut result = Ok(());
        for keeper in &mut keepers {
            result = result.and(keeper.resume().map(drop));
        }
        if result.is_err() {
            for process in self.all {
                let _ = signal(process.pid, SIGKILL); // It is the keeper that was killed, or its own.
            }
        }
        if let Some(agreement) = &agreement {
            agreement.forget();
        }
        // Each stays for a call's timeout, if there is one; what was not let go ends here.
        keepers.into_iter().for_each(Keeper::leave);
        Ok(result?)
    }

    /// Where several are made: what tells, to whoever is left, whether all run.
    fn agreement(&self) -> Option<Agreement> {
        let root = self.all.first().filter(|_| self.all.len() > 1)?;
        Some(Agreement {
            path: leftover::agreement(root.pid, &self.options.state),
            token: self.token,
            all: self.all.iter().map(|p| p.pid).collect(),
        })
    }
}

fn end_of(ended: &Ended) -> End {
    End {
        comm: ended.comm.clone(),
        leads_session: ended.sid == ended.pid,
        leads_group: ended.pgid == ended.pid,
        status: ended.status,
    }
}

/// A keeper that was killed may have made it already; where another has the number nobody has.
fn note<T>(made: &mut Vec<i32>, pid: i32, result: &Result<T, KeeperError>) {
    let not = matches!(result, Err(KeeperError::Refused { .. }));
    made.extend((!not).then_some(pid));
}

fn signal(pid: i32, signal: i32) -> std::io::Result<()> {
    fd::pidfd_signal(fd::pidfd_open(pid)?.as_fd(), signal)
}

/// A plan in memory: it need not outlive anybody.
fn written(journal: &Journal, data: &[u8]) -> Result<OwnedFd, RestoreError> {
    let memory = memfd_create("sls-plan", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
    let mut file = File::from(memory);
    file.write_all(&sls_keeper::journal::head(journal)?)?;
    file.write_all(data)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// What a process that was just made has: a main thread, and what it got from its maker.
fn skeleton_of(pid: i32) -> Result<Process, RestoreError> {
    let status = procfs::status(pid)?;
    let outside = Outside::read(pid).unwrap_or_default();
    Ok(Process {
        pid,
        pgid: status.pgid,
        sid: status.sid,
        start_ticks: procfs::stat(pid)?.start_ticks,
        cwd: procfs::link(pid, "cwd"),
        root: procfs::link(pid, "root"),
        umask: status.umask,
        attributes: attributes::of_process(&status, &outside),
        threads: vec![Thread {
            tid: pid,
            name: status.name.clone(),
            clear_tid: Some(0),
            ..Thread::default()
        }],
        mappings: plain_mappings(&procfs::maps(pid)?),
        signals: Signals {
            ignored: status.sig_ignored,
            caught: status.sig_caught,
            ..Signals::default()
        },
        ..Process::default()
    })
}
