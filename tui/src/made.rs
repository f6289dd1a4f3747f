//! What this program has done to live processes, and undoes at its end: nobody is left standing at a breakpoint of
//! somebody who has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use libsls::Client;
use libsls::control::{Act, Wait};

use crate::watcher::ps;

/// Shared by all who do something to processes.
#[derive(Debug, Clone, Default)]
pub struct Made(Arc<(Mutex<Inner>, Condvar)>);

/// An order under way ends soon, as a rule: the end of this program waits so long for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// As long as this lives an order is under way.
#[derive(Debug)]
pub struct UnderWay {
    made: Made,
    /// It may take for ever: until the next stop.
    is_long: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.made.with(|inner| *inner.orders(self.is_long) -= 1);
        self.made.0.1.notify_all();
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Orders under way: those that end soon, and those that wait for a stop.
    short: usize,
    long: usize,
    /// Partitions that were made to stand or go, by whether they stood before.
    driven: BTreeMap<String, bool>,
    /// Breakpoints that are ours, by partition.
    points: BTreeSet<(String, u32)>,
}

impl Inner {
    fn orders(&mut self, is_long: bool) -> &mut usize {
        if is_long {
            &mut self.long
        } else {
            &mut self.short
        }
    }
}

impl Made {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Before an order is given.
    pub fn begin(&self, is_long: bool) -> UnderWay {
        self.with(|inner| *inner.orders(is_long) += 1);
        UnderWay {
            made: self.clone(),
            is_long,
        }
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
        self.with(|inner| {
            let orders = inner.short + inner.long;
            inner.driven.is_empty() && inner.points.is_empty() && orders == 0
        })
    }

    /// Takes our breakpoints away, and lets those go on that ran before. What is gone meanwhile needs nothing.
    pub fn undo(&self, client: &mut Client) {
        // What was just asked for would else be done when nobody is there any more to undo it.
        let inner = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .0
            .1
            .wait_timeout_while(inner, PATIENCE, |i| i.short > 0);
        drop(waited);
        let (driven, points, runs) = self.with(|inner| {
            let driven = std::mem::take(&mut inner.driven);
            (driven, std::mem::take(&mut inner.points), inner.long > 0)
        });
        for (part, number) in points {
            let _ = client.change_breakpoint(Some(&part), Act::Delete { number });
        }
        for (part, _) in driven.into_iter().filter(|(_, stood)| !stood) {
            // It may be about to stop: then it has done so.
            if runs {
                let _ = client.run(Some(&part), None, Act::Pause);
            }
            if stands(client, &part) {
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
