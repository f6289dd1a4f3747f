//! The processes of a checkpoint with nothing in them, each in the charge of its keeper.

use std::time::{Duration, Instant};

use sls_keeper::{End, Refusal};
use sls_record::{Ended, Record};
use sls_sys::procfs;
use sls_sys::skeleton::reap;

use super::namespace::Namespace;
use crate::error::{KeeperError, RestoreError};
use crate::keeper::Keeper;
use crate::plan::birth;
use crate::plan::family::Act;
use crate::target::Options;

/// How long those that failed may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Those that are made so far.
#[derive(Debug, Default)]
pub struct Births {
    keepers: Vec<Option<Keeper>>,
    /// Those that may be there, by slsd's numbers.
    made: Vec<i32>,
    /// Those that had ended, by slsd's numbers.
    pub ended: Vec<i32>,
    /// In a PID namespace of their own, which sees to those that were not made to the end.
    is_apart: bool,
}

impl Births {
    /// Makes all of them, and notes in the record which numbers they have for slsd.
    pub fn all(
        &mut self,
        (record, epoch): (&mut Record, u64),
        acts: &[Act],
        options: &Options,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<Keeper>, RestoreError> {
        let page = birth::page(&record.processes).ok_or_else(|| RestoreError::Impossible {
            epoch,
            why: "no free address".to_owned(),
        })?;
        self.keepers = record.processes.iter().map(|_| None).collect();
        let within = namespace.map(Namespace::within);
        self.is_apart = within.is_some();
        let (program, probe) = (&options.keeper, &options.probe);
        for act in acts {
            match *act {
                Act::Make(at) => {
                    let process = &mut record.processes[at];
                    let keeper = Keeper::create(program, process.pid, page, within, probe);
                    self.note(process.pid, keeper.as_ref().map(|made| made.1));
                    let (keeper, outside) = keeper.map_err(refused(epoch))?;
                    process.outside = outside;
                    self.keepers[at] = Some(keeper);
                }
                Act::Fork { child, parent } => {
                    let process = &mut record.processes[child];
                    let outside = self.fork(parent, process.pid, process.exit_signal, None);
                    process.outside = outside.map_err(refused(epoch))?;
                    let (pid, outside) = (process.pid, process.outside);
                    let mut keeper = Keeper::spawn(program, pid)?;
                    keeper.take_up(outside, probe)?;
                    self.keepers[child] = Some(keeper);
                }
                Act::End { child, parent } => {
                    let ended = &record.ended[child];
                    let end = Some(end_of(ended));
                    let forked = self.fork(parent, ended.pid, ended.exit_signal, end);
                    self.ended.push(forked.map_err(refused(epoch))?);
                }
                Act::BeginSession(at) => {
                    if let Some(keeper) = &mut self.keepers[at] {
                        let terminal = record.processes[at].terminal.as_ref();
                        keeper.begin_session(terminal.map(|t| t.path.clone()))?;
                    }
                }
            }
        }
        let keepers = std::mem::take(&mut self.keepers);
        Ok(keepers.into_iter().flatten().collect())
    }

    /// Has one made by its parent; its number for slsd.
    fn fork(
        &mut self,
        parent: usize,
        pid: i32,
        exit_signal: i32,
        end: Option<End>,
    ) -> Result<i32, KeeperError> {
        let Some(parent) = &mut self.keepers[parent] else {
            return Err(KeeperError::OutOfTurn("no parent".to_owned()));
        };
        let forked = parent.fork(pid, exit_signal, end);
        self.note(pid, forked.as_ref().copied());
        forked
    }

    /// One that failed may have been made already; where another has the number nobody has.
    fn note(&mut self, pid: i32, made: Result<i32, &KeeperError>) {
        match made {
            Ok(outside) => self.made.push(outside),
            Err(error) if self.is_apart || error.refusal() == Some(Refusal::Taken) => {}
            Err(_) => self.made.push(pid),
        }
    }

    /// Takes note of the end of those that were not let go, if there are any, so that their numbers
    /// are free again.
    pub fn await_ends(&mut self) {
        self.keepers.clear(); // With them they end.
        let deadline = Instant::now() + END_PATIENCE;
        // Of a child its parent takes note, or who is in the place of that.
        let is_there = |&pid: &i32| match reap(pid) {
            Ok(status) => status.is_none(),
            Err(_) => procfs::stat(pid).is_ok(),
        };
        while self.made.iter().any(is_there) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn refused(epoch: u64) -> impl Fn(KeeperError) -> RestoreError {
    move |error| match error {
        KeeperError::Refused {
            refusal: Refusal::Taken,
            message,
        } => RestoreError::Taken {
            epoch,
            why: message,
        },
        other => other.into(),
    }
}

pub fn end_of(ended: &Ended) -> End {
    End {
        comm: ended.comm.clone(),
        leads_session: ended.sid == ended.pid,
        leads_group: ended.pgid == ended.pid,
        status: ended.status,
    }
}
