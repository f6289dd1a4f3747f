//! A history in one file that goes anywhere: its checkpoints, and the files that its processes had mapped.
//!
//! It is a store like any other (docs/store-format.md), of small slots and no longer than it must be,
//! which is opened without being written to. Beside the history it has a partition of its own with the
//! files, a piece of one a checkpoint.

mod files;
mod pack;

pub use files::{Failed, NAME, unpack};
pub use pack::pack;
