//! Campaigns: proofs that no target is ever hurt and that every epoch is exact. A short share runs
//! in `./x test`, the whole in `./x soak`, which renews docs/trust.md from the rows they report.

mod audit;
mod control_kills;
mod daemon_sweep;
mod determinism;
mod fallback;
mod group_sweep;
mod hostile_clients;
mod keeper_sweep;
pub mod mutator;
mod oracle;
mod random_kills;
mod restore_faults;
mod room;
mod soak;
pub mod sweep;
mod tree_sweep;
