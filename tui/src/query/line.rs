//! The line of checkpoints that a question is asked along.

use introspect::{History as Epochs, ReadSet, Unavailable, View};
use libsls::view::PartitionHistory;

use crate::access::{Access, AccessError};
use crate::turn::Turn;

/// Checkpoints, each the parent of the next.
pub struct Line {
    history: PartitionHistory,
}

impl Line {
    /// Those that lead to the later end, from the earlier one on.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn open(
        access: &mut Access,
        pid: Option<i32>,
        ends: (u64, u64),
    ) -> Result<Self, AccessError> {
        let history = access.history()?;
        let client = access.client()?;
        Ok(Self {
            history: PartitionHistory::new(&client, &history, pid, ends),
        })
    }

    /// The way from one checkpoint to another, across branches too; None where nothing leads there.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn between(
        access: &mut Access,
        pid: Option<i32>,
        ends: (u64, u64),
    ) -> Result<Option<Self>, AccessError> {
        let history = access.history()?;
        let client = access.client()?;
        let history = PartitionHistory::between(&client, &history, pid, ends);
        Ok(history.map(|history| Self { history }))
    }

    /// In the order of the way.
    pub fn epochs(&self) -> Vec<u64> {
        self.history.epochs().into_iter().map(|row| row.0).collect()
    }

    /// The same with their times.
    pub fn dated(&self) -> Vec<(u64, u64)> {
        self.history.epochs()
    }

    /// As a history whose walk can be given up and tells how far it is.
    pub fn counted<'a>(&'a self, turn: &'a Turn) -> Counted<'a> {
        Counted {
            history: &self.history,
            turn,
        }
    }
}

pub struct Counted<'a> {
    history: &'a PartitionHistory,
    turn: &'a Turn,
}

impl Counted<'_> {
    fn check(&self) -> Result<(), Unavailable> {
        self.turn
            .check()
            .map_err(|over| Unavailable::because(over.to_string()))
    }
}

impl Epochs for Counted<'_> {
    fn epochs(&self) -> Vec<(u64, u64)> {
        self.history.epochs()
    }

    fn view(&self, epoch: u64) -> Result<Box<dyn View>, Unavailable> {
        self.check()?;
        self.history.view(epoch)
    }

    fn unchanged(&self, from: u64, to: u64, pages: &ReadSet) -> Result<bool, Unavailable> {
        if self.turn.step().is_break() {
            self.check()?;
        }
        self.history.unchanged(from, to, pages)
    }
}
