//! Operators on numbers, by C's rules.

use crate::decode::Object;
use crate::storage::Storage;
use crate::types::{Ty, Type};

/// An operand, as C's conversions leave it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Integer { value: i128, rank: Rank },
    Float(f64),
}

/// Integer types after promotion, in order of conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Int,
    Unsigned,
    Long,
    UnsignedLong,
    Wide,
}

impl Rank {
    /// The promoted type of an integer of `size` bytes.
    pub fn of(size: u64, signed: bool) -> Self {
        match (size, signed) {
            (0..4, _) | (4, true) => Self::Int,
            (4, false) => Self::Unsigned,
            (5..=8, true) => Self::Long,
            (5..=8, false) => Self::UnsignedLong,
            _ => Self::Wide,
        }
    }

    fn wrap(self, value: i128) -> i128 {
        let bits = match self {
            Self::Int | Self::Unsigned => 32,
            Self::Long | Self::UnsignedLong => 64,
            Self::Wide => return value,
        };
        let low = value & ((1 << bits) - 1);
        let negative = matches!(self, Self::Int | Self::Long) && low >> (bits - 1) != 0;
        if negative { low - (1 << bits) } else { low }
    }

    fn ty(self) -> (Ty, usize) {
        match self {
            Self::Int => (Type::int(), 4),
            Self::Unsigned => (
                Type::made(
                    "unsigned int",
                    4,
                    crate::types::Shape::Base(crate::types::Encoding::Unsigned),
                ),
                4,
            ),
            Self::Long => (Type::long(), 8),
            Self::UnsignedLong => (Type::unsigned_long(), 8),
            Self::Wide => (
                Type::made(
                    "__int128",
                    16,
                    crate::types::Shape::Base(crate::types::Encoding::Signed),
                ),
                16,
            ),
        }
    }
}

impl Number {
    pub fn integer(value: i128, rank: Rank) -> Self {
        Self::Integer {
            value: rank.wrap(value),
            rank,
        }
    }

    pub fn object(self) -> Object {
        match self {
            Self::Integer { value, rank } => {
                let (ty, size) = rank.ty();
                Object::new(
                    ty,
                    Storage::bytes(value.cast_unsigned().to_le_bytes()[..size].to_vec()),
                )
            }
            Self::Float(value) => {
                Object::new(Type::double(), Storage::bytes(value.to_le_bytes().to_vec()))
            }
        }
    }

    fn as_float(self) -> f64 {
        match self {
            Self::Integer { value, .. } => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// A truth value.
pub fn truth(value: bool) -> Object {
    Object::new(Type::bool(), Storage::bytes(vec![u8::from(value)]))
}

/// `left operator right`; the error says what is wrong.
pub fn binary(operator: &str, left: Number, right: Number) -> Result<Object, &'static str> {
    match (left, right) {
        (Number::Integer { value: a, rank: ra }, Number::Integer { value: b, rank: rb }) => {
            let rank = if matches!(operator, "<<" | ">>") {
                ra
            } else {
                ra.max(rb)
            };
            integers(
                operator,
                rank.wrap(a),
                if rank == ra && matches!(operator, "<<" | ">>") {
                    b
                } else {
                    rank.wrap(b)
                },
                rank,
            )
        }
        _ => floats(operator, left.as_float(), right.as_float()),
    }
}

fn integers(operator: &str, a: i128, b: i128, rank: Rank) -> Result<Object, &'static str> {
    if let Some(result) = compare(operator, a, b) {
        return Ok(truth(result));
    }
    let shift = || {
        u32::try_from(b)
            .ok()
            .filter(|bits| *bits < 128)
            .ok_or("a shift by that much")
    };
    let value = match operator {
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" => a.checked_div(b).ok_or("division by zero")?,
        "%" => a.checked_rem(b).ok_or("division by zero")?,
        "&" => a & b,
        "|" => a | b,
        "^" => a ^ b,
        "<<" => a.wrapping_shl(shift()?),
        ">>" => a.wrapping_shr(shift()?),
        _ => return Err("no such operator"),
    };
    Ok(Number::integer(value, rank).object())
}

fn floats(operator: &str, a: f64, b: f64) -> Result<Object, &'static str> {
    if let Some(result) = compare(operator, a, b) {
        return Ok(truth(result));
    }
    let value = match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "%" => a % b,
        _ => return Err("this operator wants integers"),
    };
    Ok(Number::Float(value).object())
}

pub fn compare<T: PartialOrd>(operator: &str, a: T, b: T) -> Option<bool> {
    Some(match operator {
        "==" => a == b,
        "!=" => a != b,
        "<" => a < b,
        ">" => a > b,
        "<=" => a <= b,
        ">=" => a >= b,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_those_of_c() {
        let int = |value| Number::integer(value, Rank::Int);
        let unsigned = |value| Number::integer(value, Rank::Unsigned);
        assert_eq!(
            unsigned(-1),
            Number::Integer {
                value: 0xffff_ffff,
                rank: Rank::Unsigned
            }
        );
        let bytes = |object: Object| match object.storage {
            Storage::Gathered(_) => format!("{:?}", object.storage),
            other => panic!("{other:?}"),
        };
        // -1 < 1u is false in C.
        assert_eq!(
            bytes(binary("<", int(-1), unsigned(1)).unwrap()),
            bytes(truth(false))
        );
        assert_eq!(
            bytes(binary("+", int(i32::MAX.into()), int(1)).unwrap()),
            bytes(int(i32::MIN.into()).object())
        );
        assert!(binary("/", int(1), int(0)).is_err());
        assert!(binary("%", int(i128::MIN), int(0)).is_err());
        assert!(binary("<<", int(1), int(-1)).is_err());
    }
}
