//! The programs of a history: an exec, a dlopen or another branch can make another one of it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::finder::Finder;
use crate::program::Program;
use crate::view::View;

/// Programs kept at hand; each holds the debug information of all its files.
const KEPT: usize = 4;

/// Loads the program of each view once for all views that it is good for.
#[derive(Default)]
pub struct Programs {
    finder: Finder,
    loaded: RefCell<Vec<Rc<Program>>>,
}

impl Programs {
    pub fn new(finder: Finder) -> Self {
        Self {
            finder,
            loaded: RefCell::default(),
        }
    }

    /// The program of `view`.
    pub fn of(&self, view: &dyn View) -> Rc<Program> {
        let mut loaded = self.loaded.borrow_mut();
        if let Some(at) = loaded.iter().position(|program| program.matches(view)) {
            let program = loaded.remove(at);
            loaded.push(Rc::clone(&program));
            return program;
        }
        let program = Rc::new(Program::load(view, &self.finder));
        if loaded.len() >= KEPT {
            loaded.remove(0);
        }
        loaded.push(Rc::clone(&program));
        program
    }
}
