//! Stop, capture and rewind of processes.
//!
//! Entry points: [`Group::attach`], [`Group::checkpoint`], [`Group::rewind`], [`restore`]. A
//! checkpoint's steps are in `group`, what it takes of each process in `capture`, what a scan may skip
//! and must not in `space`, the two directions of a rewind in `rewind`, and what leads from one state
//! to another in `plan`.
//!
//! - **Invariant**: every scan that may skip a mapping is checked (PM_SCAN_CHECK_WPASYNC); no page
//!   is assumed clean because nobody answered for it.
//! - **Invariant**: this crate never traces. The keeper does, and outlives it.
//! - Deliberately absent: DWARF, terminals, sockets, and where pages are kept.

mod ahead;
mod attributes;
mod branch;
mod capture;
mod content;
pub mod control;
mod copy;
mod error;
mod files;
mod flags;
mod former;
mod given;
mod group;
mod holes;
mod keeper;
mod leftover;
mod maplist;
mod numbers;
pub mod pager;
mod plan;
mod probes;
mod ranges;
mod record;
mod renamed;
mod restore;
mod rewind;
mod runs;
mod shared;
mod sockets;
mod space;
mod target;
mod together;
mod traps;
mod unnamed;
mod watches;

pub use capture::StopCost;
pub use error::{AttachError, CaptureError, RestoreError, RewindError};
pub use given::Given;
pub use group::{Capture, Group, Request};
pub use keeper::Event;
pub use leftover::clean;
pub use restore::{Restored, Wish, rehearse, restore};
pub use rewind::Rewound;
pub use sls_sys::fault;
pub use sls_sys::fd::pass_on_none;
pub use sls_sys::probe::Probe;
pub use sls_sys::procfs;
pub use sls_sys::skeleton::reap;
pub use target::{Options, Target, Tracking};
