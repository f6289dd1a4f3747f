//! A rewind as a list of steps that need nothing but the plan itself.
//!
//! Every step states a condition to reach rather than a change to make, so a plan may be started
//! again from its beginning, and the plan back undoes a plan forward that stopped anywhere.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where in the scratch area a plan may lay bytes of its own.
pub const SPARE_AT: u64 = 4096;

/// The process of the plan itself, where one of several is named.
pub const OWN: i32 = 0;

/// An argument of an injected call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arg {
    /// A number.
    Value(u64),
    /// The address at which these bytes are laid for the time of the call.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The result that was saved under this number.
    Saved(u8),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

/// What counts as success of an injected call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// No error.
    Success,
    /// Exactly this.
    Exactly(u64),
    /// No error; keep the result.
    Save(u8),
    /// No error; keep the two ints that the call wrote to its first bytes argument under this
    /// number and the next.
    SavePair(u8),
    /// No error, or one of these.
    Or(Vec<i32>),
    /// Whatever comes; an error is reported under this name.
    Report(String),
}

/// How to make a thread again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeThread {
    /// Its id as it was.
    pub tid: i32,
    /// set_tid_address.
    pub clear_tid: u64,
    /// Robust futex list: head, length.
    pub robust: (u64, u64),
    /// rseq area: address, size, signature.
    pub rseq: Option<(u64, u32, u32)>,
}

/// Where a thread goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalState {
    /// Thread.
    pub tid: i32,
    /// user_regs_struct in its own order.
    pub regs: [u64; 27],
    /// NT_X86_XSTATE.
    #[serde(with = "serde_bytes")]
    pub xstate: Vec<u8>,
    /// Blocked signals.
    pub sigmask: u64,
    /// The call it goes on with and the ns left of its timeout.
    pub blocked: Option<(u64, Option<u64>)>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A call in the leading thread.
    Call {
        /// For messages: what it is for.
        what: String,
        /// Number.
        nr: u64,
        /// Arguments.
        args: Vec<Arg>,
        /// Success.
        want: Want,
    },
    /// A call in a given thread.
    CallIn {
        /// Thread.
        tid: i32,
        /// For messages.
        what: String,
        /// Number.
        nr: u64,
        /// Arguments.
        args: Vec<Arg>,
        /// Success.
        want: Want,
    },
    /// Bytes of the journal's data into the target's memory.
    Write {
        /// First address.
        address: u64,
        /// Offset in the data.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Between two sockets, of this process or others that stand still, wait these bytes and no others.
    /// The keeper does it by descriptors of its own.
    Refill {
        /// For messages.
        what: String,
        /// Process, or [`OWN`], and descriptor that they come to.
        reader: (i32, i32),
        /// Process and descriptor of the other end.
        writer: (i32, i32),
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// How long each message of them is; none in a stream.
        messages: Vec<u32>,
    },
    /// Bytes of the journal's data into a file that the process has open.
    Fill {
        /// Descriptor.
        fd: i32,
        /// Bytes it is long.
        size: u64,
        /// First byte written.
        at: u64,
        /// Offset in the data.
        offset: u64,
        /// Bytes, of which those beyond its end are left out.
        len: u64,
    },
    /// The thread is gone.
    End {
        /// Thread.
        tid: i32,
    },
    /// The thread is there.
    Make(MakeThread),
    /// Another process, which was made since, is gone without a trace: nobody hears of its end. Once
    /// all of a group have come as far as that; there is no way back from it.
    Unmake {
        /// For messages.
        what: String,
        /// Process.
        pid: i32,
        /// Its number as its parent knows it.
        known_as: i32,
        /// Which of that number, since it may be used again.
        which: Which,
        /// What its parent gets at its end, where that is not to have it: 0 for nothing.
        signal: i32,
    },
    /// Whoever asked for the plan does its part now: writes the pages of a process that is made
    /// anew, or sees that all of a group have come as far.
    Await {
        /// For messages.
        what: String,
    },
    /// From here on things are changed: noted in the journal.
    Begin,
    /// Registers, mask and vector state; set when all else is done.
    Final(Box<FinalState>),
}

/// Which process of a number is meant, by start times in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// The one that was started then.
    Started(u64),
    /// A child of this process, but not the one that was started then (0: there was none).
    ChildBut(u64),
}

/// Steps and the scratch mapping they work in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Thread that makes the calls; it is in both states.
    pub leader: i32,
    /// An address range free in both states, for frames and arguments.
    pub scratch: (u64, u64),
    /// The process is made anew: the scratch area also holds the code by which calls are made.
    pub anew: bool,
    /// Where in it calls are laid that are made one after the other without a stop between them,
    /// [`sls_sys::batch::ROOM`] bytes; None where each is made by itself.
    pub batch: Option<u64>,
    /// In order.
    pub steps: Vec<Step>,
}

/// Forward and back, with the data both refer to behind them in the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Process.
    pub pid: i32,
    /// Start time in ticks: a reused pid is not ours.
    pub start_ticks: u64,
    /// To the wanted state.
    pub forward: Plan,
    /// To the state before. None where there is none: a process made anew, which ends when a step
    /// fails.
    pub back: Option<Plan>,
    /// Where one of a group is put back.
    pub agreement: Option<Agreement>,
}

/// Which way all of a group go, as a file tells that outlives slsd. Whoever is on that way has nothing
/// left to do then but to let the threads go on; and some may run already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The file; it is not there before.
    pub path: PathBuf,
    /// What it says when it is about this rewind.
    pub token: u64,
    /// The processes.
    pub all: Vec<i32>,
}

/// The two ways of a rewind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the wanted state.
    Forward,
    /// To the state before.
    Back,
}

impl Agreement {
    /// All have come to where nothing is left to be done on this way: there is no other from here on.
    ///
    /// # Errors
    /// The file cannot be written, and nothing is agreed.
    pub fn reach(&self, way: Way) -> std::io::Result<()> {
        let next = self.path.with_extension("next");
        std::fs::write(&next, self.text(way))?;
        std::fs::rename(&next, &self.path)
    }

    /// What was agreed, if anything was.
    #[must_use]
    pub fn reached(&self) -> Option<Way> {
        let said = std::fs::read_to_string(&self.path).ok()?;
        let ways = [Way::Forward, Way::Back];
        ways.into_iter().find(|&way| said == self.text(way))
    }

    fn text(&self, way: Way) -> String {
        format!("{} {way:?}", self.token)
    }

    /// Nobody needs it any more.
    pub fn forget(&self) {
        // Not there is as wanted; another rewind's is told from it by the token.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How a plan ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Forward, with what single steps reported.
    Done {
        /// Names of what could not be put back, with the cause.
        reports: Vec<String>,
    },
    /// A step failed and the state before was put back; one that was made anew has ended.
    PutBack {
        /// Step and cause.
        why: String,
    },
    /// A step failed, and so did the way back: every thread is halted.
    Halted {
        /// Step and cause, both ways.
        why: String,
    },
}
