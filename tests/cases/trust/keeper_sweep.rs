//! The keeper killed with -9 after its n-th system call, for every n: the target did not notice, or
//! stood halted until the next keeper put it right. Never mixed, never deaf, nothing left behind.

use std::process::{Child, Stdio};
use std::time::Duration;

use sls_sys::ptrace::{self, Waited, Why, option};
use testkit::{Dice, Row, Sls, Target, children, field, kill, rounds_of, seed, wait_until};

/// A step of the sweep in `./x test`; in `./x soak` it is 1.
const STRIDE: u64 = 17;
/// Rewinds look for a scratch area from 64 GiB on; no program of ours lies below this.
const SCRATCH_BELOW: u64 = 1 << 40;

fn keeper(sls: &Sls) -> i32 {
    let is_keeper = |pid: &i32| field(*pid, "Name:") == "sls-keeper";
    let found = children(sls.daemon()).into_iter().filter(is_keeper).max();
    found.expect("an attached process has a keeper")
}

/// What a target must still have and must not have.
struct Before {
    descriptors: usize,
    blocked: Vec<String>,
}

impl Before {
    fn of(target: &Target) -> Self {
        Self {
            descriptors: descriptors(target),
            blocked: blocked(target),
        }
    }

    fn assert_still(&self, target: &mut Target, when: &str) {
        target.assert_unharmed();
        target.assert_goes_on();
        assert!(
            !target.output().contains("FAIL"),
            "{when}: {}",
            target.output()
        );
        assert_eq!(blocked(target), self.blocked, "{when}: signal masks");
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap();
        let first = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
        assert!(first > SCRATCH_BELOW, "{when}: a stray mapping\n{maps}");
        let descriptors = descriptors(target);
        assert!(
            descriptors <= self.descriptors,
            "{when}: {descriptors} descriptors"
        );
    }
}

fn descriptors(target: &Target) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", target.pid()));
    folder.unwrap().count()
}

fn blocked(target: &Target) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
    let tid = |task: std::fs::DirEntry| task.file_name().to_str().unwrap().parse().unwrap();
    let mut masks: Vec<String> = tasks.map(|t| field(tid(t.unwrap()), "SigBlk:")).collect();
    masks.sort();
    masks
}

/// Kills `pid` after its `n`-th system call from here. False: `act` was over before.
fn kill_after(pid: i32, n: u64, act: impl FnOnce() -> Child) -> bool {
    ptrace::seize(pid, option::SYSGOOD).unwrap();
    ptrace::interrupt(pid).unwrap();
    let Some(Waited::Stopped(stopped)) = ptrace::wait(pid, true).unwrap() else {
        panic!("the keeper has ended by itself");
    };
    let mut child = act();
    stopped.syscall().unwrap();
    let mut stops = 0;
    loop {
        match ptrace::wait(pid, false).unwrap() {
            Some(Waited::Stopped(stopped)) => {
                stops += u64::from(stopped.why() == Why::Syscall);
                if stops == 2 * n {
                    kill(pid, 9);
                    // Its parent hears of it once we have.
                    while !matches!(ptrace::wait(pid, true).unwrap(), Some(Waited::Ended(..))) {}
                    child.wait().unwrap();
                    return true;
                }
                let signal = match stopped.why() {
                    Why::Signal(signal) => signal,
                    _ => 0,
                };
                stopped.syscall_with(signal).unwrap();
            }
            Some(Waited::Ended(..)) => panic!("the keeper has ended by itself"),
            None if child.try_wait().unwrap().is_some() => {
                ptrace::interrupt(pid).unwrap();
                // Any stop will do: the first one takes the interrupt's place.
                match ptrace::wait(pid, true).unwrap() {
                    Some(Waited::Stopped(stopped)) => stopped.detach(0).unwrap(),
                    _ => panic!("the keeper has ended by itself"),
                }
                return false;
            }
            None => std::thread::yield_now(),
        }
    }
}

fn sweep(campaign: &str, command: impl Fn(&Sls) -> Vec<String>) {
    let sls = Sls::new();
    let mut row = Row {
        campaign: campaign.to_owned(),
        seed: seed(11),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let mut target = Target::tracee(sls.folder(), "invariants", &[]);
    let before = Before::of(&target);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let stride = rounds_of(STRIDE, 1);
    let mut n = 1 + dice.below(stride);
    loop {
        let arguments = command(&sls);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let act = || {
            let mut command = sls.command(&arguments);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        if !kill_after(keeper(&sls), n, act) {
            break;
        }
        row.tries += 1;
        before.assert_still(&mut target, &format!("{campaign}, after call {n}"));
        // Another one has taken its place, or does now.
        sls.run(&["checkpoint", "-m"]);
        wait_until(Duration::from_secs(5), "another keeper", || {
            children(sls.daemon())
                .iter()
                .any(|&pid| field(pid, "Name:") == "sls-keeper")
        });
        n += 1 + dice.below(2 * stride - 1);
    }
    assert!(row.tries > 3, "only {} calls were reached", row.tries);
    sls.run(&["detach", "-p", &target.p()]);
    before.assert_still(&mut target, campaign);
    row.unharmed = row.tries;
    row.note = format!("up to its {n}th call");
    row.report();
}

#[test]
fn in_a_checkpoint() {
    sweep("keeper killed in a checkpoint", |_| {
        vec!["checkpoint".to_owned(), "-m".to_owned()]
    });
}

#[test]
fn in_a_rewind() {
    sweep("keeper killed in a rewind", |sls| {
        let epoch = sls.json(&["checkpoint", "-m"])["epoch"].clone();
        std::thread::sleep(Duration::from_millis(5));
        vec!["rewind".to_owned(), "-m".to_owned(), format!("@{epoch}")]
    });
}
