//! The figures that the docs quote, each beside what it is compared with, in one run.
//!
//! Ratios hold; absolute figures are the machine's of the moment. Tables are Markdown.

mod control;
mod felt;
mod figures;
mod group;
mod introspect;
mod large;
mod limit;
mod memory;
mod peers;
mod redis;
mod restore;
mod server;
mod stop;
mod tui;

use clap::{Parser, Subcommand};

/// Measure: how long a target is stopped, what is left of its speed, how much a history takes
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = "Example: ./x bench stop --seconds 5")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Stop times as the target feels them, beside fork, gcore, criu (CRIU=PATH) and the limit
    Stop(stop::Stop),
    /// Requests that redis keeps, beside BGSAVE
    Redis(redis::Redis),
    /// Bytes a checkpoint takes beside bytes dirtied; ten thousand checkpoints in a budget
    Memory(memory::Memory),
    /// How long a process takes to come back after its end, beside a copy of its pages
    Restore(restore::Restore),
    /// How long several processes stand still for one checkpoint
    Group(group::Group),
    /// What a step and a breakpoint cost, beside gdb
    Control(control::Control),
    /// How soon the workbench shows what a key asks for, beside an echo and gdb; what it costs meanwhile
    Tui(tui::Tui),
    /// First answers beside gdb and lldb; questions to a long history
    Introspect(introspect::Introspect),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Stop(bench) => bench.run(),
        What::Redis(bench) => bench.run(),
        What::Memory(bench) => bench.run(),
        What::Restore(bench) => bench.run(),
        What::Group(bench) => bench.run(),
        What::Control(bench) => bench.run(),
        What::Tui(bench) => bench.run(),
        What::Introspect(bench) => bench.run(),
    }
}
