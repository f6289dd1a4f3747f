//! Clones of a process beside it.

use clap::Args;
use libsls::EpochRef;
use libsls::protocol::{Answer, Request};

use crate::arguments::PartArg;
use crate::progress::Shown;
use crate::restore::{restored_json, restored_text};
use crate::session::{Outcome, Session, out_of_turn};

/// Make a clone of the process of a checkpoint beside it, which goes on by itself
///
/// The clone has numbers and a network of its own, and what it writes to files only it sees: the original does not
/// notice it. Its history is in a partition of its own, which begins with that checkpoint.
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl branch -m @7 --as other")]
pub struct Branch {
    #[command(flatten)]
    part: PartArg,
    /// The checkpoint: @7, @name or @-1
    #[arg(value_name = "@N", default_value = "@-1")]
    from: EpochRef,
    /// The partition to make for the clone; by default the name of the original's with a number
    #[arg(long = "as", value_name = "NAME")]
    into: Option<String>,
    /// Leave it stopped; `slsctl resume -o NAME` lets it run
    #[arg(short = 's')]
    stay_stopped: bool,
    /// Go on although files it had mapped or open have changed or are gone
    #[arg(long)]
    force: bool,
    /// Let it run at once: its memory is brought as it is needed, and the rest behind that
    #[arg(long)]
    lazy: bool,
}

impl Branch {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.part.name().as_deref())?;
        let epoch = self.from.resolve(&history)?;
        let shown = Shown::waiting("branch");
        let answer = session.ask(&Request::Branch {
            part: Some(history.partition),
            epoch,
            into: self.into.clone(),
            stay_stopped: self.stay_stopped,
            force: self.force,
            lazy: self.lazy,
        })?;
        drop(shown);
        match answer {
            Answer::Restored(restored) => {
                session.answer(&restored_json(&restored), |paint| {
                    let part = paint.name(&restored.partition);
                    let text = restored_text(&restored, paint);
                    format!("a clone, in partition {part}: {text}")
                })?;
                Ok(Outcome::Done)
            }
            other => Err(out_of_turn(&other)),
        }
    }
}
