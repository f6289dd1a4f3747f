//! What differs between two checkpoints, for people.

use std::sync::Arc;

use introspect::{Change, Difference, Program, Programs, Value, View};
use libsls::compare::Pair;
use libsls::record::Thread;
use libsls::view::CheckpointView;
use serde_json::Value as Json;

use crate::diff::Differences;
use crate::output::{Paint, one_line};
use crate::progress::Shown;
use crate::threads::{call_name, frame_place};

/// Both checkpoints, with what their files say about code.
pub struct Sides<'a> {
    old: Side<'a>,
    new: Side<'a>,
}

struct Side<'a> {
    view: &'a dyn View,
    program: Arc<Program>,
}

impl<'a> Sides<'a> {
    pub fn new(programs: &Programs, old: &'a CheckpointView, new: &'a CheckpointView) -> Self {
        let _shown = Shown::waiting("debug information");
        let side = |view: &'a CheckpointView| Side {
            program: programs.of(view),
            view,
        };
        Self {
            old: side(old),
            new: side(new),
        }
    }
}

impl Side<'_> {
    /// Where a thread is: `0x401136 in main () at file.c:12`.
    fn place(&self, thread: &Thread, paint: Paint) -> String {
        let tid = thread.tid.cast_unsigned();
        match self.program.backtrace(self.view, tid, 1).first() {
            Some(frame) => frame_place(frame, paint),
            None => format!("{:#018x} in ?? ()", thread.regs.rip),
        }
    }
}

/// Everything that differs.
pub fn text(differences: &Differences, sides: &Sides, paint: Paint) -> String {
    if differences.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let threads = differences.threads.iter();
    [
        variables(&differences.typed, paint),
        pages(&differences.pages, paint),
        section(
            "threads",
            threads.map(|pair| thread(pair, sides, paint)),
            paint,
        ),
        section(
            "descriptors",
            differences.fds.iter().map(|fd| entry(fd, "fd", paint)),
            paint,
        ),
        section(
            "mappings",
            differences
                .maps
                .iter()
                .map(|map| entry(map, "start", paint)),
            paint,
        ),
    ]
    .concat()
}

fn variables(typed: &Difference, paint: Paint) -> String {
    let mut text = section(
        "variables",
        typed.changes.iter().map(|change| variable(change, paint)),
        paint,
    );
    if typed.cut {
        text += "  there was too much to compare: more may differ\n";
    }
    text
}

fn variable(change: &Change, paint: Paint) -> String {
    let shown = |value: &Value| one_line(&value.to_text());
    let path = paint.name(&one_line(&change.path));
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("  {path}: {} -> {}\n", shown(old), shown(new)),
        (Some(old), None) => format!("  {path} removed: {}\n", shown(old)),
        (None, Some(new)) => format!("  {path} added: {}\n", shown(new)),
        (None, None) => String::new(),
    }
}

fn pages(runs: &[(u64, u64)], paint: Paint) -> String {
    let total: u64 = runs.iter().map(|run| run.1).sum();
    if total == 0 {
        return String::new();
    }
    let mut text = paint.heading(&format!("{total} pages differ:")) + "\n";
    for (start, count) in runs {
        text += &format!("  {start:#018x}  {count}\n");
    }
    text
}

fn section(what: &str, each: impl Iterator<Item = String>, paint: Paint) -> String {
    let all: String = each.collect();
    if all.is_empty() {
        return all;
    }
    paint.heading(&format!("{what}:")) + "\n" + &all
}

/// Where a thread is, or was and is, with the registers and what else changed below it.
fn thread(pair: &Pair<Thread>, sides: &Sides, paint: Paint) -> String {
    let head = |thread: &Thread, word: &str| {
        let name = one_line(&thread.name);
        format!("  Thread {} \"{}\" {word}", thread.tid, paint.name(&name))
    };
    match *pair {
        (None, None) => String::new(),
        (None, Some(new)) => format!("{}: {}\n", head(new, "added"), sides.new.place(new, paint)),
        (Some(old), None) => format!(
            "{}: {}\n",
            head(old, "removed"),
            sides.old.place(old, paint)
        ),
        (Some(old), Some(new)) => {
            let (from, to) = (sides.old.place(old, paint), sides.new.place(new, paint));
            let place = if from == to {
                format!("    at {to}\n")
            } else {
                format!("    {from}\n    -> {to}\n")
            };
            head(new, "changed") + ":\n" + &place + &rows(&thread_changes(old, new), paint)
        }
    }
}

/// What changed: its name, before, after.
type Row = (&'static str, String, String);

fn thread_changes(old: &Thread, new: &Thread) -> Vec<Row> {
    let call = |t: &Thread| t.blocked.map_or("none".to_owned(), |b| call_name(b.nr));
    let stack = |t: &Thread| {
        let stack = t.altstack;
        stack.map_or("unknown".to_owned(), |s| {
            format!("{:#x}+{:#x}", s.sp, s.size)
        })
    };
    let pending = |t: &Thread| t.pending.len().to_string();
    let registers = old.regs.named().into_iter().zip(new.regs.named());
    let mut rows: Vec<Row> = vec![("name", one_line(&old.name), one_line(&new.name))];
    rows.extend(registers.map(|((name, a), (_, b))| (name, format!("{a:#x}"), format!("{b:#x}"))));
    rows.push(("call", call(old), call(new)));
    rows.push((
        "sigmask",
        format!("{:#x}", old.sigmask),
        format!("{:#x}", new.sigmask),
    ));
    rows.push(("pending signals", pending(old), pending(new)));
    rows.push(("signal stack", stack(old), stack(new)));
    rows.retain(|(_, a, b)| a != b);
    if old.xstate != new.xstate {
        rows.push(("vector registers", "differ".into(), String::new()));
    }
    rows
}

fn rows(rows: &[Row], paint: Paint) -> String {
    let wide = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, old, new) in rows {
        let arrow = if new.is_empty() { "" } else { " -> " };
        text += &format!(
            "    {}  {old}{arrow}{new}\n",
            paint.faint(&format!("{name:<wide$}"))
        );
    }
    text
}

/// A descriptor or a mapping: its key, and each part that changed.
fn entry(json: &Json, key: &str, paint: Paint) -> String {
    let id = match key {
        "fd" => format!("fd {}", plain(&json[key])),
        _ => plain(&json[key]),
    };
    let word = plain(&json["change"]);
    let (old, new) = (&json["old"], &json["new"]);
    let parts = match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => {
            let names = old
                .keys()
                .chain(new.keys().filter(|name| !old.contains_key(*name)));
            let absent = Json::Null;
            let value = |side: &serde_json::Map<String, Json>, name: &String| {
                plain(side.get(name).unwrap_or(&absent))
            };
            let all = names.map(|name| (name, value(old, name), value(new, name)));
            let changed = all.filter(|(_, a, b)| a != b);
            changed
                .map(|(name, a, b)| format!("{name} {a} -> {b}"))
                .collect::<Vec<_>>()
                .join(", ")
        }
        (one, other) => {
            let shown = one.or(other).into_iter().flatten();
            let told = shown.filter(|(name, value)| *name != key && !is_nothing(value));
            told.map(|(name, value)| format!("{name} {}", plain(value)))
                .collect::<Vec<_>>()
                .join(", ")
        }
    };
    format!("  {} {word}: {parts}\n", paint.name(&id))
}

fn is_nothing(value: &Json) -> bool {
    value.is_null() || value == ""
}

/// A value as a word.
fn plain(value: &Json) -> String {
    match value {
        Json::Null => "none".to_owned(),
        Json::String(text) if text.is_empty() => "none".to_owned(),
        Json::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use libsls::record::{Blocked, Registers};
    use serde_json::json;

    use super::*;

    fn thread(rax: u64) -> Thread {
        Thread {
            tid: 3,
            name: "a".into(),
            regs: Registers {
                rax,
                ..Registers::default()
            },
            ..Thread::default()
        }
    }

    #[test]
    fn a_thread_shows_what_changed_and_nothing_else() {
        let (old, mut new) = (thread(1), thread(2));
        new.blocked = Some(Blocked {
            nr: 232,
            remaining_ns: None,
        });
        let text = rows(&thread_changes(&old, &new), Paint::PLAIN);
        assert_eq!(text, "    rax   0x1 -> 0x2\n    call  none -> epoll_wait\n");
        assert_eq!(thread_changes(&old, &old), []);
    }

    #[test]
    fn vector_registers_are_named_without_their_bytes() {
        let (old, mut new) = (thread(1), thread(1));
        new.xstate = vec![1];
        let text = rows(&thread_changes(&old, &new), Paint::PLAIN);
        assert_eq!(text, "    vector registers  differ\n");
    }

    #[test]
    fn descriptors_and_mappings_are_lines() {
        let file = |offset| json!({"fd": 5, "kind": "file", "target": "/a", "offset": offset});
        let changed = json!({"fd": 5, "change": "changed", "old": file(0), "new": file(9)});
        let added = json!({"fd": 5, "change": "added", "old": null, "new": file(0)});
        let line = |json| entry(json, "fd", Paint::PLAIN);
        assert_eq!(line(&changed), "  fd 5 changed: offset 0 -> 9\n");
        assert_eq!(
            line(&added),
            "  fd 5 added: kind file, target /a, offset 0\n"
        );
        let map = json!({"start": "0x1000", "change": "changed",
            "old": {"end": "0x2000", "path": ""}, "new": {"end": "0x3000", "path": ""}});
        let text = entry(&map, "start", Paint::PLAIN);
        assert_eq!(text, "  0x1000 changed: end 0x2000 -> 0x3000\n");
    }
}
