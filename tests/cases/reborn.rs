//! A rewind to before processes of the group have ended: they are made anew beside those that live.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use testkit::{Dice, Sls, Target, is_gone, kill, rounds_of, seed, threads, wait_until};

use crate::trees::taken;

const SOON: Duration = Duration::from_secs(20);

/// A parent that makes a child each round, which makes another: pipes both ways, one of which holds a
/// byte, memory, an open file and a thread, and how each ends.
const FAMILY: &str = "
import os, mmap, threading, time
m = mmap.mmap(-1, 4096)
f = open('data', 'w+'); f.write('0123456789'); f.flush(); f.seek(4)
log = open('ticks', 'a', buffering=1)
print('ready', flush=True)
rounds = 0
while True:
    down, up = os.pipe(), os.pipe()
    os.write(down[1], b'x')
    if os.fork() == 0:
        os.close(down[1]); os.close(up[0])
        r, w = os.pipe()
        if os.fork() == 0:
            os.close(r); os.close(up[1])
            mine = threading.local(); mine.n = 5
            time.sleep(0.02)
            while os.path.exists('hold'): time.sleep(0.02)
            os.write(w, b'grand'); os._exit(mine.n + 2)
        os.close(w)
        said = []
        t = threading.Thread(target=lambda: said.append(os.read(r, 99))); t.start(); t.join()
        status = os.waitstatus_to_exitcode(os.wait()[1])
        os.write(up[1], said[0] + b' %d ' % status + os.read(down[0], 9))
        m[0:4] = b'mark'; f.seek(6)
        os._exit(3)
    os.close(down[0]); os.close(up[1])
    told = os.read(up[0], 99)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    whole = told == b'grand 7 x' and status == 3 and m[0:4] == b'mark' and f.tell() == 6
    m[0:4] = b'    '; f.seek(4); os.close(down[1]); os.close(up[0])
    rounds += 1
    log.write('tick %d\\n' % rounds if whole else 'WRONG %d %r %r %r %d\\n' % (rounds, told, status, m[0:4], f.tell()))
";

struct Family {
    sls: Sls,
    _target: Target,
    ticks: PathBuf,
}

impl Family {
    fn attached() -> Self {
        let sls = Sls::new();
        let target = Target::python(sls.folder(), FAMILY);
        sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
        let ticks = sls.folder().join("ticks");
        Self {
            sls,
            _target: target,
            ticks,
        }
    }

    fn rounds(&self) -> Vec<String> {
        let said = fs::read_to_string(&self.ticks).unwrap_or_default();
        said.lines().map(ToOwned::to_owned).collect()
    }

    /// A checkpoint with all three, their numbers, and what they are about to say.
    fn whole(&self) -> (u64, Vec<i32>, String) {
        let hold = self.sls.folder().join("hold");
        fs::write(&hold, "").unwrap();
        let mut pids = Vec::new();
        wait_until(SOON, "all of them wait", || {
            self.sls.run(&["checkpoint", "-m"]);
            pids = self.sls.pids();
            pids.len() == 3 && threads(pids[1]).len() == 2
        });
        let next = format!("tick {}", self.rounds().len() + 1);
        let taken = self.sls.json(&["checkpoint", "-m"]);
        fs::remove_file(hold).unwrap();
        (taken["epoch"].as_u64().unwrap(), pids, next)
    }

    fn said(&self, line: &str) -> usize {
        self.rounds().iter().filter(|said| *said == line).count()
    }

    fn goes_on(&self, when: &str) {
        let before = self.rounds().len();
        let more = || self.rounds().len() > before + 1;
        wait_until(SOON, when, more);
        let rounds = self.rounds();
        assert!(
            !rounds.iter().any(|line| line.contains("WRONG")),
            "{when}: {rounds:?}"
        );
    }

    fn ends(&self, pids: &[i32]) {
        wait_until(SOON, "they end", || {
            pids[1..].iter().all(|&pid| is_gone(pid))
        });
    }
}

fn lines_of(done: &Value) -> Vec<String> {
    let lines = done["not_restored"].as_array().unwrap().iter();
    lines
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_family_is_whole_again() {
    let family = Family::attached();
    let sls = &family.sls;
    let (epoch, pids, next) = family.whole();
    for round in 1..4 {
        family.ends(&pids);
        family.goes_on("before");
        let done = sls.json(&["rewind", "-m", &format!("@{epoch}")]);
        let lines = lines_of(&done);
        assert_eq!(
            lines,
            [format!("content of {}", family.ticks.display())],
            "round {round}"
        );
        // It counts on from there.
        family.goes_on("afterwards");
        assert_eq!(family.said(&next), 1 + round);
    }
    // What they were is the past of those that are there again.
    sls.run(&["rewind", "-m", &format!("@{epoch}"), "-s"]);
    assert_eq!(sls.pids(), pids);
    let pid = pids[2].to_string();
    let taken = sls.json(&["checkpoint", "-m"])["epoch"].to_string();
    let stack = |epoch: &str| sls.json(&["bt", "-m", "--pid", &pid, "--all-threads", epoch]);
    let stacks = [format!("@{epoch}"), format!("@{taken}")].map(|at| stack(&at));
    assert_eq!(stacks[0]["threads"], stacks[1]["threads"]);
    sls.run(&["resume", "-m"]);
    sls.run(&["detach", "-m"]);
    family.goes_on("on its own");
}

/// The plan of each, and what its parent does for it: each step fails once, as if the kernel had
/// refused it. Every n-th in `./x test`, in `./x soak` each.
#[test]
fn each_step_fails_once() {
    let family = Family::attached();
    let sls = &family.sls;
    let (epoch, pids, _) = family.whole();
    let stride = rounds_of(100, 1);
    let mut dice = Dice::new(seed(29));
    let mut failed = 0;
    for &whose in &pids[1..] {
        let mut n = 1 + dice.below(stride);
        loop {
            family.ends(&pids);
            let asked = format!("{whose} {n}");
            fs::write(sls.fault(), &asked).unwrap();
            let out = sls.try_run(&["rewind", "-m", &format!("@{epoch}")]);
            let step = fs::read_to_string(sls.fault()).unwrap();
            fs::remove_file(sls.fault()).unwrap();
            let when = format!("{whose}, step {n}: {step}: {out:?}");
            if out.code == 0 {
                // Beyond the last one, or it is one that may fail.
                assert!(step == asked || out.stdout.contains(&step), "{when}");
                if step == asked {
                    break;
                }
            } else {
                failed += 1;
                assert!(out.stderr.contains("the present was put back"), "{when}");
                assert!(out.stderr.contains(&step), "{when}");
                family.ends(&pids); // Of the last of them init takes note.
            }
            family.goes_on(&when);
            n += 1 + dice.below(2 * stride - 1);
        }
    }
    assert!(failed > 2, "{failed}");
    sls.run(&["detach", "-m"]);
    family.goes_on("on its own");
}

#[test]
fn what_cannot_be_made_again_is_refused_by_name() {
    let family = Family::attached();
    let sls = &family.sls;
    let (epoch, pids, _) = family.whole();
    let at = format!("@{epoch}");
    family.ends(&pids);
    let other = taken(pids[2]);
    sls.refused(&["rewind", "-m", &at], 1, "is the number of");
    family.goes_on("with its number taken");
    kill(other, 9);
    wait_until(SOON, "its number is free", || is_gone(other));
    sls.run(&["pause", "-m"]);
    sls.refused(&["rewind", "-m", &at], 1, "slsctl continue -d");
    sls.run(&["continue", "-m", "-d"]);
    sls.run(&["rewind", "-m", &at]);
    family.goes_on("afterwards");
}

/// Nobody but root has a child under a number of choice.
#[test]
fn a_parent_that_is_not_roots_is_named() {
    let sls = Sls::new();
    let mut command = std::process::Command::new("setpriv");
    let script = "sleep 0.6; echo ready; while :; do sleep 1; done";
    command.args(["--reuid", "65534", "--clear-groups", "bash", "-c", script]);
    let shell = Target::ready(sls.folder(), command);
    sls.run(&["attach", "-p", &shell.p(), "-m", "-r"]);
    let child = loop {
        sls.run(&["checkpoint", "-m", "-n", "both"]);
        if let [_, child] = sls.pids()[..] {
            break child;
        }
    };
    wait_until(SOON, "it ends", || is_gone(child));
    let says = "may not have a child under a number of choice";
    sls.refused(&["rewind", "-m", "@both"], 1, says);
    sls.run(&["detach", "-m"]);
}
