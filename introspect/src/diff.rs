//! What differs between two views, by name: globals, and locals of the frames that both have.

use std::collections::BTreeMap;

use crate::decode::Limits;
use crate::frames::Frame;
use crate::program::{Program, last_segment};
use crate::read_set::{ReadSet, Recording};
use crate::value::Value;
use crate::view::View;

/// Changes of one comparison.
const CHANGE_LIMIT: usize = 10_000;
/// Frames of a thread that are compared.
const FRAME_LIMIT: usize = 200;

/// One leaf that differs; None where there is nothing on that side.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// An expression that names it: `pk.grid[1][2].y`, `m["k7"]`, `frame(main).total`.
    pub path: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

/// Compares two views of one program. `unchanged` may say that nothing of a read set's pages differs, which saves
/// decoding the new side; answering false is always right.
pub fn diff(
    program: &Program,
    old: &dyn View,
    new: &dyn View,
    unchanged: &dyn Fn(&ReadSet) -> bool,
    limits: Limits,
) -> Vec<Change> {
    let mut changes = Changes::default();
    for global in program.globals() {
        if changes.full() {
            break;
        }
        let recording = Recording::new(old);
        let before = program.global(&recording, &global, limits).value;
        let seen = recording.finish();
        if !seen.threads && unchanged(&seen) {
            continue;
        }
        let after = program.global(new, &global, limits).value;
        changes.compare(&global.path, &before, &after);
    }
    let main = old.threads().first().map(|thread| thread.tid);
    for thread in old.threads() {
        let (before, after) = (
            program.backtrace(old, thread.tid, FRAME_LIMIT),
            program.backtrace(new, thread.tid, FRAME_LIMIT),
        );
        let prefix = if Some(thread.tid) == main {
            String::new()
        } else {
            format!("thread({}).", thread.tid)
        };
        for (a, b) in common(&before, &after) {
            changes.frame(program, (old, a), (new, b), &prefix, limits);
        }
    }
    changes.found
}

/// Frames of the same call in both stacks, counted from the outermost.
fn common<'f>(before: &'f [Frame], after: &'f [Frame]) -> Vec<(&'f Frame, &'f Frame)> {
    let same = |(a, b): &(&Frame, &Frame)| {
        a.function == b.function && a.cfa == b.cfa && a.inlined == b.inlined
    };
    before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take_while(same)
        .collect()
}

#[derive(Default)]
struct Changes {
    found: Vec<Change>,
}

impl Changes {
    fn full(&self) -> bool {
        self.found.len() >= CHANGE_LIMIT
    }

    fn frame(
        &mut self,
        program: &Program,
        (old, a): (&dyn View, &Frame),
        (new, b): (&dyn View, &Frame),
        prefix: &str,
        limits: Limits,
    ) {
        let name = a.function.as_deref().map_or("", last_segment);
        let (before, after) = (
            program.locals(old, a, limits),
            program.locals(new, b, limits),
        );
        // Blocks come and go with the pc: a variable is compared with its namesake at the same place.
        for local in &before {
            let same = |other: &&crate::expr::Local| {
                other.name == local.name
                    && other.address == local.address
                    && local.address.is_some()
            };
            if let Some(other) = after.iter().find(same) {
                self.compare(
                    &format!("{prefix}frame({name}).{}", local.name),
                    &local.value,
                    &other.value,
                );
            }
        }
    }

    fn compare(&mut self, path: &str, old: &Value, new: &Value) {
        if self.full() || old == new {
            return;
        }
        match (old, new) {
            (Value::Struct(a), Value::Struct(b))
                if a.iter()
                    .map(|(name, _)| name)
                    .eq(b.iter().map(|(name, _)| name)) =>
            {
                for ((name, a), (_, b)) in a.iter().zip(b) {
                    self.compare(&format!("{path}.{name}"), a, b);
                }
            }
            (Value::Sequence { items: a, .. }, Value::Sequence { items: b, .. }) => {
                for index in 0..a.len().max(b.len()) {
                    self.entry(format!("{path}[{index}]"), a.get(index), b.get(index));
                }
            }
            (Value::Map { entries: a, .. }, Value::Map { entries: b, .. }) => self.maps(path, a, b),
            (
                Value::Variant {
                    name: a,
                    fields: Some(x),
                },
                Value::Variant {
                    name: b,
                    fields: Some(y),
                },
            ) if a == b => {
                self.compare(&format!("{path}.{a}"), x, y);
            }
            _ => self.push(path.to_owned(), Some(old), Some(new)),
        }
    }

    fn entry(&mut self, path: String, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(a), Some(b)) => self.compare(&path, a, b),
            _ => self.push(path, old, new),
        }
    }

    /// By key: the order of a hash map says nothing.
    fn maps(&mut self, path: &str, a: &[(Value, Value)], b: &[(Value, Value)]) {
        let by_key = |entries: &[(Value, Value)]| {
            entries
                .iter()
                .map(|(key, value)| (key.to_text(), value.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (by_key(a), by_key(b));
        for (key, value) in &old {
            self.entry(format!("{path}[{key}]"), Some(value), new.get(key));
        }
        for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
            self.entry(format!("{path}[{key}]"), None, Some(value));
        }
    }

    fn push(&mut self, path: String, old: Option<&Value>, new: Option<&Value>) {
        if !self.full() {
            self.found.push(Change {
                path,
                old: old.cloned(),
                new: new.cloned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_named_and_hash_order_is_no_change() {
        let number = Value::Signed;
        let text = |text: &str| Value::Text {
            text: text.into(),
            len: text.len() as u64,
        };
        let map = |pairs: &[(&str, i128)]| Value::Map {
            entries: pairs
                .iter()
                .map(|(key, value)| (text(key), number(*value)))
                .collect(),
            len: pairs.len() as u64,
        };
        let old = Value::Struct(vec![
            ("m".into(), map(&[("a", 1), ("k7", 7), ("gone", 0)])),
            (
                "v".into(),
                Value::Sequence {
                    items: vec![number(1)],
                    len: 1,
                },
            ),
        ]);
        let new = Value::Struct(vec![
            ("m".into(), map(&[("k7", 8), ("a", 1)])),
            (
                "v".into(),
                Value::Sequence {
                    items: vec![number(1), number(2)],
                    len: 2,
                },
            ),
        ]);
        let mut changes = Changes::default();
        changes.compare("g", &old, &new);
        let paths: Vec<&str> = changes
            .found
            .iter()
            .map(|change| change.path.as_str())
            .collect();
        assert_eq!(paths, ["g.m[\"gone\"]", "g.m[\"k7\"]", "g.v[1]"]);
        assert_eq!(
            (&changes.found[1].old, &changes.found[1].new),
            (&Some(number(7)), &Some(number(8)))
        );
        assert_eq!(
            (&changes.found[2].old, &changes.found[2].new),
            (&None, &Some(number(2)))
        );
    }
}
