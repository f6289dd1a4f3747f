//! Checkpoints taken and returned to.

use clap::Args;
use libsls::EpochRef;
use libsls::protocol::{Answer, Checkpoint as Taken, Request, Rewound};
use serde_json::{Value as Json, json};

use crate::arguments::{PartArg, checkpoint_name};
use crate::output::{Paint, bytes, micros};
use crate::progress::Shown;
use crate::scripts::{Moment, Scripts};
use crate::session::{Outcome, Session, out_of_turn};

/// Take a checkpoint now
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl checkpoint -n before-request")]
pub struct Checkpoint {
    #[command(flatten)]
    part: PartArg,
    /// Descendants join the partition first, those made later too
    #[arg(short = 'r')]
    follow: bool,
    /// Name it: it is then kept, and found as @NAME
    #[arg(short = 'n', value_name = "NAME", value_parser = checkpoint_name)]
    name: Option<String>,
    #[command(flatten)]
    scripts: Scripts,
}

impl Checkpoint {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let (part, pid) = if self.scripts.any() {
            let part = session.part(&self.part)?;
            let pid = first_of(session, &part)?;
            (Some(part), pid)
        } else {
            (self.part.name(), None)
        };
        let moment = |action, part, epoch| {
            self.scripts.run(&Moment {
                action,
                part,
                epoch,
                pid,
            })
        };
        moment("pre-dump", part.as_deref().unwrap_or_default(), None)?;
        let taken = take(session, part.clone(), self.name.clone(), self.follow)?;
        session.answer(&taken_json(&taken), |paint| taken_text(&taken, paint))?;
        moment("post-dump", &taken.partition, Some(taken.epoch))?;
        Ok(Outcome::Done)
    }
}

/// The first process of a partition.
fn first_of(session: &Session, part: &str) -> anyhow::Result<Option<i32>> {
    match session.ask(&Request::Ps)? {
        Answer::Ps(rows) => Ok(rows
            .iter()
            .find(|row| row.partition == part)
            .map(|row| row.pid)),
        other => Err(out_of_turn(&other)),
    }
}

/// Takes a checkpoint.
pub fn take(
    session: &Session,
    part: Option<String>,
    name: Option<String>,
    follow: bool,
) -> anyhow::Result<Taken> {
    let _shown = Shown::waiting("checkpoint");
    match session.ask(&Request::Checkpoint { part, name, follow })? {
        Answer::Checkpoint(taken) => Ok(taken),
        other => Err(out_of_turn(&other)),
    }
}

fn taken_json(taken: &Taken) -> Json {
    let cost = taken.cost;
    json!({
        "partition": taken.partition,
        "epoch": taken.epoch,
        "stop_us": taken.stop_us,
        "pages": taken.pages,
        "bytes": taken.bytes,
        "cost": {
            "stop_ns": cost.stop_ns,
            "quiesce_ns": cost.quiesce_ns,
            "maps_ns": cost.maps_ns,
            "scan_ns": cost.scan_ns,
            "copy_ns": cost.copy_ns,
            "copied_pages": cost.copied_pages,
            "record_ns": cost.record_ns,
        },
    })
}

fn taken_text(taken: &Taken, paint: Paint) -> String {
    format!(
        "{} of {}: stopped {}, {} pages changed, {} kept\n",
        paint.name(&format!("@{}", taken.epoch)),
        taken.partition,
        micros(taken.stop_us),
        taken.pages,
        bytes(taken.bytes)
    )
}

/// Put the live processes back to a checkpoint, in place; the present is checkpointed first
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl rewind @7")]
pub struct Rewind {
    #[command(flatten)]
    part: PartArg,
    /// The checkpoint: @7, @name or @-1
    #[arg(value_name = "@N")]
    to: EpochRef,
    /// Leave it stopped there; `slsctl resume` lets it run
    #[arg(short = 's')]
    stay_stopped: bool,
}

impl Rewind {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.part.name().as_deref())?;
        let epoch = self.to.resolve(&history)?;
        let _shown = Shown::waiting("rewind");
        let request = Request::Rewind {
            part: Some(history.partition),
            epoch,
            stay_stopped: self.stay_stopped,
        };
        match session.ask(&request)? {
            Answer::Rewound(done) => {
                session.answer(&rewound_json(&done), |paint| rewound_text(&done, paint))?;
                Ok(Outcome::Done)
            }
            other => Err(out_of_turn(&other)),
        }
    }
}

fn rewound_json(done: &Rewound) -> Json {
    json!({
        "from": done.from,
        "to": done.to,
        "branch": done.branch,
        "pages": done.pages,
        "stop_us": done.stop_us,
        "not_restored": done.not_restored,
    })
}

fn rewound_text(done: &Rewound, paint: Paint) -> String {
    let mut text = format!(
        "rewound to {}: {} pages put back in {}; now on branch {}; the present is kept as @{}\n",
        paint.name(&format!("@{}", done.to)),
        done.pages,
        micros(done.stop_us),
        done.branch,
        done.from
    );
    for what in &done.not_restored {
        text += &format!("{} {what}\n", paint.bad("not restored:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(json: &Json) -> Vec<&str> {
        json.as_object()
            .map(|object| object.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    #[test]
    fn shapes_of_the_contract() {
        let taken = Taken {
            partition: "mem".into(),
            epoch: u64::MAX,
            stop_us: 812,
            pages: 3,
            bytes: 4096,
            cost: libsls::protocol::Cost::default(),
        };
        let json = taken_json(&taken);
        let contract = ["partition", "epoch", "stop_us", "pages", "bytes"];
        assert_eq!(keys(&json)[..5], contract);
        assert!(json.to_string().contains("18446744073709551615"), "exact");
        let done = Rewound {
            from: 9,
            to: 3,
            branch: "b".into(),
            pages: 1,
            stop_us: 2,
            not_restored: vec!["x".into()],
        };
        let contract = ["from", "to", "branch", "pages", "stop_us", "not_restored"];
        assert_eq!(keys(&rewound_json(&done)), contract);
        assert!(rewound_text(&done, Paint::PLAIN).ends_with("not restored: x\n"));
    }
}
