//! What is known of stores that nobody has open: outlines of their segments, so that opening one reads no
//! pages, and what `listsnaps` tells of them.
//!
//! It is a cache. Outlines are proved by whoever reads the segments, and what a store held counts only
//! while the store's fingerprint is the one it had then. All of it is in memory, and a thread of its own
//! brings it there and keeps it in the catalogue (`sls_catalogue`), which may fail in any way: what was
//! known is forgotten then.
//!
//! - **Invariant**: no answer depends on what is known here, only how fast it comes and what is read for it.

mod entry;
mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsls::protocol::History;
use slos::{Fingerprint, Outline, Outlines, SegmentId};
use sls_catalogue::{Catalogue, Change, Entries, InMemory, InSled, Trouble};

use entry::{Kind, key, seal, unseal};
use listing::Seen;

/// An opening waits so long until what was known has been loaded, and goes without it then.
const LOADING: Duration = Duration::from_secs(1);
/// Of so many bytes only what was seen last is kept.
const MOST: usize = 64 << 20;

/// What this daemon knows.
pub struct Known {
    shared: Arc<Shared>,
}

struct Shared {
    /// Nobody waits any longer for what was known.
    until: Instant,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    loaded: bool,
    entries: Entries,
    /// Keys whose entries are not saved as they are.
    changed: BTreeSet<Vec<u8>>,
    /// Being saved just now.
    saving: bool,
    /// Nothing is saved any more.
    off: bool,
}

impl Known {
    /// Loads what an earlier daemon knew, meanwhile.
    pub fn begin(catalogue: Box<dyn Catalogue>) -> io::Result<Known> {
        let shared = Arc::new(Shared {
            until: Instant::now() + LOADING,
            state: Mutex::default(),
            bell: Condvar::new(),
        });
        let keeper = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("catalogue".into())
            .spawn(move || keeper.keep(&*catalogue))?;
        Ok(Known { shared })
    }

    /// What a store held when it had this fingerprint.
    pub fn listing(&self, fingerprint: &Fingerprint) -> Option<Vec<History>> {
        let state = self.shared.when_loaded();
        listing::told(&state.entries, fingerprint)
    }

    /// Is a store known by that name?
    pub fn knows(&self, path: &Path) -> bool {
        let state = self.shared.when_loaded();
        listing::stores(&state.entries).any(|(_, seen)| seen.is_at(path))
    }

    /// What a store holds that was just closed. It is saved soon.
    pub fn close(&self, path: &Path, fingerprint: &Fingerprint, histories: &[History]) {
        let mut state = self.shared.when_loaded();
        let gone: Vec<[u8; 16]> = listing::stores(&state.entries)
            .filter(|(store, seen)| *store != fingerprint.store && seen.is_at(path))
            .map(|(store, _)| store)
            .collect();
        gone.iter().for_each(|store| state.forget(store));
        let entries = listing::entries(path, fingerprint, histories);
        let before = state.range(&fingerprint.store, listing::KINDS);
        for key in before {
            if !entries.contains_key(&key) {
                state.put(key, None);
            }
        }
        for (key, body) in entries {
            state.put_body(key, &body);
        }
        state.keep_within(MOST);
        drop(state);
        self.shared.bell.notify_all();
    }

    /// Waits a while until all of it is saved.
    pub fn settle(&self, patience: Duration) {
        let state = self.shared.state();
        let busy = |s: &mut State| !s.off && (s.saving || !s.loaded || !s.changed.is_empty());
        let waited = self.shared.bell.wait_timeout_while(state, patience, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// For a daemon on that socket: in a folder that lasts, or beside the socket, or only in memory. One a
/// socket, so that no two daemons want the same; that of the usual socket outlives a reboot.
pub fn catalogue(socket: &Path) -> Box<dyn Catalogue> {
    let program = std::env::current_exe().map(|program| program.with_file_name("sls-catalogue"));
    let lasting = libsls::lasting_folder(socket);
    let mut error = None;
    for folder in lasting.into_iter().chain([libsls::state_folder(socket)]) {
        match (&program, prepare(&folder)) {
            (Ok(program), Ok(())) => {
                return Box::new(InSled::new(program, &folder.join("catalogue")));
            }
            (_, prepared) => error = prepared.err().or(error),
        }
    }
    let error = error.unwrap_or_default();
    tracing::warn!(
        error,
        "what is known of stores is not kept for the next daemon"
    );
    Box::new(InMemory::default())
}

/// Makes a folder that is this user's alone.
fn prepare(folder: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(folder);
    made.map_err(|e| format!("make {}: {e}", folder.display()))?;
    libsls::private_folder(folder).map_err(|e| e.to_string())
}

impl Outlines for Known {
    fn outline(&self, store: &[u8; 16], segment: SegmentId) -> Option<Outline> {
        let state = self.shared.when_loaded();
        let key = key(store, Kind::Outline, &segment.0.to_be_bytes());
        unseal(&key, state.entries.get(&key)?)
    }

    fn keep(&self, store: &[u8; 16], segment: SegmentId, outline: Outline) {
        let mut state = self.shared.when_loaded();
        let key = key(store, Kind::Outline, &segment.0.to_be_bytes());
        state.put_body(key, &outline);
    }

    fn keep_only(&self, store: &[u8; 16], segments: &BTreeSet<SegmentId>) {
        let mut state = self.shared.when_loaded();
        let known: BTreeSet<Vec<u8>> = segments
            .iter()
            .map(|segment| key(store, Kind::Outline, &segment.0.to_be_bytes()))
            .collect();
        for key in state.range(store, &[Kind::Outline]) {
            if !known.contains(&key) {
                state.put(key, None);
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Entries are sealed: one that is not whole is none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn when_loaded(&self) -> MutexGuard<'_, State> {
        let state = self.state();
        let loading = |s: &mut State| !s.loaded;
        let left = self.until.saturating_duration_since(Instant::now());
        let waited = self.bell.wait_timeout_while(state, left, loading);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The life of the thread that loads and saves.
    fn keep(&self, catalogue: &dyn Catalogue) {
        self.load(catalogue);
        loop {
            let changes = {
                let mut state = self.state();
                while state.changed.is_empty() {
                    let woken = self.bell.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
                state.saving = true;
                state.take_changes()
            };
            let off = !self.save(catalogue, &changes);
            let mut state = self.state();
            state.saving = false;
            state.off = off;
            drop(state);
            self.bell.notify_all();
            if off {
                return;
            }
        }
    }

    fn load(&self, catalogue: &dyn Catalogue) {
        let began = Instant::now();
        let loaded = catalogue.load();
        let mut off = false;
        let entries = loaded.unwrap_or_else(|trouble| {
            off = matches!(trouble, Trouble::InUse(_)) || catalogue.clear().is_err();
            let then = match off {
                true => "nothing is kept there",
                false => "begun anew",
            };
            tracing::warn!(%trouble, then, "what was known of stores is lost; they tell it again");
            Entries::new()
        });
        let mut state = self.state();
        // What was learnt meanwhile is newer.
        let learnt = std::mem::replace(&mut state.entries, entries);
        state.off = off;
        state.forget_vanished();
        state.entries.extend(learnt);
        state.keep_within(MOST);
        state.loaded = true;
        tracing::debug!(entries = state.entries.len(), spent = ?began.elapsed(), "catalogue loaded");
        drop(state);
        self.bell.notify_all();
    }

    /// Saves changes, or everything where the catalogue has to be begun anew; false when neither goes.
    fn save(&self, catalogue: &dyn Catalogue, changes: &[Change]) -> bool {
        if self.state().off {
            return false;
        }
        let Err(trouble) = catalogue.save(changes) else {
            return true;
        };
        let all: Vec<Change> = {
            let state = self.state();
            let each = state.entries.iter();
            each.map(|(key, value)| Change {
                key: key.clone(),
                value: Some(value.clone()),
            })
            .collect()
        };
        let again = catalogue.clear().and_then(|()| catalogue.save(&all));
        match &again {
            Ok(()) => tracing::warn!(%trouble, "what is known of stores was kept anew"),
            Err(again) => {
                tracing::warn!(%trouble, %again, "what is known of stores is not kept any more");
            }
        }
        again.is_ok()
    }
}

impl State {
    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let changed = match value {
            Some(value) if self.entries.get(&key) == Some(&value) => false,
            Some(value) => {
                self.entries.insert(key.clone(), value);
                true
            }
            None => self.entries.remove(&key).is_some(),
        };
        if changed && !self.off {
            self.changed.insert(key);
        }
    }

    fn put_body<T: serde::Serialize>(&mut self, key: Vec<u8>, body: &T) {
        if let Some(sealed) = seal(&key, body) {
            self.put(key, Some(sealed));
        }
    }

    fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .map(|key| {
                let value = self.entries.get(&key).cloned();
                Change { key, value }
            })
            .collect()
    }

    /// Keys of a store.
    fn range(&self, store: &[u8; 16], kinds: &[Kind]) -> Vec<Vec<u8>> {
        let all = self.entries.range(store.to_vec()..).map(|(key, _)| key);
        let own = all.take_while(|key| key.starts_with(store));
        own.filter(|key| kinds.iter().any(|&kind| entry::is(key, kind)))
            .cloned()
            .collect()
    }

    fn forget(&mut self, store: &[u8; 16]) {
        for key in self.range(store, Kind::ALL) {
            self.put(key, None);
        }
    }

    /// Entries of stores that are not where they were, and entries that are of no store.
    fn forget_vanished(&mut self) {
        let there: BTreeSet<[u8; 16]> = listing::stores(&self.entries)
            .filter(|(_, seen)| seen.is_there())
            .map(|(store, _)| store)
            .collect();
        let stray = |key: &&Vec<u8>| {
            let store = key.first_chunk::<16>();
            !store.is_some_and(|store| there.contains(store))
        };
        let stray: Vec<Vec<u8>> = self.entries.keys().filter(stray).cloned().collect();
        stray.into_iter().for_each(|key| self.put(key, None));
    }

    /// Forgets what was seen longest ago until the rest is small enough.
    fn keep_within(&mut self, most: usize) {
        let mut sizes: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (key, value) in &self.entries {
            let store = key.get(..16).unwrap_or(key).to_vec();
            *sizes.entry(store).or_default() += key.len() + value.len();
        }
        let mut held: usize = sizes.values().sum();
        let mut by_age: Vec<([u8; 16], Seen)> = listing::stores(&self.entries).collect();
        by_age.sort_by_key(|(_, seen)| seen.seen_ns);
        for (store, _) in by_age {
            if held <= most {
                return;
            }
            held -= sizes.get(&store[..]).copied().unwrap_or(0);
            self.forget(&store);
        }
    }
}

#[cfg(test)]
mod tests;
