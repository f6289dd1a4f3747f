//! `any`, `all`, `count` and `sum` over the elements of a container.

use crate::decode::{Decoder, Limits, Object, Presentation};
use crate::storage::Storage;
use crate::types::{Shape, Type};
use crate::view::Unavailable;

use super::ExprError;
use super::arithmetic::{Number, Rank, binary, truth};
use super::evaluate::{Evaluator, Result};
use super::parser::{Node, Over, Quantity};

/// Elements that one expression looks at.
const ELEMENT_LIMIT: usize = 1 << 20;

/// One element: its key, where it has one, and its value.
type Element = (Option<Object>, Object);

impl Evaluator<'_> {
    pub(super) fn over(&self, over: &Over, column: usize) -> Result<Object> {
        let elements = self.elements(&over.of)?;
        match (over.what, &over.test) {
            (Quantity::Count, None) => Ok(counted(elements.len() as u64)),
            (Quantity::Sum, _) => self.sum(over, &elements, column),
            _ => self.tested(over, &elements, column),
        }
    }

    /// The elements of what the node stands for.
    fn elements(&self, of: &Node) -> Result<Vec<Element>> {
        let object = self.through(&self.eval(of)?, of.column)?;
        if let Storage::Missing(why) = &object.storage {
            return Err(ExprError::at(of.column, why.to_string()));
        }
        let alone = |items: Vec<Object>| items.into_iter().map(|item| (None, item)).collect();
        if let Shape::Array {
            of: ty,
            count: Some(count),
        } = &self.program.strip(&object.ty).shape
        {
            let stride = self.stride(ty, of.column)?;
            let count = bounded(*count, of.column)?;
            let item = |index| Object::new(ty.clone(), object.storage.at(index * stride));
            return Ok(alone((0..count).map(item).collect()));
        }
        let limits = Limits {
            elements: ELEMENT_LIMIT + 1,
        };
        let decoder = Decoder::new(self.program, self.view, None, limits);
        let presented = decoder
            .present(&object)
            .map_err(|why| ExprError::at(of.column, why.to_string()))?;
        match presented {
            Some(Presentation::Run {
                of: ty,
                at,
                stride,
                len,
            }) => {
                let count = bounded(len, of.column)?;
                let item = |index: u64| Object::new(ty.clone(), at.at(index.wrapping_mul(stride)));
                Ok(alone((0..count).map(item).collect()))
            }
            Some(Presentation::List { items, len }) => {
                bounded(len, of.column)?;
                Ok(alone(items))
            }
            Some(Presentation::Pairs { entries, len }) => {
                bounded(len, of.column)?;
                let entries = entries.into_iter();
                Ok(entries.map(|(key, value)| (Some(key), value)).collect())
            }
            _ => Err(ExprError::at(
                of.column,
                format!(
                    "`{}` has no elements; a pointer needs bounds, as in `p[0..9]`",
                    self.program.type_name(&object.ty)
                ),
            )),
        }
    }

    /// What is evaluated for an element.
    fn of_element(&self, over: &Over, (key, value): &Element, column: usize) -> Result<Object> {
        let Some(test) = &over.test else {
            return Ok(value.clone());
        };
        let names: Vec<(String, Object)> = match (over.names.as_slice(), key) {
            ([], key) => [("_".to_owned(), value.clone())]
                .into_iter()
                .chain(key.clone().map(|key| ("_key".to_owned(), key)))
                .collect(),
            ([name], _) => vec![(name.clone(), value.clone())],
            ([first, second, ..], Some(key)) => vec![
                (first.clone(), key.clone()),
                (second.clone(), value.clone()),
            ],
            (_, None) => {
                return Err(ExprError::at(
                    column,
                    "only the elements of a map have a key and a value",
                ));
            }
        };
        self.with_names(names).eval(test)
    }

    /// One element that cannot be read decides nothing where another one decides all.
    fn tested(&self, over: &Over, elements: &[Element], column: usize) -> Result<Object> {
        let at = over.test.as_ref().map_or(column, |test| test.column);
        let mut held = 0;
        let mut missing: Option<Unavailable> = None;
        for element in elements {
            let object = self.of_element(over, element, column)?;
            match self.condition(&object) {
                Ok(Some(true)) if over.what == Quantity::Any => return Ok(truth(true)),
                Ok(Some(true)) => held += 1,
                Ok(Some(false)) if over.what == Quantity::All => return Ok(truth(false)),
                Ok(Some(false)) => {}
                Ok(None) => return Err(ExprError::at(at, "it is not a truth value")),
                Err(why) => {
                    missing.get_or_insert(why);
                }
            }
        }
        Ok(match (missing, over.what) {
            (Some(why), Quantity::Count) => {
                Object::new(Type::unsigned_long(), Storage::Missing(why))
            }
            (Some(why), _) => Object::new(Type::bool(), Storage::Missing(why)),
            (None, Quantity::Any) => truth(false),
            (None, Quantity::All) => truth(true),
            (None, _) => counted(held),
        })
    }

    fn sum(&self, over: &Over, elements: &[Element], column: usize) -> Result<Object> {
        let at = over.test.as_ref().map_or(column, |test| test.column);
        let mut total = Number::integer(0, Rank::Long);
        for element in elements {
            let object = self.of_element(over, element, column)?;
            let number = match self.number(&object, at)? {
                Ok(number) => number,
                Err(why) => return Ok(Object::new(Type::long(), Storage::Missing(why))),
            };
            let added = binary("+", total, number).map_err(|why| ExprError::at(at, why))?;
            total = match self.number(&added, at)? {
                Ok(total) => total,
                Err(why) => return Ok(Object::new(Type::long(), Storage::Missing(why))),
            };
        }
        Ok(total.object())
    }
}

fn counted(count: u64) -> Object {
    Number::integer(count.into(), Rank::UnsignedLong).object()
}

fn bounded(len: u64, column: usize) -> Result<u64> {
    if len > ELEMENT_LIMIT as u64 {
        return Err(ExprError::at(
            column,
            format!("{len} elements: at most {ELEMENT_LIMIT} are looked at, take a slice"),
        ));
    }
    Ok(len)
}
