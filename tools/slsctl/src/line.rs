//! The line of checkpoints that a question is asked along.

use std::ops::RangeInclusive;
use std::sync::Arc;

use introspect::{History as Epochs, ReadSet, Unavailable, View};
use libsls::protocol::History;
use libsls::view::PartitionHistory;

use crate::arguments::{ProcessArg, Range, WrongUsage};
use crate::progress::{Progress, Shown};
use crate::session::Session;

/// Checkpoints, each the parent of the next.
pub struct Line {
    partition: String,
    epochs: PartitionHistory,
    range: RangeInclusive<u64>,
}

impl Line {
    /// Those of `range`; None means the whole current branch.
    pub fn open(
        session: &Session,
        which: &ProcessArg,
        range: Option<&Range>,
    ) -> anyhow::Result<Self> {
        let history = session.history(which.part.name().as_deref())?;
        let (from, to) = ends(&history, &range.cloned().unwrap_or_default())?;
        let epochs = PartitionHistory::new(session.client()?, &history, which.pid, (from, to));
        if range.is_some_and(|r| r.from.is_some())
            && epochs.epochs().first().is_none_or(|first| first.0 != from)
        {
            let message = format!("@{from} does not lead to @{to}: they are on different branches");
            return Err(WrongUsage(message).into());
        }
        Ok(Self {
            partition: history.partition,
            epochs,
            range: from..=to,
        })
    }

    pub fn range(&self) -> RangeInclusive<u64> {
        self.range.clone()
    }

    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// Ascending.
    pub fn epochs(&self) -> Vec<u64> {
        self.epochs.epochs().into_iter().map(|row| row.0).collect()
    }

    pub fn len(&self) -> usize {
        self.epochs.epochs().len()
    }

    /// The line, telling how far a walk along it has come.
    pub fn counted(&self, shown: &Shown) -> Counted<'_> {
        Counted {
            epochs: &self.epochs,
            progress: Arc::clone(shown.progress()),
        }
    }
}

/// First and last epoch meant.
fn ends(history: &History, range: &Range) -> anyhow::Result<(u64, u64)> {
    let newest = libsls::EpochRef::FromEnd(1);
    let to = range.to.as_ref().unwrap_or(&newest).resolve(history)?;
    let from = match &range.from {
        Some(from) => from.resolve(history)?,
        None => 0,
    };
    if from > to {
        return Err(WrongUsage(format!("@{from} comes after @{to}: turn the range round")).into());
    }
    Ok((from, to))
}

/// A history that tells how far a walk along it has come.
pub struct Counted<'a> {
    epochs: &'a PartitionHistory,
    progress: Arc<Progress>,
}

impl Epochs for Counted<'_> {
    fn epochs(&self) -> Vec<(u64, u64)> {
        self.epochs.epochs()
    }

    fn view(&self, epoch: u64) -> Result<Box<dyn View>, Unavailable> {
        self.epochs.view(epoch)
    }

    fn unchanged(&self, from: u64, to: u64, pages: &ReadSet) -> Result<bool, Unavailable> {
        self.progress.step();
        self.epochs.unchanged(from, to, pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_turned_round_is_refused() {
        let checkpoint = |epoch: u64| libsls::protocol::HistoryRow {
            epoch,
            parent: epoch.checked_sub(1).filter(|p| *p > 0),
            branch: "main".into(),
            ..libsls::protocol::HistoryRow::default()
        };
        let history = History {
            partition: "mem".into(),
            head: 3,
            branch: "main".into(),
            checkpoints: (1..=3).map(checkpoint).collect(),
        };
        assert_eq!(ends(&history, &Range::default()).unwrap(), (0, 3));
        assert_eq!(ends(&history, &"@2..@-1".parse().unwrap()).unwrap(), (2, 3));
        assert!(ends(&history, &"@3..@2".parse().unwrap()).is_err());
        assert!(ends(&history, &"@2..@9".parse().unwrap()).is_err());
    }
}
