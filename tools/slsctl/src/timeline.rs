//! One expression along a history.

use clap::Args;
use introspect::{Timeline as Answer, timeline};

use crate::arguments::{FrameArg, ProcessArg, Range};
use crate::explain::explained;
use crate::line::Line;
use crate::look::Histories;
use crate::output::{Paint, Table, duration_ns, left, right};
use crate::progress::Shown;
use crate::session::{Outcome, Session};

/// Show an expression at every checkpoint of a line of history
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl timeline counter @10..@-1 --changes")]
pub struct Timeline {
    /// What to evaluate; after `--` when it begins with a minus
    #[arg(value_name = "EXPR")]
    expr: String,
    /// The checkpoints [default: the whole current branch]
    #[arg(value_name = "@A..@B")]
    range: Option<Range>,
    /// Only the checkpoints where the value is another than before
    #[arg(long)]
    changes: bool,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Timeline {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let line = Line::open(session, &self.which, self.range.as_ref())?;
        let shown = Shown::counted("timeline", line.len());
        let counted = line.counted(&shown);
        let context = self.frame.context();
        let programs = Histories::default();
        let answer = timeline(
            &programs,
            &counted,
            &context,
            &self.expr,
            line.range(),
            self.changes,
        );
        drop(shown);
        let answer = answer.map_err(|error| explained(&self.expr, error))?;
        let json = answer.to_json(&self.expr, self.frame.max);
        session.answer(&json, |paint| rows_text(&answer, paint))?;
        Ok(Outcome::Done)
    }
}

fn rows_text(answer: &Answer, paint: Paint) -> String {
    let Some(first) = answer.rows.first() else {
        return "no checkpoints in the range\n".to_owned();
    };
    let mut table = Table::new([
        left("EPOCH").coloured(Paint::name),
        right("TIME").coloured(Paint::faint),
        left("VALUE"),
    ]);
    for row in &answer.rows {
        table.row([
            format!("@{}", row.epoch),
            format!("+{}", duration_ns(row.time.saturating_sub(first.time))),
            row.text.clone(),
        ]);
    }
    table.text(paint)
}

#[cfg(test)]
mod tests {
    use introspect::{Row, Value};

    use super::*;

    #[test]
    fn rows_have_the_time_since_the_first() {
        let row = |epoch, time, text: &str| Row {
            epoch,
            time,
            text: text.into(),
            value: Value::Null,
        };
        let answer = Answer {
            rows: vec![row(1, 5_000_000_000, "1"), row(12, 5_250_000_000, "2")],
            ..Answer::default()
        };
        let lines = [
            "EPOCH    TIME  VALUE",
            "@1       +0ms  1",
            "@12    +250ms  2",
        ];
        let text = rows_text(&answer, Paint::PLAIN);
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
