//! Every frame and every local of every thread, at many stops of programs that compilers wrote in many ways, beside
//! gdb's: equal, or ours says that it is not known. A short share here; all of it by `./x oracle`.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use introspect::{Context, CoreView, Finder, Frame, FrameSelector, Program, Value, View};
use serde_json::Value as Json;
use support::{run, source};

/// How a program is made, and what is done to it then.
struct Way {
    compiler: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Dwz,
    Stripped,
}

#[derive(Default)]
struct Counts {
    stops: usize,
    frames: usize,
    wrong_frames: usize,
    known: usize,
    equal: usize,
    missing: usize,
    wrong: usize,
    more: usize,
}

/// Where gdb 13 is wrong, and what the source says: of a block whose code is all of an inlined call's, it knows nothing.
const FAULTS_OF_GDB: [(&str, &str, &str, i128); 1] = [("plain.c", "inner", "local", 99)];

/// Others' words for what was seen, the first of each kind.
type Notes = Vec<String>;

fn build(way: &Way, folder: &Path) -> PathBuf {
    let binary = folder.join("fixture");
    let mut command = Command::new(way.compiler);
    command.current_dir(folder).args(way.flags);
    run(command.arg("-o").arg(&binary).arg(source(way.source)));
    let tool = |program: &str, args: &[&str]| {
        run(Command::new(program).current_dir(folder).args(args));
    };
    match way.then {
        Then::Nothing => {}
        Then::Dwz => tool("dwz", &["fixture"]),
        Then::Stripped => {
            tool(
                "objcopy",
                &["--only-keep-debug", "fixture", "fixture.debug"],
            );
            let link = "--add-gnu-debuglink=fixture.debug";
            tool("objcopy", &["--strip-debug", link, "fixture"]);
        }
    }
    binary
}

/// What gdb tells at each stop; the cores are beside.
fn told(way: &Way, folder: &Path, binary: &Path, stops: usize) -> Vec<Json> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.args(["-iex", "set python print-stack full"]);
    gdb.env("ORACLE_FOLDER", folder)
        .env("ORACLE_STOPS", stops.to_string())
        .env("ORACLE_SOURCE", way.source);
    run(gdb.arg("-x").arg(source("oracle.py")).arg(binary));
    let text = std::fs::read(folder.join("told.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn compare(way: &Way, stops: usize) -> (Counts, Notes) {
    let folder = tempfile::tempdir().unwrap();
    let binary = build(way, folder.path());
    let (mut counts, mut notes) = (Counts::default(), Notes::new());
    let finder = Finder::default();
    for (stop, threads) in told(way, folder.path(), &binary, stops).iter().enumerate() {
        let core = folder.path().join(format!("core.{stop}"));
        let Ok(view) = CoreView::open(&core) else {
            continue;
        };
        let program = Program::load(&view, &finder);
        counts.stops += 1;
        for thread in threads.as_array().unwrap() {
            let tid = thread["tid"].as_u64().unwrap() as u32;
            let frames = program.backtrace(&view, tid, 60);
            let at = format!("stop {stop}, thread {tid}");
            of_thread(
                way,
                &program,
                &view,
                thread,
                &frames,
                (&mut counts, &mut notes),
                &at,
            );
        }
        std::fs::remove_file(core).unwrap();
    }
    (counts, notes)
}

fn of_thread(
    way: &Way,
    program: &Program,
    view: &dyn View,
    thread: &Json,
    frames: &[Frame],
    (counts, notes): (&mut Counts, &mut Notes),
    at: &str,
) {
    // A frame of a tail call is made up of what was called last: it has left none.
    let theirs: Vec<&Json> = thread["frames"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|frame| frame["kind"] != "tail")
        .collect();
    for (number, their) in theirs.iter().enumerate() {
        counts.frames += 1;
        let Some(frame) = frames.get(number) else {
            counts.wrong_frames += 1;
            notes.push(format!("{at}: no frame {number}, gdb has {their:.120}"));
            return;
        };
        if !same_frame(frame, their) {
            counts.wrong_frames += 1;
            notes.push(format!(
                "{at}, frame {number}: ours {:?} {:#x} line {:?} {}, gdb's {} {:#x} line {} {}",
                frame.function,
                frame.pc,
                frame.line,
                frame.inlined,
                their["function"],
                their["pc"].as_u64().unwrap_or(0),
                their["line"],
                their["kind"],
            ));
            return;
        }
        let context = Context {
            tid: Some(frame.tid),
            frame: FrameSelector::Index(frame.index),
            ..Context::default()
        };
        for (name, leaves) in their["locals"].as_object().unwrap() {
            for leaf in leaves.as_array().unwrap() {
                let path = leaf[0].as_str().unwrap();
                let ours = program.evaluate(view, &context, path);
                let ours = ours
                    .map(|answer| answer.value)
                    .map_err(|why| why.to_string());
                let function = frame.function.as_deref().unwrap_or_default();
                let said = match judge(leaf, &ours) {
                    Said::Wrong if is_fault_of_gdb(way, function, path, &ours) => Said::More,
                    said => said,
                };
                let note = || {
                    format!(
                        "{at}, frame {number} {:?}, {name}: {path} is {:?}, gdb says {leaf}",
                        frame.function, ours
                    )
                };
                match said {
                    Said::Equal => counts.equal += 1,
                    Said::Missing => {
                        counts.missing += 1;
                        notes.push(note());
                    }
                    Said::Wrong => {
                        counts.wrong += 1;
                        notes.push(format!("WRONG {}", note()));
                    }
                    Said::More => counts.more += 1,
                    Said::Neither => continue,
                }
                counts.known += usize::from(!matches!(said, Said::More));
            }
        }
    }
}

fn is_fault_of_gdb(way: &Way, function: &str, path: &str, ours: &Result<Value, String>) -> bool {
    FAULTS_OF_GDB.iter().any(|(source, of, name, right)| {
        (*source, *of, *name) == (way.source, function, path) && *ours == Ok(Value::Signed(*right))
    })
}

fn same_frame(ours: &Frame, theirs: &Json) -> bool {
    let line = theirs["line"].as_u64().map(|line| line as u32);
    let last = |name: &str| {
        let bare = name.split(['<', '(']).next().unwrap_or(name);
        bare.rsplit("::").next().unwrap_or(bare).to_owned()
    };
    let name = theirs["function"].as_str().map(last);
    let own = theirs["own"] == true;
    theirs["pc"] == ours.pc
        && (!own
            || ours.function.as_deref().map(last) == name
                && ours.line.unwrap_or(0) == line.unwrap_or(0)
                && ours.inlined == (theirs["kind"] == "inline"))
}

enum Said {
    Equal,
    Missing,
    Wrong,
    /// gdb does not know it.
    More,
    Neither,
}

fn judge(leaf: &Json, ours: &Result<Value, String>) -> Said {
    let unknown = matches!(ours, Err(_) | Ok(Value::Unavailable(_)));
    let value = leaf[2].as_str().unwrap_or_default();
    match (leaf[1].as_str().unwrap(), ours) {
        ("gone" | "guess", _) if unknown => Said::Neither,
        ("gone" | "guess", _) => Said::More,
        // Where no text is to be read, the address says what the pointer is.
        ("ptr", Ok(Value::Unavailable(why)))
            if why.address.map(|at| at.to_string()).as_deref() == Some(value) =>
        {
            Said::Equal
        }
        _ if unknown => Said::Missing,
        (kind, Ok(ours)) if is_equal(kind, value, ours) => Said::Equal,
        _ => Said::Wrong,
    }
}

fn is_equal(kind: &str, value: &str, ours: &Value) -> bool {
    let integer = value.parse::<i128>().ok();
    let float = value.parse::<f64>().ok();
    match (kind, ours) {
        ("ptr", Value::Pointer { address, .. }) => integer == Some(i128::from(*address)),
        ("ptr", Value::Null) => integer == Some(0),
        // A box is shown by what is in it: compared by other tests.
        ("ptr", _) => integer != Some(0),
        (_, Value::Bool(ours)) => integer == Some(i128::from(*ours)),
        (_, Value::Signed(ours)) => integer == Some(*ours),
        (_, Value::Unsigned(ours)) => value.parse::<u128>().ok() == Some(*ours),
        // A byte of text has no sign for us.
        (_, Value::Char(ours)) => integer.is_some_and(|number| {
            number == i128::from(*ours) || number & 0xff == i128::from(*ours)
        }),
        (_, Value::Enumerator { number, .. }) => integer == Some(*number),
        // One of four bytes is shown by the shortest text that gives it back.
        ("float4", Value::Float(ours)) => float.is_some_and(|float| {
            (float as f32).to_bits() == (*ours as f32).to_bits() || float.is_nan() && ours.is_nan()
        }),
        ("float8", Value::Float(ours)) => float.is_some_and(|float| {
            float.to_bits() == ours.to_bits() || float.is_nan() && ours.is_nan()
        }),
        _ => false,
    }
}

fn table(ways: &[Way], stops: usize) {
    println!(
        "| compiler, source, flags | stops | frames | wrong | leaves gdb knows | equal | missing | wrong | ours only |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut bad = Vec::new();
    for way in ways {
        let (counts, notes) = compare(way, stops);
        let then = match way.then {
            Then::Nothing => "",
            Then::Dwz => ", dwz",
            Then::Stripped => ", stripped with debuglink",
        };
        let name = format!(
            "{} {} {}{then}",
            way.compiler,
            way.source,
            way.flags.join(" ")
        );
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            counts.stops,
            counts.frames,
            counts.wrong_frames,
            counts.known,
            counts.equal,
            counts.missing,
            counts.wrong,
            counts.more
        );
        for note in notes.iter().take(notes_shown()) {
            eprintln!("    {note}");
        }
        let is_right = counts.wrong_frames == 0
            && counts.wrong == 0
            && counts.missing * 20 <= counts.known
            && counts.stops * 4 >= stops * 3
            && counts.equal > counts.stops;
        if !is_right {
            bad.push(name);
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

fn notes_shown() -> usize {
    let asked = std::env::var("ORACLE_NOTES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(6)
}

const fn way(
    compiler: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
    then: Then,
) -> Way {
    Way {
        compiler,
        source,
        flags,
        then,
    }
}

#[test]
fn a_share_of_all_is_as_gdb_says() {
    let ways = [
        way("gcc", "optimized.c", &["-g", "-O2"], Then::Dwz),
        way(
            "clang++",
            "values.cpp",
            &["-g", "-gdwarf-4", "-O0", "-std=c++17"],
            Then::Nothing,
        ),
    ];
    table(&ways, 5);
}

#[test]
#[ignore = "takes a quarter of an hour: ./x oracle"]
fn all_is_as_gdb_says() {
    const NO_FRAME: &str = "-fomit-frame-pointer";
    const FRAME: &str = "-fno-omit-frame-pointer";
    let mut ways = Vec::new();
    for compiler in ["gcc", "clang"] {
        for source in ["plain.c", "optimized.c"] {
            ways.extend([
                way(compiler, source, &["-g", "-gdwarf-5", "-O0"], Then::Nothing),
                way(
                    compiler,
                    source,
                    &["-g", "-gdwarf-4", "-O2", NO_FRAME],
                    Then::Nothing,
                ),
                way(
                    compiler,
                    source,
                    &["-g", "-gdwarf-5", "-O2", FRAME],
                    Then::Stripped,
                ),
                // gdb 13 reads clang's lists of locations in split files of version 5 wrongly.
                way(
                    compiler,
                    source,
                    &["-g", "-gdwarf-4", "-O1", "-gsplit-dwarf"],
                    Then::Nothing,
                ),
                way(
                    compiler,
                    source,
                    &["-g", "-gdwarf-4", "-O0", "-gsplit-dwarf"],
                    Then::Nothing,
                ),
            ]);
        }
        ways.push(way(
            compiler,
            "threads.c",
            &["-g", "-O0", "-pthread"],
            Then::Nothing,
        ));
        ways.push(way(
            compiler,
            "threads.c",
            &["-g", "-O2", "-pthread", NO_FRAME],
            Then::Stripped,
        ));
    }
    ways.push(way(
        "gcc",
        "optimized.c",
        &["-g", "-gdwarf-5", "-O2"],
        Then::Dwz,
    ));
    ways.push(way(
        "gcc",
        "plain.c",
        &["-g", "-gdwarf-4", "-O2"],
        Then::Dwz,
    ));
    for compiler in ["g++", "clang++"] {
        ways.extend([
            way(
                compiler,
                "values.cpp",
                &["-g", "-gdwarf-5", "-O0", "-std=c++17"],
                Then::Nothing,
            ),
            way(
                compiler,
                "values.cpp",
                &["-g", "-gdwarf-4", "-O2", "-std=c++17", NO_FRAME],
                Then::Stripped,
            ),
            way(
                compiler,
                "values.cpp",
                &["-g", "-gdwarf-4", "-O0", "-std=c++17", "-gsplit-dwarf"],
                Then::Nothing,
            ),
        ]);
    }
    ways.push(way(
        "g++",
        "values.cpp",
        &["-g", "-gdwarf-4", "-O1", "-std=c++17"],
        Then::Dwz,
    ));
    ways.push(way(
        "rustc",
        "values.rs",
        &["-g", "--edition=2024"],
        Then::Nothing,
    ));
    ways.push(way(
        "rustc",
        "values.rs",
        &["-g", "--edition=2024", "-Copt-level=2"],
        Then::Stripped,
    ));
    table(&ways, 20);
}
