//! Work that can be given up, and tells how far it has come.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use introspect::{Mapping, ThreadView, Unavailable, View};

/// Memory fetched between two looks at whether somebody still wants it.
const STRETCH: u64 = 4 << 20;

/// Which question of a desk counts; a newer one cancels the others.
#[derive(Debug, Clone, Default)]
pub struct Newest(Arc<AtomicU64>);

impl Newest {
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::SeqCst);
    }

    pub fn turn(&self, number: u64) -> Turn {
        Turn {
            newest: self.clone(),
            number,
            done: Arc::default(),
            total: Arc::default(),
        }
    }
}

/// One question's time.
#[derive(Debug, Clone)]
pub struct Turn {
    newest: Newest,
    number: u64,
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
}

/// Another question came, or the user gave this one up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("given up")]
pub struct Cancelled;

impl Turn {
    pub fn is_over(&self) -> bool {
        self.newest.0.load(Ordering::Relaxed) != self.number
    }

    /// # Errors
    /// It is over.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_over() {
            return Err(Cancelled);
        }
        Ok(())
    }

    /// So many steps are to come.
    pub fn expect(&self, steps: usize) {
        self.total.store(steps as u64, Ordering::Relaxed);
    }

    pub fn step(&self) -> ControlFlow<()> {
        self.done.fetch_add(1, Ordering::Relaxed);
        if self.is_over() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Steps done, and how many there are; 0 where that is not known.
    pub fn progress(&self) -> (u64, u64) {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed);
        (if total > 0 { done.min(total) } else { done }, total)
    }
}

/// A view that has nothing to say once its turn is over, so that whatever reads it soon ends.
pub struct Guarded<'a> {
    pub view: &'a dyn View,
    pub turn: &'a Turn,
}

impl View for Guarded<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        if self.turn.is_over() {
            return Err(Unavailable::because("not looked at any more"));
        }
        self.view.read(address, buf)
    }

    fn each_page(&self, start: u64, end: u64, each: &mut dyn FnMut(u64, &[u8])) {
        let mut at = start;
        while at < end && !self.turn.is_over() {
            let next = at.saturating_add(STRETCH).min(end);
            self.view.each_page(at, next, each);
            at = next;
        }
    }

    fn threads(&self) -> Vec<ThreadView> {
        self.view.threads()
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.view.mappings()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.view.auxv()
    }

    fn debug_roots(&self) -> Vec<std::path::PathBuf> {
        self.view.debug_roots()
    }

    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        self.view.open_file(mapping)
    }
}
