//! One expression along a history, evaluated only where what it read has changed.

use std::ops::RangeInclusive;

use crate::expr::{Answer, Context, ExprError};
use crate::program::Program;
use crate::read_set::{ReadSet, Recording};
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

/// What is known of the epoch before.
struct Last {
    epoch: u64,
    seen: ReadSet,
    text: String,
    value: Value,
}

/// Rows for the epochs in `range`; with `changes_only` those whose text differs from the row before.
///
/// An expression without meaning at some epoch (no such frame yet) has an unavailable value there; one without
/// meaning at any is an error.
pub fn timeline(
    program: &Program,
    history: &dyn History,
    context: &Context,
    expr: &str,
    range: RangeInclusive<u64>,
    changes_only: bool,
) -> Result<Timeline, ExprError> {
    let mut result = Timeline::default();
    let mut last: Option<Last> = None;
    let mut failure: Option<ExprError> = None;
    for (epoch, time) in history.epochs() {
        if !range.contains(&epoch) {
            continue;
        }
        let current = match last.take() {
            Some(last) if same_input(history, &last, epoch) => Last { epoch, ..last },
            _ => {
                result.evaluations += 1;
                let (answer, seen) = evaluate(program, history, context, expr, epoch);
                let (text, value) = outcome(answer, &mut result.type_name, &mut failure);
                Last {
                    epoch,
                    seen,
                    text,
                    value,
                }
            }
        };
        let repeats = result
            .rows
            .last()
            .is_some_and(|row| row.text == current.text && row.value == current.value);
        if !(changes_only && repeats) {
            result.rows.push(Row {
                epoch,
                time,
                text: current.text.clone(),
                value: current.value.clone(),
            });
        }
        last = Some(current);
    }
    match failure {
        Some(error) if result.type_name.is_empty() => Err(error),
        _ => Ok(result),
    }
}

fn same_input(history: &dyn History, last: &Last, epoch: u64) -> bool {
    if !history
        .unchanged(last.epoch, epoch, &last.seen)
        .unwrap_or(false)
    {
        return false;
    }
    // Opening a view only pays where a register was looked at.
    let registers = last.seen.threads || !last.seen.registers.is_empty();
    !registers
        || history
            .view(epoch)
            .is_ok_and(|view| last.seen.registers_unchanged(&*view))
}

fn evaluate(
    program: &Program,
    history: &dyn History,
    context: &Context,
    expr: &str,
    epoch: u64,
) -> (Result<Answer, ExprError>, ReadSet) {
    match history.view(epoch) {
        Ok(view) => {
            let recording = Recording::new(&*view);
            let answer = program.evaluate(&recording, context, expr);
            (answer, recording.finish())
        }
        // Nothing was read, so nothing may be concluded about the next epoch.
        Err(why) => {
            let mut seen = ReadSet::default();
            seen.threads = true;
            (Err(ExprError::at(1, why.to_string())), seen)
        }
    }
}

fn outcome(
    answer: Result<Answer, ExprError>,
    type_name: &mut String,
    failure: &mut Option<ExprError>,
) -> (String, Value) {
    match answer {
        Ok(answer) => {
            if type_name.is_empty() {
                *type_name = answer.type_name;
            }
            (answer.text, answer.value)
        }
        Err(error) => {
            let value = Value::Unavailable(Unavailable::because(error.message.clone()));
            failure.get_or_insert(error);
            (value.to_text(), value)
        }
    }
}
