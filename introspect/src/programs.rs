//! The programs of a history: an exec, a dlopen or another branch can make another one of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::finder::Finder;
use crate::program::Program;
use crate::view::View;

/// Programs kept at hand; each holds the debug information of all its files.
const KEPT: usize = 4;

/// Loads the program of each view once for all views that it is good for, also those of other threads.
#[derive(Default)]
pub struct Programs {
    finder: Finder,
    loaded: Mutex<Vec<Arc<Program>>>,
    /// What was found missing of those that are no longer kept.
    left: Mutex<BTreeSet<String>>,
}

impl Programs {
    pub fn new(finder: Finder) -> Self {
        Self {
            finder,
            loaded: Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// The program of `view`. Who asks while another thread loads one waits: it is likely the same.
    pub fn of(&self, view: &dyn View) -> Arc<Program> {
        let mut loaded = self.lock();
        if let Some(at) = loaded.iter().position(|program| program.matches(view)) {
            let program = loaded.remove(at);
            loaded.push(Arc::clone(&program));
            return program;
        }
        let program = Arc::new(Program::load(view, &self.finder));
        if loaded.len() >= KEPT {
            let gone = loaded.remove(0);
            self.lock_left().extend(gone.troubles());
        }
        loaded.push(Arc::clone(&program));
        program
    }

    /// What was found missing of their debug information so far, a sentence each.
    pub fn troubles(&self) -> Vec<String> {
        let mut all = self.lock_left().clone();
        all.extend(self.lock().iter().flat_map(|program| program.troubles()));
        all.extend(self.finder.troubles());
        all.into_iter().collect()
    }

    fn lock_left(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread that panicked has left is whole: programs are only ever added and taken away.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Program>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Programs;

    #[test]
    fn threads_share_them() {
        fn shared<T: Send + Sync>() {}
        shared::<Programs>();
    }
}
