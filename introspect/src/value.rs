//! Decoded values, as JSON and as one line of text.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::view::Unavailable;

/// Text longer than this is cut, in bytes.
pub const TEXT_LIMIT: u64 = 64 << 10;
/// One line of text, at most about this long.
const LINE_LIMIT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
    /// A character with its code: a byte of C text, or a Unicode scalar.
    Char(u32),
    /// `len` is the whole length in bytes, `text` perhaps only its beginning.
    Text {
        text: String,
        len: u64,
    },
    Struct(Vec<(String, Value)>),
    /// `len` counts all elements, `items` holds the first of them.
    Sequence {
        items: Vec<Value>,
        len: u64,
    },
    Map {
        entries: Vec<(Value, Value)>,
        len: u64,
    },
    /// An enumerator; several names where bits are combined.
    Enumerator {
        names: Vec<String>,
        number: i128,
    },
    /// A variant of a Rust enum; None for one without fields.
    Variant {
        name: String,
        fields: Option<Box<Value>>,
    },
    /// An empty optional or smart pointer.
    Null,
    Pointer {
        address: u64,
        symbol: Option<String>,
    },
    Unavailable(Unavailable),
}

impl Value {
    /// The shape that `docs/expressions.md` gives; containers are cut at `max` elements.
    pub fn to_json(&self, max: usize) -> Json {
        match self {
            Self::Bool(value) => json!(value),
            Self::Signed(number) => signed_json(*number),
            Self::Unsigned(number) => u64::try_from(*number)
                .map_or_else(|_| json!(number.to_string()), |number| json!(number)),
            Self::Float(number) => float_json(*number),
            Self::Char(code) => json!(character(*code).to_string()),
            Self::Text { text, len } if (text.len() as u64) < *len => {
                json!({"text_truncated": text, "len": len})
            }
            Self::Text { text, .. } => json!(text),
            Self::Struct(members) => Json::Object(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_json(max)))
                    .collect(),
            ),
            Self::Sequence { items, len } => {
                let shown: Vec<Json> = items
                    .iter()
                    .take(max)
                    .map(|item| item.to_json(max))
                    .collect();
                if (shown.len() as u64) < *len {
                    json!({"items_truncated": shown, "len": len})
                } else {
                    Json::Array(shown)
                }
            }
            Self::Map { entries, len } => {
                let shown: Map<String, Json> = entries
                    .iter()
                    .take(max)
                    .map(|(key, value)| (key.key_text(), value.to_json(max)))
                    .collect();
                let cut = (entries.len().min(max) as u64) < *len;
                if cut {
                    json!({"entries_truncated": shown, "len": len})
                } else {
                    Json::Object(shown)
                }
            }
            Self::Enumerator { names, number } => match names.as_slice() {
                [one] => json!(one),
                _ => signed_json(*number),
            },
            Self::Variant { name, fields: None } => json!(name),
            Self::Variant {
                name,
                fields: Some(fields),
            } => json!({ name.as_str(): fields.to_json(max) }),
            Self::Null => Json::Null,
            Self::Pointer { address, .. } => json!({"ptr": format!("{address:#x}")}),
            Self::Unavailable(why) => json!({"unavailable": why.reason}),
        }
    }

    /// One line, as gdb would print it.
    pub fn to_text(&self) -> String {
        let mut line = String::new();
        self.write(&mut line);
        if line.len() > LINE_LIMIT {
            let end = (0..=LINE_LIMIT)
                .rev()
                .find(|end| line.is_char_boundary(*end))
                .unwrap_or(0);
            line.truncate(end);
            line.push_str("...");
        }
        line
    }

    /// As a condition; None for what has no truth value.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Signed(number) | Self::Enumerator { number, .. } => Some(*number != 0),
            Self::Unsigned(number) => Some(*number != 0),
            Self::Float(number) => Some(*number != 0.0),
            Self::Char(code) => Some(*code != 0),
            Self::Pointer { address, .. } => Some(*address != 0),
            Self::Null => Some(false),
            _ => None,
        }
    }

    /// The name under which a map's JSON holds an entry of this key.
    fn key_text(&self) -> String {
        match self {
            Self::Text { text, .. } => text.clone(),
            Self::Char(code) => character(*code).to_string(),
            other => other.to_text(),
        }
    }

    fn write(&self, line: &mut String) {
        if line.len() > LINE_LIMIT {
            return;
        }
        match self {
            Self::Bool(value) => line.push_str(if *value { "true" } else { "false" }),
            Self::Signed(number) => line.push_str(&number.to_string()),
            Self::Unsigned(number) => line.push_str(&number.to_string()),
            Self::Float(number) => line.push_str(&float_text(*number)),
            Self::Char(code) => line.push_str(&format!("{code} '{}'", escaped(character(*code)))),
            Self::Text { text, len } => {
                line.push('"');
                text.chars().for_each(|c| line.push_str(&escaped(c)));
                line.push_str(if (text.len() as u64) < *len {
                    "\"..."
                } else {
                    "\""
                });
            }
            Self::Struct(members) => {
                let each = members
                    .iter()
                    .map(|(name, value)| (Some(name.clone()), value));
                write_list(line, each, members.len() as u64);
            }
            Self::Sequence { items, len } => {
                write_list(line, items.iter().map(|item| (None, item)), *len)
            }
            Self::Map { entries, len } => write_list(
                line,
                entries
                    .iter()
                    .map(|(key, value)| (Some(format!("[{}]", key.to_text())), value)),
                *len,
            ),
            Self::Enumerator { names, number } => match names.as_slice() {
                [] => line.push_str(&number.to_string()),
                [one] => line.push_str(one),
                several => line.push_str(&format!("({})", several.join(" | "))),
            },
            Self::Variant { name, fields } => {
                line.push_str(name);
                match fields.as_deref() {
                    None => {}
                    Some(fields @ Self::Struct(_)) => {
                        line.push(' ');
                        fields.write(line);
                    }
                    Some(fields) => {
                        line.push('(');
                        fields.write(line);
                        line.push(')');
                    }
                }
            }
            Self::Null => line.push_str("null"),
            Self::Pointer { address, symbol } => {
                line.push_str(&format!("{address:#x}"));
                if let Some(symbol) = symbol {
                    line.push_str(&format!(" <{symbol}>"));
                }
            }
            Self::Unavailable(why) => line.push_str(&format!("<{why}>")),
        }
    }
}

fn write_list<'a>(
    line: &mut String,
    items: impl Iterator<Item = (Option<String>, &'a Value)>,
    len: u64,
) {
    line.push('{');
    let mut shown = 0;
    for (name, value) in items {
        if shown > 0 {
            line.push_str(", ");
        }
        if let Some(name) = name {
            line.push_str(&name);
            line.push_str(" = ");
        }
        value.write(line);
        shown += 1;
    }
    if shown < len {
        line.push_str(&format!("... {len} in all"));
    }
    line.push('}');
}

fn signed_json(number: i128) -> Json {
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(small), _) => json!(small),
        (_, Ok(large)) => json!(large),
        // JSON readers lose digits here; text keeps them.
        _ => json!(number.to_string()),
    }
}

fn float_json(number: f64) -> Json {
    serde_json::Number::from_f64(number).map_or_else(|| json!(float_text(number)), Json::Number)
}

fn float_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    if number != 0.0 && !(1e-5..1e17).contains(&number.abs()) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

/// A code as a character: bytes over 127 stand for themselves, as Latin-1.
pub fn character(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn escaped(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        '\n' => "\\n".into(),
        '\t' => "\\t".into(),
        '\r' => "\\r".into(),
        c if c.is_control() => {
            let mut text = String::new();
            // Writing to a string cannot fail.
            write!(text, "\\{:03o}", u32::from(c)).unwrap_or_default();
            text
        }
        c => c.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shapes() {
        let text = |text: &str| Value::Text {
            text: text.into(),
            len: text.len() as u64,
        };
        let map = Value::Map {
            entries: vec![(Value::Signed(7), text("seven"))],
            len: 1,
        };
        assert_eq!(map.to_json(9), json!({"7": "seven"}));
        let some = Value::Variant {
            name: "Some".into(),
            fields: Some(Box::new(Value::Signed(1))),
        };
        assert_eq!(some.to_json(9), json!({"Some": 1}));
        assert_eq!(Value::Unsigned(u64::MAX.into()).to_json(9), json!(u64::MAX));
        assert_eq!(Value::Float(f64::NAN).to_json(9), json!("nan"));
        assert_eq!(Value::Char(120).to_json(9), json!("x"));
        let cut = Value::Sequence {
            items: vec![Value::Bool(true); 3],
            len: 5,
        };
        assert_eq!(
            cut.to_json(2),
            json!({"items_truncated": [true, true], "len": 5})
        );
        assert_eq!(
            Value::Unavailable(Unavailable::optimized_out()).to_json(9),
            json!({"unavailable": "optimized out"})
        );
    }

    #[test]
    fn text_shapes() {
        let value = Value::Struct(vec![
            ("a".into(), Value::Char(10)),
            (
                "b".into(),
                Value::Sequence {
                    items: vec![Value::Signed(-1)],
                    len: 2,
                },
            ),
            (
                "p".into(),
                Value::Pointer {
                    address: 16,
                    symbol: Some("f".into()),
                },
            ),
        ]);
        assert_eq!(
            value.to_text(),
            "{a = 10 '\\n', b = {-1... 2 in all}, p = 0x10 <f>}"
        );
    }
}
