//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::model::Pane;

/// Look through a process's history: checkpoints, stacks, source, variables, memory
#[derive(Debug, Parser)]
#[command(
    name = "sls-tui",
    version,
    after_help = "Example: sls-tui attach 1234 -t 50"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Socket of slsd [default: that of the user]
    #[arg(long, global = true, env = "SLS_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print one screen as text instead
    #[arg(long, global = true, value_name = "SCREEN")]
    pub dump: Option<Screen>,
    /// Type these keys first: characters, and names such as <Enter> <Esc> <Left>
    #[arg(long, global = true, value_name = "KEYS", value_parser = keys)]
    pub keys: Option<Keys>,
}

/// Keys to be typed.
#[derive(Debug, Clone)]
pub struct Keys(pub Vec<crossterm::event::KeyEvent>);

fn keys(text: &str) -> Result<Keys, String> {
    crate::keys::parse(text).map(Keys)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach to a process, or join in where it is attached already
    ///
    /// Checkpoints are taken into the memory partition `mem`. On quitting, a process that this program attached is
    /// let go of; its history stays.
    #[command(after_help = "Example: sls-tui attach 1234 -t 50")]
    Attach {
        /// The process
        #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
        pid: i32,
        /// Checkpoint every so many milliseconds [default: 100]
        #[arg(short = 't', value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
        period_ms: Option<u64>,
    },
    /// Look at the history of a partition
    #[command(after_help = "Example: sls-tui open mem --dump timeline")]
    Open {
        /// Its name or number
        #[arg(value_name = "PART")]
        part: String,
    },
}

/// What `--dump` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Screen {
    Timeline,
    Threads,
    Source,
    Variables,
    Memory,
    Help,
    All,
}

impl Screen {
    /// The pane it is, where it is one.
    pub fn pane(self) -> Option<Pane> {
        match self {
            Self::Timeline => Some(Pane::Timeline),
            Self::Threads => Some(Pane::Threads),
            Self::Source => Some(Pane::Source),
            Self::Variables => Some(Pane::Variables),
            Self::Memory => Some(Pane::Memory),
            Self::Help | Self::All => None,
        }
    }
}
