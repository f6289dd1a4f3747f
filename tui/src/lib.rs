//! The terminal workbench: a model, what changes it ([`update`]), what shows it ([`draw`]), and a worker that
//! finds out what it shows. Drawing cannot change the model; evaluation never runs where drawing does.

#![warn(clippy::pedantic)]
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::module_name_repetitions,
    reason = "one program's own modules, not a library's face"
)]

mod access;
mod app;
pub mod clerk;
pub mod cli;
mod config;
pub mod data;
pub mod draw;
pub mod driver;
pub mod dump;
mod kept;
pub mod keys;
pub mod layout;
mod line;
mod made;
pub mod model;
pub mod overlay;
pub mod paint;
pub mod place;
mod prompt;
pub mod query;
mod roots;
mod session;
mod source;
pub mod table;
mod telescope;
mod terminal;
mod text;
pub mod theme;
mod turn;
pub mod update;
pub mod variables;
mod watcher;
mod worker;

pub use app::run;
