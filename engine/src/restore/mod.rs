//! Processes made anew from a checkpoint, under their old numbers, or those in a PID namespace of
//! their own: skeletons are made, each by its parent, their keepers bring them to the recorded state by plans, and their pages are written from
//! the log. Until the very end each lives only as long as its keeper.
//!
//! - **Invariant**: all of them run in the end, or none is left. Before the first is let go that is
//!   written down; a keeper whose slsd is gone by then lets go too.

pub mod births;
mod fill;
mod later;
pub mod lines;
mod namespace;
pub mod recorded;
mod rehearsal;
pub mod segments;
mod skeleton;
pub mod terminals;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use slos::{Epoch, Partition};
use sls_keeper::{Agreement, Journal, Outcome, Way};
use sls_record::{FileKind, Process, Renamed};
use sls_sys::{fault, fd};

use crate::ahead::Ahead;
use crate::error::{KeeperError, RestoreError};
use crate::given::{self, Given};
use crate::keeper::{Keeper, Progress};
use crate::pager::Pager;
use crate::plan::birth::{self, Await};
use crate::plan::family::{self, Act};
use crate::plan::kin::Kin;
use crate::target::Options;
use crate::{branch, leftover, probes, renamed};
use births::Births;
use fill::Source;
use later::Later;
use lines::Lines;
use namespace::Namespace;
use segments::Prepared;
use terminals::Terminals;

pub use rehearsal::rehearse;

const SIGSTOP: i32 = 19;
const SIGKILL: i32 = 9;

/// A restore that was done.
#[derive(Debug)]
pub struct Restored {
    /// The processes, each by the number it had and that which it has, the root first.
    pub pids: Vec<(i32, i32)>,
    /// Those of them whose parent is the caller, who has to reap them, and the init of their namespace;
    /// with what is readable once each has ended.
    pub roots: Vec<(i32, OwnedFd)>,
    /// Those that had ended, for their parents to take note of.
    pub ended: Vec<i32>,
    /// What they have under other names than then.
    pub renamed: Vec<Renamed>,
    /// Start times of those whose past is each one's own, oldest first.
    pub former: Vec<Vec<u64>>,
    /// The branch their checkpoints are on.
    pub branch: String,
    /// Pages written, and those that are brought later.
    pub pages: u64,
    /// Who brings those.
    pub pager: Option<Pager>,
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
    /// In a PID namespace of their own, under other numbers outside.
    pub pidns: bool,
    /// In such a one, beside those that they are clones of, who do not notice: their network is their own, and
    /// what they write to files goes to a layer that ends with them.
    pub branch: bool,
    /// Running before all of their pages are there.
    pub lazy: bool,
    /// With their TCP connections closed.
    pub tcp_close: bool,
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
    probes::restore_begun(epoch.0);
    let read = |source| RestoreError::Read {
        epoch: epoch.0,
        source,
    };
    let _held = partition.hold(epoch).map_err(read)?;
    let mut record = recorded::record(partition, epoch)?;
    if wish.tcp_close {
        record.processes.iter_mut().for_each(close_connections);
    }
    let impossible = |why: &str| RestoreError::Impossible {
        epoch: epoch.0,
        why: why.to_owned(),
    };
    given::check(&wish.given, &record.processes).map_err(|why| impossible(&why))?;
    let acts = family::acts(&record).ok_or_else(|| impossible("its processes are no tree"))?;
    let terminals = Terminals::make(&record.processes);
    if wish.lazy && !nix::unistd::geteuid().is_root() {
        let why = "only root is told what has to be known to bring its pages later; leave out --lazy, or run slsd as root";
        return Err(impossible(why));
    }
    let pidns = wish.pidns || wish.branch;
    // Those that are there are the originals'.
    let mut segments = if wish.branch {
        Prepared::default()
    } else {
        Prepared::of(&record.processes)
    };
    let known = segments.all.clone();
    if pidns && record.processes.iter().any(|p| p.pid == 1) {
        let why =
            "process 1 is the init of its own PID namespace, where another cannot have its place";
        return Err(impossible(why));
    }
    let begin = || Namespace::begin(options, &record, wish.branch);
    let mut namespace = pidns.then(begin).transpose()?;
    let mut births = Births::default();
    let made = births.all((&mut record, epoch.0), &acts, options, namespace.as_ref());
    let keepers = made.inspect_err(|_| births.await_ends())?;
    let all = &record.processes;
    probes::restore_born(epoch.0, all.len() as u64);
    let kin = Kin::new(all, &known, &wish.given).with_masters(terminals.kept());
    let maker = Maker {
        partition,
        epoch,
        all,
        kin: &kin.apart(pidns, wish.branch),
        terminals: &terminals,
        options,
        lazy: wish.lazy,
        force: wish.force,
        agreement: agreement(all, options),
        ahead: None,
    };
    let stopped = wish.stay_stopped || all.iter().all(|p| p.stopped);
    let done = maker.make(
        keepers,
        &acts,
        namespace.as_mut(),
        &mut segments,
        wish.stay_stopped,
    );
    let Done {
        pages,
        pager,
        mut roots,
        renamed,
        not_restored,
    } = done.inspect_err(|_| births.await_ends())?;
    probes::restore_done(epoch.0, pages);
    segments.keep();
    roots.extend(namespace.and_then(Namespace::keep));
    let former = |p: &Process| [&p.former[..], &[p.start_ticks]].concat();
    Ok(Restored {
        pids: all.iter().map(|p| (p.pid, p.outside())).collect(),
        ended: births.ended,
        roots,
        former: all.iter().map(former).collect(),
        branch: branch::new(partition, "restore"),
        renamed,
        pages,
        pager,
        took: begun.elapsed(),
        not_restored,
        stopped,
    })
}

/// What was done.
struct Done {
    pages: u64,
    pager: Option<Pager>,
    roots: Vec<(i32, OwnedFd)>,
    renamed: Vec<Renamed>,
    /// What is not as it was.
    not_restored: Vec<String>,
}

/// What brings skeletons to their state.
pub struct Maker<'a> {
    pub partition: &'a Partition,
    pub epoch: Epoch,
    pub all: &'a [Process],
    pub kin: &'a Kin<'a>,
    pub terminals: &'a Terminals,
    pub options: &'a Options,
    pub lazy: bool,
    pub force: bool,
    /// Where several are made: what tells, to whoever is left, whether all run.
    pub agreement: Option<Agreement>,
    /// Pages that were decoded before.
    pub ahead: Option<&'a Ahead>,
}

impl Maker<'_> {
    /// Brings all of them to their state and lets them go.
    fn make(
        &self,
        mut keepers: Vec<Keeper>,
        acts: &[Act],
        namespace: Option<&mut Namespace>,
        segments: &mut Prepared,
        stay_stopped: bool,
    ) -> Result<Done, RestoreError> {
        let mut told = Lines::new(self.all);
        let mut later = self.later(&mut keepers)?;
        let read_only = namespace.iter().flat_map(|n| &n.read_only);
        let line = |at: &String| format!("{at} cannot be written to: it takes no layer");
        told.add(self.all[0].pid, read_only.map(line).collect());
        let journals = self.journals(&mut told)?;
        probes::restore_planned(self.epoch.0);
        for (keeper, journal) in keepers.iter_mut().zip(&journals) {
            keeper.ask_to_execute(journal)?;
        }
        let (pages, mut pager) = self.lead(&mut keepers, later.as_mut(), &mut told)?;
        segments.attached();
        for process in self.all {
            if stay_stopped || process.stopped {
                let stop = || signal(process.outside(), SIGSTOP);
                self.step("stop", process.pid, stop)?;
            }
        }
        // Before they run: nothing that may fail comes after that.
        let roots = self.roots(acts).map(|process| self.life(process));
        let roots = roots.collect::<Result<_, _>>()?;
        if let Some(namespace) = namespace {
            namespace.watch(self.roots(acts).map(|p| p.pid).collect())?;
        }
        let renamed = renamed::since(self.all, self.kin.has_layer());
        let lines = self.terminals.set_modes(self.all);
        told.add(self.all[0].pid, lines);
        if let Some(pager) = &mut pager {
            self.step("leave the pages to sls-pager, of", self.all[0].pid, || {
                pager.keep()
            })?;
        }
        self.let_go(keepers)?;
        Ok(Done {
            pages,
            pager,
            roots,
            renamed,
            not_restored: told.lines(),
        })
    }

    /// Those that have no parent among them.
    fn roots(&self, acts: &[Act]) -> impl Iterator<Item = &Process> {
        acts.iter().filter_map(|act| match act {
            Act::Make(at) => Some(&self.all[*at]),
            _ => None,
        })
    }

    fn life(&self, process: &Process) -> Result<(i32, OwnedFd), RestoreError> {
        let pid = process.outside();
        let life = self.step("watch", process.pid, || fd::pidfd_open(pid))?;
        Ok((pid, life))
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

    /// Plans the way of each from its skeleton.
    pub fn journals<'b>(&'b self, told: &mut Lines<'b>) -> Result<Vec<OwnedFd>, RestoreError> {
        let epoch = self.epoch.0;
        let impossible = |why: String| RestoreError::Impossible { epoch, why };
        let mut objections = Lines::new(self.all);
        let mut journals = Vec::with_capacity(self.all.len());
        for to in self.all {
            let skeleton = self.step("look at", to.pid, || skeleton::of(to))?;
            fill::check_vdso(self.partition, self.epoch, to).map_err(impossible)?;
            let born = birth::build(self.kin, &skeleton, to).map_err(impossible)?;
            told.add(to.pid, born.not_restored);
            objections.add(to.pid, born.objections);
            let journal = Journal {
                pid: to.outside(),
                start_ticks: skeleton.start_ticks,
                forward: born.plan,
                back: None,
                agreement: self.agreement.clone(),
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

    /// What is brought later, where that is wanted and worth it.
    fn later(&self, keepers: &mut [Keeper]) -> Result<Option<Later>, RestoreError> {
        if !self.lazy {
            return Ok(None);
        }
        let later = Later::of(self.partition, self.epoch, self.all);
        let mut later = later.map_err(|source| RestoreError::Read {
            epoch: self.epoch.0,
            source,
        })?;
        if let Some(later) = &mut later {
            later.prepare(self.epoch, self.all, keepers)?;
        }
        Ok(later)
    }

    /// Leads all through their plans; the number of pages, and who brings those that are brought later.
    pub fn lead(
        &self,
        keepers: &mut [Keeper],
        mut later: Option<&mut Later>,
        told: &mut Lines<'_>,
    ) -> Result<(u64, Option<Pager>), RestoreError> {
        let (mut pages, mut pager) = (0, None);
        for what in Await::all(self.kin) {
            for (keeper, process) in keepers.iter_mut().zip(self.all) {
                if let Progress::Ended(outcome) = keeper.progress()? {
                    return Err(self.failed(process, outcome));
                }
            }
            if what == Await::Pages {
                let failed = |why: String| RestoreError::Failed {
                    epoch: self.epoch.0,
                    why: format!("write the pages: {why}"),
                };
                let source = Source {
                    partition: self.partition,
                    epoch: self.epoch,
                    ahead: self.ahead,
                };
                let filled = fill::pages(source, self.all, later.as_deref());
                pages = filled.map_err(failed)?;
                if let Some(later) = later.take() {
                    pages += later.pages();
                    let begun = later.begin(self.options);
                    pager = Some(begun.map_err(|error| failed(error.to_string()))?);
                }
                probes::restore_filled(self.epoch.0, pages);
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
        Ok((pages, pager))
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
        if let Some(agreement) = &self.agreement {
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
                let _ = signal(process.outside(), SIGKILL); // It is the keeper that was killed, or its own.
            }
        }
        if let Some(agreement) = &self.agreement {
            agreement.forget();
        }
        // Each stays for a call's timeout, if there is one; what was not let go ends here.
        keepers.into_iter().for_each(Keeper::leave);
        Ok(result?)
    }
}

fn agreement(all: &[Process], options: &Options) -> Option<Agreement> {
    let root = all.first().filter(|_| all.len() > 1)?;
    Some(Agreement {
        path: leftover::agreement(root.outside(), &options.state),
        token: sls_sys::monotonic(),
        all: all.iter().map(Process::outside).collect(),
    })
}

/// As if nothing were known of what its TCP sockets are connected to.
fn close_connections(process: &mut Process) {
    for file in &mut process.files {
        if let FileKind::Socket {
            state: Some(socket),
            ..
        } = &mut file.kind
            && socket.connected.as_ref().is_some_and(|c| c.tcp.is_some())
        {
            socket.connected = None;
        }
    }
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
