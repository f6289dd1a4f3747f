//! Breakpoints and watchpoints as people know them: numbered, with conditions and counts.

use std::collections::{BTreeMap, BTreeSet};

use introspect::{Context, FrameSelector, Limits, Program, View};
use libsls::control::{Breakpoint, Location};
use libsls::protocol::Failure;
use sls_engine::control::Watch;

use super::live::Live;
use crate::registry::Refusal;

/// Debug registers of a thread.
const SLOTS: u64 = 4;
const MOST_POINTS: usize = 256;

/// One of them.
#[derive(Debug)]
pub struct Point {
    pub shown: Breakpoint,
    pub watched: Option<Watched>,
}

/// What a watchpoint watches.
#[derive(Debug)]
pub struct Watched {
    pub pid: i32,
    pub address: u64,
    pub len: u64,
    pub reads: bool,
    /// As it was when it was last looked at.
    pub bytes: Vec<u8>,
    pub text: String,
    /// The thread and frame whose variable it is: the stack pointer that the frame's end leaves.
    pub frame: Option<(i32, u64)>,
    pub slots: Vec<Watch>,
}

/// All of a partition's.
#[derive(Debug, Default)]
pub struct Points {
    all: BTreeMap<u32, Point>,
    last: u32,
}

impl Points {
    pub fn list(&self) -> Vec<Breakpoint> {
        self.all.values().map(|point| point.shown.clone()).collect()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Point> {
        self.all.values_mut()
    }

    pub fn get(&mut self, number: u32) -> Result<&mut Point, Refusal> {
        let known: Vec<String> = self.all.keys().map(u32::to_string).collect();
        self.all.get_mut(&number).ok_or_else(|| {
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            Refusal::new(
                Failure::NotFound,
                format!("there is no breakpoint {number}; there are: {known}"),
            )
        })
    }

    pub fn add(
        &mut self,
        mut shown: Breakpoint,
        watched: Option<Watched>,
    ) -> Result<Breakpoint, Refusal> {
        if self.all.len() >= MOST_POINTS {
            return Err(Refusal::other(format!(
                "there are {MOST_POINTS} breakpoints already; remove one with `slsctl break --delete N`"
            )));
        }
        self.last += 1;
        shown.number = self.last;
        shown.enabled = true;
        let point = Point {
            shown: shown.clone(),
            watched,
        };
        self.all.insert(self.last, point);
        Ok(shown)
    }

    pub fn remove(&mut self, number: u32) -> Result<(), Refusal> {
        self.get(number)?;
        self.all.remove(&number);
        Ok(())
    }

    /// Is there one that can be met?
    pub fn any_enabled(&self) -> bool {
        self.all.values().any(|point| point.shown.enabled)
    }

    /// Where breakpoints are to be in a process.
    pub fn traps(&self, pid: i32) -> BTreeSet<u64> {
        let enabled = self
            .all
            .values()
            .filter(|p| p.shown.enabled && p.watched.is_none());
        let places = enabled.flat_map(|point| &point.shown.locations);
        places
            .filter(|at| at.pid == pid)
            .map(|at| at.address)
            .collect()
    }

    /// What its debug registers are to hold.
    pub fn watches(&self, pid: i32) -> Vec<Watch> {
        let enabled = self.all.values().filter(|point| point.shown.enabled);
        let watched = enabled.filter_map(|point| point.watched.as_ref());
        watched
            .filter(|watched| watched.pid == pid)
            .flat_map(|watched| watched.slots.iter().copied())
            .collect()
    }

    /// Debug registers for a watchpoint: free ones, from the last on, since attach --hold uses the first.
    pub fn slots_for(
        &self,
        pid: i32,
        (address, len): (u64, u64),
        reads: bool,
        held: bool,
    ) -> Result<Vec<Watch>, Refusal> {
        let taken: Vec<u8> = self.watches(pid).iter().map(|watch| watch.slot).collect();
        let first = if held { 2 } else { 0 };
        let free: Vec<u8> = (first..4)
            .rev()
            .filter(|slot| !taken.contains(slot))
            .collect();
        let pieces = pieces_of(address, len);
        let pieces = pieces.filter(|pieces| pieces.len() <= free.len());
        let Some(pieces) = pieces else {
            let most = free.len() as u64 * 8;
            return Err(Refusal::other(format!(
                "{len} bytes cannot be watched: a thread has {SLOTS} debug registers of up to 8 aligned bytes, {} of them free here ({most} bytes); watch a member of it, or remove a watchpoint",
                free.len()
            )));
        };
        let slots = pieces.into_iter().zip(free);
        Ok(slots
            .map(|((address, len), slot)| Watch {
                address,
                len,
                reads,
                slot,
            })
            .collect())
    }
}

/// A range in aligned pieces that a debug register can watch; None: more than four.
fn pieces_of(address: u64, len: u64) -> Option<Vec<(u64, u8)>> {
    let end = address.checked_add(len)?;
    let mut at = address;
    let mut pieces = Vec::new();
    while at < end {
        let fits = |size: u64| at.is_multiple_of(size) && at + size <= end;
        let size = [8, 4, 2, 1].into_iter().find(|size| fits(*size))?;
        pieces.push((at, u8::try_from(size).ok()?));
        if pieces.len() as u64 > SLOTS {
            return None;
        }
        at += size;
    }
    Some(pieces)
}

/// Places as they are shown.
pub fn located(program: &Program, pid: i32, addresses: &[u64]) -> Vec<Location> {
    let place = |&address: &u64| {
        let line = program.line_at(address);
        Location {
            pid,
            address,
            function: program.function_at(address).map(|f| f.name),
            line: line.as_ref().map(|line| line.1).filter(|line| *line != 0),
            file: line.map(|line| line.0),
        }
    };
    addresses.iter().map(place).collect()
}

/// The frame of a thread that conditions and watched expressions are of: the innermost.
pub fn context(tid: i32) -> Context {
    Context {
        tid: Some(tid.cast_unsigned()),
        frame: FrameSelector::Index(0),
        limits: Limits::default(),
    }
}

/// Is a condition true for a thread? An error is for people.
pub fn holds(
    program: &Program,
    live: &Live<'_>,
    tid: i32,
    condition: &str,
) -> Result<bool, String> {
    let found = program.evaluate(live, &context(tid), condition);
    let found = found.map_err(|error| error.to_string())?;
    let untold = || format!("`{condition}` is {}: neither true nor false", found.text);
    found.value.truth().ok_or_else(untold)
}

/// What a watchpoint holds now, as bytes and as text.
pub fn value_of(
    program: &Program,
    live: &Live<'_>,
    tid: i32,
    expr: &str,
    (address, len): (u64, u64),
) -> (Vec<u8>, String) {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    if live.read(address, &mut bytes).is_err() {
        return (Vec::new(), "<not mapped>".to_owned());
    }
    let found = program.evaluate(live, &context(tid), expr);
    let text = match found {
        Ok(found) if found.address == Some(address) => found.text,
        // Of another frame, or through a pointer that has moved on.
        _ => plain(&bytes),
    };
    (bytes, text)
}

fn plain(bytes: &[u8]) -> String {
    let mut word = [0; 8];
    if bytes.len() <= 8 {
        word[..bytes.len()].copy_from_slice(bytes);
        let shift = 64 - 8 * bytes.len().max(1);
        let value = i64::from_le_bytes(word) << shift >> shift;
        return value.to_string();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_pieces() {
        assert_eq!(pieces_of(0x1000, 8), Some(vec![(0x1000, 8)]));
        assert_eq!(pieces_of(0x1004, 8), Some(vec![(0x1004, 4), (0x1008, 4)]));
        assert_eq!(pieces_of(0x1001, 2), Some(vec![(0x1001, 1), (0x1002, 1)]));
        assert_eq!(pieces_of(0x1000, 32).map(|p| p.len()), Some(4));
        assert_eq!(pieces_of(0x1000, 33), None);
        assert_eq!(pieces_of(u64::MAX, 2), None);
    }

    #[test]
    fn numbers_without_a_type() {
        assert_eq!(plain(&[0xff]), "-1");
        assert_eq!(plain(&[1, 0, 0, 0]), "1");
        assert_eq!(plain(&[0; 9]), "000000000000000000");
    }
}
