use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Catalogue, Change, Entries, Trouble};

/// Keeps what it is given for as long as it lives.
#[derive(Default)]
pub struct InMemory(Mutex<Entries>);

impl InMemory {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Single insertions and removals.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalogue for InMemory {
    fn load(&self) -> Result<Entries, Trouble> {
        Ok(self.entries().clone())
    }

    fn save(&self, changes: &[Change]) -> Result<(), Trouble> {
        let mut entries = self.entries();
        for Change { key, value } in changes {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), Trouble> {
        self.entries().clear();
        Ok(())
    }
}
