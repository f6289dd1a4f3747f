//! Which key does what: one table ([`TABLE`]), and the user's changes to it ([`Keymap`]).

mod map;
pub mod notation;
mod table;

pub use map::{Keymap, Meaning};
pub use notation::Key;
pub use table::{Entry, Section, TABLE};

use crossterm::event::KeyEvent;

use crate::place::Pane;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Previous,
    Next,
    PreviousChange,
    NextChange,
    First,
    Newest,
    Bookmark,
    Jump,
    Base,
    Branch,
    Pane(Pane),
    NextPane,
    PreviousPane,
    NextTab,
    PreviousTab,
    Up,
    Down,
    PageUp,
    PageDown,
    Left,
    Right,
    Top,
    Bottom,
    Filter,
    Zoom,
    Unzoom,
    Enter,
    FrameUp,
    FrameDown,
    Where,
    Locals,
    Watch,
    Unwatch,
    Memory,
    Address,
    Copy,
    Timeline,
    Blame,
    Refs,
    Diff,
    Heap,
    Bisect,
    Scan,
    Continue,
    Pause,
    Step,
    StepOver,
    StepInstruction,
    StepOverInstruction,
    Finish,
    Back,
    Break,
    Breakpoints,
    Rewind,
    Partitions,
    Command,
    Palette,
    Help,
    Escape,
    Redraw,
    Suspend,
    Quit,
}

impl Action {
    /// Its line of the table.
    pub fn entry(self) -> Option<&'static Entry> {
        TABLE.iter().find(|entry| entry.action == self)
    }

    pub fn named(name: &str) -> Option<Self> {
        let entry = TABLE.iter().find(|entry| entry.name == name);
        entry.map(|entry| entry.action)
    }
}

/// The keys of `--keys`: characters as they are, others by name: `<Enter>`, `<Esc>`, `<Left>`, `<C-p>`, `<lt>` for `<`.
///
/// # Errors
/// The name that is none.
pub fn parse(text: &str) -> Result<Vec<KeyEvent>, String> {
    let keys = notation::parse(text)?;
    Ok(keys.into_iter().map(KeyEvent::from).collect())
}
