//! Raw bits to numbers, names and text.

use crate::decode::Read;
use crate::value::Value;
use crate::view::Unavailable;

/// Text of bytes that may be cut inside a character.
pub fn whole_characters(bytes: &[u8], whole: bool) -> String {
    match std::str::from_utf8(bytes) {
        Err(error) if !whole && error.error_len().is_none() => {
            String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned()
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

pub fn sign_extend(raw: u128, bits: u64) -> i128 {
    match u32::try_from(bits) {
        Ok(bits @ 1..=127) => (raw << (128 - bits)).cast_signed() >> (128 - bits),
        _ => raw.cast_signed(),
    }
}

pub fn float(raw: u128, size: u64) -> Read<Value> {
    let low = u64::try_from(raw & u128::from(u64::MAX)).unwrap_or(0);
    match size {
        4 => Ok(Value::Float(short_double(f32::from_bits(
            u32::try_from(low & 0xffff_ffff).unwrap_or(0),
        )))),
        8 => Ok(Value::Float(f64::from_bits(low))),
        16 => Ok(Value::Float(extended(raw))),
        _ => Err(Unavailable::because("unsupported float")),
    }
}

/// The double that prints as the float does: 0.1f is 0.1, not 0.10000000149.
pub fn short_double(number: f32) -> f64 {
    number
        .to_string()
        .parse()
        .unwrap_or_else(|_| f64::from(number))
}

/// x87 extended precision, to the nearest double.
pub fn extended(raw: u128) -> f64 {
    let mantissa = u64::try_from(raw & u128::from(u64::MAX)).unwrap_or(0);
    let exponent = i32::try_from((raw >> 64) & 0x7fff).unwrap_or(0);
    let sign = if (raw >> 79) & 1 == 1 { -1.0 } else { 1.0 };
    if exponent == 0x7fff {
        return if mantissa << 1 == 0 {
            sign * f64::INFINITY
        } else {
            f64::NAN
        };
    }
    sign * mantissa as f64 * 2f64.powi(exponent - 16383 - 63)
}

pub fn enumerator(values: &[(String, i128)], number: i128) -> Value {
    let exact = values.iter().find(|(_, value)| *value == number);
    let names = match exact {
        Some((name, _)) => vec![name.clone()],
        None => combined(values, number),
    };
    Value::Enumerator { names, number }
}

/// The flags that make up a number, if the enumeration is one of single, distinct bits and all of them are named.
pub fn combined(values: &[(String, i128)], number: i128) -> Vec<String> {
    let mut seen = 0i128;
    for (_, value) in values {
        if *value < 0 || value & seen != 0 || value.count_ones() > 1 {
            return Vec::new();
        }
        seen |= value;
    }
    if number <= 0 || number & !seen != 0 {
        return Vec::new();
    }
    values
        .iter()
        .filter(|(_, value)| value & number != 0)
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(sign_extend(0xff, 8), -1);
        assert_eq!(sign_extend(0x7f, 8), 127);
        assert_eq!(sign_extend(0b101, 3), -3);
        assert_eq!(extended(0x4000_c000_0000_0000_0000), 3.0);
        assert_eq!(short_double(0.1), 0.1);
        let flags = vec![("A".into(), 1), ("B".into(), 2), ("C".into(), 8)];
        assert_eq!(combined(&flags, 9), ["A", "C"]);
        assert!(combined(&flags, 5).is_empty());
    }
}
