//! What pointers reach, on either side of a comparison.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::parts::Trail;
use crate::stacks::dead_stack;
use crate::type_keys::TypeKeys;
use crate::types::{Ty, Type};
use crate::view::View;

/// Objects that pointers reach, at most.
const OBJECT_LIMIT: usize = 1 << 20;

/// Where an object stands that a pointer reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// In both, at one address.
    Both(u64),
    /// In both, at two.
    Moved(u64, u64),
    Old(u64),
    New(u64),
}

pub struct Target {
    pub ty: Ty,
    pub at: Reached,
    pub trail: Trail,
}

/// What is known of an object, by address and type.
pub struct Visit {
    pub ty: Ty,
    pub address: u64,
    pub trail: Trail,
    pub old: bool,
    pub new: bool,
    compared: bool,
}

/// What is to be done with a target.
pub enum Turn {
    Compare(u64, u64),
    Old(u64),
    New(u64),
    Known,
}

#[derive(Default)]
pub struct Heap {
    queue: VecDeque<Target>,
    visits: Vec<Visit>,
    known: HashMap<(u64, u32), usize>,
    moved: HashMap<(u64, u64, u32), ()>,
    types: TypeKeys,
    covered: [Ranges; 2],
    dead: [Vec<(u64, u64)>; 2],
    pub cut: bool,
}

impl Heap {
    pub fn new(old: &dyn View, new: &dyn View) -> Self {
        Self {
            dead: [dead_stack(old), dead_stack(new)],
            ..Self::default()
        }
    }

    pub fn push(&mut self, target: Target) {
        let lives = |side: usize, address: u64| {
            let dead = &self.dead[side];
            address != 0 && !dead.iter().any(|(a, b)| (*a..*b).contains(&address))
        };
        let wanted = match target.at {
            Reached::Both(address) => lives(0, address) && lives(1, address),
            Reached::Moved(a, b) => lives(0, a) && lives(1, b),
            Reached::Old(address) => lives(0, address),
            Reached::New(address) => lives(1, address),
        };
        if !wanted {
            return;
        }
        if self.visits.len() + self.queue.len() >= OBJECT_LIMIT {
            self.cut = true;
            return;
        }
        self.queue.push_back(target);
    }

    pub fn pop(&mut self) -> Option<Target> {
        self.queue.pop_front()
    }

    /// Notes that a target was reached.
    pub fn turn(&mut self, target: &Target, key: &Arc<Type>) -> Turn {
        let key = self.types.of(key);
        let (address, old, new) = match target.at {
            Reached::Moved(a, b) => {
                let fresh = self.moved.insert((a, b, key), ()).is_none();
                return if fresh {
                    Turn::Compare(a, b)
                } else {
                    Turn::Known
                };
            }
            Reached::Both(address) => (address, true, true),
            Reached::Old(address) => (address, true, false),
            Reached::New(address) => (address, false, true),
        };
        let at = *self.known.entry((address, key)).or_insert_with(|| {
            self.visits.push(Visit {
                ty: target.ty.clone(),
                address,
                trail: target.trail.clone(),
                old: false,
                new: false,
                compared: false,
            });
            self.visits.len() - 1
        });
        let visit = &mut self.visits[at];
        let news = (old && !visit.old, new && !visit.new);
        visit.old |= old;
        visit.new |= new;
        if visit.old && visit.new {
            let first = !std::mem::replace(&mut visit.compared, true);
            return if first {
                Turn::Compare(address, address)
            } else {
                Turn::Known
            };
        }
        match news {
            (true, _) => Turn::Old(address),
            (_, true) => Turn::New(address),
            _ => Turn::Known,
        }
    }

    /// Notes that something on this side (0: old) lies there as a part of something else.
    pub fn cover(&mut self, side: usize, address: u64, len: u64) {
        self.covered[side].add(address, len);
    }

    /// Objects that only one side reaches, and that are no part of anything on the other.
    pub fn lone(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(|visit| {
            visit.old != visit.new && !self.covered[usize::from(visit.old)].contains(visit.address)
        })
    }
}

/// Ranges of addresses that may overlap.
#[derive(Default)]
struct Ranges {
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    fn add(&mut self, address: u64, len: u64) {
        let end = address.saturating_add(len);
        if let Some((_, known)) = self.ends.range(..=address).next_back()
            && *known >= end
        {
            return;
        }
        let known = self.ends.entry(address).or_insert(end);
        *known = (*known).max(end);
    }

    /// Of ranges that overlap only the last to begin is asked: parts of one whole lie within it.
    fn contains(&self, address: u64) -> bool {
        self.ends
            .range(..=address)
            .rev()
            .take(4)
            .any(|(_, end)| address < *end)
    }
}
