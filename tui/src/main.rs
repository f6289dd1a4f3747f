//! Entry of sls-tui.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match sls_tui::run(&sls_tui::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sls-tui: {error:#}");
            ExitCode::from(1)
        }
    }
}
