//! Answers in the shapes of the command line's `--json`.

use serde_json::{Value as Json, json};

use crate::blame::{Blame, BlameRow};
use crate::diff::Change;
use crate::expr::{Answer, Local};
use crate::frames::Frame;
use crate::timeline::Timeline;
use crate::value::Value;

impl Answer {
    /// What `print` shows, without the epoch.
    pub fn to_json(&self, max: usize) -> Json {
        json!({"expr": self.expr, "type": self.type_name, "text": self.text, "value": self.value.to_json(max)})
    }
}

impl Local {
    pub fn to_json(&self, max: usize) -> Json {
        json!({"name": self.name, "type": self.type_name, "text": self.text, "value": self.value.to_json(max), "arg": self.arg})
    }
}

impl Frame {
    pub fn to_json(&self) -> Json {
        json!({
            "index": self.index,
            "pc": format!("{:#x}", self.pc),
            "function": self.function,
            "file": self.file,
            "line": self.line,
            "inlined": self.inlined,
            "guessed": self.guessed,
        })
    }
}

impl Timeline {
    pub fn to_json(&self, expr: &str, max: usize) -> Json {
        let row = |row: &crate::timeline::Row| json!({"epoch": row.epoch, "time": row.time, "text": row.text, "value": row.value.to_json(max)});
        json!({"expr": expr, "type": self.type_name, "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

impl Blame {
    pub fn to_json(&self, expr: &str, max: usize) -> Json {
        let row = |row: &BlameRow| json!({"path": row.path, "type": row.type_name, "epoch": row.epoch, "time": row.time, "text": row.text, "value": row.value.to_json(max)});
        json!({"expr": expr, "type": self.type_name, "rows": self.rows.iter().map(row).collect::<Vec<_>>(), "cut": self.cut})
    }
}

impl Change {
    pub fn to_json(&self, max: usize) -> Json {
        let side = |value: &Option<Value>| value.as_ref().map(|value| value.to_json(max));
        let change = match (&self.old, &self.new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        json!({"path": self.path, "change": change, "old": side(&self.old), "new": side(&self.new)})
    }
}
