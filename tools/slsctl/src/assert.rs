//! A condition that history must keep.

use clap::Args;
use introspect::{Checker, Programs, Verdict, check};
use libsls::protocol::{Answer, Request, Watched};
use serde_json::{Value as Json, json};

use crate::arguments::{FrameArg, ProcessArg, Range};
use crate::explain::explained;
use crate::line::Line;
use crate::look::tell;
use crate::output::{Paint, one_line};
use crate::progress::Shown;
use crate::session::{Outcome, Session, out_of_turn};

/// Check that a condition holds at every checkpoint, and name the first where it does not (exit status 3)
///
/// A number or a pointer holds unless it is 0. Checkpoints at which it cannot be told, such as those without the frame
/// it speaks of, are counted and pass; a condition that can be told at none of them is an error. With --watch the
/// daemon checks each new checkpoint as it comes, until the condition is broken or the processes have ended; it then
/// keeps the checkpoint, the one before and the one after through all thinning, and calls it @breach.
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl assert 'all(accounts, _.balance >= 0)' @1..@-1")]
pub struct Assert {
    /// The condition; after `--` when it begins with a minus
    #[arg(value_name = "EXPR")]
    expr: String,
    /// The checkpoints [default: the whole current branch]
    #[arg(value_name = "@A..@B")]
    range: Option<Range>,
    /// Wait: check the newest checkpoint and each that comes
    #[arg(long, conflicts_with = "range")]
    watch: bool,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Assert {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        if self.watch {
            return self.wait(session);
        }
        let line = Line::open(session, &self.which, self.range.as_ref())?;
        let shown = Shown::counted("assert", line.len());
        let (counted, context) = (line.counted(&shown), self.frame.context());
        let mut checker = Checker::new(Programs::default(), context, &self.expr);
        let verdict = check(&mut checker, &counted, line.range());
        drop(shown);
        let verdict = verdict.map_err(|error| explained(&self.expr, error))?;
        session.answer(&verdict_json(&self.expr, &verdict), |paint| {
            verdict_text(&self.expr, &verdict, paint)
        })?;
        tell(checker.troubles());
        Ok(match verdict.breach {
            Some(_) => Outcome::False,
            None => Outcome::Done,
        })
    }

    fn wait(&self, session: &Session) -> anyhow::Result<Outcome> {
        let request = Request::Watch {
            part: self.which.part.name(),
            pid: self.which.pid,
            expr: self.expr.clone(),
            tid: self.frame.tid(),
            frame: self.frame.frame(),
        };
        let watched = match session.ask(&request)? {
            Answer::Watched(watched) => watched,
            other => return Err(out_of_turn(&other)),
        };
        session.answer(&watched_json(&self.expr, &watched), |paint| {
            watched_text(&self.expr, &watched, paint)
        })?;
        Ok(match watched.breach {
            Some(_) => Outcome::False,
            None => Outcome::Done,
        })
    }
}

fn watched_json(expr: &str, watched: &Watched) -> Json {
    let breach = watched.breach.as_ref();
    json!({
        "expr": expr,
        "holds": breach.is_none(),
        "first_breach": breach.map(|breach| breach.epoch),
        "time": breach.map(|breach| breach.time),
        "checked": watched.checked,
        "evaluations": watched.evaluations,
        "untold": watched.untold,
        "name": breach.and_then(|breach| breach.name.as_deref()),
        "kept": breach.map(|breach| breach.kept.as_slice()).unwrap_or_default(),
    })
}

fn watched_text(expr: &str, watched: &Watched, paint: Paint) -> String {
    let expr = paint.name(&one_line(expr));
    match &watched.breach {
        Some(breach) => format!(
            "{} {expr} is {} at @{}, now @{}; it and its neighbours are kept\n",
            paint.bad("broken:"),
            one_line(&breach.text),
            breach.epoch,
            breach.name.as_deref().unwrap_or_default(),
        ),
        None => format!(
            "{expr} held at {} checkpoints, to the end\n",
            watched.checked
        ),
    }
}

fn verdict_json(expr: &str, verdict: &Verdict) -> Json {
    json!({
        "expr": expr,
        "holds": verdict.breach.is_none(),
        "first_breach": verdict.breach.as_ref().map(|row| row.epoch),
        "time": verdict.breach.as_ref().map(|row| row.time),
        "checked": verdict.checked,
        "evaluations": verdict.evaluations,
        "untold": verdict.untold,
    })
}

fn verdict_text(expr: &str, verdict: &Verdict, paint: Paint) -> String {
    let expr = paint.name(&one_line(expr));
    let untold = match verdict.untold.len() {
        0 => String::new(),
        some => format!("; it cannot be told at {some} of them"),
    };
    match &verdict.breach {
        Some(row) => format!(
            "{} {expr} is {} at @{}, the first of {} checkpoints looked at{untold}\n",
            paint.bad("broken:"),
            one_line(&row.text),
            row.epoch,
            verdict.checked,
        ),
        None => format!("{expr} holds at {} checkpoints{untold}\n", verdict.checked),
    }
}
