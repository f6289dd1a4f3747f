//! The terminal workbench: a model, what changes it ([`update`]), what shows it ([`draw`]), and a worker that
//! finds out what it shows. Drawing cannot change the model; evaluation never runs where drawing does.

#![warn(clippy::pedantic)]
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::module_name_repetitions,
    reason = "one program's own modules, not a library's face"
)]

mod app;
pub mod cli;
pub mod data;
pub mod draw;
mod dump;
pub mod keys;
pub mod model;
mod panes;
mod prompt;
mod roots;
mod session;
mod source;
mod terminal;
mod text;
pub mod theme;
pub mod update;
pub mod variables;
mod watcher;
mod worker;

pub use app::run;
