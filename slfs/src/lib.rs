//! The single level store as files.
//!
//! [`histories`] is the tree that `slsctl mount` shows: each partition a folder, each checkpoint in it
//! one, and in that the processes with their cores, memory, mappings, registers and descriptors, all
//! made when they are read. [`adapter`] is all that knows FUSE. Deliberately absent: anything that
//! traces, and anything that slsd would have to wait for while it holds somebody stopped.

pub mod adapter;
pub mod histories;
mod inodes;
mod probes;
mod process;
mod texts;
