//! Events to changes of the model, and to what has to be done outside: the only place that changes it.

mod act;
mod arrive;
mod commands;
mod complete;
pub mod control;
mod mouse;
mod panes;
mod pick;
mod press;
mod reconcile;
mod select;

pub use commands::{VERBS, Verb, listed};

use std::sync::Arc;

use crossterm::event::{KeyEvent, MouseEvent};
use libsls::control::Stop;
use libsls::protocol::{History, Rewound};

use crate::clerk::{Desk, Finding, Job};
use crate::data::{Look, Question};
use crate::driver::{Drive, Points};
use crate::model::Model;
use crate::overlay::Item;
use crate::paint::Span;

/// Rows of a page key.
pub(crate) const PAGE: usize = 10;

/// What happened.
#[derive(Debug)]
pub enum Event {
    Key(KeyEvent),
    Mouse(MouseEvent),
    /// The terminal has this many columns and rows.
    Resized(u16, u16),
    /// A tenth of a second went by while something was under way.
    Tick,
    /// The history as it is now, and how the process is.
    Progress {
        history: History,
        state: String,
        comm: Option<String>,
        trouble: Option<String>,
    },
    /// The answer to a question.
    Looked {
        number: u64,
        look: Result<Box<Look>, String>,
    },
    /// What a desk found out.
    Found {
        desk: Desk,
        number: u64,
        found: Result<Box<Finding>, String>,
    },
    /// How far a desk has come.
    Came {
        desk: Desk,
        number: u64,
        done: u64,
        total: u64,
    },
    /// More of a file's words.
    Painted {
        path: String,
        lines: Vec<Vec<Span>>,
    },
    /// What can be looked at.
    Places(Result<Vec<Item>, String>),
    Rewound(Result<Rewound, String>),
    /// Where the process stopped that was asked to run.
    Stopped(Result<Stop, String>),
    /// Breakpoints, after one was set or taken away.
    Points(Result<Points, String>),
    /// The daemon cannot be asked.
    Lost(String),
    /// A thread of this program failed.
    Failed(String),
    /// Somebody stops this program, or it runs on.
    Suspended,
    Continued,
    /// The terminal went away, or somebody asks this program to end.
    Quit,
}

/// What has to be done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A newer question cancels the older ones.
    Ask {
        number: u64,
        question: Question,
    },
    Hand {
        desk: Desk,
        number: u64,
        job: Job,
    },
    Cancel(Desk),
    Paint {
        path: String,
        text: Arc<Vec<String>>,
    },
    /// List what can be looked at.
    Places,
    Rewind {
        epoch: u64,
    },
    /// Forward control.
    Drive(Drive),
    /// To the clipboard of the terminal.
    Copy(String),
    Redraw,
    Suspend,
}

/// Takes one event in.
pub fn update(model: &mut Model, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    match event {
        Event::Key(key) => press::pressed(model, key.into(), &mut effects),
        Event::Mouse(mouse) => mouse::moused(model, mouse, &mut effects),
        Event::Resized(columns, rows) => model.size = (columns, rows),
        Event::Tick => arrive::tick(model),
        Event::Progress {
            history,
            state,
            comm,
            trouble,
        } if history.partition == model.target.part => {
            model.target.state = state;
            if let Some(comm) = comm.filter(|comm| !comm.is_empty()) {
                model.target.comm = comm;
            }
            model.target.trouble = trouble;
            arrive::progress(model, history);
        }
        // Of a partition that is looked at no more.
        Event::Progress { .. } => {}
        Event::Looked { number, look } => arrive::looked(model, number, look),
        Event::Found {
            desk,
            number,
            found,
        } => arrive::found(model, desk, number, found.map(|found| *found)),
        Event::Came {
            number,
            done,
            total,
            ..
        } => arrive::came(model, number, done, total),
        Event::Painted { path, lines } => model.paint.take(&path, lines),
        Event::Places(places) => pick::places(model, places),
        Event::Rewound(result) => arrive::rewound(model, result),
        Event::Stopped(result) => control::stopped(model, result),
        Event::Points(result) => control::points(model, result),
        Event::Lost(why) => {
            model.say(why.clone(), true);
            model.lost = Some(why);
        }
        Event::Failed(why) => {
            model.failure = Some(why);
            model.quit = true;
        }
        Event::Suspended => effects.push(Effect::Suspend),
        Event::Continued => effects.push(Effect::Redraw),
        Event::Quit => model.quit = true,
    }
    if let Some(drive) = model.control.wanted.take() {
        control::want(model, drive, &mut effects);
    }
    reconcile::reconcile(model, &mut effects);
    effects
}

pub(crate) fn note(model: &mut Model, text: impl Into<String>) {
    model.say(text, false);
}
