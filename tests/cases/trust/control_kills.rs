//! slsd or the client killed with -9 at a random moment of a step, a run to a breakpoint or to a watchpoint:
//! the target goes on unharmed, nobody traces it, and its text is what the file has.

use std::process::Stdio;
use std::time::Duration;

use testkit::{Dice, Row, Sls, Target, comes, end, field, rounds_of, seed, threads, where_it_is};

use crate::control::{text_of, text_of_file};

/// Who is killed, by turns. A keeper is not: docs/limits.md has what becomes of who was stepped or meets a breakpoint then.
const VICTIMS: [&str; 2] = ["slsd", "the client"];
/// What is under way, after a pause or not.
const ACTS: [&[&str]; 8] = [
    &["step"],
    &["next"],
    &["step", "--insn"],
    &["finish"],
    &["continue"],
    &["break", "hot", "--if", "n == 1000000"],
    &["watch", "watched"],
    &["pause"],
];
const SOON: Duration = Duration::from_secs(10);

#[test]
fn while_it_is_controlled() {
    let tries = rounds_of(6, 300);
    let row = Row {
        campaign: "killed while a target is controlled".to_owned(),
        about: "slsd or the client is killed with -9 at a random moment of a step, or of a run to a breakpoint or a watchpoint, of nine threads that check themselves"
            .to_owned(),
        seed: seed(31),
        tries,
        unharmed: tries,
        ..Row::default()
    };
    let sls = Sls::new();
    let mut dice = Dice::new(row.seed);
    let text = text_of_file();
    let mut target = sls.tracee("controlled", &["hot"]);
    for (_, victim) in (0..tries).zip(VICTIMS.iter().cycle()) {
        attach(&sls, &target);
        let about = one_kill(&sls, &mut dice, victim);
        // What a user made to stand stays so, unless slsd went; a daemon that is new has nothing to let go of.
        let _ = sls.try_run(&["continue", "-d"]);
        // So does what was set: it goes with the partition.
        sls.run(&["partdel", "-o", "mem"]);
        is_free(&mut target, &text, &about);
    }
    assert!(!target.output().contains("FAIL"), "{}", target.output());
    row.report();
}

/// On a machine that is busy with other things the first checkpoint may not come to its turn in time.
fn attach(sls: &Sls, target: &Target) {
    let mut said = String::new();
    let attached = comes(SOON, || {
        let out = sls.try_run(&["attach", "-p", &target.p(), "-m", "-t", "20"]);
        said = out.stderr;
        out.code == 0
    });
    assert!(attached, "{said}");
}

/// Something is under way, somebody is killed: what, for the message of a failure.
fn one_kill(sls: &Sls, dice: &mut Dice, victim: &str) -> String {
    let is_met = dice.below(2) == 0;
    let (place, when) = if is_met {
        ("hot", "n % 7 == 3")
    } else {
        ("children", "1 == 1")
    };
    sls.run(&["break", place, "--if", when]);
    let stands = dice.below(4) != 0;
    if stands {
        // Refused where it does not stop within a second: then it runs, which is as good.
        let _ = sls.try_run(&["pause"]);
    }
    let daemon = sls.daemon();
    let act = ACTS[usize::try_from(dice.below(ACTS.len() as u64)).unwrap()];
    let mut command = sls.command(act);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = command.spawn().unwrap();
    let after = dice.below(20_000);
    std::thread::sleep(Duration::from_micros(after));
    match victim {
        "slsd" => end(daemon, 9),
        _ => client.kill().unwrap(),
    }
    // Refused because somebody went, or done before.
    client.wait().unwrap();
    format!(
        "{victim} is killed {after} us after the start of {act:?}; a breakpoint at {place}, stands: {stands}"
    )
}

/// It runs by itself, and as the file has it.
fn is_free(target: &mut Target, text: &[u8], about: &str) {
    let pid = target.pid();
    let free = comes(SOON, || {
        threads(pid).into_iter().all(is_untraced) && text_of(pid) == text
    });
    target.assert_alive();
    assert!(free, "{about}: {}", where_it_is(pid));
    let before = target.ticks();
    assert!(
        comes(SOON, || target.ticks() > before + 1),
        "{about}: {}",
        where_it_is(pid)
    );
}

/// One that has ended meanwhile is as good.
fn is_untraced(tid: i32) -> bool {
    let tracer = field(tid, "TracerPid:");
    (tracer.is_empty() || tracer == "0") && !field(tid, "State:").starts_with(['T', 't'])
}
