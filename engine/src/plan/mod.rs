//! All steps from one recorded state to another.

mod advice;
pub mod anew;
mod anew_files;
mod attributes;
pub mod birth;
mod common;
mod conduct;
pub mod family;
pub mod faults;
mod files;
mod filters;
mod guards;
mod inotify;
mod keys;
pub mod kin;
mod locked;
mod locks;
mod mappings;
mod opening;
mod pages;
mod pairs;
pub mod pipes;
mod queues;
mod signals;
pub mod sockets;
mod talks;
mod terminals;
mod threads;
pub mod unnamed;

use slos::{Epoch, Partition, ReadError};
use sls_keeper::{Arg, Plan, Step, Want};
use sls_record::Process;

pub use common::Common;

use crate::error::RewindError;

/// Bytes of the scratch area for each thread, and its parts for other things, as the keeper lays
/// them out.
const SLOT: u64 = 16 << 10;
const OTHER_SLOTS: u64 = 3;

/// The two checkpoints and where they are kept.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub partition: &'a Partition,
    pub from: Epoch,
    pub to: Epoch,
}

impl Ends<'_> {
    /// The way back.
    pub fn reversed(&self) -> Self {
        Self {
            partition: self.partition,
            from: self.to,
            to: self.from,
        }
    }
}

/// A plan, the pages its writes take, and what it will not put back.
#[derive(Debug)]
pub struct Built {
    pub plan: Plan,
    /// Runs of pages in the order in which their bytes follow in the journal: space, first page,
    /// count.
    pub data: Vec<(u32, u64, u64)>,
    pub pages: u64,
    pub not_restored: Vec<String>,
}

impl Built {
    /// As one of several on the way forward (together.rs): nothing is changed before all stand
    /// still, and no thread goes on before all is changed.
    pub fn forward_together(&mut self) {
        let first = [wait("all processes stand still"), Step::Begin];
        self.plan.steps.splice(0..0, first);
        self.back_together();
    }

    /// As one of several on the way back: no thread goes on before all are there.
    pub fn back_together(&mut self) {
        let what = "all processes have come as far";
        self.plan.steps.push(wait(what));
    }
}

fn wait(what: &str) -> Step {
    Step::Await {
        what: what.to_owned(),
    }
}

/// Why there is no plan.
#[derive(Debug)]
pub enum NoPlan {
    Impossible(String),
    Read(ReadError),
}

impl From<ReadError> for NoPlan {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl NoPlan {
    pub fn of_rewind(self, epoch: u64) -> RewindError {
        match self {
            Self::Impossible(why) => RewindError::Impossible { epoch, why },
            Self::Read(source) => RewindError::Read { epoch, source },
        }
    }
}

/// Steps as they are collected.
#[derive(Debug, Default)]
pub struct Steps {
    pub list: Vec<Step>,
    pub not_restored: Vec<String>,
    /// What stands against a process made anew, unless whoever asks for it says otherwise.
    pub objections: Vec<String>,
}

impl Steps {
    /// Notes, once, what stands against it.
    pub fn object(&mut self, why: String) {
        if !self.objections.contains(&why) {
            self.objections.push(why);
        }
    }

    /// A call in the leading thread.
    pub fn call(&mut self, what: impl Into<String>, nr: i64, args: Vec<Arg>, want: Want) {
        let nr = nr.cast_unsigned();
        self.list.push(Step::Call {
            what: what.into(),
            nr,
            args,
            want,
        });
    }

    /// A call in a given thread.
    pub fn call_in(&mut self, tid: i32, what: &str, nr: i64, args: Vec<Arg>, want: Want) {
        let nr = nr.cast_unsigned();
        self.list.push(Step::CallIn {
            tid,
            what: what.to_owned(),
            nr,
            args,
            want,
        });
    }
}

/// A C string argument.
pub fn path(text: &str) -> Arg {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Arg::Bytes(bytes)
}

/// A small signed number as the register holds it.
pub fn int(n: i32) -> Arg {
    Arg::Value(u64::from(n.cast_unsigned()))
}

/// Plans the way `from` → `to` of one of those that have `common` things.
pub fn build(
    ends: &Ends<'_>,
    from: &Process,
    to: &Process,
    common: &mut Common<'_>,
) -> Result<Built, NoPlan> {
    let leader = threads::leader(from, to).ok_or_else(|| {
        NoPlan::Impossible("no thread of that time is still there to carry the rewind".to_owned())
    })?;
    let slots = (from.threads.len() + to.threads.len()) as u64 + OTHER_SLOTS;
    let scratch = mappings::free_range([from, to], slots * SLOT)
        .ok_or_else(|| NoPlan::Impossible("no free addresses for a scratch area".to_owned()))?;
    let mut steps = Steps::default();
    files::steps(&mut steps, from, to, common);
    threads::ends(&mut steps, from, to);
    let fresh = mappings::steps(&mut steps, from, to).map_err(NoPlan::Impossible)?;
    guards::remove(&mut steps, from, to);
    signals::steps(&mut steps, from, to);
    threads::births(&mut steps, from, to);
    signals::quieten(&mut steps, from, to, leader);
    signals::pending(&mut steps, from, to, leader);
    let (mut data, pages) = pages::steps(&mut steps, ends, from, to, &fresh, common)?;
    unnamed::contents(&mut steps, ends, (from, to), common, &mut data)?;
    keys::steps(&mut steps, from, to);
    guards::install(&mut steps, to);
    locked::steps(&mut steps, from, to);
    advice::steps(&mut steps, from, to);
    conduct::steps(&mut steps, from, to);
    filters::name(&mut steps, from, to);
    signals::timers(&mut steps, from, to);
    unnamed::seals(&mut steps, from, to, |file| {
        common.sees_to(&format!("seals {}:{}", file.dev, file.inode))
    });
    threads::finals(&mut steps, to);
    if from.root != to.root {
        let line = format!("root directory {}", to.root);
        steps.not_restored.push(line);
    }
    Ok(Built {
        plan: Plan {
            leader,
            scratch,
            anew: false,
            batch: None,
            steps: steps.list,
        },
        data,
        pages,
        not_restored: steps.not_restored,
    })
}
