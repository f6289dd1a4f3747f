//! Completions, man pages and the reference, from the definitions that parse the command line.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::{print, print_bytes};
use crate::session::Outcome;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl completions bash > /etc/bash_completion.d/slsctl")]
pub struct Completions {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut definitions(), "slsctl", &mut script);
        print_bytes(&script)?;
        Ok(Outcome::Done)
    }
}

/// Print the man page, or write one for the program and each verb into a folder
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl man | man -l -")]
pub struct Man {
    /// Write slsctl.1, slsctl-attach.1 and the others here
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Man {
    pub fn run(&self) -> anyhow::Result<Outcome> {
        match &self.folder {
            Some(folder) => clap_mangen::generate_to(definitions(), folder)
                .with_context(|| format!("write man pages into {}", folder.display()))?,
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(definitions()).render(&mut page)?;
                print_bytes(&page)?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// Print `docs/cli.md`.
#[derive(Debug, Args)]
pub struct Reference {}

impl Reference {
    pub fn run(&self) -> anyhow::Result<Outcome> {
        print(&reference())?;
        Ok(Outcome::Done)
    }
}

/// The definitions without what is not for people.
fn definitions() -> Command {
    let whole = Cli::command();
    let verbs: Vec<Command> = whole
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .cloned()
        .collect();
    let root = Command::new("slsctl")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned().collect::<Vec<_>>())
        .subcommands(verbs);
    let about = whole.get_about().cloned().unwrap_or_default();
    let after = whole.get_after_help().cloned().unwrap_or_default();
    root.about(about)
        .after_help(after)
        .subcommand_required(true)
}

/// The reference: the help of everything, and the JSON that help does not show.
fn reference() -> String {
    let mut text = String::from(
        "# slsctl\n\nGenerated from the program's own definitions: `slsctl __reference > docs/cli.md`.\n",
    );
    let mut whole = definitions().term_width(100);
    whole.build();
    section(&mut text, &mut whole, "##");
    for verb in whole.get_subcommands_mut() {
        if verb.get_name() != "help" {
            section(&mut text, verb, "##");
        }
    }
    text.push('\n');
    text.push_str(include_str!("json.md"));
    text
}

fn section(text: &mut String, command: &mut Command, level: &str) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let name = command.get_bin_name().unwrap_or("slsctl");
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n{level} {name}\n\n```text\n{}\n```\n",
        lines.join("\n").trim()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == reference(), "run: slsctl __reference > docs/cli.md");
    }

    #[test]
    fn nothing_of_a_later_issue_or_not_for_people_is_shown() {
        let help = definitions().render_long_help().to_string();
        for absent in ["__exec", "__reference", "whatif"] {
            let shown = help
                .lines()
                .any(|line| line.trim_start().starts_with(absent));
            assert!(!shown, "{absent}");
        }
    }

    #[test]
    fn every_verb_is_completed_and_has_a_page() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut definitions(), "slsctl", &mut script);
        let script = String::from_utf8(script).unwrap();
        let folder = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(definitions(), folder.path()).unwrap();
        for verb in definitions().get_subcommands() {
            let name = verb.get_name();
            assert!(script.contains(name), "{name}");
            assert!(
                folder.path().join(format!("slsctl-{name}.1")).exists(),
                "{name}"
            );
        }
        assert!(!script.contains("__exec"));
    }
}
