//! Fixtures: compiled, stopped by gdb at `stop_here`, kept as cores; gdb's answers on the way.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use introspect::{Answer, Context, CoreView, Finder, Frame, Program, View};

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub binary: PathBuf,
    pub view: CoreView,
    pub program: Program,
    /// What gdb printed for each of its commands.
    pub gdb: Vec<String>,
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub fn compile(name: &str, flags: &[&str], binary: &Path) {
    let compiler = match name.rsplit('.').next() {
        Some("c") => "gcc",
        Some("cpp") => "g++",
        _ => "rustc",
    };
    let mut command = Command::new(compiler);
    run(command.args(flags).arg("-o").arg(binary).arg(source(name)));
}

impl Fixture {
    pub fn c(name: &str, flags: &[&str], gdb: &[&str]) -> Self {
        Self::stopped_at(name, flags, "break stop_here", gdb)
    }

    /// Runs to where `stop` (a gdb command) says, asks gdb, keeps a core.
    pub fn stopped_at(name: &str, flags: &[&str], stop: &str, gdb: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("fixture");
        compile(name, flags, &binary);
        Self::run(folder, binary, stop, gdb)
    }

    pub fn run(folder: tempfile::TempDir, binary: PathBuf, stop: &str, gdb: &[&str]) -> Self {
        Self::run_by(Command::new("gdb"), folder, binary, stop, gdb)
    }

    /// Stopped where a symbol is, by a gdb that reads no debug information: some of it makes gdb 13 crash.
    pub fn unread(folder: tempfile::TempDir, binary: PathBuf, stop: &str) -> Self {
        let mut command = Command::new("gdb");
        command.arg("-readnever");
        Self::run_by(command, folder, binary, stop, &[])
    }

    fn run_by(
        mut command: Command,
        folder: tempfile::TempDir,
        binary: PathBuf,
        stop: &str,
        gdb: &[&str],
    ) -> Self {
        let core = folder.path().join("core");
        command.args([
            "-nx",
            "-batch",
            "-iex",
            "set debuginfod enabled off",
            "-ex",
            "set width 0",
            "-ex",
            "set print elements 0",
        ]);
        command.args(["-ex", "set print frame-arguments none"]);
        for step in stop.lines().chain(["run"]) {
            command.args(["-ex", step]);
        }
        command
            .arg("-ex")
            .arg(format!("generate-core-file {}", core.display()));
        for ask in gdb {
            command.args(["-ex", "echo @@@@\\n", "-ex", ask]);
        }
        command
            .args(["-ex", "echo @@@@\\n", "-ex", "kill"])
            .arg(&binary);
        let text = run(&mut command);
        assert!(core.exists(), "no core: {text}");
        let mut answers: Vec<String> = text
            .split("@@@@\n")
            .skip(1)
            .map(|answer| answer.trim().to_owned())
            .collect();
        answers.pop();
        let view = CoreView::open(&core).unwrap();
        let program = Program::load(&view, &Finder::default());
        Self {
            folder,
            binary,
            view,
            program,
            gdb: answers,
        }
    }

    pub fn ask(&self, expr: &str) -> Answer {
        self.program
            .evaluate(&self.view, &Context::default(), expr)
            .unwrap_or_else(|error| panic!("{expr}: {error}"))
    }

    pub fn fails(&self, expr: &str) -> introspect::ExprError {
        match self.program.evaluate(&self.view, &Context::default(), expr) {
            Err(error) => error,
            Ok(answer) => panic!("{expr}: {answer:?}"),
        }
    }

    pub fn json(&self, expr: &str) -> serde_json::Value {
        self.ask(expr).value.to_json(1000)
    }

    pub fn text(&self, expr: &str) -> String {
        self.ask(expr).text
    }

    pub fn frames(&self) -> Vec<Frame> {
        let main = self.view.threads()[0].tid;
        self.program.backtrace(&self.view, main, 100)
    }
}

/// Frames of gdb's `bt`, as (function, file's last component, line).
pub fn gdb_frames(bt: &str) -> Vec<(String, Option<(String, u32)>)> {
    let frames = bt
        .lines()
        .filter(|line| line.starts_with('#') && !line.contains("<signal handler called>"));
    frames
        .map(|line| {
            let rest = line.split_once(' ').unwrap().1.trim();
            let rest = match rest.split_once(" in ") {
                Some((pc, rest)) if pc.starts_with("0x") => rest,
                _ => rest,
            };
            let name = rest.split(" (").next().unwrap().to_owned();
            let place = rest.rsplit_once(" at ").and_then(|(_, place)| {
                let (file, line) = place.rsplit_once(':')?;
                Some((file.rsplit('/').next()?.to_owned(), line.parse().ok()?))
            });
            (name, place)
        })
        .collect()
}

/// Our frames in the same form; `<signal handler called>` frames left out, as gdb gives them no name.
pub fn our_frames(frames: &[Frame]) -> Vec<(String, Option<(String, u32)>)> {
    frames
        .iter()
        .map(|frame| {
            let place = frame
                .file
                .as_ref()
                .zip(frame.line)
                .map(|(file, line)| (file.rsplit('/').next().unwrap().to_owned(), line));
            (frame.function.clone().unwrap_or_else(|| "??".into()), place)
        })
        .collect()
}
