//! Histories of values: how they went, and where they turned.

use std::collections::HashMap;

use introspect::{Row, Value, timeline};

use crate::access::{Access, AccessError};
use crate::query::{Line, Standpoint};
use crate::turn::Turn;

/// Checkpoints of a watch's history.
const SPAN: usize = 64;
/// Checkpoints looked through at once for a change, at first.
const STRIDE: usize = 32;

/// A value's latest history: a number at each checkpoint where it is one, and whether it is another than before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spark {
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub epoch: u64,
    pub number: Option<f64>,
    pub changed: bool,
}

/// What values of watches were, by the checkpoint's number and time: it does not change any more, and the next question
/// is about the same checkpoints but one.
#[derive(Debug, Default)]
pub struct Remembered {
    from: Standing,
    values: HashMap<String, Values>,
}

/// None where there was no value.
type Values = HashMap<(u64, u64), Option<Known>>;

/// What names mean depends on it.
type Standing = (Option<i32>, Option<u32>, Option<String>);

#[derive(Debug, Clone)]
struct Known {
    text: String,
    number: Option<f64>,
}

pub fn sparks(
    access: &mut Access,
    turn: &Turn,
    remembered: &mut Remembered,
    exprs: &[String],
    from: &Standpoint,
) -> Result<Vec<(String, Spark)>, AccessError> {
    let line = Line::open(access, from.pid, (0, from.epoch))?;
    let mut span = line.dated();
    span.drain(..span.len().saturating_sub(SPAN));
    let standing = (from.pid, from.tid, from.function.clone());
    if remembered.from != standing {
        *remembered = Remembered::default();
        remembered.from = standing;
    }
    remembered.values.retain(|expr, _| exprs.contains(expr));
    let mut found = Vec::new();
    for expr in exprs {
        let values = remembered.values.entry(expr.clone()).or_default();
        values.retain(|epoch, _| span.contains(epoch));
        for (first, last) in gaps(&span, |epoch| values.contains_key(epoch)) {
            turn.check()?;
            let counted = line.counted(turn);
            let (programs, context) = (&access.origin.shelf.programs, from.context());
            let answer = timeline(programs, &counted, &context, expr, first..=last, false);
            turn.check()?;
            // What has no meaning here has no history.
            let rows = answer.map(|answer| answer.rows).unwrap_or_default();
            let is_missing = |row: &Row| matches!(row.value, Value::Unavailable(_));
            if rows.is_empty() || rows.iter().any(is_missing) {
                // Not for the reason that nobody answers: that would be remembered.
                access.history()?;
            }
            let mut rows: HashMap<u64, Known> = rows.into_iter().map(known).collect();
            let asked = span
                .iter()
                .filter(|epoch| (first..=last).contains(&epoch.0));
            values.extend(asked.map(|epoch| (*epoch, rows.remove(&epoch.0))));
        }
        found.push((expr.clone(), spark(&span, values)));
    }
    Ok(found)
}

fn known(row: Row) -> (u64, Known) {
    let number = number(&row.value);
    (
        row.epoch,
        Known {
            text: row.text,
            number,
        },
    )
}

/// First and last of each run of checkpoints that are not known.
fn gaps(span: &[(u64, u64)], is_known: impl Fn(&(u64, u64)) -> bool) -> Vec<(u64, u64)> {
    let runs = span.chunk_by(|a, b| is_known(a) == is_known(b));
    let unknown = runs.filter(|run| run.first().is_some_and(|first| !is_known(first)));
    unknown
        .filter_map(|run| Some((run.first()?.0, run.last()?.0)))
        .collect()
}

fn spark(span: &[(u64, u64)], values: &Values) -> Spark {
    let mut last: Option<&str> = None;
    let known = span
        .iter()
        .filter_map(|epoch| Some((epoch.0, values.get(epoch)?.as_ref()?)));
    let points = known.map(|(epoch, known)| {
        let before = last.replace(&known.text);
        Point {
            epoch,
            number: known.number,
            changed: before.is_some_and(|before| before != known.text),
        }
    });
    Spark {
        points: points.collect(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a bar an eighth of a row high")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Signed(number) | Value::Enumerator { number, .. } => Some(*number as f64),
        Value::Unsigned(number) => Some(*number as f64),
        Value::Float(number) => number.is_finite().then_some(*number),
        Value::Char(code) => Some(f64::from(*code)),
        Value::Text { len, .. } | Value::Sequence { len, .. } | Value::Map { len, .. } => {
            Some(*len as f64)
        }
        _ => None,
    }
}

/// The nearest checkpoint before or after this one that first had another value than the one before it; None when
/// there is none on the way.
pub fn change(
    access: &mut Access,
    turn: &Turn,
    expr: &str,
    from: &Standpoint,
    forward: bool,
) -> Result<Option<u64>, AccessError> {
    let to = if forward {
        from.newest.max(from.epoch)
    } else {
        from.epoch
    };
    let line = Line::open(access, from.pid, (0, to))?;
    let epochs = line.epochs();
    let Ok(here) = epochs.binary_search(&from.epoch) else {
        return Ok(None);
    };
    let beyond = |epoch: u64| {
        if forward {
            epoch > from.epoch
        } else {
            epoch < from.epoch
        }
    };
    let (mut near, mut stride, mut turned_here) = (here, STRIDE, false);
    loop {
        let far = if forward {
            near.saturating_add(stride).min(epochs.len() - 1)
        } else {
            near.saturating_sub(stride)
        };
        if far == near {
            // What turned just here had its other value from the first one on.
            let first = epochs.first().copied();
            return Ok(first.filter(|first| turned_here && beyond(*first)));
        }
        let counted = line.counted(turn);
        let (programs, context) = (&access.origin.shelf.programs, from.context());
        let range = epochs[near.min(far)]..=epochs[near.max(far)];
        let answer = timeline(programs, &counted, &context, expr, range, true);
        turn.check()?;
        let answer = answer.map_err(|error| AccessError::Query(error.to_string()))?;
        let mut turns = answer.rows.iter().skip(1).map(|row| row.epoch);
        turned_here |= !forward && turns.clone().any(|epoch| epoch == from.epoch);
        let found = if forward {
            turns.find(|epoch| beyond(*epoch))
        } else {
            turns.rfind(|epoch| beyond(*epoch))
        };
        if found.is_some() {
            return Ok(found);
        }
        (near, stride) = (far, stride.saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_known_is_asked() {
        let span: Vec<(u64, u64)> = (1..=9).map(|epoch| (epoch, epoch * 10)).collect();
        assert_eq!(gaps(&span, |_| false), [(1, 9)]);
        assert_eq!(gaps(&span, |_| true), []);
        // Following: the newest. Looking back: the oldest. A number that is another checkpoint's now is not known.
        assert_eq!(gaps(&span, |(epoch, _)| *epoch < 9), [(9, 9)]);
        assert_eq!(gaps(&span, |epoch| *epoch != (1, 10)), [(1, 1)]);
        assert_eq!(
            gaps(&span, |epoch| [(4, 40), (5, 51)].contains(epoch)),
            [(1, 3), (5, 9)]
        );
    }

    #[test]
    fn a_history_has_only_what_has_a_value() {
        let value = |text: &str| {
            Some(Known {
                text: text.into(),
                number: text.parse().ok(),
            })
        };
        let values = [
            ((1, 0), value("7")),
            ((2, 0), None),
            ((3, 0), value("7")),
            ((4, 0), value("x")),
        ];
        let span = [(1, 0), (2, 0), (3, 0), (4, 0)];
        let spark = spark(&span, &Values::from(values));
        let points: Vec<_> = spark
            .points
            .iter()
            .map(|p| (p.epoch, p.number, p.changed))
            .collect();
        assert_eq!(
            points,
            [
                (1, Some(7.0), false),
                (3, Some(7.0), false),
                (4, None, true)
            ]
        );
    }
}
