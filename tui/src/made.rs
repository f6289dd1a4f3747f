//! What this program has done to live processes, and undoes at its end: nobody is left standing at a breakpoint of
//! somebody who has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use libsls::Client;
use libsls::control::{Act, Wait};

use crate::watcher::ps;

/// Shared by all who do something to processes.
#[derive(Debug, Clone, Default)]
pub struct Made(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Partitions that were made to stand or go, by whether they stood before.
    driven: BTreeMap<String, bool>,
    /// Breakpoints that are ours, by partition.
    points: BTreeSet<(String, u32)>,
}

impl Made {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes how a partition is before anything is done to it.
    pub fn drives(&self, client: &mut Client, part: &str) {
        if self.with(|inner| inner.driven.contains_key(part)) {
            return;
        }
        let stood = stands(client, part);
        self.with(|inner| *inner.driven.entry(part.to_owned()).or_insert(stood));
    }

    pub fn sets(&self, part: &str, number: u32) {
        self.with(|inner| inner.points.insert((part.to_owned(), number)));
    }

    pub fn is_nothing(&self) -> bool {
        self.with(|inner| inner.driven.is_empty() && inner.points.is_empty())
    }

    /// Takes our breakpoints away, and lets those go on that ran before. What is gone meanwhile needs nothing.
    pub fn undo(&self, client: &mut Client) {
        let Inner { driven, points } = self.with(std::mem::take);
        for (part, number) in points {
            let _ = client.change_breakpoint(Some(&part), Act::Delete { number });
        }
        for (part, stood) in driven {
            if !stood && stands(client, &part) {
                let _ = client.run(Some(&part), None, Act::Continue { wait: Wait::No });
            }
        }
    }
}

fn stands(client: &mut Client, part: &str) -> bool {
    let rows = ps(client).unwrap_or_default();
    let is_of = |state: &str| matches!(state, "stopped" | "suspended" | "paused");
    rows.iter()
        .any(|row| row.partition == part && is_of(&row.state))
}
