//! The tree of verbs; help, completions, man pages and `docs/cli.md` all come from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::session::{Outcome, Session};
use crate::{
    assert, bisect, blame, branch, control, daemon, diff, disas, dump, heap, history, manual,
    memory, mount, partitions, processes, query, refs, resident, restore, scan, spawn, stores,
    threads, time, timeline, values,
};

/// Checkpoint running processes many times a second, and look at or return to any of them
#[derive(Debug, Parser)]
#[command(
    name = "slsctl",
    version,
    max_term_width = 100,
    after_help = "Example: slsctl attach -p 1234 -t 10 && slsctl timeline counter --changes\n\n\
        Exit status: 0 done, 1 failed, 2 wrong usage, 3 a checked condition was false."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options every verb takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// Talk to the daemon on this socket [default: /run/sls/slsd.sock for root, a private folder for others]
    #[arg(
        long,
        global = true,
        env = "SLS_SOCKET",
        value_name = "PATH",
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Partadd(partitions::PartAdd),
    Partdel(partitions::PartDel),
    Attach(processes::Attach),
    Detach(processes::Detach),
    Spawn(spawn::Spawn),
    Checkpoint(time::Checkpoint),
    Restore(restore::Restore),
    Branch(branch::Branch),
    Ps(processes::Ps),
    History(history::History),
    Listsnaps(stores::ListSnaps),
    Suspend(processes::Suspend),
    Resume(processes::Resume),
    Export(stores::Export),
    Import(stores::Import),
    Fsck(stores::Fsck),
    Dump(dump::Dump),
    Mount(mount::Mount),
    Epochwait(stores::EpochWait),
    Pgresident(resident::PgResident),
    Stat(daemon::Stat),
    Check(daemon::Check),
    Rewind(time::Rewind),
    Pause(control::Pause),
    Continue(control::Continue),
    Step(control::Step),
    Next(control::Next),
    Finish(control::Finish),
    Break(control::Break),
    Watch(control::Watch),
    Print(values::Print),
    Locals(values::Locals),
    Bt(threads::Bt),
    Regs(threads::Regs),
    Threads(threads::Threads),
    Maps(memory::Maps),
    Fds(memory::Fds),
    X(memory::X),
    Diff(diff::Diff),
    Timeline(timeline::Timeline),
    Bisect(bisect::Bisect),
    Blame(blame::Blame),
    Assert(assert::Assert),
    Scan(scan::Scan),
    Refs(refs::Refs),
    Heap(heap::Heap),
    Disas(disas::Disas),
    Query(query::Query),
    Completions(manual::Completions),
    Man(manual::Man),
    #[command(name = "__exec", hide = true)]
    Exec(spawn::Exec),
    #[command(name = "__reference", hide = true)]
    Reference(manual::Reference),
}

impl Verb {
    /// Does it.
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        match self {
            Self::Partadd(verb) => verb.run(session),
            Self::Partdel(verb) => verb.run(session),
            Self::Attach(verb) => verb.run(session),
            Self::Detach(verb) => verb.run(session),
            Self::Spawn(verb) => verb.run(session),
            Self::Checkpoint(verb) => verb.run(session),
            Self::Restore(verb) => verb.run(session),
            Self::Branch(verb) => verb.run(session),
            Self::Ps(verb) => verb.run(session),
            Self::History(verb) => verb.run(session),
            Self::Listsnaps(verb) => verb.run(session),
            Self::Suspend(verb) => verb.run(session),
            Self::Resume(verb) => verb.run(session),
            Self::Export(verb) => verb.run(session),
            Self::Import(verb) => verb.run(session),
            Self::Fsck(verb) => verb.run(session),
            Self::Dump(verb) => verb.run(session),
            Self::Mount(verb) => verb.run(session),
            Self::Epochwait(verb) => verb.run(session),
            Self::Pgresident(verb) => verb.run(session),
            Self::Stat(verb) => verb.run(session),
            Self::Check(verb) => verb.run(session),
            Self::Rewind(verb) => verb.run(session),
            Self::Pause(verb) => verb.run(session),
            Self::Continue(verb) => verb.run(session),
            Self::Step(verb) => verb.run(session),
            Self::Next(verb) => verb.run(session),
            Self::Finish(verb) => verb.run(session),
            Self::Break(verb) => verb.run(session),
            Self::Watch(verb) => verb.run(session),
            Self::Print(verb) => verb.run(session),
            Self::Locals(verb) => verb.run(session),
            Self::Bt(verb) => verb.run(session),
            Self::Regs(verb) => verb.run(session),
            Self::Threads(verb) => verb.run(session),
            Self::Maps(verb) => verb.run(session),
            Self::Fds(verb) => verb.run(session),
            Self::X(verb) => verb.run(session),
            Self::Diff(verb) => verb.run(session),
            Self::Timeline(verb) => verb.run(session),
            Self::Bisect(verb) => verb.run(session),
            Self::Blame(verb) => verb.run(session),
            Self::Assert(verb) => verb.run(session),
            Self::Scan(verb) => verb.run(session),
            Self::Refs(verb) => verb.run(session),
            Self::Heap(verb) => verb.run(session),
            Self::Disas(verb) => verb.run(session),
            Self::Query(verb) => verb.run(session),
            Self::Completions(verb) => verb.run(),
            Self::Man(verb) => verb.run(),
            Self::Exec(verb) => verb.run(),
            Self::Reference(verb) => verb.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_verb() {
        for line in [
            "slsctl --json --socket /s ps",
            "slsctl ps --json --socket /s",
            "slsctl --json ps --socket /s",
        ] {
            let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
            assert!(cli.common.json, "{line}");
            assert_eq!(cli.common.socket, Some("/s".into()), "{line}");
        }
    }

    #[test]
    fn lines_of_the_contract_parse() {
        for line in [
            "slsctl partadd memory -o a -t 10 --budget 64M --keep last:3",
            "slsctl partadd slos -o disk --store f -t 10",
            "slsctl epochwait -o disk @3",
            "slsctl epochwait",
            "slsctl pgresident -m",
            "slsctl partdel -o 5116",
            "slsctl attach -p 1 -m -t 5 --hold",
            "slsctl attach -p 1 -r",
            "slsctl checkpoint -m -r",
            "slsctl detach -p 1",
            "slsctl detach -o a",
            "slsctl spawn -m -t 5 -- true --json -x",
            "slsctl spawn true --json -x",
            "slsctl checkpoint -m -n before",
            "slsctl restore",
            "slsctl restore -m @3 -s -d --force",
            "slsctl restore @3 --lazy --pidns",
            "slsctl branch -m @3 --as other -s --lazy",
            "slsctl history -o a",
            "slsctl listsnaps",
            "slsctl listsnaps --store f",
            "slsctl export -m @1..@-1 --to f",
            "slsctl export -o a --to /dev/x --as b",
            "slsctl import f -o a",
            "slsctl import f --from b --budget 1G",
            "slsctl fsck --repair f --json",
            "slsctl partdel -o a --store f",
            "slsctl dump -m @3 f.core --pid 4",
            "slsctl dump pid:7 f.core",
            "slsctl mount /mnt",
            "slsctl suspend",
            "slsctl resume -m",
            "slsctl rewind -m @3 -s",
            "slsctl pause -m --pid 4",
            "slsctl continue -d",
            "slsctl --json continue --timeout 0.5 -o a",
            "slsctl step 3 --insn --tid 5",
            "slsctl next -m",
            "slsctl finish 2",
            "slsctl break",
            "slsctl break main.c:12 --if i==3 --tid 4 --temporary",
            "slsctl break *0x401000",
            "slsctl break --delete 3",
            "slsctl break --enable 3",
            "slsctl watch -m counter --if counter>3 --read",
            "slsctl print -m @3 counter --frame 2 --tid 7",
            "slsctl print counter",
            "slsctl print counter --json",
            "slsctl print @-1 counter --json",
            "slsctl print -m @-1 counter --pid 4 --json",
            "slsctl print -o a --pid 4 @-1 -- -x",
            "slsctl print --json -- -1+2",
            "slsctl timeline --json -- -x @1..@2",
            "slsctl x -- -8+&buffer 16",
            "slsctl print pid:12 x --max 5",
            "slsctl print core:/tmp/c x",
            "slsctl locals @-1 --tid 4 --frame main",
            "slsctl bt --all-threads @2",
            "slsctl regs @1",
            "slsctl threads pid:4",
            "slsctl maps",
            "slsctl fds @name",
            "slsctl x @1 0x1000 16",
            "slsctl x @1 0x1000",
            "slsctl x &counter 16",
            "slsctl diff @1 @2 --pages --exit-code",
            "slsctl diff @1 @2 --types -m",
            "slsctl diff @1 @2 --all --max 3",
            "slsctl timeline counter @1..@5 --changes",
            "slsctl timeline counter",
            "slsctl scan @5 --type int 42 --then @9 43 --then @12 more",
            "slsctl scan -1 --type long --then @9 -2",
            "slsctl refs @2 0x1000",
            "slsctl refs @2..@5 head",
            "slsctl heap @2 @5",
            "slsctl query @1..@2 SELECT",
            "slsctl query pid:3 SELECT",
            "slsctl heap --path x",
            "slsctl disas",
            "slsctl disas @2 main --intel",
            "slsctl blame state @1..@-1 -m",
            "slsctl assert x>1 @2.. --json",
            "slsctl assert x>1 --watch -m --tid 4",
            "slsctl bisect 1<2 --good @1 --bad @-1 --tid 3",
            "slsctl completions bash",
            "slsctl man",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn options_after_an_expression_are_options() {
        for line in [
            "slsctl print x --json",
            "slsctl print @1 x --json",
            "slsctl timeline x --json",
            "slsctl timeline x @1..@2 --json",
        ] {
            let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
            assert!(cli.common.json, "{line}");
        }
    }

    /// A misspelt option is no expression.
    #[test]
    fn unknown_options_are_refused_with_what_was_meant() {
        for (line, meant) in [
            ("slsctl print --frme 2 x", "'--frame'"),
            ("slsctl print x --frme 2", "'--frame'"),
            ("slsctl timeline --chnges x", "'--changes'"),
            ("slsctl timeline x --max-n 3", "'--max'"),
            ("slsctl print -x", "'-- -x'"),
            ("slsctl timeline -x", "'-- -x'"),
        ] {
            let refused = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(refused.kind(), clap::error::ErrorKind::UnknownArgument);
            assert!(refused.to_string().contains(meant), "{line}: {refused}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "slsctl",
            "slsctl partadd slos -o a",
            "slsctl partadd memory",
            "slsctl partadd memory -o a --budget x",
            "slsctl partadd memory -o a --keep last:0",
            "slsctl attach",
            "slsctl attach -p 1 -m -o a",
            "slsctl attach -p 0",
            "slsctl attach -p 1 -t 0",
            "slsctl rewind",
            "slsctl rewind 3",
            "slsctl continue -d --timeout 3",
            "slsctl step 0",
            "slsctl break main --delete 1",
            "slsctl break --if x",
            "slsctl watch",
            "slsctl spawn",
            "slsctl diff @1",
            "slsctl diff @1 @2 --types --pages",
            "slsctl maps 7",
            "slsctl maps @-0",
            "slsctl bt --tid 1 --all-threads",
            "slsctl export -m",
            "slsctl import",
            "slsctl fsck",
            "slsctl dump @3",
            "slsctl partdel --store f",
            "slsctl scan 1 --then @2",
            "slsctl assert x @1..@2 --watch",
            "slsctl bisect x --good @1",
            "slsctl bisect x --good 1 --bad 2",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn every_verb_ends_its_help_with_an_example() {
        for verb in Cli::command()
            .get_subcommands()
            .filter(|verb| !verb.is_hide_set())
        {
            let help = verb.get_after_help().map(ToString::to_string);
            let example = help.is_some_and(|text| text.contains("Example: slsctl "));
            assert!(example, "{}", verb.get_name());
        }
    }
}
