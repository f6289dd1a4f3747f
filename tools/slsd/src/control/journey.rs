//! A step, a next or a finish on its way.
//!
//! A line is not executed instruction by instruction: breakpoints stand where its code is left, and the
//! thread runs to one of them. Single instructions are executed only where the code does not say where it
//! leads, a return, a jump through a table, or where a call is to be entered.
//!
//! - Frames are told apart by their canonical frame address (CFA), so recursion does not end a step.
//! - Only the thread that steps runs, unless it does not get there soon: then it waits for another one.
//!   A frame that is finished is left with all of them running.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use introspect::Program;
use introspect::flow::{Exits, Turn, exits_of, step_at};
use libsls::control::{By, Reason};

use super::live::{Live, RSP};

/// How long a thread goes on alone.
pub const ALONE: Duration = Duration::from_millis(20);

/// What a journey is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Step { by: By, over: bool },
    Finish,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// In the code of a line.
    Line,
    /// To this address, in a frame whose stack pointer is at least this.
    To { address: u64, sp: u64, then: Then },
}

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// One step of several is done.
    Arrive,
    /// The line goes on.
    GoOn,
}

/// One thread's.
#[derive(Debug)]
pub struct Journey {
    pub pid: i32,
    pub tid: i32,
    pub goal: Goal,
    /// Steps or frames that are left.
    pub left: u32,
    /// Of the frame it is in.
    pub cfa: u64,
    /// Where the line is that it began on.
    pub line: Option<(String, u32)>,
    /// Inlined calls around it then.
    pub depth: usize,
    /// The code around the pc that belongs to the line.
    pub range: (u64, u64),
    pub exits: Exits,
    pub stage: Stage,
    /// All threads run.
    pub all: bool,
    /// When all do.
    pub until: Option<Instant>,
    /// A signal came before an instruction could be executed: once it has been seen to, from here again.
    pub again: Option<u64>,
    /// An instruction that waits: where it was, and where it goes on.
    pub waits: Option<(u64, u64)>,
    /// The function that a finish leaves.
    pub leaves: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Run until one of the places is met.
    Run,
    /// Execute one instruction, then look again.
    Instruction,
    /// It is there.
    Arrived,
}

impl Journey {
    pub fn reason(&self) -> Reason {
        match self.goal {
            Goal::Step { .. } => Reason::Step,
            Goal::Finish => Reason::Finish,
        }
    }

    /// A step from where a thread stands.
    pub fn step(
        live: &Live<'_>,
        program: &Program,
        tid: i32,
        goal: Goal,
        count: u32,
    ) -> Option<Self> {
        let mut journey = Self {
            pid: live.target.pid(),
            tid,
            goal,
            left: count.max(1),
            cfa: 0,
            line: None,
            depth: 0,
            range: (0, 0),
            exits: Exits::default(),
            stage: Stage::Line,
            all: false,
            until: None,
            again: None,
            waits: None,
            leaves: 0,
        };
        journey.begin(live, program).then_some(journey)
    }

    /// Out of the frame a thread is in. None: nobody called it.
    pub fn finish(live: &Live<'_>, program: &Program, tid: i32, count: u32) -> Option<Self> {
        let mut journey = Self::step(live, program, tid, Goal::Finish, count)?;
        journey.all = true;
        journey.leave(live, program).then_some(journey)
    }

    /// Looks at the frame and the line from which the next step counts.
    fn begin(&mut self, live: &Live<'_>, program: &Program) -> bool {
        let frames = live.frames(program, self.tid, 64);
        let Some(frame) = frames.first() else {
            return false;
        };
        self.cfa = frame.cfa.unwrap_or_else(|| sp(live, self.tid));
        self.depth = frames.iter().take_while(|f| f.cfa == frame.cfa).count();
        self.stage = Stage::Line;
        self.look_at_line(live, program, frame.pc);
        true
    }

    fn look_at_line(&mut self, live: &Live<'_>, program: &Program, pc: u64) {
        self.line = program.line_at(pc).filter(|(_, line)| *line != 0);
        let extent = match &self.line {
            Some(_) => program.line_extent(pc),
            // Without lines a function is one.
            None => program.function_at(pc).map(|f| (f.start, f.end)),
        };
        self.range = extent.unwrap_or((pc, pc.wrapping_add(1)));
        self.exits = exits_of(live, self.range).unwrap_or_else(|| Exits {
            turns: BTreeSet::from([pc]),
            ..Exits::default()
        });
    }

    /// Sets out to the caller of the frame it is in.
    fn leave(&mut self, live: &Live<'_>, program: &Program) -> bool {
        let frames = live.frames(program, self.tid, 256);
        let Some(inner) = frames.first() else {
            return false;
        };
        let Some(caller) = frames.iter().find(|frame| frame.cfa != inner.cfa) else {
            return false;
        };
        self.leaves = inner.pc;
        self.stage = Stage::To {
            address: caller.pc,
            sp: inner.cfa.unwrap_or(0),
            then: Then::Arrive,
        };
        true
    }

    /// Where it wants to be told that the thread comes by.
    pub fn places(&self) -> BTreeSet<u64> {
        if let Some(address) = self.again.or(self.waits.map(|waits| waits.1)) {
            return BTreeSet::from([address]);
        }
        match &self.stage {
            Stage::To { address, .. } => BTreeSet::from([*address]),
            Stage::Line => {
                let mut places = self.exits.outside.clone();
                places.extend(&self.exits.turns);
                if self.enters() {
                    places.extend(&self.exits.calls);
                }
                places
            }
        }
    }

    fn enters(&self) -> bool {
        matches!(self.goal, Goal::Step { over: false, .. })
    }

    fn by_instruction(&self) -> bool {
        matches!(
            self.goal,
            Goal::Step {
                by: By::Instruction,
                ..
            }
        )
    }

    /// From a standstill: how it goes on.
    pub fn set_out(&mut self, live: &Live<'_>) -> Next {
        let Some(pc) = live.seen.pc(self.tid) else {
            return Next::Arrived;
        };
        if matches!(self.stage, Stage::To { .. }) {
            return Next::Run;
        }
        if self.by_instruction() {
            return self.pass_call(live, pc);
        }
        let special =
            self.exits.turns.contains(&pc) || self.enters() && self.exits.calls.contains(&pc);
        if special {
            Next::Instruction
        } else {
            Next::Run
        }
    }

    /// An instruction that calls is run through where calls are no stops.
    fn pass_call(&mut self, live: &Live<'_>, pc: u64) -> Next {
        let code = step_at(live, pc);
        let call = code.filter(|code| code.turn == Turn::Call && !self.enters());
        if let Some(call) = call {
            self.stage = Stage::To {
                address: call.next,
                sp: sp(live, self.tid),
                then: Then::Arrive,
            };
            return Next::Run;
        }
        Next::Instruction
    }

    /// The thread has met one of the places.
    pub fn met(&mut self, live: &Live<'_>, program: &Program) -> Next {
        let Some(pc) = live.seen.pc(self.tid) else {
            return Next::Arrived;
        };
        if self.again.is_some() {
            if self.cfa_now(live, program) < self.cfa {
                return Next::Run; // In the signal's handler.
            }
            self.again = None;
            return Next::Instruction;
        }
        if let Some((before, _)) = self.waits.take() {
            return self.executed(live, program, before);
        }
        match self.stage.clone() {
            Stage::To {
                address,
                sp: least,
                then,
            } => {
                if pc != address || sp(live, self.tid) < least {
                    return Next::Run; // Deeper: it will come again.
                }
                match then {
                    Then::Arrive => self.arrive(live, program),
                    Then::GoOn => {
                        self.stage = Stage::Line;
                        self.landed(live, program)
                    }
                }
            }
            Stage::Line => {
                if self.cfa_now(live, program) < self.cfa {
                    return Next::Run; // By recursion.
                }
                if self.exits.outside.contains(&pc) {
                    return self.landed(live, program);
                }
                Next::Instruction
            }
        }
    }

    fn cfa_now(&self, live: &Live<'_>, program: &Program) -> u64 {
        let frames = live.frames(program, self.tid, 1);
        let cfa = frames.first().and_then(|frame| frame.cfa);
        cfa.unwrap_or_else(|| sp(live, self.tid))
    }

    /// One instruction was executed, from `before`.
    pub fn executed(&mut self, live: &Live<'_>, program: &Program, before: u64) -> Next {
        if self.by_instruction() {
            return self.arrive(live, program);
        }
        let pc = live.seen.pc(self.tid).unwrap_or(0);
        if self.exits.calls.contains(&before) {
            return self.entered(live, program, pc);
        }
        self.landed(live, program)
    }

    /// A call was executed: into a function with lines, to behind its prologue; through another.
    fn entered(&mut self, live: &Live<'_>, program: &Program, pc: u64) -> Next {
        let has_line = program.line_at(pc).is_some_and(|(_, line)| line != 0);
        if has_line {
            let function = program.function_at(pc);
            let target = function.map_or(pc, |f| program.after_prologue(live, f.start, f.end));
            if target == pc {
                return self.arrive(live, program);
            }
            self.stage = Stage::To {
                address: target,
                sp: 0,
                then: Then::Arrive,
            };
            return Next::Run;
        }
        if step_at(live, pc).is_some_and(|code| code.is_stub) {
            // Whether it leads to a function with lines is known when it is there.
            return Next::Instruction;
        }
        // It comes back into the line.
        Next::Run
    }

    /// It came to other code than the line's, in its own frame or one around it.
    fn landed(&mut self, live: &Live<'_>, program: &Program) -> Next {
        let frames = live.frames(program, self.tid, 64);
        let Some(frame) = frames.first() else {
            return Next::Arrived;
        };
        let (pc, cfa) = (frame.pc, frame.cfa.unwrap_or_else(|| sp(live, self.tid)));
        if cfa < self.cfa {
            // A jump to another function's code that has set up more: it is one that was called.
            return self.entered(live, program, pc);
        }
        let left = cfa > self.cfa;
        self.cfa = cfa;
        if (self.range.0..self.range.1).contains(&pc) && !left {
            return Next::Run;
        }
        let is_start = program.function_at(pc).is_some_and(|f| f.start == pc);
        if is_start && !left {
            // A jump to another function at the end of this one: it returns in its stead.
            if self.enters() {
                return self.entered(live, program, pc);
            }
            let sp = sp(live, self.tid);
            if let Some(address) = live.u64_at(sp) {
                self.stage = Stage::To {
                    address,
                    sp: sp.saturating_add(8),
                    then: Then::GoOn,
                };
                return Next::Run;
            }
        }
        let place = program.line_at(pc).filter(|(_, line)| *line != 0);
        let Some(place) = place else {
            return self.arrive(live, program);
        };
        let another = self.line.as_ref() != Some(&place);
        let depth = frames.iter().take_while(|f| f.cfa == frame.cfa).count();
        let inlined = !self.enters() && !left && depth > self.depth;
        if another && program.begins_line(pc) && !inlined {
            return self.arrive(live, program);
        }
        if left {
            self.depth = depth;
        }
        self.look_at_line(live, program, pc);
        self.set_out(live)
    }

    /// One of the steps is done.
    fn arrive(&mut self, live: &Live<'_>, program: &Program) -> Next {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Next::Arrived;
        }
        let goes = self.begin(live, program);
        if !goes || self.goal == Goal::Finish && !self.leave(live, program) {
            return Next::Arrived;
        }
        self.set_out(live)
    }
}

/// A thread's stack pointer.
pub fn sp(live: &Live<'_>, tid: i32) -> u64 {
    live.seen.words(tid).map_or(0, |words| words[RSP])
}
