//! Records that decode and are not true: another number, path or list in a place of a good one.

use libsls::record::{self, Record};
use serde_json::{Value, json};

use crate::Dice;

/// Where reckoning goes wrong, for each width.
const NUMBERS: [i128; 16] = [
    0,
    1,
    -1,
    0x7f,
    0xff,
    0xfff,
    0x1000,
    0xffff,
    i32::MAX as i128,
    i32::MIN as i128,
    u32::MAX as i128,
    1 << 47,
    i64::MAX as i128,
    i64::MIN as i128,
    u64::MAX as i128 - 0xfff,
    u64::MAX as i128,
];
const PATHS: [&str; 10] = [
    "",
    "/",
    "/proc/self/mem",
    "/dev/shm/x",
    "/SYSV00000000 (deleted)",
    "/memfd:x (deleted)",
    "[vdso]",
    "[heap]",
    "pipe:[1]",
    "a\0b\n\u{fffd}",
];

/// A good record with a few things in it that are not so.
pub fn untrue(good: &Record, dice: &mut Dice) -> Vec<u8> {
    let good = serde_json::to_value(good).expect("plain data");
    loop {
        let mut value = good.clone();
        for _ in 0..=dice.below(6) {
            change(&mut value, dice);
        }
        if let Ok(record) = serde_json::from_value::<Record>(value) {
            return record::encode(&record).expect("a record");
        }
    }
}

/// Changes something, however deep.
fn change(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Array(list) if !list.is_empty() => {
            let at = usize::try_from(dice.below(list.len() as u64)).unwrap_or(0);
            match dice.below(24) {
                0 => list.truncate(at),
                1 => list.push(list[at].clone()),
                2 => list.rotate_left(at),
                _ => change(&mut list[at], dice),
            }
        }
        Value::Object(fields) => {
            let at = usize::try_from(dice.below(fields.len() as u64)).unwrap_or(0);
            if let Some(field) = fields.values_mut().nth(at) {
                change(field, dice);
            }
        }
        Value::Number(_) => {
            let at = usize::try_from(dice.below(NUMBERS.len() as u64)).unwrap_or(0);
            *value = json!(NUMBERS[at]);
        }
        Value::String(text) => {
            let at = usize::try_from(dice.below(PATHS.len() as u64)).unwrap_or(0);
            PATHS[at].clone_into(text);
        }
        Value::Bool(is) => *is = !*is,
        Value::Array(_) | Value::Null => {}
    }
}
