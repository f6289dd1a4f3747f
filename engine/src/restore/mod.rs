//! Processes made anew from a checkpoint, under their old numbers: skeletons are made, each by its
//! parent, their keepers bring them to the recorded state by plans, and their pages are written from
//! the log. Until the very end each lives only as long as its keeper.
//!
//! - **Invariant**: all of them run in the end, or none is left. Before the first is let go that is
//!   written down; a keeper whose slsd is gone by then lets go too.

mod fill;
mod lines;
mod recorded;
mod rehearsal;
mod segments;
mod skeleton;
mod terminals;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use slos::{Epoch, Partition};
use sls_keeper::{Agreement, End, Journal, Outcome, Refusal, Way};
use sls_record::{Ended, Process, Record, Renamed};
use sls_sys::skeleton::reap;
use sls_sys::{fault, fd, procfs};

use crate::error::{KeeperError, RestoreError};
use crate::given::{self, Given};
use crate::keeper::{Keeper, Progress};
use crate::plan::birth::{self, Await};
use crate::plan::family::{self, Act};
use crate::plan::kin::Kin;
use crate::target::Options;
use crate::{branch, leftover, renamed};
use lines::Lines;
use segments::Prepared;
use terminals::Terminals;

pub use rehearsal::rehearse;

const SIGSTOP: i32 = 19;
const SIGKILL: i32 = 9;
/// How long those that failed may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// A restore that was done.
#[derive(Debug)]
pub struct Restored {
    /// The processes, the root first.
    pub pids: Vec<i32>,
    /// Those of them whose parent is the caller, who has to reap them; with what is readable once each
    /// has ended.
    pub roots: Vec<(i32, OwnedFd)>,
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

/// How they are wanted.
#[derive(Debug, Default)]
pub struct Wish {
    /// Left as by SIGSTOP.
    pub stay_stopped: bool,
    /// Although something of them is not as it was.
    pub force: bool,
    /// Descriptors in the place of what they had open.
    pub given: Vec<Given>,
}

/// Makes the processes of a checkpoint anew. The caller is the parent of those that have none among
/// them, and has to reap them.
///
/// # Errors
/// [`RestoreError`]; nothing of them is left then.
pub fn restore(
    partition: &Partition,
    epoch: Epoch,
    options: &Options,
    wish: &Wish,
) -> Result<Restored, RestoreError> {
    let begun = Instant::now();
    let read = |source| RestoreError::Read {
        epoch: epoch.0,
        source,
    };
    let _held = partition.hold(epoch).map_err(read)?;
    let record = recorded::record(partition, epoch)?;
    let all = &record.processes;
    let impossible = |why: &str| RestoreError::Impossible {
        epoch: epoch.0,
        why: why.to_owned(),
    };
    given::check(&wish.given, all).map_err(|why| impossible(&why))?;
    let acts = family::acts(&record).ok_or_else(|| impossible("its processes are no tree"))?;
    let terminals = Terminals::make(all);
    let mut segments = Prepared::of(all);
    let known = segments.all.clone();
    let maker = Maker {
        partition,
        epoch,
        record: &record,
        all,
        kin: &Kin::new(all, &known, &wish.given).with_masters(terminals.kept()),
        terminals: &terminals,
        options,
        force: wish.force,
        token: sls_sys::monotonic(),
    };
    let stopped = wish.stay_stopped || all.iter().all(|p| p.stopped);
    let mut made = Vec::new();
    let done = maker.make(&acts, &mut made, &mut segments, wish.stay_stopped);
    let Done {
        pages,
        roots,
        renamed,
        not_restored,
    } = done.inspect_err(|_| await_ends(&made))?;
    segments.keep();
    let former = |p: &Process| [&p.former[..], &[p.start_ticks]].concat();
    Ok(Restored {
        pids: all.iter().map(|p| p.pid).collect(),
        ended: record.ended.iter().map(|e| e.pid).collect(),
        roots,
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
    let is_there = |&pid: &i32| match reap(pid) {
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

/// What was done.
struct Done {
    pages: u64,
    roots: Vec<(i32, OwnedFd)>,
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
    terminals: &'a Terminals,
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
                self.step("stop", process.pid, || signal(process.pid, SIGSTOP))?;
            }
        }
        // Before they run: nothing that may fail comes after that.
        let roots = acts.iter().filter_map(|act| self.root(act));
        let roots = roots.collect::<Result<_, _>>()?;
        let renamed = renamed::since(self.all);
        let lines = self.terminals.set_modes(self.all);
        told.add(self.all[0].pid, lines);
        self.let_go(keepers)?;
        Ok(Done {
            pages,
            roots,
            renamed,
            not_restored: told.lines(),
        })
    }

    fn root(&self, act: &Act) -> Option<Result<(i32, OwnedFd), RestoreError>> {
        let Act::Make(at) = act else {
            return None;
        };
        let pid = self.all[*at].pid;
        let life = self.step("watch", pid, || fd::pidfd_open(pid));
        Some(life.map(|life| (pid, life)))
    }

    /// A step of the caller's own, with one process.
    fn step<T>(
        &self,
        what: &str,
        pid: i32,
        act: impl FnOnce() -> std::io::Result<T>,
    ) -> Result<T, RestoreError> {
        let done = fault::step(format_args!("{what} process {pid}"), act);
        done.map_err(|source| RestoreError::System {
            epoch: self.epoch.0,
            source,
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
                        let terminal = self.all[at].terminal.as_ref();
                        keeper.begin_session(terminal.map(|t| t.path.clone()))?;
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
            let skeleton = self.step("look at", to.pid, || skeleton::of(to.pid))?;
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
            let written = || written(&journal, &born.data);
            journals.push(self.step("write the plan of", to.pid, written)?);
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
        RestoreError::Failed {
            epoch: self.epoch.0,
            why: format!("process {} ({}): {why}", process.pid, process.comm),
        }
    }

    /// All run, or none.
    fn let_go(&self, mut keepers: Vec<Keeper>) -> Result<(), RestoreError> {
        let agreement = self.agreement();
        if let Some(agreement) = &agreement {
            self.step(
                "write down that all are made, with",
                self.all[0].pid,
                || agreement.reach(Way::Forward),
            )?;
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

/// One that failed may have made it already; where another has the number nobody has.
fn note<T>(made: &mut Vec<i32>, pid: i32, result: &Result<T, KeeperError>) {
    let refusal = result.as_ref().err().and_then(KeeperError::refusal);
    let not = refusal == Some(Refusal::Taken);
    made.extend((!not).then_some(pid));
}

fn signal(pid: i32, signal: i32) -> std::io::Result<()> {
    fd::pidfd_signal(fd::pidfd_open(pid)?.as_fd(), signal)
}

/// A plan in memory: it need not outlive anybody.
fn written(journal: &Journal, data: &[u8]) -> std::io::Result<OwnedFd> {
    let memory = memfd_create("sls-plan", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(&sls_keeper::journal::head(journal)?)?;
    file.write_all(data)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}
