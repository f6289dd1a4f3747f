//! How people name checkpoints and partitions.

use std::str::FromStr;

use crate::protocol::{DISK_PARTITION, History, MEMORY_PARTITION};

/// `@7`, `@name`, `@-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochRef {
    /// By number.
    Number(u64),
    /// So many before the end of the current branch: 1 is the newest.
    FromEnd(u64),
    /// By name.
    Name(String),
}

/// Why a reference means no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of the form.
    #[error("{0:?} is no checkpoint: write @7, @name or @-1 (the newest)")]
    Malformed(String),
    /// No such.
    #[error("partition {part} has no checkpoint {reference}; {hint}")]
    NotFound {
        /// Partition.
        part: String,
        /// As given.
        reference: String,
        /// What there is.
        hint: String,
    },
}

impl FromStr for EpochRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Malformed(text.to_owned());
        let rest = text
            .strip_prefix('@')
            .filter(|r| !r.is_empty())
            .ok_or_else(bad)?;
        if let Some(back) = rest.strip_prefix('-') {
            let back: u64 = back.parse().map_err(|_| bad())?;
            return if back == 0 {
                Err(bad())
            } else {
                Ok(Self::FromEnd(back))
            };
        }
        if rest.bytes().all(|b| b.is_ascii_digit()) {
            return rest.parse().map(Self::Number).map_err(|_| bad());
        }
        Ok(Self::Name(rest.to_owned()))
    }
}

impl std::fmt::Display for EpochRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "@{n}"),
            Self::FromEnd(n) => write!(f, "@-{n}"),
            Self::Name(name) => write!(f, "@{name}"),
        }
    }
}

impl EpochRef {
    /// The checkpoint it means in a history.
    ///
    /// # Errors
    /// There is no such checkpoint; the message says which there are.
    pub fn resolve(&self, history: &History) -> Result<u64, ReferenceError> {
        let found = match self {
            Self::Number(n) => history.checkpoints.iter().find(|c| c.epoch == *n),
            Self::Name(name) => history
                .checkpoints
                .iter()
                .rev()
                .find(|c| c.name.as_deref() == Some(name)),
            Self::FromEnd(back) => {
                let line = history.line_to_head();
                let index = usize::try_from(*back - 1).unwrap_or(usize::MAX);
                line.get(index).copied()
            }
        };
        found
            .map(|c| c.epoch)
            .ok_or_else(|| ReferenceError::NotFound {
                part: history.partition.clone(),
                reference: self.to_string(),
                hint: history.hint(),
            })
    }
}

impl History {
    /// Checkpoints from the head back to the root, newest first.
    #[must_use]
    pub fn line_to_head(&self) -> Vec<&crate::protocol::HistoryRow> {
        self.line_to(self.head)
    }

    /// Checkpoints from `epoch` back to the root, newest first.
    fn line_to(&self, epoch: u64) -> Vec<&crate::protocol::HistoryRow> {
        let row = |epoch: u64| {
            let at = self
                .checkpoints
                .binary_search_by_key(&epoch, |c| c.epoch)
                .ok()?;
            self.checkpoints.get(at)
        };
        // slsd names the nearest kept ancestor as parent, so the line has no gaps; parents are
        // older than their children, so it ends.
        std::iter::successors(row(epoch), |c| {
            row(c.parent.filter(|&parent| parent < c.epoch)?)
        })
        .collect()
    }

    /// The way through the tree from one checkpoint to another, both included: back to where their branches part, then
    /// on. None when they have no ancestor in common.
    #[must_use]
    pub fn path(&self, from: u64, to: u64) -> Option<Vec<&crate::protocol::HistoryRow>> {
        let up = self.line_to(from);
        let mut down = self.line_to(to);
        let meets = down
            .iter()
            .position(|row| up.iter().any(|other| other.epoch == row.epoch))?;
        let fork = down[meets].epoch;
        down.truncate(meets);
        let back = up.into_iter().take_while(|row| row.epoch != fork);
        let fork = self.line_to(fork).into_iter().take(1);
        Some(back.chain(fork).chain(down.into_iter().rev()).collect())
    }

    fn hint(&self) -> String {
        match (self.checkpoints.first(), self.checkpoints.last()) {
            (Some(a), Some(b)) => {
                format!(
                    "it has {} from @{} to @{}",
                    self.checkpoints.len(),
                    a.epoch,
                    b.epoch
                )
            }
            _ => "it has none yet: take one with `slsctl checkpoint`".to_owned(),
        }
    }
}

/// A partition's name: Aurora's numbers mean the default ones.
#[must_use]
pub fn partition_name(given: &str) -> String {
    for (number, name) in [DISK_PARTITION, MEMORY_PARTITION] {
        if given == number {
            return name.to_owned();
        }
    }
    given.to_owned()
}

const TEMPORARY_PREFIX: &str = "live-";

/// The name of a partition for one look of this process at a live one. slsd removes it with the
/// connection that attached to it, and who leaves the partition out never means it.
#[must_use]
pub fn temporary_name(pid: i32) -> String {
    format!("{TEMPORARY_PREFIX}{pid}-{}", std::process::id())
}

/// Was it made by [`temporary_name`]?
#[must_use]
pub fn is_temporary(part: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    part.strip_prefix(TEMPORARY_PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(pid, looker)| digits(pid) && digits(looker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_partitions_are_told_from_what_users_name() {
        assert!(is_temporary(&temporary_name(12)));
        for name in [
            "live-x", "live-12", "live-12-", "live--3", "live-a-3", "web",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
    }

    #[test]
    fn forms() {
        assert_eq!("@7".parse(), Ok(EpochRef::Number(7)));
        assert_eq!("@-1".parse(), Ok(EpochRef::FromEnd(1)));
        assert_eq!("@before".parse(), Ok(EpochRef::Name("before".into())));
        for bad in ["7", "@", "@-0", "@-x", ""] {
            assert!(bad.parse::<EpochRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ways_lead_over_the_fork() {
        let row = |epoch: u64, parent: Option<u64>| crate::protocol::HistoryRow {
            epoch,
            parent,
            ..crate::protocol::HistoryRow::default()
        };
        // 1 - 2 - 3 - 4, and 5 - 6 from 2; 7 stands alone.
        let parents = [None, Some(1), Some(2), Some(3), Some(2), Some(5), None];
        let history = History {
            partition: "mem".into(),
            head: 6,
            branch: "b".into(),
            checkpoints: (1..).zip(parents).map(|(e, p)| row(e, p)).collect(),
        };
        let way = |from, to| {
            let path = history.path(from, to)?;
            Some(path.iter().map(|row| row.epoch).collect::<Vec<_>>())
        };
        assert_eq!(way(1, 4), Some(vec![1, 2, 3, 4]));
        assert_eq!(way(4, 6), Some(vec![4, 3, 2, 5, 6]));
        assert_eq!(way(6, 1), Some(vec![6, 5, 2, 1]));
        assert_eq!(way(3, 3), Some(vec![3]));
        assert_eq!((way(7, 3), way(8, 1)), (None, None));
    }
}
