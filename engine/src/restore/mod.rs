//! A process made anew from a checkpoint, under its old number: a skeleton is made, its keeper brings
//! it to the recorded state by a plan, and its pages are written from the log. Until the very end it
//! lives only as long as its keeper.

mod fill;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use slos::{Epoch, Partition};
use sls_keeper::{Journal, Outcome, Plan, Refusal};
use sls_record::{Process, Record, Signals, Thread};
use sls_sys::{fd, procfs, skeleton};

use crate::attributes;
use crate::error::{KeeperError, RestoreError};
use crate::keeper::Keeper;
use crate::plan::birth;
use crate::record::plain_mappings;
use crate::target::Options;
use crate::{branch, plan};

const SIGSTOP: i32 = 19;
/// How long one that failed may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// A restore that was done.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The process.
    pub pid: i32,
    /// Start times of those whose past is its own, oldest first.
    pub former: Vec<u64>,
    /// The branch its checkpoints are on.
    pub branch: String,
    /// Pages written.
    pub pages: u64,
    /// From the start until it ran.
    pub took: Duration,
    /// What could not be put back, by name.
    pub not_restored: Vec<String>,
    /// It stands still: so it was asked for, or it did so then.
    pub stopped: bool,
}

/// Makes the process of a checkpoint anew. The caller is its parent and has to reap it. With
/// `stay_stopped` it is left as by SIGSTOP; with `force` it is made although something of it is not
/// as it was.
///
/// # Errors
/// [`RestoreError`]; nothing of it is left then.
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
    let to = process(partition, epoch)?;
    let impossible = |why: String| RestoreError::Impossible {
        epoch: epoch.0,
        why,
    };
    let page = birth::page(&to).ok_or_else(|| impossible("no free address".to_owned()))?;
    let keeper = Keeper::create(&options.keeper, to.pid, page, &options.probe);
    // A keeper that was killed may have made it already.
    let mut keeper = keeper
        .map_err(|error| refused(epoch, error))
        .inspect_err(|_| await_end(to.pid))?;
    let made = Maker {
        partition,
        epoch,
        to: &to,
        force,
    }
    .make(&mut keeper);
    let result = made.and_then(|(pages, not_restored)| {
        if stay_stopped || to.stopped {
            let pidfd = fd::pidfd_open(to.pid)?;
            fd::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), SIGSTOP)?;
        }
        keeper.resume()?;
        Ok((pages, not_restored))
    });
    // It stays for a call's timeout, if there is one; what was not let go ends here.
    keeper.leave();
    let (pages, not_restored) = result.inspect_err(|_| await_end(to.pid))?;
    let mut former = to.former.clone();
    former.push(to.start_ticks);
    Ok(Restored {
        pid: to.pid,
        former,
        branch: branch::new(partition, "restore"),
        pages,
        took: begun.elapsed(),
        not_restored,
        stopped: stay_stopped || to.stopped,
    })
}

/// Takes note of the end of one that was not let go, if there is one, so that its number is free
/// again.
fn await_end(pid: i32) {
    let deadline = Instant::now() + END_PATIENCE;
    while skeleton::reap(pid).is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn refused(epoch: Epoch, error: KeeperError) -> RestoreError {
    match error {
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

/// The one process of a checkpoint.
fn process(partition: &Partition, epoch: Epoch) -> Result<Process, RestoreError> {
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
    let impossible = |why: &str| RestoreError::Impossible {
        epoch: epoch.0,
        why: why.to_owned(),
    };
    let mut processes = record.processes.into_iter();
    let process = processes
        .next()
        .ok_or_else(|| impossible("it holds no process"))?;
    if let Some(other) = processes.next() {
        let message = "it holds several processes, and only one can be restored yet";
        return Err(impossible(&format!("{message} ({} is another)", other.pid)));
    }
    if process.threads.first().is_none_or(|t| t.tid != process.pid) {
        return Err(impossible("its main thread had ended already"));
    }
    Ok(process)
}

struct Maker<'a> {
    partition: &'a Partition,
    epoch: Epoch,
    to: &'a Process,
    force: bool,
}

impl Maker<'_> {
    /// Plans the way from the skeleton and has it carried through: pages written, and what is not as
    /// it was.
    fn make(&self, keeper: &mut Keeper) -> Result<(u64, Vec<String>), RestoreError> {
        let epoch = self.epoch.0;
        let impossible = |why: String| RestoreError::Impossible { epoch, why };
        let skeleton = skeleton_of(self.to.pid)?;
        fill::check_vdso(self.partition, self.epoch, self.to).map_err(impossible)?;
        let born = birth::build(&skeleton, self.to).map_err(impossible)?;
        let plan::birth::Born {
            plan,
            data,
            mut not_restored,
            objections,
        } = born;
        if !objections.is_empty() && !self.force {
            return Err(RestoreError::Objections {
                epoch,
                why: objections,
            });
        }
        not_restored.extend(objections);
        let journal = journal(self.to.pid, skeleton.start_ticks, plan, &data)?;
        let mut pages = 0;
        let outcome = keeper.bear(&journal, || {
            pages = fill::pages(self.partition, self.epoch, self.to)?;
            Ok(())
        })?;
        match outcome {
            Outcome::Done { reports } => {
                not_restored.extend(reports);
                Ok((pages, not_restored))
            }
            Outcome::PutBack { why } | Outcome::Halted { why } => {
                Err(RestoreError::Failed { epoch, why })
            }
        }
    }
}

/// A plan in memory: it need not outlive anybody.
fn journal(pid: i32, start_ticks: u64, plan: Plan, data: &[u8]) -> Result<OwnedFd, RestoreError> {
    let journal = Journal {
        pid,
        start_ticks,
        forward: plan,
        back: None,
        agreement: None,
    };
    let memory = memfd_create("sls-plan", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
    let mut file = File::from(memory);
    file.write_all(&sls_keeper::journal::head(&journal)?)?;
    file.write_all(data)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// What a process that was just made has: a main thread, and what it got from its maker.
fn skeleton_of(pid: i32) -> Result<Process, RestoreError> {
    let status = procfs::status(pid)?;
    Ok(Process {
        pid,
        start_ticks: procfs::stat(pid)?.start_ticks,
        cwd: procfs::link(pid, "cwd"),
        root: procfs::link(pid, "root"),
        umask: status.umask,
        attributes: attributes::of_process(pid, &status),
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
