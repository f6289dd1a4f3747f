//! Histories of values: how they went, and where they turned.

use introspect::{Timeline, Value, timeline};

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

pub fn sparks(
    access: &mut Access,
    turn: &Turn,
    exprs: &[String],
    from: &Standpoint,
) -> Result<Vec<(String, Spark)>, AccessError> {
    let line = Line::open(access, from.pid, (0, from.epoch))?;
    let epochs = line.epochs();
    let first = epochs.len().saturating_sub(SPAN);
    let Some(&first) = epochs.get(first) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for expr in exprs {
        turn.check()?;
        let counted = line.counted(turn);
        let programs = &access.origin.shelf.programs;
        let context = from.context();
        let answer = timeline(
            programs,
            &counted,
            &context,
            expr,
            first..=from.epoch,
            false,
        );
        turn.check()?;
        // What has no meaning here has no history.
        found.push((
            expr.clone(),
            answer.map(|answer| spark(&answer)).unwrap_or_default(),
        ));
    }
    Ok(found)
}

fn spark(answer: &Timeline) -> Spark {
    let mut last: Option<&str> = None;
    let points = answer.rows.iter().map(|row| {
        let changed = last.replace(&row.text).is_some_and(|last| last != row.text);
        Point {
            epoch: row.epoch,
            number: number(&row.value),
            changed,
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
