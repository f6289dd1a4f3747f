//! Frames and values of optimised code, threads, signal handlers, files without DWARF; gdb says what is right.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use introspect::{Context, Limits, View};
use serde_json::json;
use support::{Fixture, gdb_frames, our_frames};

/// gdb's `name = value` lines.
fn gdb_locals(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Compares every local of every frame; returns (known to gdb, known to us).
fn compare_locals(fixture: &Fixture, answers: &[String]) -> (usize, usize) {
    let (mut known, mut ours_known) = (0, 0);
    for (frame, said) in fixture.frames().iter().zip(answers) {
        let locals = fixture
            .program
            .locals(&fixture.view, frame, Limits::default());
        for (name, gdb) in gdb_locals(said) {
            let Some(local) = locals.iter().find(|local| local.name == name) else {
                panic!("frame {}: no {name}, gdb says {gdb}", frame.index)
            };
            let ours = local.text.clone();
            if gdb.contains("optimized out") {
                continue;
            }
            known += 1;
            if ours.starts_with("<optimized out") || ours.contains("<optimized out>") {
                eprintln!("frame {}: {name} is {gdb}, ours is {ours}", frame.index);
                continue;
            }
            ours_known += 1;
            // gdb puts types before pointers and addresses before strings; the end is the value.
            let plain = |text: &str| {
                text.rsplit(") ")
                    .next()
                    .unwrap()
                    .split(" <")
                    .next()
                    .unwrap()
                    .to_owned()
            };
            let agrees = plain(&gdb) == plain(&ours) || gdb.ends_with(&ours);
            assert!(
                agrees,
                "frame {} {:?}: {name} is {gdb} to gdb, {ours} to us",
                frame.index, frame.function
            );
        }
    }
    (known, ours_known)
}

fn optimised(flags: &[&str]) {
    let asks: Vec<String> = ["bt".to_owned()]
        .into_iter()
        .chain((0..7).flat_map(|n| {
            [
                format!("frame {n}"),
                "info args".into(),
                "info locals".into(),
            ]
        }))
        .collect();
    let asks: Vec<&str> = asks.iter().map(String::as_str).collect();
    let fixture = Fixture::c("optimized.c", flags, &asks);
    let frames = fixture.frames();
    assert_eq!(
        our_frames(&frames),
        gdb_frames(&fixture.gdb[0]),
        "{flags:?}"
    );
    let inlined: Vec<bool> = frames.iter().map(|frame| frame.inlined).collect();
    assert_eq!(
        inlined,
        [false, true, true, false, false, false, false],
        "{flags:?}"
    );
    assert!(frames.iter().all(|frame| !frame.guessed));
    // Written and never read: it is nowhere, but there is such a variable.
    let gone = json!({"unavailable": "optimized out"});
    assert_eq!(fixture.json("dead"), gone, "{flags:?}");
    let locals: Vec<String> = fixture.gdb[1..]
        .chunks(3)
        .map(|answers| format!("{}\n{}", answers[1], answers[2]))
        .collect();
    let (known, ours) = compare_locals(&fixture, &locals);
    eprintln!("{flags:?}: {ours} of the {known} locals gdb knows");
    assert!(
        known > 8 && ours * 100 >= known * 95,
        "{flags:?}: {ours} of {known}"
    );
}

#[test]
fn optimised_code_agrees_with_gdb() {
    optimised(&["-g", "-O2", "-gdwarf-5"]);
}

#[test]
fn optimised_code_of_dwarf_4_agrees_with_gdb() {
    optimised(&["-g", "-O2", "-gdwarf-4", "-no-pie"]);
}

#[test]
fn values_on_entry_come_from_the_call_site() {
    let other = support::source("entry_callee.c");
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let flags = ["-g", "-O2", version, other.to_str().unwrap()];
        let fixture = Fixture::c("entry_caller.c", &flags, &["up", "info args"]);
        let said = gdb_locals(&fixture.gdb[1]);
        assert_eq!(
            said[0],
            ("early".to_owned(), "42".to_owned()),
            "{version}: gdb no longer knows it"
        );
        assert_eq!(fixture.json("frame(callee).early"), json!(42), "{version}");
        assert_eq!(fixture.json("frame(callee).late"), json!(1), "{version}");
    }
}

#[test]
fn threads_signal_frames_and_thread_locals() {
    let fixture = Fixture::stopped_at(
        "threads.c",
        &["-g", "-O0", "-pthread"],
        "handle SIGUSR1 nostop noprint pass\nbreak stop_here",
        &["bt", "thread apply all bt"],
    );
    let threads = fixture.view.threads();
    assert_eq!(threads.len(), 4);
    let frames = fixture.frames();
    let names: Vec<_> = frames
        .iter()
        .map(|frame| frame.function.clone().unwrap_or_default())
        .collect();
    assert_eq!(names[..2], ["stop_here", "handler"]);
    let through = names.iter().filter(|name| *name == "interrupted").count();
    assert_eq!(through, 4, "{names:?}");
    assert_eq!(names.last().unwrap(), "main");
    assert!(frames.iter().all(|frame| !frame.guessed));
    // gdb adds tail-called frames of the C library where its debug files are installed: the program's own must agree.
    let own = |frames: Vec<(String, Option<(String, u32)>)>| {
        let ours = |place: &Option<(String, u32)>| {
            place.as_ref().is_some_and(|(file, _)| file == "threads.c")
        };
        frames
            .into_iter()
            .filter(|frame| ours(&frame.1))
            .collect::<Vec<_>>()
    };
    assert_eq!(own(our_frames(&frames)), own(gdb_frames(&fixture.gdb[0])));
    let mut per_thread: Vec<(u32, i64)> = Vec::new();
    for thread in &threads {
        let context = Context {
            tid: Some(thread.tid),
            ..Context::default()
        };
        let answer = fixture
            .program
            .evaluate(&fixture.view, &context, "mine")
            .unwrap();
        per_thread.push((thread.tid, answer.value.to_json(1).as_i64().unwrap()));
        let frames = fixture.program.backtrace(&fixture.view, thread.tid, 50);
        let named = frames.iter().any(|frame| {
            matches!(
                frame.function.as_deref(),
                Some("sleeper" | "waiter" | "main")
            )
        });
        assert!(
            named && frames.iter().all(|frame| !frame.guessed),
            "{}: {frames:?}",
            thread.tid
        );
        let asked = format!("thread({}).mine", thread.tid);
        assert_eq!(fixture.json(&asked), answer.value.to_json(1));
    }
    let mut values: Vec<i64> = per_thread.iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    assert_eq!(values, [1, 200, 300, 400]);
    assert_eq!(per_thread[0].1, 1, "the main thread comes first");
    let waiting = per_thread
        .iter()
        .find(|(_, value)| *value == 400)
        .unwrap()
        .0;
    assert_eq!(fixture.json(&format!("thread({waiting}).number")), json!(4));
    assert_eq!(fixture.json("frame(handler).seen"), json!(10));
    let count = fixture.gdb[1]
        .lines()
        .filter(|line| line.starts_with('#') && line.contains("sleeper"))
        .count();
    assert_eq!(count, 2);
}

#[test]
fn symbols_only() {
    let fixture = Fixture::c("plain.c", &["-O0"], &["bt"]);
    let names: Vec<_> = fixture
        .frames()
        .iter()
        .map(|frame| frame.function.clone().unwrap_or_default())
        .collect();
    assert_eq!(names, ["stop_here", "inner", "outer", "main"]);
    assert!(
        fixture
            .frames()
            .iter()
            .all(|frame| frame.line.is_none() && !frame.guessed)
    );
    assert_eq!(fixture.json("*(int*)&counter"), json!(42));
    assert_eq!(fixture.json("(int)counter"), json!(42));
    assert!(fixture.ask("counter").value.to_json(1)["unavailable"].is_string());
}

#[test]
fn without_unwind_tables_frames_are_guessed() {
    let flags = [
        "-g0",
        "-O0",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-fno-omit-frame-pointer",
    ];
    let fixture = Fixture::c("plain.c", &flags, &[]);
    let frames = fixture.frames();
    let names: Vec<_> = frames
        .iter()
        .map(|frame| frame.function.clone().unwrap_or_default())
        .collect();
    assert_eq!(names, ["stop_here", "inner", "outer", "main"]);
    assert!(!frames[0].guessed && frames[1..].iter().all(|frame| frame.guessed));
}

#[test]
fn separate_debug_files() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("fixture");
    support::compile("plain.c", &["-g", "-O0"], &binary);
    let debug = folder.path().join("fixture.debug");
    let tool = |arguments: &[&str]| {
        support::run(
            std::process::Command::new("objcopy")
                .current_dir(folder.path())
                .args(arguments),
        )
    };
    tool(&["--only-keep-debug", "fixture", "fixture.debug"]);
    tool(&[
        "--strip-debug",
        "--add-gnu-debuglink=fixture.debug",
        "fixture",
    ]);
    assert!(debug.exists());
    let fixture = Fixture::run(folder, binary, "break stop_here", &["bt"]);
    assert_eq!(our_frames(&fixture.frames()), gdb_frames(&fixture.gdb[0]));
    assert_eq!(fixture.json("pk.grid[1][2].y"), json!(12));
}

/// As Fedora ships its programs: stripped, with the functions' symbols in `.gnu_debugdata`.
#[test]
fn stripped_files_keep_names_in_mini_debug_info() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("fixture");
    support::compile("plain.c", &["-g", "-O0", "-no-pie"], &binary);
    let tool = |program: &str, arguments: &[&str]| {
        support::run(
            std::process::Command::new(program)
                .current_dir(folder.path())
                .args(arguments),
        )
    };
    let symbols = tool("nm", &["fixture"]);
    let stop = symbols
        .lines()
        .find_map(|line| line.strip_suffix(" T stop_here"))
        .map(|address| format!("break *0x{address}"))
        .unwrap();
    tool("objcopy", &["--strip-debug", "fixture", "mini"]);
    let pack = "import lzma; open('mini.xz', 'wb').write(lzma.compress(open('mini', 'rb').read()))";
    tool("python3", &["-c", pack]);
    let add = [
        "--strip-all",
        "--add-section",
        ".gnu_debugdata=mini.xz",
        "fixture",
    ];
    tool("objcopy", &add);
    // Without the section nothing is left that names them.
    tool(
        "objcopy",
        &["--remove-section", ".gnu_debugdata", "fixture", "bare"],
    );
    let view = |binary: &str| {
        let core = tempfile::tempdir().unwrap();
        let to = core.path().join(binary);
        std::fs::copy(folder.path().join(binary), &to).unwrap();
        Fixture::run(core, to, &stop, &[])
    };
    let named = |fixture: &Fixture| -> Vec<String> {
        let frames = fixture.frames().into_iter();
        frames.filter_map(|frame| frame.function).collect()
    };
    let all = ["stop_here", "inner", "outer", "main"];
    assert_eq!(named(&view("fixture")), all);
    assert!(
        !named(&view("bare"))
            .iter()
            .any(|name| all.contains(&name.as_str()))
    );
}
