//! One expression along a history.

use std::sync::Arc;

use clap::Args;
use introspect::{
    Finder, History as Epochs, Program, ReadSet, Timeline as Answer, Unavailable, View, timeline,
};
use libsls::protocol::History;
use libsls::view::{CheckpointView, PartitionHistory};

use crate::arguments::{FrameArg, ProcessArg, Range, WrongUsage};
use crate::output::{Paint, Table, duration_ns, left, right};
use crate::progress::{Progress, Shown};
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
        let history = session.history(self.which.part.name().as_deref())?;
        let (from, to) = ends(&history, &self.range.clone().unwrap_or_default())?;
        let client = session.client()?;
        let epochs = PartitionHistory::new(client, &history, self.which.pid, (from, to));
        if self.range.as_ref().is_some_and(|r| r.from.is_some())
            && epochs.epochs().first().is_none_or(|first| first.0 != from)
        {
            let message = format!("@{from} does not lead to @{to}: they are on different branches");
            return Err(WrongUsage(message).into());
        }
        let shown = Shown::counted("timeline", epochs.epochs().len());
        let newest = CheckpointView::open(client, &history.partition, to, self.which.pid)?;
        let program = Program::load(&newest, &Finder::default());
        let counted = Counted {
            epochs,
            progress: Arc::clone(shown.progress()),
        };
        let context = self.frame.context();
        let answer = timeline(
            &program,
            &counted,
            &context,
            &self.expr,
            from..=to,
            self.changes,
        )?;
        drop(shown);
        let json = answer.to_json(&self.expr, self.frame.max);
        session.answer(&json, |paint| rows_text(&answer, paint))?;
        Ok(Outcome::Done)
    }
}

/// First and last epoch meant.
fn ends(history: &History, range: &Range) -> anyhow::Result<(u64, u64)> {
    let newest = libsls::EpochRef::FromEnd(1);
    let to = range.to.as_ref().unwrap_or(&newest).resolve(history)?;
    let from = match &range.from {
        Some(from) => from.resolve(history)?,
        None => 0,
    };
    if from > to {
        return Err(WrongUsage(format!("@{from} comes after @{to}: turn the range round")).into());
    }
    Ok((from, to))
}

/// A history that tells how far a walk along it has come.
struct Counted {
    epochs: PartitionHistory,
    progress: Arc<Progress>,
}

impl Epochs for Counted {
    fn epochs(&self) -> Vec<(u64, u64)> {
        self.epochs.epochs()
    }

    fn view(&self, epoch: u64) -> Result<Box<dyn View>, Unavailable> {
        self.epochs.view(epoch)
    }

    fn unchanged(&self, from: u64, to: u64, pages: &ReadSet) -> Result<bool, Unavailable> {
        self.progress.step();
        self.epochs.unchanged(from, to, pages)
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

    #[test]
    fn a_range_turned_round_is_refused() {
        let checkpoint = |epoch: u64| libsls::protocol::HistoryRow {
            epoch,
            parent: epoch.checked_sub(1).filter(|p| *p > 0),
            branch: "main".into(),
            name: None,
            time: 0,
            stop_us: 0,
            pages: 0,
            bytes: 0,
            pids: Vec::new(),
        };
        let history = History {
            partition: "mem".into(),
            head: 3,
            branch: "main".into(),
            checkpoints: (1..=3).map(checkpoint).collect(),
        };
        assert_eq!(ends(&history, &Range::default()).unwrap(), (0, 3));
        assert_eq!(ends(&history, &"@2..@-1".parse().unwrap()).unwrap(), (2, 3));
        assert!(ends(&history, &"@3..@2".parse().unwrap()).is_err());
        assert!(ends(&history, &"@2..@9".parse().unwrap()).is_err());
    }
}
