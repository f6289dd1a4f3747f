//! Two objects side by side, down to what differs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::decode::{Decoder, Limits, Object, Read};
use crate::frames::Frame;
use crate::parts::{Flatness, Parts, Pointer, Step, Trail};
use crate::program::Program;
use crate::storage::Storage;
use crate::touched::Touched;
use crate::types::{Shape, Ty, Type};
use crate::value::Value;
use crate::view::View;

use super::heap::{Heap, Reached, Target, Turn};
use super::{Change, Difference};

/// Changes of one comparison.
const CHANGE_LIMIT: usize = 10_000;
/// Objects looked at, parts included.
const STEP_LIMIT: usize = 8_000_000;
/// Parts within parts.
const DEPTH_LIMIT: usize = 64;
/// Elements shown of something that was added or removed.
const SHOWN: usize = 1000;

/// The frames that objects belong to, for values that only these know.
#[derive(Clone, Copy, Default)]
pub struct Frames<'f> {
    pub old: Option<&'f Frame>,
    pub new: Option<&'f Frame>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

/// Elements side by side on one side.
struct Elements {
    of: Ty,
    at: Storage,
    stride: u64,
    len: u64,
}

pub struct Walk<'a> {
    program: &'a Program,
    old: &'a dyn View,
    new: &'a dyn View,
    touched: &'a Touched,
    limits: Limits,
    flat: Flatness,
    heap: Heap,
    /// Places already told of, by address, bit and type: pointers reach into what is compared anyway.
    told: HashSet<(u64, u64, *const Type)>,
    found: Difference,
    steps: usize,
}

impl<'a> Walk<'a> {
    pub fn new(
        program: &'a Program,
        old: &'a dyn View,
        new: &'a dyn View,
        touched: &'a Touched,
        elements: usize,
    ) -> Self {
        Self {
            program,
            old,
            new,
            touched,
            limits: Limits { elements },
            flat: Flatness::default(),
            heap: Heap::new(old, new),
            told: HashSet::new(),
            found: Difference::default(),
            steps: 0,
        }
    }

    /// Compares a variable.
    pub fn root(&mut self, trail: &Trail, a: &Object, b: &Object, frames: Frames<'_>) {
        self.cover(Side::Old, a);
        self.cover(Side::New, b);
        self.compare(trail, a, b, frames, 0);
    }

    /// Follows the pointers that were found, and tells what only one side has.
    pub fn finish(mut self) -> Difference {
        while let Some(target) = self.heap.pop() {
            let ty = self.program.strip(&target.ty);
            let at = |address| Object::new(target.ty.clone(), Storage::Memory(address));
            match self.heap.turn(&target, &ty) {
                Turn::Compare(a, b) => {
                    self.compare(&target.trail, &at(a), &at(b), Frames::default(), 0);
                }
                Turn::Old(address) => self.reach(Side::Old, &target.trail, &at(address), None, 0),
                Turn::New(address) => self.reach(Side::New, &target.trail, &at(address), None, 0),
                Turn::Known => {}
            }
        }
        let heap = std::mem::take(&mut self.heap);
        for visit in heap.lone() {
            let object = Object::new(visit.ty.clone(), Storage::Memory(visit.address));
            let side = if visit.old { Side::Old } else { Side::New };
            let value = self.shown(side, &object, None);
            if !matches!(value, Value::Unavailable(_)) {
                self.tell_alone(side, &visit.trail, value);
            }
        }
        self.found.cut |= heap.cut;
        self.found
    }

    fn decoder<'f>(&self, side: Side, frame: Option<&'f Frame>) -> Decoder<'f>
    where
        'a: 'f,
    {
        let view = match side {
            Side::Old => self.old,
            Side::New => self.new,
        };
        Decoder::new(self.program, view, frame, self.limits)
    }

    /// False when enough was looked at.
    fn step(&mut self, depth: usize) -> bool {
        self.steps += 1;
        let goes_on = self.steps < STEP_LIMIT
            && depth < DEPTH_LIMIT
            && self.found.changes.len() < CHANGE_LIMIT;
        self.found.cut |= !goes_on;
        goes_on
    }

    fn compare(&mut self, trail: &Trail, a: &Object, b: &Object, frames: Frames<'_>, depth: usize) {
        // What a compiler has put nowhere at one of the two is no change that the program made.
        let missing = |object: &Object| matches!(object.storage, Storage::Missing(_));
        if missing(a) || missing(b) || !self.step(depth) || self.is_untouched(a, b) {
            return;
        }
        let parts =
            |this: &Self, side, object, frame| Parts::of(&this.decoder(side, frame), object);
        let pair = (
            parts(self, Side::Old, a, frames.old),
            parts(self, Side::New, b, frames.new),
        );
        match pair {
            (Ok(Parts::Leaf | Parts::Text { .. }), Ok(Parts::Leaf | Parts::Text { .. })) => {
                self.leaf(trail, a, b, frames)
            }
            (Ok(Parts::Pointer(p)), Ok(Parts::Pointer(q))) => {
                self.pointers(trail, (a, p), (b, q), frames);
            }
            (
                Ok(Parts::Run {
                    of,
                    at,
                    stride,
                    len,
                }),
                Ok(Parts::Run {
                    of: of_new,
                    at: at_new,
                    stride: stride_new,
                    len: len_new,
                }),
            ) => {
                let old = Elements {
                    of,
                    at,
                    stride,
                    len,
                };
                let new = Elements {
                    of: of_new,
                    at: at_new,
                    stride: stride_new,
                    len: len_new,
                };
                self.runs(trail, &old, &new, frames, depth);
            }
            (Ok(Parts::Inline { parts: x, ordered }), Ok(Parts::Inline { parts: y, .. }))
                if same_case(&x, &y) =>
            {
                if ordered && share_nodes(&x, &y) {
                    let by_address = |part: &(Step, Object)| part.1.storage.address();
                    self.join(trail, x, y, by_address, frames, depth);
                } else {
                    self.join(trail, x, y, |part| part.0.clone(), frames, depth);
                }
            }
            (x, y) => self.unlike(trail, (a, x), (b, y), frames, depth),
        }
    }

    /// Nothing of the object can differ: its bytes are the same, and it holds no address.
    fn is_untouched(&mut self, a: &Object, b: &Object) -> bool {
        let (Some(old), Some(new)) = (a.storage.address(), b.storage.address()) else {
            return false;
        };
        let size = self.program.size_of(&b.ty);
        old == new
            && size.is_some_and(|size| !self.touched.overlaps(new, size))
            && self.is_flat(&b.ty)
    }

    fn is_flat(&mut self, ty: &Ty) -> bool {
        let decoder = Decoder::new(self.program, self.new, None, self.limits);
        self.flat.of(&decoder, ty)
    }

    fn leaf(&mut self, trail: &Trail, a: &Object, b: &Object, frames: Frames<'_>) {
        let old = self.decoder(Side::Old, frames.old).value(a);
        let new = self.decoder(Side::New, frames.new).value(b);
        if !same(&old, &new) && self.is_news(b) {
            self.tell(trail, Some(old), Some(new));
        }
    }

    /// One of the two is put together in another way: another variant, or nothing where something was.
    fn unlike(
        &mut self,
        trail: &Trail,
        (a, x): (&Object, Read<Parts>),
        (b, y): (&Object, Read<Parts>),
        frames: Frames<'_>,
        depth: usize,
    ) {
        let old = self.shown(Side::Old, a, frames.old);
        let new = self.shown(Side::New, b, frames.new);
        if !same(&old, &new) && self.is_news(b) {
            self.tell(trail, Some(old), Some(new));
        }
        if x.is_ok() {
            self.reach(Side::Old, trail, a, frames.old, depth + 1);
        }
        if y.is_ok() {
            self.reach(Side::New, trail, b, frames.new, depth + 1);
        }
    }

    fn pointers(
        &mut self,
        trail: &Trail,
        (a, p): (&Object, Pointer),
        (b, q): (&Object, Pointer),
        frames: Frames<'_>,
    ) {
        let (from, to) = (p.address, q.address);
        if from == to {
            self.follow(trail, q, Reached::Both(to));
        } else if p.raw {
            self.follow(trail, p, Reached::Old(from));
            self.follow(trail, q, Reached::New(to));
            self.leaf(trail, a, b, frames);
        } else {
            self.follow(trail, q, Reached::Moved(from, to));
        }
    }

    fn follow(&mut self, trail: &Trail, pointer: Pointer, at: Reached) {
        let trail = if pointer.raw {
            trail.target(self.program, &pointer)
        } else {
            trail.clone()
        };
        self.heap.push(Target {
            ty: pointer.to,
            at,
            trail,
        });
    }

    fn runs(
        &mut self,
        trail: &Trail,
        old: &Elements,
        new: &Elements,
        frames: Frames<'_>,
        depth: usize,
    ) {
        self.cover_run(Side::Old, old);
        self.cover_run(Side::New, new);
        let both = old.len.min(new.len);
        let in_place = match (old.at.address(), new.at.address()) {
            (Some(a), Some(b)) if a == b && old.stride == new.stride && self.is_flat(&new.of) => {
                Some(b)
            }
            _ => None,
        };
        let most = self.limits.elements as u64;
        let mut index = 0;
        let mut looked = 0;
        while index < both {
            // Over what was not touched in one step, however much it is.
            if let Some(start) = in_place {
                let Some(next) = self
                    .touched
                    .next(start.saturating_add(index.saturating_mul(new.stride)))
                else {
                    break;
                };
                index = index.max((next - start) / new.stride.max(1));
                if index >= both {
                    break;
                }
            }
            if looked >= most {
                self.found.cut = true;
                break;
            }
            looked += 1;
            self.compare(
                &trail.then(&Step::Index(index)),
                &old.get(index),
                &new.get(index),
                frames,
                depth + 1,
            );
            index += 1;
        }
        for index in both..old.len.min(both.saturating_add(most)) {
            self.alone(
                Side::Old,
                &trail.then(&Step::Index(index)),
                &old.get(index),
                frames.old,
            );
        }
        for index in both..new.len.min(both.saturating_add(most)) {
            self.alone(
                Side::New,
                &trail.then(&Step::Index(index)),
                &new.get(index),
                frames.new,
            );
        }
    }

    /// Parts by what identifies them; of several with one identity the first with the first.
    fn join<K: std::hash::Hash + Eq>(
        &mut self,
        trail: &Trail,
        old: Vec<(Step, Object)>,
        new: Vec<(Step, Object)>,
        identity: impl Fn(&(Step, Object)) -> K,
        frames: Frames<'_>,
        depth: usize,
    ) {
        let mut places: HashMap<K, Vec<usize>> = HashMap::new();
        for (at, part) in old.iter().enumerate().rev() {
            places.entry(identity(part)).or_default().push(at);
        }
        let mut gone = vec![true; old.len()];
        let mut added = Vec::new();
        for part in &new {
            match places.get_mut(&identity(part)).and_then(Vec::pop) {
                Some(at) => {
                    gone[at] = false;
                    self.cover(Side::Old, &old[at].1);
                    self.cover(Side::New, &part.1);
                    let trail = trail.then(&part.0);
                    self.compare(&trail, &old[at].1, &part.1, frames, depth + 1);
                }
                None => added.push(part),
            }
        }
        for (part, _) in old.iter().zip(gone).filter(|(_, gone)| *gone) {
            self.alone(Side::Old, &trail.then(&part.0), &part.1, frames.old);
        }
        for part in added {
            self.alone(Side::New, &trail.then(&part.0), &part.1, frames.new);
        }
    }

    /// Something that only one side has.
    fn alone(&mut self, side: Side, trail: &Trail, object: &Object, frame: Option<&Frame>) {
        if !self.step(0) {
            return;
        }
        self.cover(side, object);
        let value = self.shown(side, object, frame);
        self.tell_alone(side, trail, value);
        self.reach(side, trail, object, frame, 1);
    }

    /// Finds the pointers of an object that has nothing to be compared with.
    fn reach(
        &mut self,
        side: Side,
        trail: &Trail,
        object: &Object,
        frame: Option<&Frame>,
        depth: usize,
    ) {
        if !self.step(depth) || self.is_flat(&object.ty) {
            return;
        }
        let parts = Parts::of(&self.decoder(side, frame), object);
        match parts {
            Ok(Parts::Pointer(pointer)) => {
                let at = match side {
                    Side::Old => Reached::Old(pointer.address),
                    Side::New => Reached::New(pointer.address),
                };
                self.follow(trail, pointer, at);
            }
            Ok(Parts::Run {
                of,
                at,
                stride,
                len,
            }) => {
                let run = Elements {
                    of,
                    at,
                    stride,
                    len,
                };
                self.cover_run(side, &run);
                let most = len.min(self.limits.elements as u64);
                for index in 0..if self.is_flat(&run.of) { 0 } else { most } {
                    let trail = trail.then(&Step::Index(index));
                    self.reach(side, &trail, &run.get(index), frame, depth + 1);
                }
            }
            Ok(Parts::Inline { parts, .. }) => {
                for (step, part) in &parts {
                    self.cover(side, part);
                    self.reach(side, &trail.then(step), part, frame, depth + 1);
                }
            }
            Ok(Parts::Leaf | Parts::Text { .. }) | Err(_) => {}
        }
    }

    fn cover(&mut self, side: Side, object: &Object) {
        if let (Some(address), Some(size)) =
            (object.storage.address(), self.program.size_of(&object.ty))
        {
            self.heap.cover(side as usize, address, size);
        }
    }

    fn cover_run(&mut self, side: Side, run: &Elements) {
        if let Some(address) = run.at.address() {
            let len = run.stride.saturating_mul(run.len);
            self.heap.cover(side as usize, address, len);
        }
    }

    fn shown(&self, side: Side, object: &Object, frame: Option<&Frame>) -> Value {
        let full = self.decoder(side, frame);
        let limits = Limits { elements: SHOWN };
        Decoder::new(self.program, full.view, frame, limits).value(object)
    }

    /// Whether this place has not been told of under another name.
    fn is_news(&mut self, object: &Object) -> bool {
        let Some(address) = object.storage.address() else {
            return true;
        };
        let ty = self.program.strip(&object.ty);
        // Pointers have no name that would tell two types of them apart.
        let ty = match &ty.shape {
            Shape::Pointer { .. } => std::ptr::null(),
            _ => Arc::as_ptr(&ty),
        };
        let bit = object.bits.map_or(0, |bits| bits.start);
        self.told.insert((address, bit, ty))
    }

    fn tell_alone(&mut self, side: Side, trail: &Trail, value: Value) {
        match side {
            Side::Old => self.tell(trail, Some(value), None),
            Side::New => self.tell(trail, None, Some(value)),
        }
    }

    fn tell(&mut self, trail: &Trail, old: Option<Value>, new: Option<Value>) {
        if self.found.changes.len() >= CHANGE_LIMIT {
            self.found.cut = true;
            return;
        }
        self.found.changes.push(Change {
            path: trail.text(),
            old,
            new,
        });
    }
}

impl Elements {
    fn get(&self, index: u64) -> Object {
        let offset = index.wrapping_mul(self.stride);
        Object::new(self.of.clone(), self.at.at(offset))
    }
}

/// What is not a number is as it was when it still is none.
fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Float(a), Value::Float(b)) => a == b || a.is_nan() && b.is_nan(),
        _ => old == new,
    }
}

/// Fields of different variants have nothing in common.
fn same_case(x: &[(Step, Object)], y: &[(Step, Object)]) -> bool {
    match (x, y) {
        ([(Step::Case(a), _)], [(Step::Case(b), _)]) => a == b,
        ([(Step::Case(_), _)], _) | (_, [(Step::Case(_), _)]) => false,
        _ => true,
    }
}

/// Whether nodes of one list are among those of the other: then they are the same ones.
fn share_nodes(x: &[(Step, Object)], y: &[(Step, Object)]) -> bool {
    let addresses: HashSet<u64> = x
        .iter()
        .filter_map(|part| part.1.storage.address())
        .collect();
    addresses.len() == x.len()
        && y.iter().all(|part| part.1.storage.address().is_some())
        && y.iter()
            .filter_map(|part| part.1.storage.address())
            .any(|address| addresses.contains(&address))
}
