//! A rewind in place: the present is saved, both ways are planned in full, then the keeper carries
//! the plan through by itself, and back if a step fails.

mod journal;

use std::collections::BTreeSet;

use slos::{Epoch, Partition, SpaceId};
use sls_keeper::Outcome;
use sls_record::{Process, Record};
use sls_sys::procfs;

use crate::capture::Request;
use crate::error::{CaptureError, KeeperError, RewindError};
use crate::target::{Target, Tracker};
use crate::{branch, leftover, plan};
use journal::{Ahead, Sources};

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

impl Target {
    /// Puts the target back to `to`, same pid and tids. With `stay_stopped` it is left as by
    /// SIGSTOP.
    ///
    /// # Errors
    /// [`RewindError`]; except for `Halted` the target runs on in its present.
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
        let _held = partition.hold(to).map_err(read)?;
        let past = self.process_at(partition, to)?;
        if self.look_ahead()?.len() > KEPT_FIRST {
            self.checkpoint(Request {
                partition,
                branch,
                name: None,
                explicit: false,
                event: None,
                stay_stopped: false,
            })?;
        }
        let changed = self.look_ahead()?;
        let space = SpaceId(past.space);
        let ahead = Ahead::read(partition, self.parent, to, space, changed).map_err(read)?;
        let brought = self.brought_by_userfaultfd()?;
        let present = self.checkpoint(Request {
            partition,
            branch,
            name: None,
            explicit: true,
            event: None,
            stay_stopped: true,
        })?;
        let _urgent = sls_sys::urgent::Urgent::begin();
        let result = self.put_back(partition, present.epoch, to, &past, ahead, brought);
        let halted = matches!(result, Err(RewindError::Halted { .. }));
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                if !halted {
                    self.run_on()?;
                }
                return Err(error);
            }
        };
        if stay_stopped {
            self.signal(SIGSTOP)?;
        }
        let stop_ns = self.run_on()?;
        self.parent = Some(to);
        if let Tracker::Content(content) = &mut self.tracker {
            // Its hashes are of the state that was left. A program that runs the same way again
            // comes to pages like those, which are not those of the new parent.
            content.invalidate();
        }
        self.told.at = None;
        Ok(Rewound {
            from: present.epoch,
            to,
            branch: branch::new(partition, "rewind"),
            pages: done.pages,
            stop_ns,
            not_restored: done.not_restored,
        })
    }

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

    fn run_on(&mut self) -> Result<u64, RewindError> {
        self.stopped = false;
        self.keeper
            .resume()
            .map_err(|e| RewindError::Capture(e.into()))
    }

    /// The record of this very process at an epoch.
    fn process_at(&self, partition: &Partition, epoch: Epoch) -> Result<Process, RewindError> {
        let bytes = partition
            .record(epoch)
            .map_err(|source| RewindError::Read {
                epoch: epoch.0,
                source,
            })?;
        let record: Record = sls_record::decode(&bytes).map_err(|source| RewindError::Record {
            epoch: epoch.0,
            source,
        })?;
        let pid = self.pid;
        record
            .processes
            .into_iter()
            .find(|p| p.pid == pid && self.was(p.start_ticks))
            .ok_or_else(|| RewindError::Impossible {
                epoch: epoch.0,
                why: format!("it is not of the process that is attached now (pid {pid})"),
            })
    }

    fn put_back(
        &mut self,
        partition: &Partition,
        present: Epoch,
        to: Epoch,
        past: &Process,
        ahead: Ahead,
        brought: Option<u64>,
    ) -> Result<Done, RewindError> {
        let now = self.process_at(partition, present)?;
        let impossible = |why: String| RewindError::Impossible { epoch: to.0, why };
        self.refuse_early(&now, past, brought).map_err(impossible)?;
        let ends = plan::Ends {
            partition,
            from: present,
            to,
        };
        let forward = plan::build(&ends, &now, past).map_err(|e| e.of_rewind(to.0))?;
        let back = plan::build(&ends.reversed(), past, &now).map_err(|e| e.of_rewind(to.0))?;
        let path = self.notes.journal().to_owned();
        let sources = Sources {
            ends,
            ahead,
            memory: &self.memory,
            present: &now,
        };
        let who = (self.pid, self.start_ticks);
        let journal = journal::write(&path, &sources, who, &forward, &back)?;
        let outcome = match self.keeper.execute(&journal) {
            Err(KeeperError::Gone(_)) => self.outcome_by_another(),
            result => result,
        };
        let outcome = outcome.map_err(|e| RewindError::Capture(e.into()))?;
        match outcome {
            Outcome::Done { reports } => {
                leftover::remove(&path);
                let mut not_restored = forward.not_restored;
                not_restored.extend(reports);
                Ok(Done {
                    pages: forward.pages,
                    not_restored,
                })
            }
            Outcome::PutBack { why } => {
                leftover::remove(&path);
                Err(RewindError::PutBack { epoch: to.0, why })
            }
            Outcome::Halted { why } => Err(RewindError::Halted {
                epoch: to.0,
                present: present.0,
                why,
            }),
        }
    }

    /// The keeper was killed in the middle: the next one finds out how far it came.
    fn outcome_by_another(&mut self) -> Result<Outcome, KeeperError> {
        let nothing = || Outcome::PutBack {
            why: "the keeper was killed before it began".to_owned(),
        };
        Ok(self.revive()?.unwrap_or_else(nothing))
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
            if procfs::status(tid).is_ok_and(|s| s.tgid != self.pid) {
                return Err(format!(
                    "thread id {tid} ({}) belongs to another process by now",
                    thread.name
                ));
            }
        }
        Ok(())
    }
}

struct Done {
    pages: u64,
    not_restored: Vec<String>,
}
