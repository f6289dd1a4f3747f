//! End-to-end cases: slsctl on real programs and on tracees that check themselves.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // Tests fail by panicking.

mod blocking;
mod campaign;
mod conduct;
mod connections;
mod damaged;
mod descriptors;
mod first_light;
mod groups;
mod hold;
mod image;
mod inherit;
mod inhospitable;
mod invariants;
mod leaving;
mod lifecycle;
mod locked;
mod locks;
mod pidns;
mod questions;
mod redis;
mod refusals;
mod restore;
mod scripts;
mod services;
mod siblings;
mod spawn;
mod state;
mod stopped;
mod stores;
mod terminals;
mod threads;
mod tracking;
mod trees;
mod trust;
mod tui;
