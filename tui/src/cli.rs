//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::place::Tab;

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
    #[arg(long, global = true, value_name = "SCREEN", value_parser = Dump::parser())]
    pub dump: Option<Dump>,
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
    /// Look at the history of a partition, a store or a bundle, or at a core
    ///
    /// Of a store's or a bundle's history a copy is looked at, in a partition that is removed on quitting.
    #[command(after_help = "Example: sls-tui open mem --dump timeline")]
    Open {
        /// A partition by name or number; the path of a store, a bundle or an ELF core
        #[arg(value_name = "PART|STORE|FILE.sls|CORE")]
        what: String,
        /// Which history of the store [default: the only one]
        #[arg(long, value_name = "NAME")]
        from: Option<String>,
    },
}

/// What `--dump` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// A pane with one of its tabs.
    Tab(Tab),
    Help,
    /// The whole screen, with what lies over it.
    All,
}

impl Dump {
    fn parser() -> impl TypedValueParser<Value = Self> {
        let tabs = Tab::all().map(|tab| PossibleValue::new(tab.title().to_lowercase()));
        let others = [
            PossibleValue::new("help"),
            PossibleValue::new("all").help("The whole screen, with what lies over it"),
        ];
        PossibleValuesParser::new(tabs.chain(others)).map(|name| match &name[..] {
            "help" => Self::Help,
            name => Tab::named(name).map_or(Self::All, Self::Tab),
        })
    }
}
