//! Debug information that is not in the program: split off, packaged, shared by dwz. Every question has the answer that it
//! has of the same program with all of it inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Sls, Target, end_all};

const C: [(&str, &str); 2] = [
    (
        "main.c",
        r#"
#include <stdio.h>
struct node { int key; const char *name; struct node *next; };
enum mood { CALM, WILD = 9 };
struct node b = {2, "two", 0}, a = {1, "one", &b};
struct node *head = &a;
static enum mood mood = WILD;
int work(int depth, struct node *of);
int main(void) { puts("ready"); fflush(stdout); return work(3, head) + mood; }
"#,
    ),
    (
        "work.c",
        r#"
#include <unistd.h>
struct node { int key; const char *name; struct node *next; };
static long hidden = -7;
__thread int own = 3;
static inline __attribute__((always_inline)) int halved(int whole) { int half = whole / 2; for (;;) pause(); return half; }
int work(int depth, struct node *of) {
    int squares[3] = {1, 4, depth * depth};
    own += depth;
    return halved(squares[2]) + of->key + (int)hidden;
}
"#,
    ),
];

const CPP: [(&str, &str); 2] = [
    (
        "main.cpp",
        r#"
#include <cstdio>
#include <map>
#include <string>
#include <vector>
namespace zoo { struct Animal { virtual ~Animal() = default; int legs = 4; }; int feed(const std::vector<std::string> &names, Animal &one); int fed = 2; }
struct Dog : zoo::Animal { std::string name = "rex"; };
int main() {
    std::vector<std::string> names{"alpha", "a name that is long enough for the heap"};
    std::map<int, std::string> byNumber{{1, "one"}, {7, "seven"}};
    Dog dog;
    puts("ready"); fflush(stdout);
    return zoo::feed(names, dog) + byNumber.size();
}
"#,
    ),
    (
        "feed.cpp",
        r#"
#include <string>
#include <vector>
#include <unistd.h>
namespace zoo { struct Animal { virtual ~Animal() = default; int legs = 4; };
int feed(const std::vector<std::string> &names, Animal &one) { int most = names.size() * one.legs; for (;;) pause(); return most; } }
"#,
    ),
];

/// Verbs and their arguments behind the checkpoint.
type Questions = [&'static [&'static str]];

const OF_C: [&[&str]; 9] = [
    &["bt"],
    &["locals"],
    &["locals", "--frame", "main"],
    &["print", "*head->next"],
    &["print", "frame(work).squares"],
    &["print", "work.c::hidden"],
    &["print", "own"],
    &["print", "mood"],
    &["print", "*(struct node*)&b"],
];

const OF_CPP: [&[&str]; 5] = [
    &["bt"],
    &["locals", "--frame", "main"],
    &["locals", "--frame", "feed"],
    &["print", "zoo::fed"],
    &["print", "frame(main).byNumber[7]"],
];

/// A way to keep debug information: the compiler's flags, and commands after it.
type Way = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PLAIN_4: Way = ("plain", &["-gdwarf-4"], &[]);
const PLAIN_5: Way = ("plain", &["-gdwarf-5"], &[]);
const SPLIT_4: Way = ("split", &["-gdwarf-4", "-gsplit-dwarf"], &[]);
const SPLIT_5: Way = ("split", &["-gdwarf-5", "-gsplit-dwarf"], &[]);
const DWP_4: Way = (
    "packaged",
    &["-gdwarf-4", "-gsplit-dwarf"],
    &["dwp -e prog -o prog.dwp", "rm main.dwo work.dwo"],
);
const DWP_5: Way = (
    "packaged",
    &["-gdwarf-5", "-gsplit-dwarf"],
    &["llvm-dwp -e prog -o prog.dwp", "rm main.dwo work.dwo"],
);
const DWZ: Way = (
    "shared",
    &["-gdwarf-5"],
    &[
        "cp prog twin",
        "cp prog third",
        "dwz -m common prog twin third",
    ],
);

fn build(folder: &Path, compiler: &str, sources: &[(&str, &str)], way: &Way) -> PathBuf {
    let (_, flags, after) = way;
    fs::create_dir_all(folder).unwrap();
    let run = |command: &mut Command| {
        let out = command.current_dir(folder).output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{command:?}: {told}");
    };
    for (name, text) in sources {
        fs::write(folder.join(name), text).unwrap();
        run(Command::new(compiler)
            .args(*flags)
            .args(["-O0", "-c", name]));
    }
    let objects = sources
        .iter()
        .map(|(name, _)| Path::new(name).with_extension("o"));
    run(Command::new(compiler).args(objects).args(["-o", "prog"]));
    for line in *after {
        let mut words = line.split(' ');
        run(Command::new(words.next().unwrap()).args(words));
    }
    folder.join("prog")
}

/// Runs it and takes one checkpoint of it into partition `part`.
fn taken(sls: &Sls, part: &str, program: &Path) -> Target {
    let target = Target::ready(program.parent().unwrap(), sls.program(program));
    // Until it waits.
    std::thread::sleep(std::time::Duration::from_millis(100));
    sls.run(&["attach", "-p", &target.p(), "-o", part]);
    sls.run(&["checkpoint", "-o", part, "-n", "here"]);
    target
}

fn answers(sls: &Sls, part: &str, questions: &Questions) -> Vec<Value> {
    let ask = |of: &&[&str]| {
        let (verb, rest) = of.split_first().unwrap();
        let mut told = sls.json(&[&[*verb, "-o", part, "@here"], rest].concat());
        without_addresses(&mut told);
        told
    };
    questions.iter().map(ask).collect()
}

/// Where things are, who and when they are differs from run to run.
fn without_addresses(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match key.as_str() {
                    "pc" | "address" | "cfa" | "tid" | "epoch" => *value = Value::Null,
                    "file" => {
                        *value = json!(value.as_str().and_then(|file| file.rsplit('/').next()))
                    }
                    _ => without_addresses(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_addresses),
        Value::String(text) => {
            let mut parts = text.split("0x");
            let first = parts.next().unwrap_or_default().to_owned();
            let behind = |part: &str| {
                part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
                    .to_owned()
            };
            *text = parts.fold(first, |all, part| all + "0x" + &behind(part));
        }
        _ => {}
    }
}

fn compare(compiler: &str, sources: &[(&str, &str)], questions: &Questions, ways: &[Way]) {
    let sls = Sls::new();
    let mut plain: Option<Vec<Value>> = None;
    for (number, way) in ways.iter().enumerate() {
        let folder = sls.folder().join(format!("{number}"));
        let program = build(&folder, compiler, sources, way);
        let mut target = taken(&sls, &format!("p{number}"), &program);
        let told = answers(&sls, &format!("p{number}"), questions);
        end_all(&mut target, &sls.pids());
        let Some(plain) = &plain else {
            let frames = told[0]["threads"][0]["frames"].as_array().unwrap();
            assert!(
                frames.iter().any(|frame| frame["function"] == "main"),
                "{told:?}"
            );
            plain = Some(told);
            continue;
        };
        for ((one, other), question) in plain.iter().zip(&told).zip(questions) {
            assert_eq!(one, other, "{compiler} {way:?}: {question:?}");
        }
    }
}

#[test]
fn split_and_shared_debug_information_answers_alike() {
    compare("gcc", &C, &OF_C, &[PLAIN_4, SPLIT_4, DWP_4]);
    compare("gcc", &C, &OF_C, &[PLAIN_5, SPLIT_5, DWZ]);
    compare("clang", &C, &OF_C, &[PLAIN_5, DWP_5]);
    compare("g++", &CPP, &OF_CPP, &[PLAIN_5, SPLIT_5, DWZ]);
}

/// A file that is missing, or of another build, is told by name, and the rest answers; a bundle brings all of them along.
#[test]
fn missing_files_are_named_and_bundles_have_them() {
    let sls = Sls::new();
    let folder = sls.folder().join("split");
    let program = build(&folder, "gcc", &C, &SPLIT_5);
    let mut target = taken(&sls, "split", &program);
    let before = answers(&sls, "split", &OF_C);
    let bundle = sls.folder().join("split.sls");
    let told = sls.json(&["export", "-o", "split", "--to", bundle.to_str().unwrap()]);
    assert_eq!(told["left_out"], json!([]));

    let work = folder.join("work.dwo");
    let kept = fs::read(&work).unwrap();
    fs::remove_file(&work).unwrap();
    let refused = |why: &str| {
        let out = sls.try_run(&["locals", "-o", "split", "@here", "--frame", "1"]);
        assert!(
            out.code == 1 && out.stderr.contains(why),
            "{}{}",
            out.stdout,
            out.stderr
        );
    };
    refused("work.dwo is not there");
    let head = sls.json(&["print", "-o", "split", "@here", "head->next->key"]);
    assert_eq!(head["value"], 2);
    let out = sls.try_run(&["bt", "-o", "split", "@here"]);
    assert!(
        out.code == 0 && out.stderr.contains("work.dwo is not there"),
        "{}",
        out.stderr
    );
    assert!(
        out.stdout.contains("work (") && out.stdout.contains("work.c:"),
        "{}",
        out.stdout
    );
    let other = build(
        &sls.folder().join("other"),
        "gcc",
        &[C[0], ("work.c", C[1].1)],
        &SPLIT_4,
    );
    fs::copy(other.with_file_name("work.dwo"), &work).unwrap();
    refused("work.dwo is of another build");
    fs::write(&work, &kept[..kept.len() / 2]).unwrap();
    refused("work.dwo is damaged");
    fs::write(&work, &kept).unwrap();
    assert_eq!(answers(&sls, "split", &OF_C), before);

    end_all(&mut target, &sls.pids());
    fs::remove_dir_all(&folder).unwrap();
    let other = Sls::new();
    other.run(&["import", bundle.to_str().unwrap(), "-o", "moved"]);
    assert_eq!(answers(&other, "moved", &OF_C), before);
}
