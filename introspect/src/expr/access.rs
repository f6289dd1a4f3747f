//! Following pointers, naming members, indexing.

use crate::decode::{Decoder, Limits, Object, Presentation};
use crate::storage::Storage;
use crate::types::{Flavour, Language, Shape, Ty, Type};
use crate::value::Value;

use super::ExprError;
use super::arithmetic::Number;
use super::evaluate::{Evaluator, Result};
use super::names::nearest;
use super::operate::same;
use super::parser::Node;

/// Smart pointers and typedefs followed to reach a member.
const FOLLOW_LIMIT: usize = 8;

impl Evaluator<'_> {
    /// `*p`: raw pointers, references, arrays, smart pointers.
    pub(super) fn deref(&self, object: &Object, column: usize) -> Result<Object> {
        let decoder = self.decoder();
        let ty = self.program.strip(&object.ty);
        match &ty.shape {
            Shape::Pointer { to, flavour } if *flavour != Flavour::Member => {
                if matches!(to, Ty::Void) {
                    return Err(ExprError::at(
                        column,
                        "a `void *` must be cast before it is followed",
                    ));
                }
                let frame = self.used_frame();
                let decoder =
                    Decoder::new(self.program, self.view, frame.as_ref(), self.context.limits);
                Ok(decoder
                    .pointee(object)
                    .unwrap_or_else(|why| Object::new(to.clone(), Storage::Missing(why))))
            }
            Shape::Array { of, .. } => Ok(Object::new(of.clone(), object.storage.clone())),
            Shape::Function { .. } => Ok(object.clone()),
            _ => match decoder.present(object) {
                Ok(Some(Presentation::Content(inner))) => Ok(inner),
                Ok(Some(Presentation::Nothing)) => Err(ExprError::at(column, "it is empty")),
                Err(why) => Ok(Object::new(object.ty.clone(), Storage::Missing(why))),
                _ => Err(ExprError::at(
                    column,
                    format!(
                        "`{}` cannot be followed",
                        self.program.type_name(&object.ty)
                    ),
                )),
            },
        }
    }

    /// `a.b` and `a->b` alike: pointers and smart pointers are followed.
    pub(super) fn member(&self, object: &Object, name: &str, column: usize) -> Result<Object> {
        let decoder = self.decoder();
        let mut current = object.clone();
        for _ in 0..FOLLOW_LIMIT {
            if let Some(found) = decoder.find_member(&current, name) {
                return Ok(found);
            }
            let pointer = matches!(self.program.strip(&current.ty).shape, Shape::Pointer { .. });
            let inner = match decoder.present(&current) {
                Ok(Some(Presentation::Content(inner))) => inner,
                Ok(Some(Presentation::Pairs { .. })) => {
                    return self.entry(
                        &current,
                        &Value::Text {
                            text: name.into(),
                            len: name.len() as u64,
                        },
                        column,
                    );
                }
                _ if pointer => self.deref(&current, column)?,
                // The one field of a tuple struct or variant: `friend.Some.name`.
                _ => match decoder.only_field(&current) {
                    Some(field) => field,
                    None => break,
                },
            };
            current = inner;
        }
        let message = format!(
            "`{}` has no member `{name}`",
            self.program.type_name(&object.ty)
        );
        Err(ExprError {
            column,
            message,
            near: nearest(name, decoder.member_names(&current.ty).into_iter()),
        })
    }

    pub(super) fn index(&self, of: &Node, index: &Node, column: usize) -> Result<Object> {
        let object = self.eval(of)?;
        let key = self.eval(index)?;
        let object = self.through(&object, column)?;
        if let Ok(Some(Presentation::Pairs { .. })) = self.decoder().present(&object) {
            return self.entry(&object, &self.decoder().value(&key), column);
        }
        let position = match self.number(&key, index.column)? {
            Ok(Number::Integer { value, .. }) => value,
            Ok(Number::Float(_)) => {
                return Err(ExprError::at(index.column, "an index must be an integer"));
            }
            Err(why) => return Ok(Object::new(Type::int(), Storage::Missing(why))),
        };
        self.element(&object, position, column)
    }

    /// References and smart pointers to containers stand for the container.
    pub(super) fn through(&self, object: &Object, column: usize) -> Result<Object> {
        let mut current = object.clone();
        for _ in 0..FOLLOW_LIMIT {
            let follow = match &self.program.strip(&current.ty).shape {
                Shape::Pointer { flavour, .. } => {
                    matches!(flavour, Flavour::Reference | Flavour::Owned)
                }
                _ => matches!(
                    self.decoder().present(&current),
                    Ok(Some(Presentation::Content(_)))
                ),
            };
            if !follow {
                break;
            }
            current = self.deref(&current, column)?;
        }
        Ok(current)
    }

    pub(super) fn element(&self, object: &Object, position: i128, column: usize) -> Result<Object> {
        let outside = |len: u64| {
            ExprError::at(
                column,
                format!("index {position} is outside: the length is {len}"),
            )
        };
        let unsigned = u64::try_from(position);
        let ty = self.program.strip(&object.ty);
        match &ty.shape {
            Shape::Pointer { to, .. } => self.offset_by(object, to, position, column),
            Shape::Array { of, count } => {
                let stride = self.stride(of, column)?;
                let index = unsigned.map_err(|_| outside(count.unwrap_or(0)))?;
                // Flexible arrays and `T x[0]` have no length to check.
                match count {
                    Some(count) if index >= *count && *count > 1 => Err(outside(*count)),
                    _ => Ok(Object::new(
                        of.clone(),
                        object.storage.at(index.wrapping_mul(stride)),
                    )),
                }
            }
            _ => {
                let wanted = usize::try_from(position)
                    .unwrap_or(usize::MAX)
                    .saturating_add(1)
                    .min(1 << 20);
                let decoder =
                    Decoder::new(self.program, self.view, None, Limits { elements: wanted });
                let presented = decoder
                    .present(object)
                    .map_err(|why| ExprError::at(column, why.to_string()))?;
                match presented {
                    Some(Presentation::Run {
                        of,
                        at,
                        stride,
                        len,
                    }) => {
                        let index = unsigned
                            .ok()
                            .filter(|index| *index < len)
                            .ok_or_else(|| outside(len))?;
                        Ok(Object::new(of, at.at(index.wrapping_mul(stride))))
                    }
                    Some(Presentation::List { items, len }) => usize::try_from(position)
                        .ok()
                        .and_then(|index| items.into_iter().nth(index))
                        .ok_or_else(|| outside(len)),
                    Some(Presentation::Text { at, len }) => {
                        let index = unsigned
                            .ok()
                            .filter(|index| *index < len)
                            .ok_or_else(|| outside(len))?;
                        Ok(Object::new(Type::char(), at.at(index)))
                    }
                    _ => match decoder.find_member(object, &position.to_string()) {
                        Some(member) => Ok(member),
                        None => Err(ExprError::at(
                            column,
                            format!("`{}` cannot be indexed", self.program.type_name(&object.ty)),
                        )),
                    },
                }
            }
        }
    }

    /// The value of a map's key.
    pub(super) fn entry(&self, object: &Object, key: &Value, column: usize) -> Result<Object> {
        let decoder = Decoder::new(self.program, self.view, None, Limits { elements: 1 << 20 });
        let Ok(Some(Presentation::Pairs { entries, .. })) = decoder.present(object) else {
            return Err(ExprError::at(column, "it is not a map"));
        };
        let found = entries
            .into_iter()
            .find(|(known, _)| same(&decoder.value(known), key));
        found
            .map(|(_, value)| value)
            .ok_or_else(|| ExprError::at(column, format!("no key {}", key.to_text())))
    }

    pub(super) fn offset_by(
        &self,
        pointer: &Object,
        to: &Ty,
        by: i128,
        column: usize,
    ) -> Result<Object> {
        let stride = self.stride(to, column)?;
        match self.decoder().address_in(pointer) {
            Ok(base) => {
                let distance =
                    i64::try_from(by).map_err(|_| ExprError::at(column, "an index too large"))?;
                let address = base.wrapping_add_signed(distance.wrapping_mul(stride.cast_signed()));
                Ok(Object::new(to.clone(), Storage::Memory(address)))
            }
            Err(why) => Ok(Object::new(to.clone(), Storage::Missing(why))),
        }
    }

    pub(super) fn stride(&self, of: &Ty, column: usize) -> Result<u64> {
        // gdb steps `void *` by bytes.
        if matches!(of, Ty::Void) {
            return Ok(1);
        }
        self.program
            .size_of(of)
            .ok_or_else(|| ExprError::at(column, "an incomplete type"))
    }

    pub(super) fn slice(
        &self,
        of: &Node,
        low: Option<&Node>,
        high: Option<&Node>,
        column: usize,
    ) -> Result<Object> {
        let object = self.through(&self.eval(of)?, column)?;
        let bound = |node: Option<&Node>| node.map(|node| self.position(node)).transpose();
        let low = bound(low)?.unwrap_or(0);
        // Pointers and flexible arrays have no length to check.
        let open = match &self.program.strip(&object.ty).shape {
            Shape::Pointer { .. } => true,
            Shape::Array { count, .. } => count.is_none_or(|count| count <= 1),
            _ => false,
        };
        let high = match bound(high)? {
            Some(high) => high,
            None if open => {
                return Err(ExprError::at(
                    column,
                    "a slice of something without a length needs an end",
                ));
            }
            None => self.len(&object, column)?,
        };
        let count = high
            .checked_sub(low)
            .ok_or_else(|| ExprError::at(column, "a slice ends before it starts"))?;
        if !open && high > self.len(&object, column)? {
            return Err(ExprError::at(
                column,
                format!(
                    "the slice is outside: the length is {}",
                    self.len(&object, column)?
                ),
            ));
        }
        let first = match (count, self.element(&object, low.into(), column)) {
            (0, Err(_)) => Object::new(Type::int(), Storage::bytes(Vec::new())),
            (_, first) => first?,
        };
        if let Ok(Some(Presentation::List { .. })) = self.decoder().present(&object) {
            return Err(ExprError::at(
                column,
                "this container's elements do not lie side by side: index them one by one",
            ));
        }
        let shape = Shape::Array {
            of: first.ty,
            count: Some(count),
        };
        let ty = Ty::Made(std::sync::Arc::new(Type {
            name: String::new(),
            size: None,
            language: Language::C,
            shape,
        }));
        Ok(Object::new(ty, first.storage))
    }

    pub(super) fn position(&self, node: &Node) -> Result<u64> {
        match self.number(&self.eval(node)?, node.column)? {
            Ok(Number::Integer { value, .. }) => {
                u64::try_from(value).map_err(|_| ExprError::at(node.column, "a negative index"))
            }
            _ => Err(ExprError::at(node.column, "an index must be an integer")),
        }
    }

    pub(super) fn len(&self, object: &Object, column: usize) -> Result<u64> {
        let object = self.through(object, column)?;
        let ty = self.program.strip(&object.ty);
        if let Shape::Array {
            count: Some(count), ..
        } = &ty.shape
        {
            return Ok(*count);
        }
        let small = Decoder::new(self.program, self.view, None, Limits { elements: 0 });
        match small.present(&object) {
            Ok(Some(
                Presentation::Text { len, .. }
                | Presentation::Run { len, .. }
                | Presentation::List { len, .. }
                | Presentation::Pairs { len, .. },
            )) => Ok(len),
            _ => match small.value(&object) {
                Value::Text { len, .. } | Value::Sequence { len, .. } | Value::Map { len, .. } => {
                    Ok(len)
                }
                Value::Unavailable(why) => Err(ExprError::at(column, why.to_string())),
                _ => Err(ExprError::at(
                    column,
                    format!("`{}` has no length", self.program.type_name(&object.ty)),
                )),
            },
        }
    }
}
