//! Since when each part of a value is what it is.

use clap::Args;
use introspect::{Blame as Answer, blame};

use crate::arguments::{FrameArg, ProcessArg, Range};
use crate::explain::explained;
use crate::line::Line;
use crate::look::Histories;
use crate::output::{Paint, Table, left};
use crate::progress::Shown;
use crate::session::{Outcome, Session};

/// Show for each member or element of a value the checkpoint that last changed it
///
/// The value is that at the end of the range. A part that was the same all along has no checkpoint.
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl blame server.stats @10..@-1")]
pub struct Blame {
    /// What to evaluate; after `--` when it begins with a minus
    #[arg(value_name = "EXPR")]
    expr: String,
    /// The checkpoints [default: the whole current branch]
    #[arg(value_name = "@A..@B")]
    range: Option<Range>,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Blame {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let line = Line::open(session, &self.which, self.range.as_ref())?;
        let shown = Shown::counted("blame", line.len());
        let (counted, context) = (line.counted(&shown), self.frame.context());
        let programs = Histories::default();
        let answer = blame(&programs, &counted, &context, &self.expr, line.range());
        drop(shown);
        let answer = answer.map_err(|error| explained(&self.expr, error))?;
        let json = answer.to_json(&self.expr, self.frame.max);
        session.answer(&json, |paint| rows_text(&answer, paint))?;
        Ok(Outcome::Done)
    }
}

fn rows_text(answer: &Answer, paint: Paint) -> String {
    let mut table = Table::new([
        left("SINCE").coloured(Paint::name),
        left("PART"),
        left("VALUE"),
    ]);
    for row in &answer.rows {
        let since = row
            .epoch
            .map_or("-".to_owned(), |epoch| format!("@{epoch}"));
        table.row([since, row.path.clone(), row.text.clone()]);
    }
    let mut text = table.text(paint);
    if answer.cut {
        text += "there are more parts: see --max\n";
    }
    text
}
