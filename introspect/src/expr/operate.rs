//! Operators and casts on objects.

use crate::decode::Object;
use crate::storage::Storage;
use crate::types::{Encoding, Flavour, Language, Shape, Ty, Type};
use crate::value::Value;
use crate::view::Unavailable;

use super::ExprError;
use super::arithmetic::{Number, Rank, binary, compare, truth};
use super::evaluate::{Evaluator, Result};
use super::names::nearest;
use super::parser::{Node, TypeSpec, Unary};

impl Evaluator<'_> {
    pub(super) fn unary(&self, operator: Unary, inner: &Node, column: usize) -> Result<Object> {
        let object = self.eval(inner)?;
        match operator {
            Unary::Deref => self.deref(&object, column),
            Unary::AddressOf => match object.storage.address() {
                Some(address) if object.bits.is_none() => Ok(Object::new(
                    Type::pointer_to(object.ty.clone()),
                    Storage::bytes(address.to_le_bytes().to_vec()),
                )),
                _ => Err(ExprError::at(column, "it has no address")),
            },
            Unary::Not => match self.condition(&object) {
                Ok(value) => {
                    Ok(truth(!value.ok_or_else(|| {
                        ExprError::at(column, "it is not a truth value")
                    })?))
                }
                Err(why) => Ok(missing_bool(why)),
            },
            Unary::Minus | Unary::Complement => {
                let number = match self.number(&object, column)? {
                    Ok(number) => number,
                    Err(why) => return Ok(Object::new(object.ty, Storage::Missing(why))),
                };
                match (number, operator) {
                    (Number::Integer { value, rank }, Unary::Minus) => {
                        Ok(Number::integer(value.wrapping_neg(), rank).object())
                    }
                    (Number::Integer { value, rank }, _) => {
                        Ok(Number::integer(!value, rank).object())
                    }
                    (Number::Float(value), Unary::Minus) => Ok(Number::Float(-value).object()),
                    _ => Err(ExprError::at(column, "`~` wants an integer")),
                }
            }
        }
    }

    pub(super) fn binary(
        &self,
        operator: &'static str,
        left: &Node,
        right: &Node,
        column: usize,
    ) -> Result<Object> {
        let a = self.eval(left)?;
        if matches!(operator, "&&" | "||") {
            return self.logical(operator, &a, left, right);
        }
        let b = self.eval(right)?;
        if let Some(result) = self.pointer_arithmetic(operator, &a, &b, column)? {
            return Ok(result);
        }
        match (self.number(&a, left.column), self.number(&b, right.column)) {
            (Ok(Ok(a)), Ok(Ok(b))) => {
                binary(operator, a, b).map_err(|why| ExprError::at(column, why))
            }
            (Ok(Err(why)), _) | (_, Ok(Err(why))) => {
                Ok(Object::new(Type::int(), Storage::Missing(why)))
            }
            (Err(error), _) | (_, Err(error)) => {
                self.compare_values(operator, &a, &b).unwrap_or(Err(error))
            }
        }
    }

    pub(super) fn logical(
        &self,
        operator: &str,
        a: &Object,
        left: &Node,
        right: &Node,
    ) -> Result<Object> {
        let truth_of = |object: &Object, node: &Node| match self.condition(object) {
            Ok(Some(value)) => Ok(Ok(value)),
            Ok(None) => Err(ExprError::at(node.column, "it is not a truth value")),
            Err(why) => Ok(Err(why)),
        };
        let first = match truth_of(a, left)? {
            Ok(value) => value,
            Err(why) => return Ok(missing_bool(why)),
        };
        if first == (operator == "||") {
            return Ok(truth(first));
        }
        match truth_of(&self.eval(right)?, right)? {
            Ok(value) => Ok(truth(value)),
            Err(why) => Ok(missing_bool(why)),
        }
    }

    pub(super) fn condition(
        &self,
        object: &Object,
    ) -> std::result::Result<Option<bool>, Unavailable> {
        if let Ok(Ok(number)) = self.number(object, 1) {
            return Ok(Some(match number {
                Number::Integer { value, .. } => value != 0,
                Number::Float(value) => value != 0.0,
            }));
        }
        match self.decoder().value(object) {
            Value::Unavailable(why) => Err(why),
            value => Ok(value.truth()),
        }
    }

    /// Strings, variants and whole structs compare by what they show.
    pub(super) fn compare_values(
        &self,
        operator: &str,
        a: &Object,
        b: &Object,
    ) -> Option<Result<Object>> {
        let decoder = self.decoder();
        let (a, b) = (decoder.value(a), decoder.value(b));
        if let Value::Unavailable(why) = [&a, &b]
            .into_iter()
            .find(|value| matches!(value, Value::Unavailable(_)))
            .unwrap_or(&Value::Null)
        {
            return Some(Ok(missing_bool(why.clone())));
        }
        match (operator, &a, &b) {
            ("==", ..) => Some(Ok(truth(same(&a, &b)))),
            ("!=", ..) => Some(Ok(truth(!same(&a, &b)))),
            (_, Value::Text { text: a, .. }, Value::Text { text: b, .. }) => {
                compare(operator, a, b).map(|result| Ok(truth(result)))
            }
            _ => None,
        }
    }

    /// `p + n`, `n + p`, `p - n`, `p - q`; None where neither side is a pointer.
    pub(super) fn pointer_arithmetic(
        &self,
        operator: &str,
        a: &Object,
        b: &Object,
        column: usize,
    ) -> Result<Option<Object>> {
        let (left, right) = (self.decayed(a), self.decayed(b));
        let (pointer, to, other, flip) = match (&left, &right, operator) {
            (Some((p, to)), None, "+" | "-") => (p, to, b, operator == "-"),
            (None, Some((p, to)), "+") => (p, to, a, false),
            (Some((p, to)), Some((q, _)), "-") => {
                let stride = i128::from(self.stride(to, column)?.max(1));
                let decoder = self.decoder();
                return Ok(Some(match (decoder.address_in(p), decoder.address_in(q)) {
                    (Ok(p), Ok(q)) => {
                        Number::integer((i128::from(p) - i128::from(q)) / stride, Rank::Long)
                            .object()
                    }
                    (Err(why), _) | (_, Err(why)) => {
                        Object::new(Type::long(), Storage::Missing(why))
                    }
                }));
            }
            _ => return Ok(None),
        };
        let by = match self.number(other, column)? {
            Ok(Number::Integer { value, .. }) => {
                if flip {
                    value.wrapping_neg()
                } else {
                    value
                }
            }
            Ok(Number::Float(_)) => {
                return Err(ExprError::at(column, "a pointer moves by integers"));
            }
            Err(why) => return Ok(Some(Object::new(pointer.ty.clone(), Storage::Missing(why)))),
        };
        let moved = self.offset_by(pointer, to, by, column)?;
        let storage = match moved.storage {
            Storage::Memory(address) => Storage::bytes(address.to_le_bytes().to_vec()),
            other => other,
        };
        Ok(Some(Object::new(Type::pointer_to(to.clone()), storage)))
    }

    /// A pointer, or an array as the pointer it decays to, and the target's type.
    pub(super) fn decayed(&self, object: &Object) -> Option<(Object, Ty)> {
        match &self.program.strip(&object.ty).shape {
            Shape::Pointer {
                to,
                flavour: Flavour::Raw,
            } => Some((object.clone(), to.clone())),
            Shape::Array { of, .. } => {
                let address = object.storage.address()?;
                Some((
                    Object::new(
                        Type::pointer_to(of.clone()),
                        Storage::bytes(address.to_le_bytes().to_vec()),
                    ),
                    of.clone(),
                ))
            }
            _ => None,
        }
    }

    /// The object as a number: Ok(Err) when it is one but cannot be read, Err when it is none.
    pub(super) fn number(
        &self,
        object: &Object,
        column: usize,
    ) -> Result<std::result::Result<Number, Unavailable>> {
        let ty = self.program.strip(&object.ty);
        let decoder = self.decoder();
        let size = ty.size.unwrap_or(0);
        match &ty.shape {
            Shape::Base(Encoding::Float) => Ok(match decoder.value(object) {
                Value::Float(value) => Ok(Number::Float(value)),
                Value::Unavailable(why) => Err(why),
                _ => Err(Unavailable::because("unsupported float")),
            }),
            Shape::Base(encoding) => {
                let signed =
                    *encoding == Encoding::Signed || *encoding == Encoding::Char && size == 1;
                // A bit field narrower than int promotes to int.
                let width = object.bits.map_or(size, |bits| bits.len.div_ceil(8));
                let rank = if object.bits.is_some_and(|bits| bits.len < 32) {
                    Rank::Int
                } else {
                    Rank::of(width, signed)
                };
                Ok(decoder
                    .integer(object, &ty, signed)
                    .map(|value| Number::integer(value, rank)))
            }
            Shape::Enum { signed, .. } => Ok(decoder
                .integer(object, &ty, *signed)
                .map(|value| Number::integer(value, Rank::of(size, *signed)))),
            Shape::Pointer {
                flavour: Flavour::Raw,
                ..
            } => Ok(decoder
                .address_in(object)
                .map(|address| Number::integer(address.into(), Rank::UnsignedLong))),
            Shape::Function { .. } => {
                let address = object
                    .storage
                    .address()
                    .ok_or_else(|| ExprError::at(column, "it has no address"))?;
                Ok(Ok(Number::integer(address.into(), Rank::UnsignedLong)))
            }
            _ => {
                let through = self.through(object, column)?;
                let inner = self.program.strip(&through.ty);
                let progress =
                    inner.is_integer() || matches!(inner.shape, Shape::Base(Encoding::Float));
                if progress && !std::sync::Arc::ptr_eq(&inner, &ty) {
                    return self.number(&through, column);
                }
                match &object.storage {
                    Storage::Missing(why) => Ok(Err(why.clone())),
                    _ => Err(ExprError::at(
                        column,
                        format!("`{}` is not a number", self.program.type_name(&object.ty)),
                    )),
                }
            }
        }
    }

    pub(super) fn cast(&self, spec: &TypeSpec, object: &Object, column: usize) -> Result<Object> {
        let mut ty = self.type_spec(spec, column)?;
        for _ in 0..spec.pointers {
            ty = Type::pointer_to(ty);
        }
        if let Some(count) = spec.count {
            let shape = Shape::Array {
                of: ty,
                count: Some(count),
            };
            let ty = Ty::Made(std::sync::Arc::new(Type {
                name: String::new(),
                size: None,
                language: Language::C,
                shape,
            }));
            return Ok(Object::new(ty, object.storage.clone()));
        }
        let target = self.program.strip(&ty);
        let object = match self.decayed(object) {
            Some((pointer, _)) => pointer,
            None => object.clone(),
        };
        match &target.shape {
            Shape::Base(encoding) => {
                self.convert(&object, ty, target.size.unwrap_or(4), *encoding, column)
            }
            Shape::Pointer { .. } | Shape::Enum { .. } => self.convert(
                &object,
                ty,
                target.size.unwrap_or(8),
                Encoding::Unsigned,
                column,
            ),
            // Anything else reads the same bytes by another type.
            _ => Ok(Object::new(ty, object.storage)),
        }
    }

    pub(super) fn convert(
        &self,
        object: &Object,
        ty: Ty,
        size: u64,
        encoding: Encoding,
        column: usize,
    ) -> Result<Object> {
        // Data without debug information: the cast says how to read it.
        if let Shape::Opaque { .. } = self.program.strip(&object.ty).shape {
            return Ok(Object::new(ty, object.storage.clone()));
        }
        let number = match self.number(object, column)? {
            Ok(number) => number,
            Err(why) => return Ok(Object::new(ty, Storage::Missing(why))),
        };
        let bytes = match (encoding, number) {
            (Encoding::Float, number) => {
                let value = match number {
                    Number::Integer { value, .. } => value as f64,
                    Number::Float(value) => value,
                };
                match size {
                    #[expect(clippy::cast_possible_truncation, reason = "a cast to float rounds")]
                    4 => (value as f32).to_le_bytes().to_vec(),
                    8 => value.to_le_bytes().to_vec(),
                    _ => return Err(ExprError::at(column, "unsupported float")),
                }
            }
            (Encoding::Bool, Number::Integer { value, .. }) => vec![u8::from(value != 0)],
            (Encoding::Bool, Number::Float(value)) => vec![u8::from(value != 0.0)],
            (_, Number::Integer { value, .. }) => cut(value, size),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a cast to an integer cuts the fraction off"
            )]
            (_, Number::Float(value)) => cut(value as i128, size),
        };
        Ok(Object::new(ty, Storage::bytes(bytes)))
    }

    pub(super) fn type_spec(&self, spec: &TypeSpec, column: usize) -> Result<Ty> {
        if let Some(basic) = basic_type(&spec.name) {
            return Ok(basic);
        }
        let found = self.program.types_named(&spec.name);
        // Several units describe one type; a struct wins over a declaration.
        found.into_iter().next().ok_or_else(|| ExprError {
            column,
            message: format!("no type `{}`", spec.name),
            near: nearest(&spec.name, self.program.type_names()),
        })
    }
}

fn cut(value: i128, size: u64) -> Vec<u8> {
    value.cast_unsigned().to_le_bytes()[..usize::try_from(size).unwrap_or(16).min(16)].to_vec()
}

fn missing_bool(why: Unavailable) -> Object {
    Object::new(Type::bool(), Storage::Missing(why))
}

/// Values agree: text by content, numbers by value, unit variants and enumerators also with their name as text.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Text { text: a, .. }, Value::Text { text: b, .. }) => a == b,
        (Value::Variant { name, fields: None }, Value::Text { text, .. })
        | (Value::Text { text, .. }, Value::Variant { name, fields: None }) => name == text,
        (Value::Enumerator { names, .. }, Value::Text { text, .. })
        | (Value::Text { text, .. }, Value::Enumerator { names, .. }) => {
            matches!(names.as_slice(), [only] if only == text)
        }
        (Value::Char(code), Value::Text { text, .. })
        | (Value::Text { text, .. }, Value::Char(code)) => {
            text.chars().eq([crate::value::character(*code)])
        }
        _ => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(value) => Some((*value).into()),
        Value::Signed(number) | Value::Enumerator { number, .. } => Some(*number),
        Value::Unsigned(number) => i128::try_from(*number).ok(),
        Value::Char(code) => Some((*code).into()),
        Value::Pointer { address, .. } => Some((*address).into()),
        _ => None,
    }
}

/// Types every expression knows, whether the program's debug information has them or not.
fn basic_type(name: &str) -> Option<Ty> {
    let base = |size, encoding| Some(Type::made(name, size, Shape::Base(encoding)));
    match name {
        "void" => Some(Ty::Void),
        "char" => base(1, Encoding::Char),
        "bool" | "_Bool" => base(1, Encoding::Bool),
        "signed char" | "i8" | "int8_t" => base(1, Encoding::Signed),
        "unsigned char" | "u8" | "uint8_t" => base(1, Encoding::Unsigned),
        "short" | "short int" | "i16" | "int16_t" => base(2, Encoding::Signed),
        "unsigned short" | "u16" | "uint16_t" => base(2, Encoding::Unsigned),
        "int" | "signed" | "signed int" | "i32" | "int32_t" => base(4, Encoding::Signed),
        "unsigned" | "unsigned int" | "u32" | "uint32_t" => base(4, Encoding::Unsigned),
        "long" | "long int" | "long long" | "i64" | "isize" | "int64_t" | "ssize_t" => {
            base(8, Encoding::Signed)
        }
        "unsigned long" | "long unsigned int" | "unsigned long long" | "u64" | "usize"
        | "size_t" | "uint64_t" | "uintptr_t" => base(8, Encoding::Unsigned),
        "i128" | "__int128" => base(16, Encoding::Signed),
        "u128" | "unsigned __int128" => base(16, Encoding::Unsigned),
        "float" | "f32" => base(4, Encoding::Float),
        "double" | "f64" => base(8, Encoding::Float),
        "long double" => base(16, Encoding::Float),
        _ => None,
    }
}
