//! One expression along a history, evaluated only where what it read has changed.

use std::ops::RangeInclusive;

use crate::expr::{Answer, Context, ExprError};
use crate::probe::{Probe, Question};
use crate::programs::Programs;
use crate::read_set::ReadSet;
use crate::value::Value;
use crate::view::{Unavailable, View};

/// Checkpoints in order, as far as a query needs them.
pub trait History {
    /// Epoch and time in ns since 1970, oldest first, each the ancestor of the next.
    fn epochs(&self) -> Vec<(u64, u64)>;

    fn view(&self, epoch: u64) -> Result<Box<dyn View>, Unavailable>;

    /// Whether every page of the set has the same content at both epochs. A page mapped at only one of them has not.
    /// False is always safe. Registers are not asked for here.
    fn unchanged(&self, from: u64, to: u64, pages: &ReadSet) -> Result<bool, Unavailable>;
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub epoch: u64,
    pub time: u64,
    pub text: String,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    /// Of the first epoch where the expression had an answer.
    pub type_name: String,
    pub rows: Vec<Row>,
    /// Epochs where the expression was run, for judging what skipping saved.
    pub evaluations: usize,
}

/// Rows for the epochs in `range`; with `changes_only` those whose text differs from the row before.
///
/// An expression without meaning at some epoch (no such frame yet) has an unavailable value there; one without
/// meaning at any is an error.
pub fn timeline(
    programs: &Programs,
    history: &dyn History,
    context: &Context,
    expr: &str,
    range: RangeInclusive<u64>,
    changes_only: bool,
) -> Result<Timeline, ExprError> {
    let question = Question {
        programs,
        history,
        context,
        expr,
    };
    let mut result = Timeline::default();
    let mut last: Option<Probe> = None;
    let mut failure: Option<ExprError> = None;
    for (epoch, time) in history.epochs() {
        if !range.contains(&epoch) {
            continue;
        }
        let probe = match last.take() {
            Some(last) if question.stands(&last, epoch) => Probe { epoch, ..last },
            _ => {
                result.evaluations += 1;
                question.at(epoch)
            }
        };
        let (text, value) = shown(&probe.outcome);
        match &probe.outcome {
            Ok(answer) if result.type_name.is_empty() => {
                result.type_name.clone_from(&answer.type_name);
            }
            Ok(_) => {}
            Err(error) => {
                failure.get_or_insert_with(|| error.clone());
            }
        }
        let repeats = |row: &Row| row.text == text && row.value == value;
        if !(changes_only && result.rows.last().is_some_and(repeats)) {
            result.rows.push(Row {
                epoch,
                time,
                text,
                value,
            });
        }
        last = Some(probe);
    }
    match failure {
        Some(error) if result.type_name.is_empty() => Err(error),
        _ => Ok(result),
    }
}

fn shown(outcome: &Result<Answer, ExprError>) -> (String, Value) {
    match outcome {
        Ok(answer) => (answer.text.clone(), answer.value.clone()),
        Err(error) => {
            let value = Value::Unavailable(Unavailable::because(error.message.clone()));
            (value.to_text(), value)
        }
    }
}
