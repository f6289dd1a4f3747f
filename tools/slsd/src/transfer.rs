//! Histories that go to a store, come back from one, and are removed there.

use std::path::Path;

use libsls::protocol::{Failure, History, Moved};
use slos::{Epoch, Keep, Partition, ReadError, Settings, Store, Taken, TransferError};

use crate::bundle;
use crate::history;
use crate::names;
use crate::part::Source;
use crate::registry::{ALL, Refusal, Registry};

/// A history in a store keeps all that it was given: nothing goes there that nobody removed.
pub const KEPT: Settings = Settings {
    keep: Keep::All,
    budget: None,
};

/// Brings what a store does not have yet of a partition's checkpoints there.
pub fn export(
    registry: &Registry,
    part: Option<&str>,
    (first, last): (Option<u64>, Option<u64>),
    store: &Path,
    name: Option<&str>,
) -> Result<Moved, Refusal> {
    let part = registry.find(part)?;
    let name = name.map_or_else(|| part.name.clone(), libsls::partition_name);
    names::partition(&name)?;
    let opened = registry.stores.open(store)?;
    let (there, fresh) = kept(&opened, &name)?;
    let range = (Epoch(first.unwrap_or(1)), Epoch(last.unwrap_or(u64::MAX)));
    let taken = there.take_over(&part.history, range, |_| {});
    if fresh && there.newest().is_ok_and(|newest| newest.is_none()) {
        opened.remove_partition(&name).map_err(Refusal::other)?;
    }
    let taken = taken.map_err(|error| outward(&error, store, &name))?;
    Ok(moved(&name, &taken))
}

/// The history of that name in a store, and whether it was just made.
pub fn kept(store: &Store, name: &str) -> Result<(Partition, bool), Refusal> {
    if let Ok(there) = store.partition(name) {
        return Ok((there, false));
    }
    let made = store.add_partition(name, KEPT).map_err(Refusal::other)?;
    Ok((made, true))
}

/// Makes a partition of a history in a store.
pub fn import(
    registry: &Registry,
    store: &Path,
    from: Option<&str>,
    part: Option<&str>,
    budget: Option<u64>,
) -> Result<Moved, Refusal> {
    let opened = registry.stores.open_to_read(store)?;
    let from = choose(&opened, store, from, part)?;
    let name = part.map_or_else(|| from.clone(), libsls::partition_name);
    let source = Source {
        history: &opened.partition(&from).map_err(Refusal::other)?,
        range: ALL,
        files: opened.partition(bundle::NAME).ok(),
    };
    let taken = registry.add_imported(&name, &source, budget)?;
    Ok(moved(&name, &taken))
}

/// Removes a history from a store.
pub fn remove(registry: &Registry, store: &Path, part: &str) -> Result<(), Refusal> {
    let opened = registry.stores.open(store)?;
    let name = libsls::partition_name(part);
    if opened.partition(&name).is_err() {
        return Err(nothing_of(&opened, store, &name));
    }
    opened.remove_partition(&name).map_err(Refusal::other)
}

/// The histories of a store, or of the daemon.
pub fn snapshots(registry: &Registry, store: Option<&Path>) -> Result<Vec<History>, Refusal> {
    let Some(path) = store else {
        let lasting = registry.all().into_iter();
        let lasting = lasting.filter(|part| !libsls::is_temporary(&part.name));
        return lasting.map(|part| history::history(&part)).collect();
    };
    if let Some(known) = registry.stores.known(path) {
        return Ok(known);
    }
    let opened = registry.stores.open_to_read(path)?;
    histories(&opened)
}

/// All histories of a store.
pub fn histories(store: &Store) -> Result<Vec<History>, Refusal> {
    let each = stored_names(store)?.into_iter().map(|name| {
        let part = store.partition(&name).map_err(Refusal::other)?;
        history::stored(&part)
    });
    each.collect()
}

/// Which history of the store: the one named, that of the name it is to have, or the only one.
fn choose(
    store: &Store,
    path: &Path,
    from: Option<&str>,
    part: Option<&str>,
) -> Result<String, Refusal> {
    let names = stored_names(store)?;
    if let Some(from) = from.map(libsls::partition_name) {
        return if names.contains(&from) {
            Ok(from)
        } else {
            Err(nothing_of(store, path, &from))
        };
    }
    let wanted = part.map(libsls::partition_name);
    if let Some(same) = wanted.filter(|wanted| names.contains(wanted)) {
        return Ok(same);
    }
    match &names[..] {
        [only] => Ok(only.clone()),
        [] => Err(Refusal::new(
            Failure::NotFound,
            format!("{} holds no history yet", path.display()),
        )),
        several => Err(Refusal::new(
            Failure::Usage,
            format!(
                "say which one of {} with --from: {}",
                path.display(),
                several.join(", ")
            ),
        )),
    }
}

fn stored_names(store: &Store) -> Result<Vec<String>, Refusal> {
    let parts = store.partitions().map_err(Refusal::other)?;
    let names = parts.into_iter().map(|part| part.name);
    Ok(names.filter(|name| name != bundle::NAME).collect())
}

fn nothing_of(store: &Store, path: &Path, name: &str) -> Refusal {
    let there = stored_names(store).unwrap_or_default();
    let there = if there.is_empty() {
        "none".to_owned()
    } else {
        there.join(", ")
    };
    let (path, name) = (path.display(), names::shown(name));
    Refusal::new(
        Failure::NotFound,
        format!("{path} holds no history {name}; it holds: {there}"),
    )
}

pub fn moved(name: &str, taken: &Taken) -> Moved {
    Moved {
        partition: name.to_owned(),
        checkpoints: taken.checkpoints,
        pages: taken.pages,
        bytes: taken.bytes,
        passed: taken.passed.iter().map(|epoch| epoch.0).collect(),
    }
}

pub fn outward(error: &TransferError, store: &Path, name: &str) -> Refusal {
    let store = store.display();
    let message = match error {
        TransferError::Strangers(epoch) => format!(
            "{store} holds another history under the name {name} ({epoch} differs); export under another one with --as NAME, or remove it: slsctl partdel -o {name} --store {store}"
        ),
        full if full.is_full() => format!(
            "{store} is full; what came before is there. Remove a history (slsctl partdel -o PART --store {store}), or export to a larger store"
        ),
        TransferError::Read(ReadError::NoEpoch(epoch)) => {
            return Refusal::new(Failure::NotFound, format!("no checkpoint {epoch}"));
        }
        other => format!("export to {store}: {other}"),
    };
    Refusal::new(Failure::Other, message)
}
