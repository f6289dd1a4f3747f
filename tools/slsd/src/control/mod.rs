//! Forward control: breakpoints, watchpoints and steps over processes that the engine stops and lets go.
//!
//! What needs both the program's debug information and its registers is decided here, on the thread that
//! owns the partition; clients wait at the [`board`].
//!
//! - **Invariant**: all processes of a partition stand still whenever one has met something, until it is
//!   decided that nobody is to know. Then those that met a breakpoint in vain execute its instruction while
//!   it is not in the text, so no other thread passes it unseen.

pub mod board;
pub mod journey;
pub mod live;
pub mod points;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use introspect::{Finder, Program};
use libsls::control::{Act, State, Stop, Wait};
use libsls::protocol::Answer;
use sls_engine::Event;

use crate::registry::{Refusal, Registry};
use crate::worker::{Command, Reply};
use board::Board;
use journey::Journey;
use live::{Live, Seen};
use points::Points;

/// What a worker knows of it.
#[derive(Default)]
pub struct Control {
    pub board: Arc<Board>,
    pub points: Points,
    pub programs: BTreeMap<i32, Program>,
    pub seen: BTreeMap<i32, Seen>,
    /// All stand still, but for one thread that is on a journey alone.
    pub halted: bool,
    /// The process and the thread that stopped last.
    pub selected: Option<(i32, i32)>,
    /// Threads that have met the breakpoint they stand at: pc and stack pointer.
    pub met: BTreeMap<i32, (u64, u64)>,
    pub journey: Option<Journey>,
    /// A journey that goes on by single instructions once others were heard.
    pub paces: bool,
    /// What others met meanwhile, and has not been looked at yet.
    pub later: VecDeque<(i32, Event)>,
    /// The checkpoint before the end.
    pub end: Option<u64>,
    /// It has ended, and how was announced.
    pub gone: bool,
    /// Why breakpoints are not in the text, or whatever else is to be known.
    pub note: Option<String>,
}

impl Control {
    pub fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            ..Self::default()
        }
    }

    /// Nobody is attached any more: breakpoints go with the process they were set in.
    pub fn forget(&mut self) {
        *self = Self::new(Arc::clone(&self.board));
    }

    /// Where breakpoints are to be in a process.
    pub fn traps(&self, pid: i32) -> BTreeSet<u64> {
        let mut traps = self.points.traps(pid);
        if let Some(journey) = self.journey.as_ref().filter(|journey| journey.pid == pid) {
            traps.extend(journey.places());
        }
        traps
    }

    /// The program of a process; loaded once, as long as the same files are mapped.
    pub fn load(&mut self, target: &sls_engine::Target) {
        let pid = target.pid();
        let seen = self.seen.entry(pid).or_default();
        seen.look(pid);
        let live = Live { target, seen };
        if !self
            .programs
            .get(&pid)
            .is_some_and(|program| program.matches(&live))
        {
            let program = Program::load(&live, &Finder::default());
            self.programs.insert(pid, program);
        }
    }
}

/// Has a partition's worker do something, and waits for where that leads. Takes no turn of the client's
/// while it waits.
pub fn serve(
    registry: &Registry,
    part: Option<&str>,
    pid: Option<i32>,
    act: Act,
    gone: &dyn Fn() -> bool,
) -> Result<Answer, Refusal> {
    let part = match (part, pid) {
        (None, Some(pid)) => registry.find_pid(pid)?,
        _ => registry.find(part)?,
    };
    let wait = match act {
        Act::Continue { wait } | Act::Step { wait, .. } | Act::Finish { wait, .. } => wait,
        _ => Wait::No,
    };
    match part.command(Command::Control { pid, act })? {
        Reply::Done => Ok(Answer::Done),
        Reply::Stop(stop) => Ok(Answer::Stop(*stop)),
        Reply::Points(points) => Ok(Answer::Breakpoints(points)),
        Reply::Runs { after, note } => {
            let stop = part.board().wait(after, wait, gone);
            Ok(Answer::Stop(stop.unwrap_or_else(|| Stop {
                partition: part.name.clone(),
                state: State::Running,
                pid: part.figures().pids.first().copied().unwrap_or(0),
                note,
                ..Stop::default()
            })))
        }
        other => Err(Refusal::other(format!("{other:?}"))),
    }
}
