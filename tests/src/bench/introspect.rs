//! How soon the first answer is there, beside gdb and lldb; how long questions to a long history take.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use introspect::{Finder, Limits, Program, View};
use libsls::Client;
use libsls::view::CheckpointView;
use testkit::{Sls, Target, program};

use crate::figures::{Figures, head, ms, ratio, row};
use crate::large;

const LEGEND: &str = "ms, the median of whole commands on a core, from nothing to the answer (files in the page cache). `large`: 376 MB of DWARF.
`kept`: a name of another unit, where the index is kept from an earlier question; `not kept`: without.";
const CHANGES: &str = include_str!("programs/changes.c");

/// First answers; questions to ten thousand checkpoints
#[derive(Debug, Args)]
pub struct Introspect {
    /// Times each command is run
    #[arg(long, default_value_t = 3)]
    times: usize,
    /// Checkpoints of the history
    #[arg(long, default_value_t = 10_000)]
    checkpoints: u64,
    /// Milliseconds between them
    #[arg(long, default_value_t = 4)]
    period: u64,
    /// Only the history
    #[arg(long)]
    no_large: bool,
}

/// A core and whose it is.
struct Dead {
    program: PathBuf,
    core: PathBuf,
}

impl Introspect {
    pub fn run(&self) -> anyhow::Result<()> {
        if !self.no_large {
            self.first_answers()?;
        }
        self.history()
    }

    fn first_answers(&self) -> anyhow::Result<()> {
        println!("{LEGEND}");
        head(&[
            "of", "question", "sls", "gdb", "lldb", "gdb/sls", "lldb/sls",
        ]);
        let folder = tempfile::tempdir()?;
        let cache = folder.path().join("cache");
        let large = large::program()?;
        let dead = core_of(&large, Command::new(&large), folder.path(), "large")?;
        let value = |name: &str| {
            let lldb = format!("target variable {name}");
            (format!("print {name}"), lldb)
        };
        self.compare("large", "bt", &dead, &cache, ("bt", "bt"), "bt")?;
        let (gdb, lldb) = value("state");
        self.compare(
            "large",
            "state",
            &dead,
            &cache,
            (&gdb, &lldb),
            "print state",
        )?;
        let (gdb, lldb) = value("p007::records");
        let ask = "print p007::records";
        self.each_anew(
            "large",
            "p007::records, not kept",
            &dead,
            &cache,
            (&gdb, &lldb),
            ask,
        )?;
        self.compare(
            "large",
            "p007::records, kept",
            &dead,
            &cache,
            (&gdb, &lldb),
            ask,
        )?;
        let slsd = program("slsd");
        let mut command = Command::new(&slsd);
        command.arg("--socket").arg(folder.path().join("sock"));
        let dead = core_of(&slsd, command, folder.path(), "slsd")?;
        self.compare("slsd", "bt", &dead, &cache, ("bt", "bt"), "bt")
    }

    fn compare(
        &self,
        of: &str,
        question: &str,
        dead: &Dead,
        cache: &Path,
        others: (&str, &str),
        ours: &str,
    ) -> anyhow::Result<()> {
        self.row(of, question, dead, others, || sls(dead, cache, ours))
    }

    /// With nothing kept from the last time.
    fn each_anew(
        &self,
        of: &str,
        question: &str,
        dead: &Dead,
        cache: &Path,
        others: (&str, &str),
        ours: &str,
    ) -> anyhow::Result<()> {
        self.row(of, question, dead, others, || {
            if cache.exists() {
                std::fs::remove_dir_all(cache)?;
            }
            sls(dead, cache, ours)
        })
    }

    fn row(
        &self,
        of: &str,
        question: &str,
        dead: &Dead,
        (gdb_asks, lldb_asks): (&str, &str),
        mut ours: impl FnMut() -> anyhow::Result<u64>,
    ) -> anyhow::Result<()> {
        let mut figures = [Figures::default(), Figures::default(), Figures::default()];
        for _ in 0..self.times {
            figures[0].add(ours()?);
            figures[1].add(gdb(dead, gdb_asks)?);
            if let Some(took) = lldb(dead, lldb_asks)? {
                figures[2].add(took);
            }
        }
        let [sls, gdb, lldb] = figures.map(|all| all.median());
        let lldb_text = lldb.map_or_else(|| "not installed".to_owned(), |ns| ms(Some(ns)));
        row(&[
            of.to_owned(),
            question.to_owned(),
            ms(sls),
            ms(gdb),
            lldb_text,
            ratio(gdb, sls),
            ratio(lldb, sls),
        ]);
        Ok(())
    }

    fn history(&self) -> anyhow::Result<()> {
        let sls = Sls::new();
        let source = sls.folder().join("changes.c");
        std::fs::write(&source, CHANGES)?;
        let binary = sls.folder().join("changes");
        let mut gcc = Command::new("gcc");
        gcc.args(["-g", "-O1", "-o"]).arg(&binary).arg(&source);
        ensure!(gcc.status()?.success(), "gcc failed");
        let mut command = Command::new(&binary);
        // Ten changes in the time that the checkpoints take.
        command.arg((self.checkpoints * self.period / 10).to_string());
        let target = Target::ready(sls.folder(), command);
        sls.run(&["partadd", "memory", "-o", "mem", "--keep", "all"]);
        sls.run(&[
            "attach",
            "-p",
            &target.p(),
            "-m",
            "-t",
            &self.period.to_string(),
        ]);
        let taken = || {
            let stat = sls.json(&["stat"]);
            stat["partitions"][0]["taken"].as_u64().unwrap_or(0)
        };
        while taken() < self.checkpoints {
            std::thread::sleep(Duration::from_millis(500));
        }
        sls.run(&["detach", "-p", &target.p()]);
        head(&["question", "checkpoints", "rows", "ms"]);
        for name in ["often.value", "seldom.value"] {
            let began = Instant::now();
            let told = sls.json(&["timeline", name]);
            let took = u64::try_from(began.elapsed().as_nanos())?;
            let rows = told["rows"].as_array().map_or(0, Vec::len);
            let name = format!("timeline {name}");
            row(&[name, taken().to_string(), rows.to_string(), ms(Some(took))]);
        }
        redraws(&sls)
    }
}

/// One seek, the stack and the locals of each frame, as a screen asks for them.
fn redraws(sls: &Sls) -> anyhow::Result<()> {
    let client = Rc::new(RefCell::new(Client::connect(&sls.socket())?));
    let all = client.borrow_mut().history(Some("mem"))?;
    let epochs: Vec<u64> = all.checkpoints.iter().map(|one| one.epoch).collect();
    let finder = Finder::default();
    let mut program: Option<Program> = None;
    let mut figures = Figures::default();
    let mut at = 0;
    for _ in 0..500 {
        at = (at + 7919) % epochs.len();
        let began = Instant::now();
        let view = CheckpointView::open(&client, "mem", epochs[at], None)?;
        if program.as_ref().is_none_or(|known| !known.matches(&view)) {
            program = Some(Program::load(&view, &finder));
        }
        let program = program.as_ref().context("a program")?;
        for thread in view.threads() {
            for frame in program.backtrace(&view, thread.tid, 100) {
                program.locals(&view, &frame, Limits::default());
            }
        }
        figures.add(u64::try_from(began.elapsed().as_nanos())?);
    }
    row(&[
        format!(
            "seek, stack and locals: p50 {}, p99 of {}",
            ms(figures.median()),
            figures.len()
        ),
        epochs.len().to_string(),
        String::new(),
        ms(figures.p99()),
    ]);
    Ok(())
}

/// A core by gdb, which need not read anything for that.
fn core_of(binary: &Path, command: Command, folder: &Path, name: &str) -> anyhow::Result<Dead> {
    let core = folder.join(format!("{name}.core"));
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-readnever"]);
    // What serves until it is told to end is stopped where it waits.
    let is_server = command.get_args().next().is_some();
    if is_server {
        gdb.args(["-ex", "catch syscall listen"]);
    }
    gdb.args(["-ex", "run", "-ex"]);
    gdb.arg(format!("generate-core-file {}", core.display()));
    gdb.args(["-ex", "kill", "--args"])
        .arg(binary)
        .args(command.get_args());
    gdb.stdin(Stdio::null());
    let out = gdb.output().context("gdb; ./x setup installs it")?;
    ensure!(
        core.is_file(),
        "no core: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(Dead {
        program: binary.to_owned(),
        core,
    })
}

fn sls(dead: &Dead, cache: &Path, question: &str) -> anyhow::Result<u64> {
    let mut words = question.split(' ');
    let mut command = Command::new(program("slsctl"));
    command.env("XDG_CACHE_HOME", cache).args(words.next());
    command
        .arg(format!("core:{}", dead.core.display()))
        .args(words);
    timed(command)
}

fn gdb(dead: &Dead, question: &str) -> anyhow::Result<u64> {
    let mut command = Command::new("gdb");
    command.args([
        "-nx",
        "-batch",
        "-iex",
        "set debuginfod enabled off",
        "-ex",
        question,
    ]);
    command.arg(&dead.program).arg(&dead.core);
    timed(command)
}

/// None where it is not installed.
fn lldb(dead: &Dead, question: &str) -> anyhow::Result<Option<u64>> {
    let mut command = Command::new("lldb");
    command
        .args(["-X", "-b", "-o", question, "-c"])
        .arg(&dead.core)
        .arg(&dead.program);
    if Command::new("lldb").arg("--version").output().is_err() {
        return Ok(None);
    }
    timed(command).map(Some)
}

/// ns of a command that succeeds and says something.
fn timed(mut command: Command) -> anyhow::Result<u64> {
    let began = Instant::now();
    let out = command.stdin(Stdio::null()).output()?;
    let took = u64::try_from(began.elapsed().as_nanos())?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success() && !out.stdout.is_empty(),
        "{command:?}: {said}"
    );
    Ok(took)
}
