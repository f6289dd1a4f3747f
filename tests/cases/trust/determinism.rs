//! A program that always comes to the same result does so from any of its moments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Dice, Row, Sls, Target, kill, rounds_of, seed, tracee, wait_until};

use super::fallback::named;
use crate::campaign::epochs;

/// A run takes about a second, and several times that under a checkpoint each millisecond.
const PATIENCE: Duration = Duration::from_secs(60);

const PYTHON: &str = r#"
import os, random, sys
out = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o600)
chance = random.Random(7)
words, seen = {}, []
for turn in range(int(sys.argv[2])):
    for _ in range(300):
        word = "".join(chance.choice("abcdefg") for _ in range(3))
        words[word] = words.get(word, 0) + chance.randrange(10)
        seen.append((chance.random(), word))
    seen = sorted(seen)[-2000:]
    total = sum(n * len(w) for w, n in words.items())
    os.write(out, f"{turn} {total} {seen[0]!r} {hash(tuple(sorted(words.values())))}\n".encode())
os.write(out, b"end\n")
import signal
while True:
    signal.pause()
"#;

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// What to run; its only argument is where the result goes.
type Program = fn(&Sls, &Path) -> Command;

fn c(sls: &Sls, out: &Path) -> Command {
    let mut command = sls.program(&tracee("seeded"));
    command.arg(out).arg("700");
    command
}

fn python(sls: &Sls, out: &Path) -> Command {
    let mut command = sls.program(Path::new("/usr/bin/python3"));
    command.args(["-c", PYTHON]).arg(out).arg("150");
    command.env("PYTHONHASHSEED", "0");
    command
}

fn start(sls: &Sls, name: &str, program: Program) -> (Target, PathBuf) {
    let folder = sls.subfolder(name);
    let out = folder.join("result");
    (Target::start(&folder, program(sls, &out)), out)
}

fn wait_for_the_end(target: &mut Target, out: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    wait_until(PATIENCE, "the program comes to its end", || {
        target.assert_alive();
        text = std::fs::read(out).unwrap_or_default();
        text.ends_with(b"\nend\n")
    });
    text
}

/// The file was emptied: what was written since the rewind follows a hole, and goes to the end.
fn is_the_rest_of(reference: &[u8], text: &[u8]) -> bool {
    let hole = text.iter().take_while(|&&byte| byte == 0).count();
    text.len() == reference.len() && text[hole..] == reference[hole..]
}

/// How much it had written by then; None: thinned since.
fn written(sls: &Sls, epoch: u64, out: &Path) -> Option<usize> {
    let fds = sls.try_run(&["--json", "fds", "-m", &format!("@{epoch}")]);
    let fds: serde_json::Value = serde_json::from_str(&fds.stdout).ok()?;
    let file = fds["fds"]
        .as_array()?
        .iter()
        .find(|f| f["target"] == out.to_str().unwrap());
    usize::try_from(file?["offset"].as_u64()?).ok()
}

fn comes_to_the_same(name: &str, program: Program, without: &str, short: u64) {
    let sls = Sls::without(without);
    let (mut alone, out) = start(&sls, "alone", program);
    let reference = wait_for_the_end(&mut alone, &out);
    let mut row = Row {
        campaign: named(&format!("determinism, {name}"), without),
        about: "a computation that always gives the same result is rewound to random checkpoints and let run to its end each time".into(),
        seed: seed(20),
        tries: rounds_of(short, 200),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    sls.run(&[
        "partadd", "memory", "-o", "mem", "--budget", "512M", "--keep", "log",
    ]);
    let (mut target, out) = start(&sls, "captured", program);
    // On a busy machine it would be at its end before anybody is attached.
    kill(target.pid(), SIGSTOP);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "1"]);
    kill(target.pid(), SIGCONT);
    assert!(
        wait_for_the_end(&mut target, &out) == reference,
        "the first run differs"
    );
    // Checkpoints of the program at work, by when it was: after the first number, up to the second.
    let mut working = vec![(0, *epochs(&sls).last().unwrap())];
    for _ in 0..row.tries {
        let at_work = |&e: &u64| working.iter().any(|&(after, to)| after < e && e <= to);
        let known: Vec<u64> = epochs(&sls).into_iter().filter(at_work).collect();
        // On a busy machine many are of the program when it had come to its end.
        let to = std::iter::repeat_with(|| dice.below(known.len() as u64))
            .map(|n| known[usize::try_from(n).unwrap()])
            .find(|&to| written(&sls, to, &out).is_some_and(|n| n < reference.len()))
            .unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&out)
            .unwrap()
            .set_len(0)
            .unwrap();
        let done = sls.try_run(&["--json", "rewind", "-m", &format!("@{to}")]);
        if done.stderr.contains("no checkpoint") {
            row.unharmed += 1; // Thinned since the list was read: nothing was done.
            std::fs::write(&out, &reference).unwrap();
            continue;
        }
        assert_eq!(done.code, 0, "@{to}: {}", done.stderr);
        let done: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let text = wait_for_the_end(&mut target, &out);
        working.push((
            done["from"].as_u64().unwrap(),
            *epochs(&sls).last().unwrap(),
        ));
        row.epochs += 1;
        if is_the_rest_of(&reference, &text) {
            row.unharmed += 1;
        } else {
            println!("WRONG from @{to} on: {}", String::from_utf8_lossy(&text));
            row.wrong += 1;
        }
    }
    assert!(row.epochs * 10 >= row.tries * 9, "{row:?}");
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
    row.harmed = row.tries - row.unharmed;
    row.report();
}

#[test]
fn of_a_c_program_with_two_threads() {
    comes_to_the_same("C", c, "", 20);
}

#[test]
fn of_a_python_program() {
    comes_to_the_same("Python", python, "", 20);
}

/// Without something: one of them, or both in `./x soak`.
pub fn without(what: &str) {
    comes_to_the_same("C", c, what, 3);
    if testkit::whole() {
        comes_to_the_same("Python", python, what, 3);
    }
}
