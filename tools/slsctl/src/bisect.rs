//! Where a predicate turned.

use clap::Args;
use introspect::{Bisection, bisect};
use libsls::EpochRef;
use libsls::view::PartitionHistory;
use serde_json::{Value as Json, json};

use crate::arguments::{FrameArg, ProcessArg};
use crate::explain::explained;
use crate::look::Histories;
use crate::output::{Paint, one_line};
use crate::progress::Shown;
use crate::session::{Outcome, Session};

/// Find the first checkpoint at which a predicate has turned, by a binary search
///
/// EXPR is true at one of the two checkpoints and false at the other; what it is at --bad is what bad means. A number
/// or a pointer is true unless it is 0. The search goes along the way from --good to --bad, also where they are on
/// different branches or --bad is the older one. Where nothing that was read has changed, nothing is evaluated.
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl bisect 'sum == 100' --good @1 --bad @-1")]
pub struct Bisect {
    /// What to evaluate; after `--` when it begins with a minus
    #[arg(value_name = "EXPR")]
    expr: String,
    /// A checkpoint where all was well
    #[arg(long, value_name = "@A")]
    good: EpochRef,
    /// A checkpoint where it was not
    #[arg(long, value_name = "@B")]
    bad: EpochRef,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Bisect {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.which.part.name().as_deref())?;
        let ends = (self.good.resolve(&history)?, self.bad.resolve(&history)?);
        let shown = Shown::waiting("bisect");
        let way = PartitionHistory::between(session.client()?, &history, self.which.pid, ends)
            .ok_or_else(|| no_way(ends))?;
        let path: Vec<u64> = introspect::History::epochs(&way)
            .into_iter()
            .map(|row| row.0)
            .collect();
        let context = self.frame.context();
        let programs = Histories::default();
        let found = bisect(&programs, &way, &context, &self.expr, &path);
        drop(shown);
        let found = found.map_err(|error| explained(&self.expr, error))?;
        let json = found_json(&self.expr, &found, self.frame.max);
        session.answer(&json, |paint| found_text(&self.expr, &found, paint))?;
        Ok(Outcome::Done)
    }
}

/// Nothing leads from one checkpoint to the other.
pub fn no_way((from, to): (u64, u64)) -> anyhow::Error {
    anyhow::Error::msg(format!(
        "nothing leads from @{from} to @{to}: they have no ancestor in common; see `slsctl history`"
    ))
}

fn found_json(expr: &str, found: &Bisection, max: usize) -> Json {
    json!({
        "expr": expr,
        "first_bad": found.first_bad,
        "last_good": found.last_good,
        "evaluations": found.evaluations,
        "good": found.good.value.to_json(max),
        "bad": found.bad.value.to_json(max),
        "untold": found.untold,
    })
}

fn found_text(expr: &str, found: &Bisection, paint: Paint) -> String {
    let line = |epoch: u64, text: &str| {
        let expr = paint.name(expr);
        format!("  @{epoch:<6} {expr} = {}\n", one_line(text))
    };
    let first = paint.heading(&format!("first bad: @{}", found.first_bad));
    let mut text = first + "\n";
    text += &line(found.last_good, &found.good.text);
    text += &line(found.first_bad, &found.bad.text);
    if !found.untold.is_empty() {
        text += &format!(
            "it cannot be told at the {} between them, so the first bad one may be among these\n",
            found.untold.len()
        );
    }
    text += &format!("{} evaluations between the ends\n", found.evaluations);
    text
}
