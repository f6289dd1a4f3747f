//! Debug information in other files than the program's: split off (`.dwo`), packaged (`.dwp`), shared (dwz), stripped off. The
//! answers are those of the same program with all of it inside.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use introspect::{Context, Finder, Frame, Limits, Program, View};
use serde_json::{Value, json};
use support::{Fixture, our_frames, run, source};

/// What is done to a program once it is linked.
type After = fn(&Path);

const LIMITS: Limits = Limits { elements: 20 };

/// Compiles each source in a folder of its own name's and links them there.
fn build(compiler: &str, sources: &[&str], flags: &[&str], after: After) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let mut objects = Vec::new();
    for name in sources {
        let object = name.rsplit_once('.').unwrap().0.to_owned() + ".o";
        let mut command = Command::new(compiler);
        command.current_dir(folder.path()).args(flags);
        run(command.arg("-c").arg("-o").arg(&object).arg(source(name)));
        objects.push(object);
    }
    let binary = folder.path().join("fixture");
    let mut command = Command::new(compiler);
    run(command
        .current_dir(folder.path())
        .args(&objects)
        .arg("-o")
        .arg(&binary));
    after(&binary);
    Fixture::unread(folder, binary, "break stop_here")
}

fn in_folder(binary: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    run(command
        .current_dir(binary.parent().unwrap())
        .args(arguments));
}

fn nothing(_: &Path) {}

fn remove(binary: &Path, ending: &str) {
    let folder = std::fs::read_dir(binary.parent().unwrap()).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    let those = paths.filter(|path| path.to_str().unwrap().ends_with(ending));
    assert!(
        those
            .map(|path| std::fs::remove_file(path).unwrap())
            .count()
            > 0
    );
}

/// binutils' dwp, and that it alone is there.
fn packaged(binary: &Path) {
    in_folder(binary, "dwp", &["-e", "fixture", "-o", "fixture.dwp"]);
    remove(binary, ".dwo");
}

/// LLVM's: binutils' crashes on version 5. LLVM 14's goes on for ever on most of what GCC writes in that version.
fn packaged_by_llvm(binary: &Path) {
    in_folder(binary, "llvm-dwp", &["-e", "fixture", "-o", "fixture.dwp"]);
    remove(binary, ".dwo");
}

/// The skeletons in a debug file, the rest where it was.
fn stripped(binary: &Path) {
    in_folder(
        binary,
        "objcopy",
        &["--only-keep-debug", "fixture", "fixture.debug"],
    );
    let link = "--add-gnu-debuglink=fixture.debug";
    in_folder(binary, "objcopy", &["--strip-debug", link, "fixture"]);
}

/// With another program that has the same types, and a `struct node` of its own.
fn shared_by(binary: &Path, flags: &[&str]) {
    let other = ["-g", "-O1", "-o", "other"];
    let extra = binary.with_file_name("other.c");
    std::fs::write(
        &extra,
        "struct alien { long node; }; struct alien visitor; struct point { char x[3]; };\n\
         struct point elsewhere; int main(void) { return visitor.node; }\n",
    )
    .unwrap();
    in_folder(binary, "gcc", &[&other[..], &["other.c"]].concat());
    std::fs::copy(binary, binary.with_file_name("twin")).unwrap();
    std::fs::copy(
        binary.with_file_name("other"),
        binary.with_file_name("another"),
    )
    .unwrap();
    let all = ["-m", "common", "fixture", "twin", "other", "another"];
    in_folder(binary, "dwz", &[flags, &all].concat());
}

fn shared(binary: &Path) {
    shared_by(binary, &[]);
}

fn shared_as_dwarf_5(binary: &Path) {
    shared_by(binary, &["--dwarf-5"]);
}

fn made_smaller(binary: &Path) {
    in_folder(binary, "dwz", &["fixture"]);
}

/// All that is asked of a program.
fn answers(fixture: &Fixture, questions: &[&str]) -> Value {
    let frames = fixture.frames();
    let of_frame = |frame: &Frame| {
        let locals = fixture.program.locals(&fixture.view, frame, LIMITS);
        let locals = locals.iter().map(|local| local.to_json(20));
        json!({
            "inlined": frame.inlined,
            "locals": locals.collect::<Vec<_>>(),
        })
    };
    // The C library's own frames are the same file in each.
    let ours = frames.iter().filter(|frame| frame.has_source());
    let context = Context {
        limits: LIMITS,
        ..Context::default()
    };
    let asked = questions.iter().map(|question| {
        let answer = fixture
            .program
            .evaluate(&fixture.view, &context, question)
            .map_or_else(|e| json!(e.to_string()), |answer| answer.to_json(20));
        json!({ *question: answer })
    });
    let globals = fixture.program.globals();
    let library = |path: &str| path.starts_with("std::") || path.starts_with("__gnu");
    let own = globals.iter().filter(|global| !library(&global.path));
    let globals = own.map(|global| {
        let local = fixture.program.global(&fixture.view, global, LIMITS);
        let path = global.path.clone();
        (path, json!([global.unit, local.to_json(20)]))
    });
    let lines = fixture.program.sources_named("").into_iter();
    let lines = lines
        .filter(|file| file.contains("fixtures/"))
        .map(|file| json!([file, fixture.program.lines_of(&file)]));
    // Where a breakpoint would be: in each instance, and where it was inlined.
    let named = frames.iter().filter(|frame| frame.has_source());
    let places = named.filter_map(|frame| {
        let name = frame.function.clone()?;
        let found = fixture.program.addresses_of(&fixture.view, &name, None);
        let bias = fixture.program.modules()[0].bias;
        let within = |all: Vec<u64>| all.iter().map(|at| at - bias).collect::<Vec<_>>();
        let found = found.map_or_else(|e| json!(e.to_string()), |all| json!(within(all)));
        Some((name, found))
    });
    json!({
        "places": places.collect::<serde_json::Map<_, _>>(),
        "stack": format!("{:?}", our_frames(&frames)),
        "frames": ours.map(of_frame).collect::<Vec<_>>(),
        "asked": asked.collect::<Vec<_>>(),
        "globals": globals.collect::<serde_json::Map<_, _>>(),
        "lines": lines.collect::<Vec<_>>(),
        "function": format!("{:?}", fixture.program.functions_named("stop_here")),
    })
}

/// `null`: GCC has written null references in `b`, where a split unit wants `DW_OP_implicit_pointer`.
fn differences(path: &str, a: &Value, b: &Value, null: bool, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            // GCC describes constants in a split unit that it leaves out of a whole one: more is no loss.
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => differences(&format!("{path}.{key}"), value, other, null, found),
                    None => found.push(format!("{path}.{key} is lost")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{at}]"), a, b, null, found);
            }
        }
        _ if null
            && (*b == json!("<damaged debug information>")
                || *b == json!({"unavailable": "damaged debug information"})) => {}
        _ if a != b => {
            let short = |value: &Value| value.to_string().chars().take(200).collect::<String>();
            found.push(format!("{path}: {} became {}", short(a), short(b)));
        }
        _ => {}
    }
}

/// Each way of keeping debug information gives the answers of the first.
fn compare(compiler: &str, sources: &[&str], questions: &[&str], ways: &[(&[&str], After)]) {
    let mut plain = None;
    for (flags, after) in ways {
        let fixture = build(compiler, sources, flags, *after);
        let mut told = answers(&fixture, questions);
        if !fixture.program.modules()[0].object.has_own_debug() {
            // Those are of programs that bring it along.
            told["globals"] = plain
                .as_ref()
                .map_or(Value::Null, |plain: &Value| plain["globals"].clone());
        }
        assert_eq!(fixture.program.modules()[0].object.troubles(), [""; 0]);
        let Some(plain) = &plain else {
            assert!(told["frames"].as_array().unwrap().len() > 1, "{told}");
            plain = Some(told);
            continue;
        };
        let mut found = Vec::new();
        let null = compiler.starts_with('g') && flags.contains(&"-gsplit-dwarf");
        differences("", plain, &told, null, &mut found);
        assert!(
            found.is_empty(),
            "{compiler} {flags:?}, {} differences: {:#?}",
            found.len(),
            &found[..found.len().min(10)]
        );
    }
}

const IN_C: [&str; 10] = [
    "counter",
    "pk",
    "*head",
    "head->next->next",
    "frame(outer).here",
    "(struct point*)frame(inner).where",
    "per_thread",
    "plain.c::hidden",
    "mask",
    "GREEN",
];

#[test]
fn c_in_version_4() {
    let flags = &["-gdwarf-4", "-O0"][..];
    let split = &["-gdwarf-4", "-O0", "-gsplit-dwarf"][..];
    let types = &["-gdwarf-4", "-O0", "-gsplit-dwarf", "-fdebug-types-section"][..];
    let ways: [(&[&str], After); 9] = [
        (flags, nothing),
        (split, nothing),
        (split, packaged),
        (split, packaged_by_llvm),
        (split, stripped),
        (types, nothing),
        (types, packaged),
        (flags, made_smaller),
        (flags, shared),
    ];
    compare("gcc", &["plain.c"], &IN_C, &ways);
    compare("clang", &["plain.c"], &IN_C, &ways[..4]);
}

#[test]
fn c_in_version_5() {
    let flags = &["-gdwarf-5", "-O0"][..];
    let split = &["-gdwarf-5", "-O0", "-gsplit-dwarf"][..];
    let types = &["-gdwarf-5", "-O0", "-gsplit-dwarf", "-fdebug-types-section"][..];
    let ways: [(&[&str], After); 6] = [
        (flags, nothing),
        (split, nothing),
        (split, stripped),
        (types, nothing),
        (flags, shared),
        (flags, shared_as_dwarf_5),
    ];
    compare("gcc", &["plain.c"], &IN_C, &ways);
    let by_clang = [ways[0], ways[1], (split, packaged_by_llvm as After)];
    compare("clang", &["plain.c"], &IN_C, &by_clang);
}

const IN_CPP: [&str; 8] = [
    "zoo::population",
    "zoo::Cage::built",
    "sizeof(zoo::Dog)",
    "numbers",
    "byName[\"x\"][0]",
    "*this",
    "this->size_",
    "words.size()",
];

#[test]
fn cpp_in_version_4() {
    let flags = &["-gdwarf-4", "-O0", "-std=c++17"][..];
    let split = &["-gdwarf-4", "-O0", "-std=c++17", "-gsplit-dwarf"][..];
    let types = &[split, &["-fdebug-types-section"]].concat();
    let ways: [(&[&str], After); 6] = [
        (flags, nothing),
        (split, nothing),
        (split, packaged),
        (types, packaged),
        (flags, made_smaller),
        (flags, shared),
    ];
    compare("g++", &["values.cpp"], &IN_CPP, &ways);
}

#[test]
fn cpp_in_version_5() {
    let flags = &["-gdwarf-5", "-O2", "-std=c++17"][..];
    let split = &["-gdwarf-5", "-O2", "-std=c++17", "-gsplit-dwarf"][..];
    let types = &[split, &["-fdebug-types-section"]].concat();
    let by_gcc: [(&[&str], After); 4] = [
        (flags, nothing),
        (split, nothing),
        (types, nothing),
        (flags, shared),
    ];
    compare("g++", &["values.cpp"], &IN_CPP, &by_gcc);
    let by_clang: [(&[&str], After); 2] = [(flags, nothing), (split, packaged_by_llvm)];
    compare("clang++", &["values.cpp"], &IN_CPP, &by_clang);
}

/// Inlined frames, location lists, values on entry, and two units.
#[test]
fn optimised_code() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let flags = &[version, "-O2"][..];
        let split = &[version, "-O2", "-gsplit-dwarf"][..];
        let plain: (&[&str], After) = (flags, nothing);
        let asked = ["base", "frame(deep).sum", "frame(walk).at", "both.left"];
        let ways = [plain, (split, nothing), (flags, shared)];
        compare("gcc", &["optimized.c"], &asked, &ways);
        let ways_of_clang = [plain, (split, nothing), (split, packaged_by_llvm)];
        compare("clang", &["optimized.c"], &asked, &ways_of_clang);
        let units = ["entry_caller.c", "entry_callee.c"];
        compare("gcc", &units, &["early", "late", "frame(main).argc"], &ways);
        let both = [plain, (split, packaged_by_llvm)];
        compare(
            "clang",
            &units,
            &["early", "late", "frame(main).argc"],
            &both,
        );
    }
}

/// The files beside a program, damaged: each answer is the right one, or says that it cannot be had.
#[test]
fn damaged_companions_are_told() {
    let split = &["-gdwarf-5", "-O0", "-gsplit-dwarf"][..];
    let older = &["-gdwarf-4", "-O0", "-gsplit-dwarf"][..];
    let ways: [(&[&str], After, &str); 3] = [
        (split, nothing, "plain.dwo"),
        (older, packaged, "fixture.dwp"),
        (&["-gdwarf-5", "-O0"], shared, "common"),
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for (flags, after, name) in ways {
        let mut fixture = build("gcc", &["plain.c"], flags, after);
        let file = fixture.folder.path().join(name);
        let good = std::fs::read(&file).unwrap();
        for round in 0..24 {
            let mut bad = good.clone();
            match round % 4 {
                0 => bad.truncate(random() % good.len()),
                1 => bad.clear(),
                _ => {
                    for _ in 0..1 + random() % 20 {
                        let at = random() % bad.len();
                        bad[at] ^= 1 << (random() % 8);
                    }
                }
            }
            std::fs::write(&file, &bad).unwrap();
            let started = Instant::now();
            fixture.program = Program::load(&fixture.view, &Finder::new([]));
            let frames = fixture.frames();
            for frame in &frames {
                fixture.program.locals(&fixture.view, frame, LIMITS);
            }
            for question in IN_C {
                let context = Context::default();
                let answer = fixture.program.evaluate(&fixture.view, &context, question);
                assert!(answer.map_or_else(|e| e.column > 0, |a| a.text.len() < 1 << 20));
            }
            assert!(started.elapsed() < Duration::from_secs(20));
            if round % 4 < 2 {
                let troubles = fixture.program.troubles();
                let named = troubles.iter().any(|trouble| trouble.contains(name));
                // A package without bytes is none: the file that it was made of is missed then.
                let missed = troubles.iter().any(|trouble| trouble.contains("plain.dwo"));
                assert!(named || missed, "{name}, round {round}: {troubles:?}");
            }
        }
        std::fs::write(&file, &good).unwrap();
        fixture.program = Program::load(&fixture.view, &Finder::new([]));
        assert_eq!(fixture.text("head->next->next->label"), "\"three\"");
    }
}

/// Asking about one function reads the file of its unit and no other.
#[test]
fn only_what_is_asked_for_is_read() {
    let flags = &["-gdwarf-5", "-O0", "-gsplit-dwarf"];
    let mut fixture = build("gcc", &["entry_caller.c", "entry_callee.c"], flags, nothing);
    std::fs::remove_file(fixture.folder.path().join("entry_caller.dwo")).unwrap();
    fixture.program = Program::load(&fixture.view, &Finder::new([]));
    let pc = fixture.view.threads()[0].registers.pc();
    let found = fixture.program.function_at(pc).unwrap();
    assert_eq!(found.name, "stop_here");
    assert_eq!(fixture.program.troubles(), [""; 0]);
    // The caller's unit is the other one.
    assert_eq!(
        fixture.frames().last().unwrap().function.as_deref(),
        Some("main")
    );
    let troubles = fixture.program.troubles();
    assert!(
        troubles[0].starts_with("entry_caller.dwo is not there"),
        "{troubles:?}"
    );
}
