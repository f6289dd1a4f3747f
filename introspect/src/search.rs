//! Memory searched for values and for addresses.

use crate::view::{Mapping, PAGE, View};

/// Hits of one search.
pub const HIT_LIMIT: usize = 10_000_000;

/// A number as it lies in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    bytes: Vec<u8>,
    align: usize,
}

impl Needle {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Kinds of numbers that are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Signed(usize),
    Unsigned(usize),
    Float(usize),
}

impl Number {
    /// By C's or Rust's name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "i8" | "int8_t" | "signed char" => Self::Signed(1),
            "u8" | "uint8_t" | "unsigned char" | "char" | "bool" => Self::Unsigned(1),
            "i16" | "int16_t" | "short" => Self::Signed(2),
            "u16" | "uint16_t" | "unsigned short" => Self::Unsigned(2),
            "i32" | "int32_t" | "int" => Self::Signed(4),
            "u32" | "uint32_t" | "unsigned" | "unsigned int" => Self::Unsigned(4),
            "i64" | "int64_t" | "long" | "long long" | "isize" | "ssize_t" => Self::Signed(8),
            "u64" | "uint64_t" | "unsigned long" | "unsigned long long" | "usize" | "size_t"
            | "ptr" => Self::Unsigned(8),
            "f32" | "float" => Self::Float(4),
            "f64" | "double" => Self::Float(8),
            _ => return None,
        })
    }

    pub fn size(self) -> usize {
        match self {
            Self::Signed(size) | Self::Unsigned(size) | Self::Float(size) => size,
        }
    }

    /// As it lies in memory; None where the text is no such number or out of range.
    pub fn needle(self, text: &str) -> Option<Needle> {
        let bytes = match self {
            Self::Float(4) => text.parse::<f32>().ok()?.to_le_bytes().to_vec(),
            Self::Float(_) => text.parse::<f64>().ok()?.to_le_bytes().to_vec(),
            Self::Signed(size) | Self::Unsigned(size) => {
                let value = integer(text)?;
                let bits = u32::try_from(size * 8).ok()?;
                let (low, high) = match self {
                    Self::Signed(_) => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
                    _ => (0, (1i128 << bits) - 1),
                };
                if !(low..=high).contains(&value) {
                    return None;
                }
                value.to_le_bytes()[..size].to_vec()
            }
        };
        Some(Needle {
            align: bytes.len(),
            bytes,
        })
    }

    /// What a text says, as it would be read from memory.
    pub fn reading(self, text: &str) -> Option<Reading> {
        self.read(self.needle(text)?.bytes())
    }

    /// What bytes of memory say.
    pub fn read(self, bytes: &[u8]) -> Option<Reading> {
        let mut wide = [0u8; 8];
        let size = self.size();
        wide[..size].copy_from_slice(bytes.get(..size)?);
        let raw = u64::from_le_bytes(wide);
        Some(match self {
            Self::Signed(size) => {
                let unused = 64 - 8 * u32::try_from(size).ok()?;
                Reading::Integer(i128::from((raw << unused).cast_signed() >> unused))
            }
            Self::Unsigned(_) => Reading::Integer(raw.into()),
            Self::Float(4) => {
                let low = u32::try_from(raw & 0xffff_ffff).ok()?;
                Reading::Float(crate::scalars::short_double(f32::from_bits(low)))
            }
            Self::Float(_) => Reading::Float(f64::from_bits(raw)),
        })
    }
}

/// A number that was read.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub enum Reading {
    Integer(i128),
    Float(f64),
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hexadecimal) => i128::from_str_radix(hexadecimal, 16).ok()?,
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None => return None,
    };
    Some(if negative { -value } else { value })
}

/// Addresses, each a multiple of the number's size, at which it stands in memory that can be written.
pub fn find(view: &dyn View, needle: &Needle) -> Vec<u64> {
    let mut found = Vec::new();
    for mapping in view.mappings().iter().filter(|mapping| written(mapping)) {
        view.each_page(mapping.start, mapping.end, &mut |page, bytes| {
            let each = bytes
                .chunks_exact(needle.align)
                .zip((page..).step_by(needle.align));
            let hits = each.filter(|(chunk, _)| *chunk == needle.bytes.as_slice());
            let room = HIT_LIMIT.saturating_sub(found.len());
            found.extend(hits.map(|(_, address)| address).take(room));
        });
    }
    found
}

/// Aligned words in `start..end` of memory that hold an address of `target`.
pub fn pointers_into(
    view: &dyn View,
    (start, end): (u64, u64),
    target: (u64, u64),
) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    view.each_page(start & !(PAGE - 1), end, &mut |page, bytes| {
        for (word, address) in bytes.chunks_exact(8).zip((page..).step_by(8)) {
            let value = u64::from_le_bytes([
                word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
            ]);
            if (target.0..target.1).contains(&value) && (start..end).contains(&address) {
                found.push((address, value));
            }
        }
    });
    found
}

/// Memory that a program keeps data in.
pub fn written(mapping: &Mapping) -> bool {
    mapping.perms.write && mapping.perms.read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_to_bytes_and_back() {
        let int = Number::named("int").unwrap();
        assert_eq!(int.needle("-2").unwrap().bytes, [0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(
            int.read(&[0xfe, 0xff, 0xff, 0xff]),
            Some(Reading::Integer(-2))
        );
        assert!(int.needle("2147483648").is_none() && int.needle("x").is_none());
        assert_eq!(
            Number::named("u64")
                .unwrap()
                .needle("0xffffffffffffffff")
                .unwrap()
                .bytes,
            [0xff; 8]
        );
        assert_eq!(
            Number::named("f32").unwrap().read(&0.1f32.to_le_bytes()),
            Some(Reading::Float(0.1))
        );
        assert!(Number::named("u8").unwrap().needle("-1").is_none());
        assert!(Number::named("string").is_none());
    }
}
