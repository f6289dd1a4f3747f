//! An object taken apart, down to what has a value of its own.

use std::collections::HashSet;

use crate::decode::{Decoder, Object};
use crate::parts::{Parts, Step, Trail};
use crate::value::Value;

/// Parts within parts, smart pointers among them.
const DEPTH_LIMIT: usize = 32;

/// A member, element or entry that is not made of others.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// An expression for it.
    pub path: String,
    pub type_name: String,
    pub value: Value,
}

/// The leaves of `object`, which `path` names, and whether that is all of them. Raw pointers are leaves; what smart ones
/// hold is a part of what holds them.
pub fn leaves(decoder: &Decoder<'_>, path: &str, object: &Object, max: usize) -> (Vec<Leaf>, bool) {
    let mut take = Take {
        decoder,
        max,
        found: Vec::new(),
        cut: false,
        entered: HashSet::new(),
    };
    take.apart(&Trail::root(path), object, 0);
    (take.found, !take.cut)
}

struct Take<'d, 'a> {
    decoder: &'d Decoder<'a>,
    max: usize,
    found: Vec<Leaf>,
    cut: bool,
    /// What smart pointers have led to already.
    entered: HashSet<u64>,
}

impl Take<'_, '_> {
    fn apart(&mut self, trail: &Trail, object: &Object, depth: usize) {
        if self.found.len() >= self.max {
            self.cut = true;
            return;
        }
        if depth > DEPTH_LIMIT {
            return self.leaf(trail, object);
        }
        match Parts::of(self.decoder, object) {
            Ok(Parts::Inline { parts, .. }) if !parts.is_empty() => {
                for (step, part) in parts {
                    self.apart(&trail.then(&step), &part, depth + 1);
                }
            }
            Ok(Parts::Run {
                of,
                at,
                stride,
                len,
            }) if len > 0 => {
                let most = len.min(self.max as u64);
                self.cut |= most < len;
                for index in 0..most {
                    let item = Object::new(of.clone(), at.at(index.wrapping_mul(stride)));
                    self.apart(&trail.then(&Step::Index(index)), &item, depth + 1);
                }
            }
            Ok(Parts::Pointer(pointer))
                if !pointer.raw && pointer.address != 0 && self.entered.insert(pointer.address) =>
            {
                let inner =
                    Object::new(pointer.to, crate::storage::Storage::Memory(pointer.address));
                self.apart(trail, &inner, depth + 1);
            }
            _ => self.leaf(trail, object),
        }
    }

    fn leaf(&mut self, trail: &Trail, object: &Object) {
        self.found.push(Leaf {
            path: trail.text(),
            type_name: self.decoder.program.type_name(&object.ty),
            value: self.decoder.value(object),
        });
    }
}
