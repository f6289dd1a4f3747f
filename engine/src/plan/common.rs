//! What several processes have together: one of them puts it back for all.

use std::collections::{BTreeMap, BTreeSet};

use sls_record::{FileKind, Process};

use super::pipes::{is_writer, writes_packets};
use super::talks::{self, Ends};
use crate::shared::Taken;

/// Which ends of a pipe somebody has.
#[derive(Debug, Default, Clone, Copy)]
struct PipeEnds {
    read: bool,
    write: bool,
    packets: bool,
}

type Pipes = BTreeMap<String, PipeEnds>;

/// What the plans of a group have seen to so far.
#[derive(Debug, Default)]
pub struct Common<'a> {
    before: Pipes,
    after: Pipes,
    /// Sockets that stay open.
    ends: Ends<'a>,
    pub is_root: bool,
    done: BTreeSet<String>,
    /// Parts of shared objects.
    pub objects: Taken,
}

impl<'a> Common<'a> {
    /// Of those that are brought from one state to another. `is_root`: buffers may be made as large as
    /// it takes.
    pub fn of(is_root: bool, ways: impl IntoIterator<Item = (&'a Process, &'a Process)>) -> Self {
        let mut common = Self {
            is_root,
            ..Self::default()
        };
        for (from, to) in ways {
            note(&mut common.before, from);
            note(&mut common.after, to);
            talks::note(&mut common.ends, from, to);
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

    /// Sockets that stay open.
    pub fn ends(&self) -> &Ends<'a> {
        &self.ends
    }

    /// True for the first who asks: it sees to the pipe or socket.
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
