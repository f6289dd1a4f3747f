//! What an object consists of, one level at a time, each part with the step of an expression that leads to it.
//!
//! Members of structs, elements and entries of containers, targets of pointers: everything that walks objects (diff,
//! blame, heap, refs) walks these. Padding is no part of anything.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decode::{Decoder, Object, Presentation, Read};
use crate::members::is_positional;
use crate::program::Program;
use crate::storage::Storage;
use crate::types::{Encoding, Flavour, Language, Member, Shape, Struct, Ty, Type};
use crate::view::Unavailable;

/// Structs within structs that are looked through for pointers.
const FLAT_DEPTH: usize = 16;
/// Anonymous members and bases within one another.
const NESTING: usize = 16;

/// From an object to a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Member(String),
    Index(u64),
    /// A map's entry, by its key as text.
    Key(String),
    /// An element of a set, by its value as text.
    Element(String),
    /// The fields of a variant.
    Case(String),
    /// The part stands for the whole: the content of a cell, the only field of a tuple struct.
    Same,
}

/// How an object is put together.
pub enum Parts {
    /// A number, a text, a function: compared by value.
    Leaf,
    /// `len` bytes of text, perhaps apart from the object.
    Text {
        at: Storage,
        len: u64,
    },
    Pointer(Pointer),
    /// Elements side by side.
    Run {
        of: Ty,
        at: Storage,
        stride: u64,
        len: u64,
    },
    /// `ordered`: elements that are told apart by their place, as a list's nodes are by address.
    Inline {
        parts: Vec<(Step, Object)>,
        ordered: bool,
    },
}

/// An address of something that can be looked at.
pub struct Pointer {
    pub to: Ty,
    pub address: u64,
    /// It has a value of its own, apart from what it points to.
    pub raw: bool,
}

impl Parts {
    pub fn of(decoder: &Decoder<'_>, object: &Object) -> Read<Self> {
        if let Storage::Missing(why) = &object.storage {
            return Err(why.clone());
        }
        let ty = decoder.program.strip(&object.ty);
        match &ty.shape {
            Shape::Pointer { to, flavour } => pointer(decoder, object, to, *flavour, &ty),
            Shape::Array { of, count } => array(decoder, object, of, *count, &ty),
            Shape::Struct(shape) => match decoder.present(object)? {
                Some(presentation) => presented(decoder, object, &ty, presentation),
                None => structure(decoder, object, &ty, shape),
            },
            _ => Ok(Self::Leaf),
        }
    }
}

fn pointer(
    decoder: &Decoder<'_>,
    object: &Object,
    to: &Ty,
    flavour: Flavour,
    ty: &Type,
) -> Read<Parts> {
    let target = decoder.program.strip(to);
    let text = matches!(target.shape, Shape::Base(Encoding::Char)) && ty.language != Language::Rust;
    let blind = matches!(target.shape, Shape::Function { .. } | Shape::Opaque { .. });
    let nowhere = !matches!(object.storage, Storage::Memory(_) | Storage::Gathered(_));
    if text || blind || nowhere || flavour == Flavour::Member || matches!(to, Ty::Void) {
        return Ok(Parts::Leaf);
    }
    Ok(Parts::Pointer(Pointer {
        to: to.clone(),
        address: decoder.address_in(object)?,
        raw: flavour == Flavour::Raw,
    }))
}

fn array(
    decoder: &Decoder<'_>,
    object: &Object,
    of: &Ty,
    count: Option<u64>,
    ty: &Type,
) -> Read<Parts> {
    let element = decoder.program.strip(of);
    if matches!(element.shape, Shape::Base(Encoding::Char)) && ty.language != Language::Rust {
        return Ok(Parts::Leaf);
    }
    let stride = decoder
        .program
        .size_of(of)
        .ok_or_else(|| Unavailable::because("incomplete type"))?;
    let len = count.or_else(|| ty.size?.checked_div(stride)).unwrap_or(0);
    Ok(Parts::Run {
        of: of.clone(),
        at: object.storage.clone(),
        stride,
        len,
    })
}

fn presented(
    decoder: &Decoder<'_>,
    object: &Object,
    ty: &Type,
    presentation: Presentation,
) -> Read<Parts> {
    Ok(match presentation {
        Presentation::Run {
            of,
            at,
            stride,
            len,
        } => Parts::Run {
            of,
            at,
            stride,
            len,
        },
        Presentation::List { items, .. } if is_set(&ty.name) => {
            let element = |item: Object| (Step::Element(decoder.value(&item).to_text()), item);
            Parts::Inline {
                parts: items.into_iter().map(element).collect(),
                ordered: false,
            }
        }
        Presentation::List { items, .. } => Parts::Inline {
            parts: (0..).map(Step::Index).zip(items).collect(),
            ordered: true,
        },
        Presentation::Pairs { entries, .. } => {
            let entry =
                |(key, value): (Object, Object)| (Step::Key(decoder.value(&key).to_text()), value);
            Parts::Inline {
                parts: entries.into_iter().map(entry).collect(),
                ordered: false,
            }
        }
        Presentation::Content(inner) => content(decoder, object, inner),
        Presentation::Text { at, len } => Parts::Text { at, len },
        Presentation::Nothing | Presentation::Ready(_) => Parts::Leaf,
    })
}

/// What a smart pointer holds lies elsewhere and may be reached twice; what a cell holds is a part of it.
fn content(decoder: &Decoder<'_>, object: &Object, inner: Object) -> Parts {
    let size = decoder.program.size_of(&object.ty).unwrap_or(0);
    match (object.storage.address(), inner.storage.address()) {
        (outer, Some(address))
            if outer.is_none_or(|start| {
                !(start..start.saturating_add(size.max(1))).contains(&address)
            }) =>
        {
            Parts::Pointer(Pointer {
                to: inner.ty,
                address,
                raw: false,
            })
        }
        _ => single(Step::Same, inner),
    }
}

fn single(step: Step, object: Object) -> Parts {
    Parts::Inline {
        parts: vec![(step, object)],
        ordered: false,
    }
}

fn structure(decoder: &Decoder<'_>, object: &Object, ty: &Type, shape: &Struct) -> Read<Parts> {
    if shape.variants.is_some() {
        let (name, fields) = decoder.active_case(object, shape)?;
        return Ok(match decoder.program.strip(&fields.ty).as_struct() {
            Some(shape) if shape.members.is_empty() => Parts::Leaf,
            _ => single(Step::Case(name), fields),
        });
    }
    let mut parts = Vec::new();
    if ty.language == Language::Rust {
        fields(decoder, object, ty, shape, &mut parts);
    } else {
        members(decoder, object, shape, 0, &mut parts);
    }
    Ok(Parts::Inline {
        parts,
        ordered: false,
    })
}

/// Own members and those of bases and anonymous members.
fn members(
    decoder: &Decoder<'_>,
    object: &Object,
    shape: &Struct,
    depth: usize,
    into: &mut Vec<(Step, Object)>,
) {
    if depth > NESTING || !decoder.charge() {
        return;
    }
    for base in &shape.bases {
        let inner = decoder.member_object(object, base);
        let ty = decoder.program.strip(&base.ty);
        match ty.as_struct() {
            Some(_) if decoder.present(&inner).is_ok_and(|known| known.is_some()) => {
                into.push((Step::Member(ty.name.clone()), inner));
            }
            Some(shape) => members(decoder, &inner, shape, depth + 1, into),
            None => {}
        }
    }
    for member in &shape.members {
        let inner = decoder.member_object(object, member);
        match (&member.name, decoder.program.strip(&member.ty).as_struct()) {
            (None, Some(shape)) => members(decoder, &inner, shape, depth + 1, into),
            (None, None) => {}
            // A vtable's address is the type's, and says nothing that the program wrote.
            (Some(name), _) if name.starts_with("_vptr") => {}
            (Some(name), _) => into.push((Step::Member(name.clone()), inner)),
        }
    }
}

/// A Rust struct's members: of tuples by position, of a tuple struct with one field that field itself.
fn fields(
    decoder: &Decoder<'_>,
    object: &Object,
    ty: &Type,
    shape: &Struct,
    into: &mut Vec<(Step, Object)>,
) {
    let alone = shape.members.len() == 1 && !ty.name.starts_with('(');
    let step = |member: &Member| {
        let name = member.name.as_deref().unwrap_or_default();
        match is_positional(Some(name)) {
            true if alone => Step::Same,
            true => Step::Member(name.trim_start_matches('_').to_owned()),
            false => Step::Member(name.to_owned()),
        }
    };
    into.extend(
        shape
            .members
            .iter()
            .map(|member| (step(member), decoder.member_object(object, member))),
    );
}

/// Whether elements are found by their value alone.
fn is_set(name: &str) -> bool {
    let stem = name.split('<').next().unwrap_or(name);
    let last = stem.rsplit("::").next().unwrap_or(stem);
    matches!(
        last,
        "set" | "multiset" | "unordered_set" | "unordered_multiset" | "HashSet" | "BTreeSet"
    )
}

/// Which types hold no address of anything: such an object is its own bytes and nothing more.
#[derive(Default)]
pub struct Flatness {
    /// The type is kept, so that its address stays its own.
    known: HashMap<*const Type, (Arc<Type>, bool)>,
}

impl Flatness {
    pub fn of(&mut self, decoder: &Decoder<'_>, ty: &Ty) -> bool {
        self.at_depth(decoder, ty, 0)
    }

    fn at_depth(&mut self, decoder: &Decoder<'_>, ty: &Ty, depth: usize) -> bool {
        let ty = decoder.program.strip(ty);
        let key = Arc::as_ptr(&ty);
        if let Some((_, known)) = self.known.get(&key) {
            return *known;
        }
        let flat = depth < FLAT_DEPTH && self.look(decoder, &ty, depth);
        self.known.insert(key, (ty, flat));
        flat
    }

    fn look(&mut self, decoder: &Decoder<'_>, ty: &Type, depth: usize) -> bool {
        match &ty.shape {
            Shape::Base(_) | Shape::Enum { .. } => true,
            Shape::Array { of, .. } => self.at_depth(decoder, of, depth + 1),
            Shape::Struct(shape) => {
                let cases = shape.variants.iter().flat_map(|all| &all.cases);
                let all = shape
                    .members
                    .iter()
                    .chain(&shape.bases)
                    .chain(cases.map(|case| &case.member));
                all.into_iter().all(|member| {
                    !member.is_virtual && self.at_depth(decoder, &member.ty, depth + 1)
                })
            }
            _ => false,
        }
    }
}

/// The way to an object, as an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    text: String,
    /// The text names a pointer to the object.
    pointed: bool,
    /// Pointers followed by the text.
    hops: usize,
}

/// Pointers that a trail follows before it names its object by address: a long list would have paths as long as itself.
const HOP_LIMIT: usize = 32;
/// Longest key that a trail shows, in characters.
const KEY_LIMIT: usize = 256;

impl Trail {
    pub fn root(name: impl Into<String>) -> Self {
        Self {
            text: name.into(),
            pointed: false,
            hops: 0,
        }
    }

    /// An expression for the object itself.
    pub fn text(&self) -> String {
        if self.pointed {
            format!("*{}", self.text)
        } else {
            self.text.clone()
        }
    }

    /// What the object, a raw pointer, points to.
    pub fn target(&self, program: &Program, pointer: &Pointer) -> Self {
        if self.hops < HOP_LIMIT {
            return self.followed();
        }
        let name = program.type_name(&Type::pointer_to(pointer.to.clone()));
        Self {
            text: format!("(({name}){:#x})", pointer.address),
            pointed: true,
            hops: 0,
        }
    }

    fn followed(&self) -> Self {
        Self {
            text: self.text(),
            pointed: true,
            hops: self.hops + 1,
        }
    }

    pub fn then(&self, step: &Step) -> Self {
        let head = || {
            if self.pointed {
                format!("(*{})", self.text)
            } else {
                self.text.clone()
            }
        };
        let dot = if self.pointed { "->" } else { "." };
        let text = match step {
            Step::Member(name) | Step::Case(name) => format!("{}{dot}{name}", self.text),
            Step::Index(index) => format!("{}[{index}]", head()),
            Step::Key(key) => format!("{}[{}]", head(), cut(key)),
            Step::Element(value) => format!("{}{{{}}}", head(), cut(value)),
            Step::Same => return self.clone(),
        };
        Self {
            text,
            pointed: false,
            hops: self.hops,
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(KEY_LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trails_are_expressions() {
        let list = Trail::root("list");
        let node = list.followed();
        assert_eq!(node.text(), "*list");
        let next = node.then(&Step::Member("next".into()));
        assert_eq!(next.text(), "list->next");
        let key = next.followed().then(&Step::Member("key".into()));
        assert_eq!(key.text(), "list->next->key");
        assert_eq!(
            next.followed().then(&Step::Index(3)).text(),
            "(*list->next)[3]"
        );
        let entry = Trail::root("m").then(&Step::Key("\"k7\"".into()));
        assert_eq!(entry.then(&Step::Same).text(), "m[\"k7\"]");
        assert_eq!(list.then(&Step::Element("5".into())).text(), "list{5}");
    }

    #[test]
    fn sets_are_known_by_name() {
        assert!(is_set("std::set<int, std::less<int>>") && is_set("hashbrown::set::HashSet<u8>"));
        assert!(!is_set("std::map<int, int>") && !is_set("set_of::Things"));
    }
}
