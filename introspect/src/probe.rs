//! One expression at one checkpoint, with what it read there.

use crate::expr::{Answer, Context, ExprError};
use crate::programs::Programs;
use crate::read_set::{ReadSet, Recording};
use crate::timeline::History;

/// What is asked of each checkpoint of a history.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub programs: &'a Programs,
    pub history: &'a dyn History,
    pub context: &'a Context,
    pub expr: &'a str,
}

/// An answer, and what it rests on.
pub(crate) struct Probe {
    pub epoch: u64,
    pub seen: ReadSet,
    pub outcome: Result<Answer, ExprError>,
}

impl Question<'_> {
    /// Evaluates the expression at `epoch`.
    pub fn at(&self, epoch: u64) -> Probe {
        let view = match self.history.view(epoch) {
            Ok(view) => view,
            Err(why) => {
                return Probe {
                    epoch,
                    seen: ReadSet::default(),
                    outcome: Err(ExprError::at(1, why.to_string())),
                };
            }
        };
        let program = self.programs.of(&*view);
        let recording = Recording::new(&*view);
        let outcome = program.evaluate(&recording, self.context, self.expr);
        Probe {
            epoch,
            seen: recording.finish(),
            outcome,
        }
    }

    /// Whether the answer of `probe` is also that of `epoch`.
    pub fn stands(&self, probe: &Probe, epoch: u64) -> bool {
        // Where nothing was read nothing is known: a name that is not there may come with a library.
        let blind = probe.outcome.is_err() && probe.seen.is_empty();
        !blind && same_input(self.history, (probe.epoch, epoch), &probe.seen)
    }

    /// As a condition.
    pub fn truth(&self, probe: &Probe) -> Result<(bool, Answer), PredicateError> {
        let epoch = probe.epoch;
        let answer = probe.outcome.clone();
        let answer = answer.map_err(|error| PredicateError::Expr { epoch, error })?;
        match answer.value.truth() {
            Some(truth) => Ok((truth, answer)),
            None => Err(PredicateError::Untold {
                expr: self.expr.to_owned(),
                epoch,
                value: answer.text,
            }),
        }
    }
}

/// Why a predicate is neither true nor false.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PredicateError {
    #[error("@{epoch}: {error}")]
    Expr { epoch: u64, error: ExprError },
    #[error("`{expr}` is {value} at @{epoch}: neither true nor false; compare it with something")]
    Untold {
        expr: String,
        epoch: u64,
        value: String,
    },
}

/// Whether all that was read at one epoch is the same at another.
pub(crate) fn same_input(history: &dyn History, (from, to): (u64, u64), seen: &ReadSet) -> bool {
    // Opening a view only pays where a register was looked at.
    let registers = seen.threads || !seen.registers.is_empty();
    history.unchanged(from, to, seen).unwrap_or(false)
        && (!registers
            || history
                .view(to)
                .is_ok_and(|view| seen.registers_unchanged(&*view)))
}
