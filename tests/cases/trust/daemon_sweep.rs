//! slsd killed with -9 after its n-th system call, for every n: its keeper sees to it that the target
//! did not notice.

use std::time::Duration;

use testkit::{Dice, Row, Sls, Target, rounds_of, seed};

use super::fallback::named;
use super::sweep::{Before, Prey, client, kill_after};

/// A step of the sweep in `./x test`; in `./x soak` it is 1.
const STRIDE: u64 = 13;

/// What is being done when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Attach,
    Checkpoint,
    Rewind,
}

fn sweep(without: &str, stride: u64, act: Act) {
    let sls = Sls::without(without);
    let campaign = &named(
        match act {
            Act::Attach => "slsd killed in an attach",
            Act::Checkpoint => "slsd killed in a checkpoint",
            Act::Rewind => "slsd killed in a rewind",
        },
        without,
    );
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: "slsd is killed with -9 after each of its system calls in turn: the program does not notice, and the next slsd goes on".to_owned(),
        seed: seed(13),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut target = sls.tracee("invariants", &[]);
    let before = Before::of(&target);
    sls.run(&["partadd", "memory", "-o", "mem", "--keep", "last:8"]);
    let stride = rounds_of(stride, 1);
    let mut n = 1 + dice.below(stride);
    loop {
        let arguments = prepare(&sls, &target, act);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let prey = Prey::Process(sls.daemon());
        if !kill_after(prey, n, &[], || client(&sls, &arguments)) {
            break;
        }
        row.tries += 1;
        let when = format!("{campaign}, after call {n}");
        before.assert_still(&mut target, 1, &when);
        // A client whose daemon goes asks the next one.
        let _ = sls.try_run(&["detach", "-p", &target.p()]);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        sls.run(&["detach", "-p", &target.p()]);
        before.assert_still(&mut target, 0, &when);
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 1, "only {} calls were reached", row.tries);
    let _ = sls.try_run(&["detach", "-p", &target.p()]);
    before.assert_still(&mut target, 0, campaign);
    row.unharmed = row.tries;
    row.note = format!("up to its call {n}");
    row.report();
}

/// What comes before, and the command that is disturbed.
fn prepare(sls: &Sls, target: &Target, act: Act) -> Vec<String> {
    let attach = ["attach", "-p", &target.p(), "-m"];
    if act == Act::Attach {
        return attach.map(ToOwned::to_owned).to_vec();
    }
    sls.run(&attach);
    if act == Act::Checkpoint {
        return ["checkpoint", "-m"].map(ToOwned::to_owned).to_vec();
    }
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].clone();
    std::thread::sleep(Duration::from_millis(5));
    vec!["rewind".to_owned(), "-m".to_owned(), format!("@{epoch}")]
}

#[test]
fn in_an_attach() {
    sweep("", STRIDE, Act::Attach);
}

#[test]
fn in_a_checkpoint() {
    sweep("", STRIDE, Act::Checkpoint);
}

#[test]
fn in_a_rewind() {
    sweep("", STRIDE, Act::Rewind);
}

/// Without something: one of them, or all in `./x soak`.
pub fn without(what: &str, stride: u64) {
    sweep(what, stride, Act::Rewind);
    if testkit::whole() {
        sweep(what, stride, Act::Attach);
        sweep(what, stride, Act::Checkpoint);
    }
}
