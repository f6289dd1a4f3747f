//! Forward control of live processes: what is asked, and where they stopped.
//!
//! All processes of a partition stop and go on together. A checkpoint is taken at each stop.

use serde::{Deserialize, Serialize};

use crate::client::{Client, ClientError};
use crate::protocol::{Answer, Request};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Fields are named as the options of slsctl.
pub enum Act {
    /// Stop here. Answered by Stop.
    Pause,
    /// Go on. Answered by Stop: of the next stop, or that it runs.
    Continue { wait: Wait },
    /// Go on for so many lines or instructions. Answered as Continue.
    Step {
        /// What counts.
        by: By,
        /// Calls are no stops on the way.
        over: bool,
        count: u32,
        /// None: the thread that stopped last.
        tid: Option<i32>,
        wait: Wait,
    },
    /// Go on until a frame is left, and so many more around it. Answered as Continue.
    Finish {
        count: u32,
        tid: Option<i32>,
        wait: Wait,
    },
    /// Set a breakpoint or a watchpoint. Answered by Breakpoints: of this one.
    Break {
        what: What,
        condition: Option<String>,
        tid: Option<i32>,
        temporary: bool,
    },
    /// Answered by Breakpoints.
    List,
    /// Answered by Done.
    Delete { number: u32 },
    /// Answered by Done.
    Enable { number: u32, on: bool },
}

/// How long the answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Not at all: that it runs is answered at once.
    No,
    /// Until it stops.
    Stop,
    /// So many ms; it runs on after that, and that is the answer.
    Ms(u64),
}

/// What a step counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// Source lines.
    Line,
    /// Machine instructions.
    Instruction,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A place: `function`, `function+8`, `file.c:12`, `*0x401000`.
    Place(String),
    /// A change of what an expression stands for, or with `reads` any access.
    Value {
        /// The expression, of the thread that stopped last.
        expr: String,
        /// Reads count too.
        reads: bool,
    },
}

/// Is it running?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum State {
    Stopped,
    #[default]
    Running,
    /// It has ended by itself.
    Exited,
    /// A signal has ended it.
    Killed,
}

impl State {
    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Killed => "killed",
        }
    }
}

/// Why it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Reason {
    Pause,
    Breakpoint,
    Watchpoint,
    Step,
    Finish,
    Signal,
    Exit,
}

impl Reason {
    /// As in JSON, and as the checkpoint of such a stop is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Breakpoint => "breakpoint",
            Self::Watchpoint => "watchpoint",
            Self::Step => "step",
            Self::Finish => "finish",
            Self::Signal => "signal",
            Self::Exit => "exit",
        }
    }
}

/// Where it stopped, or that it did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Stop {
    pub partition: String,
    pub state: State,
    pub reason: Option<Reason>,
    /// The checkpoint that was taken.
    pub epoch: Option<u64>,
    pub pid: i32,
    pub tid: i32,
    /// Of the breakpoint or watchpoint.
    pub number: Option<u32>,
    pub pc: u64,
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Of a watchpoint, before and after.
    pub old: Option<String>,
    pub new: Option<String>,
    /// What a function that was finished gave back.
    pub value: Option<String>,
    /// Exit status, or the number of the signal.
    pub status: Option<i32>,
    /// What is to be known besides.
    pub note: Option<String>,
}

/// A breakpoint or a watchpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Breakpoint {
    pub number: u32,
    /// As it was given.
    pub expr: String,
    /// It watches a value.
    pub watches: bool,
    pub locations: Vec<Location>,
    pub condition: Option<String>,
    pub tid: Option<i32>,
    pub temporary: bool,
    pub hits: u64,
    pub enabled: bool,
    /// Why it has no effect at present.
    pub trouble: Option<String>,
}

/// A place in the text, or of what is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Location {
    pub pid: i32,
    pub address: u64,
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

impl Client {
    /// Has live processes do something that is answered by where they stop: [`Act::Pause`],
    /// [`Act::Continue`], [`Act::Step`], [`Act::Finish`].
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn run(
        &mut self,
        part: Option<&str>,
        pid: Option<i32>,
        act: Act,
    ) -> Result<Stop, ClientError> {
        match self.control(part, pid, act)? {
            Answer::Stop(stop) => Ok(stop),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// Sets or lists breakpoints: [`Act::Break`], [`Act::List`].
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn breakpoints(
        &mut self,
        part: Option<&str>,
        pid: Option<i32>,
        act: Act,
    ) -> Result<Vec<Breakpoint>, ClientError> {
        match self.control(part, pid, act)? {
            Answer::Breakpoints(all) => Ok(all),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// Changes a breakpoint: [`Act::Delete`], [`Act::Enable`].
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn change_breakpoint(&mut self, part: Option<&str>, act: Act) -> Result<(), ClientError> {
        match self.control(part, None, act)? {
            Answer::Done => Ok(()),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }

    fn control(
        &mut self,
        part: Option<&str>,
        pid: Option<i32>,
        act: Act,
    ) -> Result<Answer, ClientError> {
        self.ask(&Request::Control {
            part: part.map(str::to_owned),
            pid,
            act,
        })
    }
}
