//! Since when each part of a value is what it is.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::expr::{Context, ExprError};
use crate::leaves::{Leaf, leaves};
use crate::probe::same_input;
use crate::programs::Programs;
use crate::read_set::{ReadSet, Recording};
use crate::timeline::History;
use crate::value::Value;

/// One part of the value at the end of the range.
#[derive(Debug, Clone, PartialEq)]
pub struct BlameRow {
    pub path: String,
    pub type_name: String,
    /// The checkpoint that first had this value since it last had another one; None when it never had another in the range.
    pub epoch: Option<u64>,
    /// Of that checkpoint, in ns since 1970.
    pub time: Option<u64>,
    pub text: String,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Blame {
    pub type_name: String,
    /// In the order of the parts.
    pub rows: Vec<BlameRow>,
    /// The value has more parts than were looked at.
    pub cut: bool,
    /// Epochs at which the expression was run.
    pub evaluations: usize,
}

/// A part's value and since when.
struct Since {
    value: Value,
    at: Option<(u64, u64)>,
}

/// Follows the parts of the value through `range`; at most as many of them as `context` allows elements.
pub fn blame(
    programs: &Programs,
    history: &dyn History,
    context: &Context,
    expr: &str,
    range: RangeInclusive<u64>,
) -> Result<Blame, ExprError> {
    let mut blame = Blame::default();
    let mut since: HashMap<String, Since> = HashMap::new();
    let mut last: Option<(u64, ReadSet)> = None;
    let mut current: Result<Vec<Leaf>, ExprError> = Ok(Vec::new());
    let mut known = false;
    for (epoch, time) in history.epochs() {
        if !range.contains(&epoch) {
            continue;
        }
        if let Some((from, seen)) = &mut last
            && !(current.is_err() && seen.is_empty())
            && same_input(history, (*from, epoch), seen)
        {
            *from = epoch;
            continue;
        }
        blame.evaluations += 1;
        let (found, seen) = parts_at(programs, history, context, expr, epoch);
        current = found.map(|(type_name, parts, whole)| {
            blame.type_name = type_name;
            blame.cut = !whole;
            parts
        });
        if let Ok(parts) = &current {
            note(&mut since, parts, known.then_some((epoch, time)));
            known = true;
        }
        last = Some((epoch, seen));
    }
    let rows = current?.into_iter().map(|leaf| {
        let at = since.get(&leaf.path).and_then(|since| since.at);
        BlameRow {
            epoch: at.map(|at| at.0),
            time: at.map(|at| at.1),
            text: leaf.value.to_text(),
            path: leaf.path,
            type_name: leaf.type_name,
            value: leaf.value,
        }
    });
    blame.rows = rows.collect();
    Ok(blame)
}

/// The parts there are now, each with when its value came; what is gone is forgotten.
fn note(since: &mut HashMap<String, Since>, parts: &[Leaf], now: Option<(u64, u64)>) {
    let mut before = std::mem::take(since);
    for leaf in parts {
        let kept = before.remove(&leaf.path).filter(|known| {
            known.value == leaf.value || known.value.to_text() == leaf.value.to_text()
        });
        let entry = kept.unwrap_or_else(|| Since {
            value: leaf.value.clone(),
            at: now,
        });
        since.insert(leaf.path.clone(), entry);
    }
}

/// Type, parts, whether these are all.
type PartsOf = (String, Vec<Leaf>, bool);

fn parts_at(
    programs: &Programs,
    history: &dyn History,
    context: &Context,
    expr: &str,
    epoch: u64,
) -> (Result<PartsOf, ExprError>, ReadSet) {
    let view = match history.view(epoch) {
        Ok(view) => view,
        Err(why) => return (Err(ExprError::at(1, why.to_string())), ReadSet::default()),
    };
    let program = programs.of(&*view);
    let recording = Recording::new(&*view);
    let found = program.with_object(&recording, context, expr, |decoder, object| {
        let name = program.type_name(&object.ty);
        let (parts, whole) = leaves(decoder, &grouped(expr), object, context.limits.elements);
        (name, parts, whole)
    });
    (found, recording.finish())
}

/// The expression such that a member or an index may follow it.
fn grouped(expr: &str) -> String {
    let simple = |c: char| c.is_alphanumeric() || "_.:[]\"$()>".contains(c) || c == '-';
    let arrows = expr.replace("->", ".");
    if arrows.chars().all(|c| simple(c) && c != '-' && c != '>') {
        expr.to_owned()
    } else {
        format!("({expr})")
    }
}
