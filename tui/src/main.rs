//! Entry of sls-tui.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(client) = sls_debuginfod::Client::from_environment() {
        introspect::ask_for_debug_files(Arc::new(client));
    }
    match sls_tui::run(&sls_tui::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sls-tui: {error:#}");
            ExitCode::from(1)
        }
    }
}
