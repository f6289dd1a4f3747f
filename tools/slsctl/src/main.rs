//! slsctl: the command line of the single level store.
//!
//! Every verb is one struct: its fields are its arguments, `run` does it. The answer is made as
//! JSON and as text side by side, so that the two cannot say different things.

mod arguments;
mod assert;
mod bisect;
mod blame;
mod branch;
mod cli;
mod control;
mod daemon;
mod diff;
mod diff_text;
mod disas;
mod dump;
mod explain;
mod heap;
mod history;
mod line;
mod look;
mod manual;
mod memory;
mod mount;
mod output;
mod partitions;
mod processes;
mod progress;
mod query;
mod refs;
mod resident;
mod restore;
mod scan;
mod scripts;
mod session;
mod spawn;
mod stores;
mod threads;
mod time;
mod timeline;
mod values;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::cli::Cli;
use crate::session::{Outcome, Session};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(client) = sls_debuginfod::Client::from_environment() {
        introspect::ask_for_debug_files(Arc::new(client.showing(progress::transfer)));
    }
    let session = Session::new(cli.common);
    match cli.verb.run(&session) {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            session.complain(&error);
            Outcome::of_error(&error).code()
        }
    }
}
