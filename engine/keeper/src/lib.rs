//! What slsd and its keeper say to each other.
//!
//! The keeper is the one process that is ever a tracer. It stops, reads and sets registers,
//! injects, resumes, and carries a rewind through once it has the whole plan, whether slsd lives
//! or not. slsd copies pages by itself: that needs no tracer.

pub mod journal;
mod plan;
mod protocol;
pub mod rendezvous;

pub use plan::{
    Agreement, Arg, FinalState, Journal, MakeThread, OWN, Outcome, Plan, SPARE_AT, Step, Want, Way,
    Which,
};
pub use protocol::{
    AltStack, Ask, BlockedCall, Collected, Conduct, End, EventKind, Facts, OwnFacts, RawTimer,
    Refusal, Say, SigActionWords, Stepped, ThreadState, Trap, Watch, Within, Words,
};
pub use sls_sys::channel::Channel;

/// Bytes of the board: thread states of about 5,000 threads with AMX.
pub const BOARD_BYTES: usize = 64 << 20;
