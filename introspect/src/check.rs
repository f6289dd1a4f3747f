//! A condition checked along a history.

use std::ops::RangeInclusive;

use crate::expr::{Answer, Context};
use crate::probe::{PredicateError, Probe, Question};
use crate::programs::Programs;
use crate::timeline::{History, Row};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// Checkpoints that were looked at, up to and with the breach.
    pub checked: usize,
    /// Those at which the condition was run.
    pub evaluations: usize,
    /// The first at which it was false.
    pub breach: Option<Row>,
    /// Those at which it had no truth value: no such frame, memory that is not there.
    pub untold: Vec<u64>,
}

/// A condition that is asked again and again; where nothing that it reads has changed it is not run again.
pub struct Checker {
    programs: Programs,
    context: Context,
    expr: String,
    last: Option<Probe>,
    /// How often it was run.
    pub evaluations: usize,
}

impl Checker {
    pub fn new(programs: Programs, context: Context, expr: &str) -> Self {
        Self {
            programs,
            context,
            expr: expr.to_owned(),
            last: None,
            evaluations: 0,
        }
    }

    /// What was found missing of debug information so far, a sentence each.
    pub fn troubles(&self) -> Vec<String> {
        self.programs.troubles()
    }

    /// Whether it holds at `epoch`, and its value there.
    pub fn at(
        &mut self,
        history: &dyn History,
        epoch: u64,
    ) -> Result<(bool, Answer), PredicateError> {
        let question = Question {
            programs: &self.programs,
            history,
            context: &self.context,
            expr: &self.expr,
        };
        let probe = match self.last.take() {
            Some(last) if question.stands(&last, epoch) => Probe { epoch, ..last },
            _ => {
                self.evaluations += 1;
                question.at(epoch)
            }
        };
        let truth = question.truth(&probe);
        self.last = Some(probe);
        truth
    }
}

/// Looks for the first checkpoint in `range` at which the condition is false. One that cannot be told anywhere is an
/// error.
pub fn check(
    checker: &mut Checker,
    history: &dyn History,
    range: RangeInclusive<u64>,
) -> Result<Verdict, PredicateError> {
    let mut verdict = Verdict::default();
    let mut failure = None;
    for (epoch, time) in history.epochs() {
        if !range.contains(&epoch) {
            continue;
        }
        verdict.checked += 1;
        let truth = checker.at(history, epoch);
        verdict.evaluations = checker.evaluations;
        match truth {
            Ok((true, _)) => {}
            Ok((false, answer)) => {
                verdict.breach = Some(Row {
                    epoch,
                    time,
                    text: answer.text,
                    value: answer.value,
                });
                return Ok(verdict);
            }
            Err(error) => {
                verdict.untold.push(epoch);
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if verdict.untold.len() == verdict.checked => Err(error),
        _ => Ok(verdict),
    }
}
