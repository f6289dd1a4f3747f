//! Every object that the program can reach by typed pointers, and a name for any address among them.
//!
//! The roots are globals and the locals of the program's own frames, of every thread; what they lead to is found breadth first, so
//! the path of an object is a shortest one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::decode::{Decoder, Limits, Object};
use crate::expr::names::Names;
use crate::parts::{Flatness, Parts, Pointer, Step, Trail};
use crate::program::Program;
use crate::stacks::dead_stack;
use crate::storage::Storage;
use crate::type_keys::TypeKeys;
use crate::types::{Flavour, Language, Shape, Ty, Type};
use crate::view::View;

const OBJECT_LIMIT: usize = 1 << 20;
const STEP_LIMIT: usize = 8_000_000;
const DEPTH_LIMIT: usize = 64;
const ELEMENT_LIMIT: usize = 1 << 18;
const FRAME_LIMIT: usize = 500;

/// What kind of memory an object is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    Global,
    Stack,
    /// Reached by a pointer, and not within any variable.
    Heap,
}

impl Home {
    pub fn word(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Stack => "stack",
            Self::Heap => "heap",
        }
    }
}

/// An object that is there to be reached.
#[derive(Debug, Clone)]
pub struct Found {
    pub start: u64,
    pub len: u64,
    pub type_name: String,
    pub home: Home,
    /// The object whose pointer led here; None for a variable.
    pub parent: Option<usize>,
    trail: Trail,
    ty: Ty,
}

impl Found {
    /// An expression for it.
    pub fn path(&self) -> String {
        self.trail.text()
    }
}

/// What an address is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// An expression for the innermost part that it is in.
    pub path: String,
    pub type_name: String,
    /// How far into that part.
    pub offset: u64,
    pub home: Home,
}

/// The objects of one view, by address.
pub struct Reach<'a> {
    program: &'a Program,
    view: &'a dyn View,
    objects: Vec<Found>,
    /// Places in `objects`, by first address.
    order: Vec<usize>,
    /// There was more than is kept.
    pub cut: bool,
}

impl<'a> Reach<'a> {
    pub fn of(program: &'a Program, view: &'a dyn View) -> Self {
        let mut search = Search::new(program, view);
        search.globals();
        search.locals();
        search.follow();
        let mut order: Vec<usize> = (0..search.objects.len()).collect();
        order.sort_by_key(|at| {
            let found = &search.objects[*at];
            (found.start, std::cmp::Reverse(found.len), *at)
        });
        order.dedup_by_key(|at| (search.objects[*at].start, search.objects[*at].len));
        Self {
            program,
            view,
            objects: search.objects,
            order,
            cut: search.cut,
        }
    }

    pub fn get(&self, at: usize) -> &Found {
        &self.objects[at]
    }

    /// Objects that are no part of another one, by address.
    pub fn wholes(&self) -> impl Iterator<Item = &Found> {
        let mut end = 0;
        self.order.iter().filter_map(move |at| {
            let found = &self.objects[*at];
            let whole = found.start.saturating_add(found.len) > end;
            end = end.max(found.start.saturating_add(found.len));
            whole.then_some(found)
        })
    }

    /// The smallest object around an address, by its place in the search.
    pub fn around(&self, address: u64) -> Option<usize> {
        let after = self
            .order
            .partition_point(|at| self.objects[*at].start <= address);
        let near = self.order[..after].iter().rev().take(NEIGHBOURS);
        near.copied().find(|at| {
            let found = &self.objects[*at];
            address - found.start < found.len
        })
    }

    /// A name for an address.
    pub fn place(&self, address: u64) -> Option<Place> {
        let found = &self.objects[self.around(address)?];
        let mut trail = found.trail.clone();
        let mut object = Object::new(found.ty.clone(), Storage::Memory(found.start));
        for _ in 0..DEPTH_LIMIT {
            match self.part_at(&object, address) {
                Some((step, part)) => {
                    trail = trail.then(&step);
                    object = part;
                }
                None => break,
            }
        }
        let offset = address.wrapping_sub(object.storage.address().unwrap_or(address));
        Some(Place {
            path: trail.text(),
            type_name: self.program.type_name(&object.ty),
            offset,
            home: found.home,
        })
    }

    /// The part of an object that an address is in, where it lies within the object.
    fn part_at(&self, object: &Object, address: u64) -> Option<(Step, Object)> {
        let limits = Limits {
            elements: ELEMENT_LIMIT,
        };
        let decoder = Decoder::new(self.program, self.view, None, limits);
        let whole = (object.storage.address()?, self.program.size_of(&object.ty)?);
        match Parts::of(&decoder, object).ok()? {
            Parts::Run {
                of,
                at,
                stride,
                len,
            } if at.address() == Some(whole.0) => {
                let index = (address - whole.0).checked_div(stride)?;
                let part = Object::new(of, at.at(index.wrapping_mul(stride)));
                (index < len).then_some((Step::Index(index), part))
            }
            Parts::Inline { parts, .. } => parts.into_iter().find(|(_, part)| {
                let size = self.program.size_of(&part.ty).unwrap_or(0);
                let start = part.storage.address();
                start.is_some_and(|start| {
                    start >= whole.0 && address >= start && address - start < size
                })
            }),
            _ => None,
        }
    }
}

/// Objects that begin before an address and may still hold it: those within one another.
const NEIGHBOURS: usize = 64;

/// An object yet to be looked into.
struct Pending {
    object: Object,
    trail: Trail,
    parent: Option<usize>,
}

struct Search<'a> {
    program: &'a Program,
    view: &'a dyn View,
    objects: Vec<Found>,
    known: HashMap<(u64, u32), ()>,
    queue: VecDeque<Pending>,
    types: TypeKeys,
    names: HashMap<u32, String>,
    flat: Flatness,
    dead: Vec<(u64, u64)>,
    steps: usize,
    cut: bool,
}

impl<'a> Search<'a> {
    fn new(program: &'a Program, view: &'a dyn View) -> Self {
        Self {
            program,
            view,
            objects: Vec::new(),
            known: HashMap::new(),
            queue: VecDeque::new(),
            types: TypeKeys::default(),
            names: HashMap::new(),
            flat: Flatness::default(),
            dead: dead_stack(view),
            steps: 0,
            cut: false,
        }
    }

    fn globals(&mut self) {
        let names = Names {
            program: self.program,
            view: self.view,
            tid: None,
        };
        for global in self.program.globals() {
            let object = names.variable(global.module, global.die, None);
            self.variable(Trail::root(global.path), object, Home::Global);
        }
    }

    fn locals(&mut self) {
        let threads = self.view.threads();
        let main = threads.first().map(|thread| thread.tid);
        for thread in &threads {
            let frames = self.program.backtrace(self.view, thread.tid, FRAME_LIMIT);
            let names = Names {
                program: self.program,
                view: self.view,
                tid: Some(thread.tid),
            };
            for frame in frames.iter().filter(|frame| self.program.is_own(frame)) {
                let prefix = if Some(thread.tid) == main {
                    String::new()
                } else {
                    format!("thread({}).", thread.tid)
                };
                let root = format!("{prefix}frame({})", frame.name_among(&frames));
                for (variable, object) in names.locals(frame) {
                    let trail = Trail::root(format!("{root}.{}", variable.name));
                    self.variable(trail, object, Home::Stack);
                }
            }
        }
    }

    fn variable(&mut self, trail: Trail, object: Object, home: Home) {
        let at = self.enter(&object, &trail, None, home);
        self.queue.push_back(Pending {
            object,
            trail,
            parent: at,
        });
    }

    fn follow(&mut self) {
        while let Some(pending) = self.queue.pop_front() {
            self.inside(&pending.object, &pending.trail, pending.parent, 0);
        }
    }

    /// Notes an object; None when it is known, or nowhere.
    fn enter(
        &mut self,
        object: &Object,
        trail: &Trail,
        parent: Option<usize>,
        home: Home,
    ) -> Option<usize> {
        let start = object.storage.address().filter(|address| *address != 0)?;
        let len = self.program.size_of(&object.ty).filter(|len| *len > 0)?;
        if self.dead.iter().any(|(a, b)| (*a..*b).contains(&start)) {
            return None;
        }
        let ty = self.program.strip(&object.ty);
        let key = self.types.of(&ty);
        if self.known.insert((start, key), ()).is_some() {
            return None;
        }
        if self.objects.len() >= OBJECT_LIMIT {
            self.cut = true;
            return None;
        }
        let name = || self.program.type_name(&object.ty);
        let type_name = match &ty.shape {
            // Arrays are made for each container, and are no type of the program's.
            Shape::Array { of, .. } if ty.name.is_empty() => {
                format!("{}[]", self.program.type_name(of))
            }
            _ => self.names.entry(key).or_insert_with(name).clone(),
        };
        self.objects.push(Found {
            start,
            len,
            type_name,
            home,
            parent,
            trail: trail.clone(),
            ty: object.ty.clone(),
        });
        Some(self.objects.len() - 1)
    }

    /// Something that a pointer, or a container, leads to.
    fn lead(&mut self, object: Object, trail: Trail, parent: Option<usize>) {
        // Unless it can be read it is not there.
        let there = object.storage.read(self.view, 1).is_ok();
        if there && let Some(at) = self.enter(&object, &trail, parent, Home::Heap) {
            self.queue.push_back(Pending {
                object,
                trail,
                parent: Some(at),
            });
        }
    }

    /// Looks for what an object leads to.
    fn inside(&mut self, object: &Object, trail: &Trail, parent: Option<usize>, depth: usize) {
        self.steps += 1;
        if depth > DEPTH_LIMIT || self.steps > STEP_LIMIT {
            self.cut = true;
            return;
        }
        let limits = Limits {
            elements: ELEMENT_LIMIT,
        };
        let decoder = Decoder::new(self.program, self.view, None, limits);
        if self.flat.of(&decoder, &object.ty) {
            return;
        }
        let size = self.program.size_of(&object.ty).unwrap_or(0);
        let within = |storage: &Storage| match (object.storage.address(), storage.address()) {
            (Some(start), Some(address)) => (start..start.saturating_add(size)).contains(&address),
            _ => true,
        };
        match Parts::of(&decoder, object) {
            Ok(Parts::Pointer(pointer)) => {
                let trail = if pointer.raw {
                    trail.target(self.program, &pointer)
                } else {
                    trail.clone()
                };
                let target = Object::new(pointer.to, Storage::Memory(pointer.address));
                self.lead(target, trail, parent);
            }
            Ok(Parts::Run { of, at, len, .. }) if !within(&at) => {
                self.lead(Object::new(array_of(of, len), at), trail.clone(), parent);
            }
            Ok(Parts::Run {
                of,
                at,
                stride,
                len,
            }) => {
                if self.flat.of(&decoder, &of) {
                    return;
                }
                for index in 0..len.min(ELEMENT_LIMIT as u64) {
                    let item = Object::new(of.clone(), at.at(index.wrapping_mul(stride)));
                    self.inside(&item, &trail.then(&Step::Index(index)), parent, depth + 1);
                }
            }
            Ok(Parts::Text { at, len }) if !within(&at) => {
                let text = Object::new(array_of(Type::char(), len.saturating_add(1)), at);
                self.lead(text, trail.clone(), parent);
            }
            Ok(Parts::Inline { parts, .. }) => {
                for (step, part) in parts {
                    let trail = trail.then(&step);
                    if within(&part.storage) {
                        self.inside(&part, &trail, parent, depth + 1);
                    } else {
                        self.lead(part, trail, parent);
                    }
                }
            }
            Ok(Parts::Leaf) => self.c_text(&decoder, object, trail, parent),
            Ok(Parts::Text { .. }) | Err(_) => {}
        }
    }

    /// C's text has a length only by its end.
    fn c_text(
        &mut self,
        decoder: &Decoder<'_>,
        object: &Object,
        trail: &Trail,
        parent: Option<usize>,
    ) {
        let ty = self.program.strip(&object.ty);
        let Shape::Pointer {
            to,
            flavour: Flavour::Raw,
        } = &ty.shape
        else {
            return;
        };
        let narrow = self.program.size_of(to) == Some(1) && ty.language != Language::Rust;
        let text = if narrow {
            decoder.value(object)
        } else {
            return;
        };
        if let (crate::value::Value::Text { len, .. }, Ok(address)) =
            (text, decoder.address_in(object))
        {
            let ty = array_of(Type::char(), len.saturating_add(1));
            let pointer = Pointer {
                to: ty.clone(),
                address,
                raw: true,
            };
            let text = Object::new(ty, Storage::Memory(address));
            self.lead(text, trail.target(self.program, &pointer), parent);
        }
    }
}

fn array_of(of: Ty, len: u64) -> Ty {
    Ty::Made(Arc::new(Type {
        name: String::new(),
        size: None,
        language: Language::C,
        shape: Shape::Array {
            of,
            count: Some(len),
        },
    }))
}
