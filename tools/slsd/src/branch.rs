//! Clones of what a checkpoint holds, beside those that it is of: each has a partition, which begins with
//! that checkpoint.

use libsls::protocol::Failure;
use slos::Epoch;
use sls_engine::Wish;

use crate::part::Source;
use crate::registry::{Refusal, Registry};
use crate::worker::{Command, Reply};

/// Makes one; its partition is there if this works, and only then.
pub fn branch(
    registry: &Registry,
    part: Option<&str>,
    from: Epoch,
    given: Option<&str>,
    wish: Wish,
) -> Result<Reply, Refusal> {
    let source = registry.find(part)?;
    source.history.info(from).map_err(Refusal::other)?;
    let name = match given {
        Some(given) => libsls::partition_name(given),
        None => free_name(registry, &source.name),
    };
    let past = Source {
        history: &source.history,
        range: (from, from),
        // It runs here, so its files are here.
        files: None,
    };
    let taken = registry.add_imported(&name, &past, None)?;
    if taken.checkpoints == 0 {
        registry.remove(&name)?;
        let message = format!("{from} of {} was dropped just now", source.name);
        return Err(Refusal::new(Failure::NotFound, message));
    }
    let clones = registry.find(Some(&name))?;
    let made = clones.command(Command::Restore { from, wish });
    if made.is_err()
        && let Err(error) = registry.remove(&name)
    {
        tracing::warn!(name, error = error.message, "remove what was begun");
    }
    made
}

/// The first of its kind that no partition has.
fn free_name(registry: &Registry, source: &str) -> String {
    let all = registry.all();
    let is_free = |name: &String| all.iter().all(|part| part.name != *name);
    let mut names = (1..).map(|number: u64| format!("{source}-{number}"));
    names.find(is_free).unwrap_or_else(|| source.to_owned())
}
