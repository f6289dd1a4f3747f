//! The queries of slsctl, asked from inside: each answers with a table whose rows lead to checkpoints or memory.

mod compare;
mod history;
mod line;
mod memory;
mod words;

pub use compare::heap_at as heap_of;
pub use line::Line;
pub use words::{FORMS, Form};

use introspect::{Context, FrameSelector, Limits};
use libsls::EpochRef;

use crate::access::{Access, AccessError};
use crate::table::Table;
use crate::turn::Turn;

/// Where the user stands when asking: what names mean there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standpoint {
    pub epoch: u64,
    pub base: Option<u64>,
    /// The newest of the branch.
    pub newest: u64,
    pub pid: Option<i32>,
    pub tid: Option<u32>,
    /// The selected frame's function, where one was selected.
    pub function: Option<String>,
}

impl Standpoint {
    /// A frame is named by its function: at other checkpoints it has other addresses.
    pub fn context(&self) -> Context {
        let frame = match &self.function {
            Some(name) => FrameSelector::Function(name.clone()),
            None => FrameSelector::Default,
        };
        Context {
            tid: self.tid,
            frame,
            limits: Limits { elements: 64 },
        }
    }
}

/// A question about a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    Timeline {
        expr: String,
        /// Only where it changed.
        changes: bool,
        range: Option<(EpochRef, EpochRef)>,
    },
    Bisect {
        expr: String,
        good: EpochRef,
        bad: EpochRef,
    },
    Diff {
        old: EpochRef,
        new: EpochRef,
    },
    Scan {
        value: String,
        kind: Option<String>,
        at: EpochRef,
        then: Vec<(EpochRef, String)>,
    },
    Blame {
        expr: String,
    },
    Refs {
        expr: String,
        /// At every checkpoint, not only here.
        along: bool,
    },
    Heap {
        at: EpochRef,
        base: Option<EpochRef>,
    },
}

impl Query {
    /// A word for what is under way.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Timeline { .. } => "timeline",
            Self::Bisect { .. } => "bisect",
            Self::Diff { .. } => "diff",
            Self::Scan { .. } => "scan",
            Self::Blame { .. } => "blame",
            Self::Refs { .. } => "refs",
            Self::Heap { .. } => "heap",
        }
    }
}

/// Answers a query.
///
/// # Errors
/// It has no answer, the daemon is not there, or the turn is over.
pub fn run(
    access: &mut Access,
    turn: &Turn,
    query: &Query,
    from: &Standpoint,
) -> Result<Table, AccessError> {
    let table = match query {
        Query::Timeline {
            expr,
            changes,
            range,
        } => history::along(access, turn, from, expr, *changes, range.as_ref()),
        Query::Bisect { expr, good, bad } => history::turned(access, turn, from, expr, (good, bad)),
        Query::Blame { expr } => history::since(access, turn, from, expr),
        Query::Diff { old, new } => compare::differing(access, turn, (old, new)),
        Query::Heap { at, base } => compare::heap(access, turn, at, base.as_ref()),
        Query::Scan {
            value,
            kind,
            at,
            then,
        } => memory::scan(access, turn, (value, kind.as_deref()), at, then),
        Query::Refs { expr, along } => memory::refs(access, turn, from, expr, *along),
    };
    turn.check()?;
    table
}

/// A failure in words.
fn failed(why: impl std::fmt::Display) -> AccessError {
    AccessError::Query(why.to_string())
}
