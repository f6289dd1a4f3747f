//! Expressions, over the core of a program that has a value of every kind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use introspect::{Context, CoreView, Finder, Limits, Program};

use super::within;

/// What an answer may cost, however it is asked for.
const MEMORY: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST: usize = 4096;

/// A program of introspect's own tests, stopped where all its values are there.
pub struct Fixture {
    /// Its core.
    pub view: CoreView,
    program: Program,
    /// Where program and core are.
    pub folder: tempfile::TempDir,
}

impl Fixture {
    /// Compiles, runs to `stop_here` under gdb and keeps a core.
    pub fn new(source: &str, compiler: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let binary = folder.path().join("fixture");
        let core = folder.path().join("core");
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../introspect/tests/fixtures")
            .join(source);
        let mut compile = Command::new(compiler);
        run(compile.args(["-g", "-O0", "-o"]).args([&binary, &source]));
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
        gdb.args(["-ex", "break stop_here", "-ex", "run", "-ex"]);
        gdb.arg(format!("generate-core-file {}", core.display()));
        run(gdb.args(["-ex", "kill"]).arg(&binary));
        let view = CoreView::open(&core).expect("a core");
        let program = Program::load(&view, &Finder::default());
        Self {
            view,
            program,
            folder,
        }
    }

    /// The program file.
    pub fn binary(&self) -> PathBuf {
        self.folder.path().join("fixture")
    }
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .expect("./x setup installs compilers and gdb");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

thread_local! {
    static VALUES: Fixture = Fixture::new("values.cpp", "g++");
}

/// Asks for whatever the bytes say.
pub fn evaluate(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]);
    VALUES.with(|fixture| {
        let context = Context {
            limits: Limits { elements: 50 },
            ..Context::default()
        };
        let started = Instant::now();
        let answer = within(MEMORY, "an expression", || {
            fixture.program.evaluate(&fixture.view, &context, &text)
        });
        match answer {
            Ok(answer) => assert!(answer.value.to_json(50).to_string().len() < MEMORY),
            Err(error) => assert!(error.column > 0 && !error.to_string().is_empty()),
        }
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    });
}

/// One of each part of the grammar.
pub fn expressions() -> Vec<Vec<u8>> {
    let all = [
        "zoo::Cage::built",
        "numbers",
        "numbers[0]",
        "*pointer",
        "&numbers",
        "words[1].size",
        "by_name",
        "animal->legs",
        "(zoo::Dog*)animal",
        "*(zoo::Dog*)animal",
        "sizeof(zoo::Cage)",
        "frame(main).numbers",
        "frame(0).x",
        "thread(1).y",
        "$rip",
        "$rsp + 8",
        "values.cpp::hidden",
        "1 + 2 * 3 % 4 - -5",
        "1.5e3 / 2.0 <= 3 && !0 || ~1 ^ 2 & 3 | 4 << 5 >> 6",
        "a == 'x' ? \"yes\" : \"no\"",
        "*(long*)0x7fffffffe000",
        "(unsigned char)0xffff",
        "*numbers@4",
        "numbers[1:3]",
        "this->size_",
    ];
    all.iter().map(|e| e.as_bytes().to_vec()).collect()
}
