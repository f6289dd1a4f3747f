//! What several processes have together: one of them puts it back for all.

use std::collections::{BTreeMap, BTreeSet};

use sls_record::{File, FileKind, Process};

use super::pipes::{is_unnamed_pipe, is_writer, writes_packets};
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
    /// Those that are made anew with them.
    anew: &'a [Process],
    /// Those that stand by, as they are.
    untouched: &'a [Process],
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

    /// With those that are made anew, and come to have what they had with them.
    #[must_use]
    pub fn with_anew(mut self, anew: &'a [Process]) -> Self {
        self.anew = anew;
        self
    }

    /// Beside those that stand by, and keep what they have.
    #[must_use]
    pub fn beside(mut self, untouched: &'a [Process]) -> Self {
        self.untouched = untouched;
        self
    }

    /// Those that stand by.
    pub fn untouched(&self) -> &'a [Process] {
        self.untouched
    }

    /// An end of a pipe that somebody has who is made anew.
    pub fn anew_end(&self, target: &str, writer: bool) -> Option<&'a File> {
        let mut files = self.anew.iter().flat_map(|p| &p.files);
        files.find(|f| is_unnamed_pipe(f) && f.target == target && is_writer(f) == writer)
    }

    /// Has somebody here each end of the pipe, before and after?
    pub fn has_both_ends(&self, target: &str) -> bool {
        let anew = |writer| self.anew_end(target, writer).is_some();
        let both = |pipes: &Pipes| {
            let ends = pipes.get(target);
            ends.is_some_and(|ends| (ends.read || anew(false)) && (ends.write || anew(true)))
        };
        both(&self.before) && both(&self.after)
    }

    /// Of a pipe that nobody has any more: the other end, if somebody is to have it who is made anew.
    pub fn other_half(&self, file: &File) -> Option<&'a File> {
        let target = &file.target;
        let other = self.anew_end(target, !is_writer(file));
        other.filter(|_| is_unnamed_pipe(file) && !self.before.contains_key(target))
    }

    /// Does somebody write packets to the pipe, in the state to come?
    pub fn writes_packets(&self, target: &str) -> bool {
        let packets = |pipes: &Pipes| pipes.get(target).is_some_and(|ends| ends.packets);
        packets(&self.after) || self.anew_end(target, true).is_some_and(writes_packets)
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
