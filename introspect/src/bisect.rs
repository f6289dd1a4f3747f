//! The first checkpoint of a path at which a predicate has turned.

use crate::expr::{Answer, Context};
use crate::probe::{PredicateError, Probe, Question};
use crate::programs::Programs;
use crate::timeline::History;

/// Evaluations of one search; a predicate that can be told anywhere takes the logarithm of the path.
const EVALUATION_LIMIT: usize = 200;

/// Where the predicate turned.
#[derive(Debug, Clone, PartialEq)]
pub struct Bisection {
    /// The last checkpoint known to answer as the good end does, and its answer.
    pub last_good: u64,
    pub good: Answer,
    /// The first known to answer as the bad end does.
    pub first_bad: u64,
    pub bad: Answer,
    /// Checkpoints between the ends at which the predicate was evaluated.
    pub evaluations: usize,
    /// Checkpoints between `last_good` and `first_bad` where it could not be told.
    pub untold: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BisectError {
    #[error(transparent)]
    Predicate(#[from] PredicateError),
    #[error(
        "`{expr}` is {truth} at both ends, @{good} and @{bad}; choose ends between which it changes, see `slsctl timeline`"
    )]
    Same {
        expr: String,
        truth: bool,
        good: u64,
        bad: u64,
    },
    #[error("two different checkpoints are wanted")]
    NoPath,
}

/// Searches `path`, the epochs from the good end to the bad one, each next to the one before in the tree.
///
/// The answer of the bad end is what "bad" means, so a predicate may become true as well as false. Where a checkpoint
/// has what the evaluation at an end of the search has read, the answer is known without evaluating.
pub fn bisect(
    programs: &Programs,
    history: &dyn History,
    context: &Context,
    expr: &str,
    path: &[u64],
) -> Result<Bisection, BisectError> {
    let ([good, .., bad], question) = (
        path,
        Question {
            programs,
            history,
            context,
            expr,
        },
    ) else {
        return Err(BisectError::NoPath);
    };
    let (first, last) = (
        End::told(&question, 0, *good)?,
        End::told(&question, path.len() - 1, *bad)?,
    );
    if first.truth == last.truth {
        return Err(BisectError::Same {
            expr: expr.to_owned(),
            truth: first.truth,
            good: *good,
            bad: *bad,
        });
    }
    Ok(Search {
        question,
        path,
        low: first,
        high: last,
        untold: Vec::new(),
        evaluations: 0,
    }
    .run())
}

/// A checkpoint where the predicate is known.
struct End {
    /// In the path.
    at: usize,
    truth: bool,
    answer: Answer,
    /// What the answer rests on; its epoch may be another with the same answer.
    probe: Probe,
}

impl End {
    fn told(question: &Question<'_>, at: usize, epoch: u64) -> Result<Self, PredicateError> {
        let probe = question.at(epoch);
        let (truth, answer) = question.truth(&probe)?;
        Ok(Self {
            at,
            truth,
            answer,
            probe,
        })
    }
}

struct Search<'a> {
    question: Question<'a>,
    path: &'a [u64],
    low: End,
    high: End,
    /// Places in the path between the two where the predicate has no truth value, ascending.
    untold: Vec<usize>,
    evaluations: usize,
}

impl Search<'_> {
    fn run(mut self) -> Bisection {
        while let Some(at) = self.next()
            && self.evaluations < EVALUATION_LIMIT
        {
            self.look(at);
        }
        let untold = (self.low.at + 1..self.high.at).map(|at| self.path[at]);
        Bisection {
            last_good: self.path[self.low.at],
            first_bad: self.path[self.high.at],
            evaluations: self.evaluations,
            untold: untold.collect(),
            good: self.low.answer,
            bad: self.high.answer,
        }
    }

    /// The middle of the longest stretch without a look; None when there is none left.
    fn next(&self) -> Option<usize> {
        let marks = [self.low.at]
            .into_iter()
            .chain(self.untold.iter().copied())
            .chain([self.high.at]);
        let marks: Vec<usize> = marks.collect();
        let widest = marks
            .windows(2)
            .rev()
            .max_by_key(|pair| pair[1] - pair[0])?;
        let (from, to) = (widest[0], widest[1]);
        (to - from > 1).then_some(from + (to - from) / 2)
    }

    fn look(&mut self, at: usize) {
        let epoch = self.path[at];
        if self.question.stands(&self.low.probe, epoch) {
            self.low.at = at;
        } else if self.question.stands(&self.high.probe, epoch) {
            self.high.at = at;
        } else {
            self.evaluations += 1;
            match End::told(&self.question, at, epoch) {
                Ok(end) if end.truth == self.low.truth => self.low = end,
                Ok(end) => self.high = end,
                Err(_) => {
                    let place = self.untold.partition_point(|known| *known < at);
                    self.untold.insert(place, at);
                }
            }
        }
        let (low, high) = (self.low.at, self.high.at);
        self.untold.retain(|at| (low..high).contains(at));
    }
}
