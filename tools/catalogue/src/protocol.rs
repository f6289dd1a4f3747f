//! What is said between a daemon and its `sls-catalogue`: one question on standard input, up to its end,
//! and one answer on standard output, both in postcard.

use serde::{Deserialize, Serialize};

use crate::Change;

#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    Load,
    Save(Vec<Change>),
    Clear,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Loaded(Vec<Change>),
    Done,
    InUse,
    Failed(String),
}

/// A longer answer is none of ours.
pub const LONGEST: u64 = 256 << 20;
