//! What several processes have together: one of them puts it back for all.

use std::collections::{BTreeMap, BTreeSet};

use sls_record::{FileKind, Process};

use super::pipes::{is_writer, writes_packets};
use crate::shared::Taken;

/// Which ends of a pipe somebody has.
#[derive(Debug, Default, Clone, Copy)]
struct Ends {
    read: bool,
    write: bool,
    packets: bool,
}

type Pipes = BTreeMap<String, Ends>;

/// What the plans of a group have seen to so far.
#[derive(Debug, Default)]
pub struct Common {
    before: Pipes,
    after: Pipes,
    done: BTreeSet<String>,
    /// Parts of shared objects.
    pub objects: Taken,
}

impl Common {
    /// Of those that are brought from one state to another.
    pub fn of<'a>(ways: impl IntoIterator<Item = (&'a Process, &'a Process)>) -> Self {
        let mut common = Self::default();
        for (from, to) in ways {
            note(&mut common.before, from);
            note(&mut common.after, to);
        }
        common
    }

    /// Has somebody here each end of the pipe, before and after?
    pub fn has_both_ends(&self, target: &str) -> bool {
        let both = |pipes: &Pipes| {
            pipes
                .get(target)
                .is_some_and(|ends| ends.read && ends.write)
        };
        both(&self.before) && both(&self.after)
    }

    /// Does somebody write packets to the pipe, in the state to come?
    pub fn writes_packets(&self, target: &str) -> bool {
        self.after.get(target).is_some_and(|ends| ends.packets)
    }

    /// True for the first who asks: it sees to the pipe.
    pub fn sees_to(&mut self, target: &str) -> bool {
        self.done.insert(target.to_owned())
    }
}

fn note(pipes: &mut Pipes, process: &Process) {
    for file in &process.files {
        if let FileKind::Pipe { .. } = file.kind {
            let ends = pipes.entry(file.target.clone()).or_default();
            ends.read |= !is_writer(file);
            ends.write |= is_writer(file);
            ends.packets |= writes_packets(file);
        }
    }
}
