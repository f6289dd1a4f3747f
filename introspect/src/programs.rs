//! The programs of a history: an exec, a dlopen or another branch can make another one of it.

use std::sync::{Arc, Mutex, MutexGuard};

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
}

impl Programs {
    pub fn new(finder: Finder) -> Self {
        Self {
            finder,
            loaded: Mutex::default(),
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
            loaded.remove(0);
        }
        loaded.push(Arc::clone(&program));
        program
    }
    /// What a thread that panicked has left is whole: programs are only ever added and taken away.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Program>>> {
        self.loaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
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
