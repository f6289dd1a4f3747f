//! A partition that is written to a store as it runs: what is new in memory follows behind, on a
//! thread of its own, so that neither the process nor its checkpoints wait for the store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libsls::protocol::Failure;
use slos::{Epoch, Partition, Store};

use crate::probes;
use crate::registry::Refusal;
use crate::stores::Stores;
use crate::transfer;

/// How often it looks whether there is something new.
const STEP: Duration = Duration::from_millis(50);
/// After trouble: the store is opened again, which reads it.
const REST: Duration = Duration::from_secs(1);

/// Ends, after a last look, when it is dropped.
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    /// All up to here lasts, but for what was thinned before it came to it.
    durable: u64,
    trouble: Option<String>,
    /// Somebody waits: look now.
    asked: bool,
    /// Names have changed.
    renamed: bool,
    over: bool,
}

/// What `stat` tells of it.
pub struct Lag {
    pub store: String,
    pub durable: u64,
    pub behind: u64,
    pub trouble: Option<String>,
}

struct Work {
    shared: Arc<Shared>,
    stores: Arc<Stores>,
    history: Partition,
    there: Option<(Arc<Store>, Partition)>,
}

impl Flusher {
    pub fn start(
        history: Partition,
        stores: &Arc<Stores>,
        path: &Path,
    ) -> std::io::Result<Flusher> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            state: Mutex::new(State {
                renamed: true,
                ..State::default()
            }),
            bell: Condvar::new(),
        });
        let mut work = Work {
            shared: Arc::clone(&shared),
            stores: Arc::clone(stores),
            history,
            there: None,
        };
        let thread = std::thread::Builder::new()
            .name("flush".into())
            .spawn(move || work.run())?;
        Ok(Flusher {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Waits until a checkpoint lasts, or cannot for now.
    pub fn wait(&self, epoch: Epoch, until: Option<Instant>) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        // What was wrong may be right by now.
        state.trouble = None;
        state.asked = true;
        self.shared.bell.notify_all();
        while state.durable < epoch.0 {
            let left = until.map_or(REST, |u| u.saturating_duration_since(Instant::now()));
            if let Some(trouble) = &state.trouble {
                let message =
                    format!("checkpoint {epoch} is in memory, but not in its store: {trouble}");
                return Err(Refusal::new(Failure::Other, message));
            }
            if state.over || left.is_zero() {
                let message = format!("checkpoint {epoch} is not in its store yet");
                return Err(Refusal::new(Failure::Other, message));
            }
            state = match self.shared.bell.wait_timeout(state, left.min(REST)) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Ok(())
    }

    /// Names or pins have changed.
    pub fn renamed(&self) {
        self.shared.state().renamed = true;
    }

    pub fn lag(&self, history: &Partition) -> Lag {
        let state = self.shared.state();
        let newer = history.history().unwrap_or_default();
        let newer = newer.iter().filter(|info| info.epoch.0 > state.durable);
        Lag {
            store: self.shared.path.display().to_string(),
            durable: state.durable,
            behind: newer.count() as u64,
            trouble: state.trouble.clone(),
        }
    }

    /// After a last look.
    pub fn end(&self) {
        self.shared.state().over = true;
        self.shared.bell.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // A panic of it is in the log already.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain flags and counters, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn run(&mut self) {
        loop {
            let over = self.shared.state().over;
            let well = self.look();
            if over {
                return;
            }
            self.rest(if well { STEP } else { REST });
        }
    }

    /// Sleeps, unless somebody asks.
    fn rest(&self, time: Duration) {
        let state = self.shared.state();
        let awake = |state: &mut State| !state.asked && !state.over;
        let waited = self.shared.bell.wait_timeout_while(state, time, awake);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.asked = false;
    }

    /// Brings over what is new; whether that went well.
    fn look(&mut self) -> bool {
        let (durable, renamed) = {
            let mut state = self.shared.state();
            (state.durable, std::mem::take(&mut state.renamed))
        };
        let newest = self.history.newest().ok().flatten().map_or(0, |e| e.0);
        if newest <= durable && !renamed && self.there.is_some() {
            return true;
        }
        let first = if renamed { 1 } else { durable + 1 };
        let done = self.bring(Epoch(first), Epoch(newest));
        let mut state = self.shared.state();
        match &done {
            Ok(()) => {
                state.durable = newest.max(durable);
                state.trouble = None;
            }
            Err(refusal) => {
                if state.trouble.as_ref() != Some(&refusal.message) {
                    tracing::warn!(name = self.history.name(), error = refusal.message, "flush");
                }
                state.trouble = Some(refusal.message.clone());
                state.renamed |= renamed;
            }
        }
        drop(state);
        self.shared.bell.notify_all();
        if done.is_err() {
            // Closed when idle, and so opened anew when a write has failed.
            self.there = None;
        }
        done.is_ok()
    }

    fn bring(&mut self, first: Epoch, last: Epoch) -> Result<(), Refusal> {
        let path = self.shared.path.clone();
        let (_, there) = match &mut self.there {
            Some(there) => there,
            none => {
                let store = self.stores.open(&path)?;
                let there = transfer::kept(&store, self.history.name())?.0;
                none.insert((store, there))
            }
        };
        probes::flush_begun(first.0, last.0);
        let taken = there.take_over(&self.history, (first, last), |_| {});
        let taken = taken.map_err(|error| transfer::outward(&error, &path, there.name()))?;
        match taken.passed.first() {
            Some(passed) => Err(Refusal::new(
                Failure::Other,
                format!(
                    "{} has newer checkpoints than {passed} already",
                    path.display()
                ),
            )),
            None => {
                probes::flush_done(last.0);
                Ok(())
            }
        }
    }
}
