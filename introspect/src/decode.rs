//! Objects in memory to values: by type, and by presentation where a library type is recognised.

use std::cell::Cell;

use crate::frames::Frame;
use crate::location::Place;
use crate::members::is_positional;
use crate::program::Program;
use crate::scalars::{enumerator, float, sign_extend, whole_characters};
use crate::storage::Storage;
use crate::types::{Bits, Encoding, Flavour, Language, Member, Shape, Struct, Ty, Type};
use crate::value::{TEXT_LIMIT, Value};
use crate::view::{Unavailable, View, ViewExt};
use crate::{present_cpp, present_rust};

/// Values nested in values; JSON readers commonly stop at 128.
const DEPTH_LIMIT: usize = 96;
/// Values of one answer, all levels together.
const BUDGET: usize = 2_000_000;

/// Members among which one of a derived class is looked for to hide its base's.
const HIDING_LIMIT: usize = 4096;

/// How much of a container is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { elements: 1000 }
    }
}

/// Something with a type and a place.
#[derive(Debug, Clone)]
pub struct Object {
    pub ty: Ty,
    pub storage: Storage,
    pub bits: Option<Bits>,
}

impl Object {
    pub fn new(ty: Ty, storage: Storage) -> Self {
        Self {
            ty,
            storage,
            bits: None,
        }
    }
}

/// What a library type means, as opposed to how it is laid out.
pub enum Presentation {
    /// `len` bytes of text.
    Text {
        at: Storage,
        len: u64,
    },
    /// Elements side by side.
    Run {
        of: Ty,
        at: Storage,
        stride: u64,
        len: u64,
    },
    List {
        items: Vec<Object>,
        len: u64,
    },
    Pairs {
        entries: Vec<(Object, Object)>,
        len: u64,
    },
    /// The object stands for another one.
    Content(Object),
    Nothing,
    /// A ready value, such as the bits of `vector<bool>`.
    Ready(Value),
}

pub type Read<T> = Result<T, Unavailable>;

pub struct Decoder<'a> {
    pub program: &'a Program,
    pub view: &'a dyn View,
    pub frame: Option<&'a Frame>,
    pub limits: Limits,
    budget: Cell<usize>,
}

impl<'a> Decoder<'a> {
    pub fn new(
        program: &'a Program,
        view: &'a dyn View,
        frame: Option<&'a Frame>,
        limits: Limits,
    ) -> Self {
        Self {
            program,
            view,
            frame,
            limits,
            budget: Cell::new(BUDGET),
        }
    }

    pub fn value(&self, object: &Object) -> Value {
        self.at_depth(object, 0)
    }

    /// Takes one step from the answer's budget; false when it is spent. Damaged types may contain themselves, several
    /// times over: whatever walks them pays for each step.
    pub fn charge(&self) -> bool {
        let left = self.budget.get().checked_sub(1);
        self.budget.set(left.unwrap_or(0));
        left.is_some()
    }

    fn at_depth(&self, object: &Object, depth: usize) -> Value {
        if depth > DEPTH_LIMIT {
            return Value::Unavailable(Unavailable::because("nested too deeply"));
        }
        if !self.charge() {
            return Value::Unavailable(Unavailable::because("too large"));
        }
        self.decode(object, depth)
            .unwrap_or_else(Value::Unavailable)
    }

    fn decode(&self, object: &Object, depth: usize) -> Read<Value> {
        if let Storage::Missing(why) = &object.storage {
            return Err(why.clone());
        }
        let ty = self.program.strip(&object.ty);
        match &ty.shape {
            Shape::Base(encoding) => self.scalar(object, &ty, *encoding),
            Shape::Enum { values, signed } => {
                Ok(enumerator(values, self.integer(object, &ty, *signed)?))
            }
            Shape::Pointer { to, flavour } => self.pointer(object, to, *flavour, &ty, depth),
            Shape::Array { of, count } => self.array(object, of, *count, &ty, depth),
            Shape::Struct(shape) => match self.present(object)? {
                Some(presentation) => self.presented(presentation, depth),
                None => self.structure(object, &ty, shape, depth),
            },
            Shape::Function { .. } => {
                let address = object
                    .storage
                    .address()
                    .ok_or_else(Unavailable::optimized_out)?;
                Ok(Value::Pointer {
                    address,
                    symbol: self.symbol(address),
                })
            }
            _ if ty.size == Some(0) => Ok(Value::Struct(Vec::new())),
            _ => Err(Unavailable::because("incomplete type")),
        }
    }

    /// The meaning of a recognised library type; None for everything else.
    pub fn present(&self, object: &Object) -> Read<Option<Presentation>> {
        let ty = self.program.strip(&object.ty);
        let Some(shape) = ty.as_struct() else {
            return Ok(None);
        };
        match ty.language {
            Language::Rust => present_rust::present(self, object, &ty, shape),
            Language::Cpp => present_cpp::present(self, object, &ty, shape),
            _ => Ok(None),
        }
    }

    fn presented(&self, presentation: Presentation, depth: usize) -> Read<Value> {
        match presentation {
            Presentation::Text { at, len } => self.text(&at, len),
            Presentation::Run {
                of,
                at,
                stride,
                len,
            } => Ok(self.run(&of, &at, stride, len, depth)),
            Presentation::List { items, len } => Ok(Value::Sequence {
                items: items
                    .iter()
                    .map(|item| self.at_depth(item, depth + 1))
                    .collect(),
                len,
            }),
            Presentation::Pairs { entries, len } => {
                let entries = entries.iter().map(|(key, value)| {
                    (
                        self.at_depth(key, depth + 1),
                        self.at_depth(value, depth + 1),
                    )
                });
                Ok(Value::Map {
                    entries: entries.collect(),
                    len,
                })
            }
            // Deeper by one, so that a cycle of smart pointers ends.
            Presentation::Content(inner) => Ok(self.at_depth(&inner, depth + 1)),
            Presentation::Nothing => Ok(Value::Null),
            Presentation::Ready(value) => Ok(value),
        }
    }

    fn run(&self, of: &Ty, at: &Storage, stride: u64, len: u64, depth: usize) -> Value {
        let shown = len.min(self.limits.elements as u64);
        let item = |index: u64| {
            self.at_depth(
                &Object::new(of.clone(), at.at(index.wrapping_mul(stride))),
                depth + 1,
            )
        };
        Value::Sequence {
            items: (0..shown).map(item).collect(),
            len,
        }
    }

    pub fn text(&self, at: &Storage, len: u64) -> Read<Value> {
        let shown = usize::try_from(len.min(TEXT_LIMIT)).unwrap_or(0);
        let bytes = at.read(self.view, shown)?;
        Ok(Value::Text {
            text: whole_characters(&bytes, shown as u64 == len),
            len,
        })
    }

    fn scalar(&self, object: &Object, ty: &Type, encoding: Encoding) -> Read<Value> {
        let raw = self.raw_bits(object, ty)?;
        let width = object
            .bits
            .map_or(ty.size.unwrap_or(0).saturating_mul(8), |bits| bits.len);
        Ok(match encoding {
            Encoding::Bool if raw <= 1 => Value::Bool(raw == 1),
            Encoding::Bool | Encoding::Unsigned => Value::Unsigned(raw),
            Encoding::Signed => Value::Signed(sign_extend(raw, width)),
            Encoding::Char => Value::Char(u32::try_from(raw & 0xffff_ffff).unwrap_or(0)),
            Encoding::Float => float(raw, ty.size.unwrap_or(0))?,
        })
    }

    /// An integer or enumeration as a number.
    pub fn integer(&self, object: &Object, ty: &Type, signed: bool) -> Read<i128> {
        let raw = self.raw_bits(object, ty)?;
        let width = object
            .bits
            .map_or(ty.size.unwrap_or(0).saturating_mul(8), |bits| bits.len);
        if signed {
            Ok(sign_extend(raw, width))
        } else {
            i128::try_from(raw).map_err(|_| Unavailable::because("not a number"))
        }
    }

    fn raw_bits(&self, object: &Object, ty: &Type) -> Read<u128> {
        let Some(bits) = object.bits else {
            return object
                .storage
                .read_unsigned(self.view, ty.size.unwrap_or(0));
        };
        let bytes = bits.start.saturating_add(bits.len).div_ceil(8);
        let raw = object.storage.read_unsigned(self.view, bytes)?;
        let mask = if bits.len >= 128 {
            u128::MAX
        } else {
            (1u128 << bits.len) - 1
        };
        Ok((raw >> bits.start.min(127)) & mask)
    }

    fn pointer(
        &self,
        object: &Object,
        to: &Ty,
        flavour: Flavour,
        ty: &Type,
        depth: usize,
    ) -> Read<Value> {
        if flavour == Flavour::Member {
            return Ok(Value::Signed(sign_extend(
                object.storage.read_unsigned(self.view, 8)?,
                64,
            )));
        }
        let target = self.program.strip(to);
        let is_text = matches!(target.shape, Shape::Base(Encoding::Char)) && target.size == Some(1);
        if matches!(flavour, Flavour::Reference | Flavour::Owned) {
            return Ok(self.at_depth(&self.pointee(object)?, depth + 1));
        }
        if let Storage::Implicit { .. } = &object.storage {
            let inner = self.pointee(object)?;
            return if is_text {
                self.c_text_in(&inner.storage)
            } else {
                Err(Unavailable::optimized_out())
            };
        }
        let address = self.address_in(object)?;
        if is_text && ty.language != Language::Rust && address != 0 {
            return self.c_string(address);
        }
        let symbol = matches!(target.shape, Shape::Function { .. })
            .then(|| self.symbol(address))
            .flatten();
        Ok(Value::Pointer { address, symbol })
    }

    /// The number in a pointer.
    pub fn address_in(&self, object: &Object) -> Read<u64> {
        u64::try_from(object.storage.read_unsigned(self.view, 8)?)
            .map_err(|_| Unavailable::because("not a pointer"))
    }

    /// What a pointer (by its DWARF type) points to.
    pub fn pointee(&self, object: &Object) -> Read<Object> {
        let ty = self.program.strip(&object.ty);
        let Shape::Pointer { to, .. } = &ty.shape else {
            return Err(Unavailable::because("not a pointer"));
        };
        if let Storage::Implicit {
            module,
            die,
            offset,
        } = &object.storage
        {
            let place = Place {
                nesting: 1,
                ..Place::new(self.program, self.view, *module, self.frame)
            };
            let target = place.variable(*die, self.program.size_of(to));
            let target = u64::try_from(*offset)
                .map(|offset| target.at(offset))
                .unwrap_or_else(|_| Storage::missing("optimized out"));
            return Ok(Object::new(to.clone(), target));
        }
        Ok(Object::new(
            to.clone(),
            Storage::Memory(self.address_in(object)?),
        ))
    }

    fn c_string(&self, address: u64) -> Read<Value> {
        let limit = usize::try_from(TEXT_LIMIT).unwrap_or(0);
        let (bytes, ended) = self.view.read_c_string(address, limit)?;
        let mut len = bytes.len() as u64;
        if !ended && bytes.len() == limit {
            // How long it is decides nothing else, so the count may stop at a bound too.
            let (rest, _) = self
                .view
                .read_c_string(address.wrapping_add(len), 16 << 20)
                .unwrap_or_default();
            len += rest.len() as u64;
        }
        Ok(Value::Text {
            text: whole_characters(&bytes, ended),
            len,
        })
    }

    fn c_text_in(&self, storage: &Storage) -> Read<Value> {
        let mut bytes = Vec::new();
        for index in 0..TEXT_LIMIT {
            match storage.at(index).read(self.view, 1)?.first() {
                Some(0) | None => break,
                Some(byte) => bytes.push(*byte),
            }
        }
        Ok(Value::Text {
            text: whole_characters(&bytes, true),
            len: bytes.len() as u64,
        })
    }

    fn array(
        &self,
        object: &Object,
        of: &Ty,
        count: Option<u64>,
        ty: &Type,
        depth: usize,
    ) -> Read<Value> {
        let element = self.program.strip(of);
        let stride = self
            .program
            .size_of(of)
            .ok_or_else(|| Unavailable::because("incomplete type"))?;
        let count = count.or_else(|| ty.size?.checked_div(stride)).unwrap_or(0);
        let is_text = matches!(element.shape, Shape::Base(Encoding::Char))
            && element.size == Some(1)
            && ty.language != Language::Rust;
        if is_text {
            return self.char_array(&object.storage, count);
        }
        Ok(self.run(of, &object.storage, stride, count, depth))
    }

    /// Text up to the first NUL, which may stand beyond what is shown.
    fn char_array(&self, storage: &Storage, count: u64) -> Read<Value> {
        let bytes = storage.read(self.view, usize::try_from(count).unwrap_or(usize::MAX))?;
        let len = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        let shown = len.min(usize::try_from(TEXT_LIMIT).unwrap_or(len));
        let text = whole_characters(&bytes[..shown], shown == len);
        Ok(Value::Text {
            text,
            len: len as u64,
        })
    }

    fn structure(&self, object: &Object, ty: &Type, shape: &Struct, depth: usize) -> Read<Value> {
        if shape.variants.is_some() {
            let (name, fields) = self.active_case(object, shape)?;
            let body = self.fields(&fields, depth);
            let fields = if body == Value::Struct(Vec::new()) {
                None
            } else {
                Some(Box::new(body))
            };
            return Ok(Value::Variant { name, fields });
        }
        if ty.language == Language::Rust {
            return Ok(self.fields(object, depth));
        }
        let mut members = Vec::new();
        self.members(object, shape, depth, &mut members);
        Ok(Value::Struct(members))
    }

    /// Own members, with those of bases and of anonymous members among them.
    fn members(
        &self,
        object: &Object,
        shape: &Struct,
        depth: usize,
        into: &mut Vec<(String, Value)>,
    ) {
        if !self.charge() {
            return;
        }
        for base in &shape.bases {
            let inner = self.member_object(object, base);
            let ty = self.program.strip(&base.ty);
            match ty.as_struct() {
                // A base that means something by itself (a class derived from a container) keeps its name.
                Some(_) if self.present(&inner).is_ok_and(|known| known.is_some()) => {
                    into.push((ty.name.clone(), self.at_depth(&inner, depth + 1)));
                }
                Some(shape) if depth < DEPTH_LIMIT => self.members(&inner, shape, depth + 1, into),
                _ => {}
            }
        }
        for member in &shape.members {
            let inner = self.member_object(object, member);
            match (&member.name, self.program.strip(&member.ty).as_struct()) {
                (None, Some(shape)) if depth < DEPTH_LIMIT => {
                    self.members(&inner, shape, depth + 1, into)
                }
                (name, _) => {
                    let name = name.clone().unwrap_or_default();
                    let value = self.at_depth(&inner, depth + 1);
                    // A member hides the base's of the same name.
                    if !shape.bases.is_empty() && into.len() < HIDING_LIMIT {
                        into.retain(|(known, _)| *known != name);
                    }
                    into.push((name, value));
                }
            }
        }
    }

    /// A Rust struct's members: tuples by position, the content of a single one.
    fn fields(&self, object: &Object, depth: usize) -> Value {
        let ty = self.program.strip(&object.ty);
        let Some(shape) = ty.as_struct() else {
            return self.at_depth(object, depth + 1);
        };
        let value = |member: &Member| self.at_depth(&self.member_object(object, member), depth + 1);
        let positional = !shape.members.is_empty()
            && shape
                .members
                .iter()
                .all(|member| is_positional(member.name.as_deref()));
        if !positional {
            let named = shape
                .members
                .iter()
                .map(|member| (member.name.clone().unwrap_or_default(), value(member)));
            return Value::Struct(named.collect());
        }
        let mut ordered: Vec<&Member> = shape.members.iter().collect();
        ordered.sort_by_key(|member| {
            member
                .name
                .as_deref()
                .and_then(|name| name.trim_start_matches('_').parse::<u32>().ok())
        });
        match ordered.as_slice() {
            [only] if !ty.name.starts_with('(') => value(only),
            several => Value::Sequence {
                len: several.len() as u64,
                items: several.iter().map(|member| value(member)).collect(),
            },
        }
    }

    pub fn symbol(&self, address: u64) -> Option<String> {
        let (name, offset) = self.program.symbol_at(address)?;
        Some(if offset == 0 {
            name
        } else {
            format!("{name}+{offset}")
        })
    }
}
