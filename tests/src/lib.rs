//! What end-to-end cases share: a daemon of their own, targets that are ended with the test, and
//! slsctl as the only way in.
#![allow(clippy::missing_panics_doc)] // Tests panic; that is how they fail.

mod again;
mod board;
mod causal;
pub mod counted;
mod daemon;
pub mod fuzz;
mod growth;
mod image;
mod lives;
mod obedient;
mod prints;
mod pty;
mod redis;
mod ring;
mod target;
mod trust;

pub use again::{Again, adopt, end_all, end_those, is_gone, wait_gone};
pub use board::{Board, Case};
pub use causal::{Causal, Look};
pub use daemon::{
    FALLBACKS, Output, Sls, children, comes, end, kill, leaves, program, rounds, wait_until,
    where_it_is,
};
pub use growth::{Held, descriptors, mappings, rss};
pub use image::compare_with_core;
pub use lives::Lives;
pub use obedient::Obedient;
pub use prints::Prints;
pub use pty::Pty;
pub use redis::{Redis, free_port};
pub use ring::Ring;
pub use target::{Target, field, threads, ticks, tracee};
pub use trust::{Dice, Load, Row, rounds_of, seed, whole};
