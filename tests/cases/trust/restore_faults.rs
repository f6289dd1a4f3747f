//! Each step of a restore fails once, as if the kernel had refused it: nothing stays behind, and the
//! error names the step and the process. Where a step may fail it is named in `not_restored`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::{
    Again, Dice, Output, Row, Sls, Target, children, comes, end_all, is_gone, rounds_of, seed,
    wait_gone, wait_until, where_it_is,
};

const SOON: Duration = Duration::from_secs(20);
/// The init of a PID namespace, as faults know it.
const INIT: i32 = 1;
/// After so many failures a restore is left undisturbed.
const BETWEEN: u64 = 8;

/// Threads, pipes, sockets, a timer, memory of several kinds, looked at again and again.
const ONE: &str = "
import os, socket, signal, threading, time, mmap, select
r, w = os.pipe(); os.write(w, b'held')
a, b = socket.socketpair(); a.send(b'waits')
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(3)
u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0))
m = mmap.mmap(-1, 1 << 20); m[0:4] = b'mark'
d = os.memfd_create('both'); os.ftruncate(d, 8192); md = mmap.mmap(d, 8192); md[0:4] = b'also'
e = os.eventfd(3); p = select.epoll(); p.register(r, select.EPOLLIN)
f = open('data', 'w+'); f.write('0123456789'); f.flush(); f.seek(3)
rang = []
signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
log = open('ticks', 'a', buffering=1)
counts = [0, 0]
def work(at):
    while True: counts[at] += 1; time.sleep(0.005)
for at in (0, 1): threading.Thread(target=work, args=(at,), daemon=True).start()
print('ready', flush=True)
while True:
    then = counts[:], len(rang)
    time.sleep(0.03)
    whole = (os.read(r, 9) == b'held' and os.write(w, b'held') and b.recv(9) == b'waits'
        and a.send(b'waits') and m[0:4] == b'mark' and md[0:4] == b'also'
        and os.pread(d, 4, 0) == b'also' and p.poll(0) and f.tell() == 3
        and os.eventfd_read(e) == 3 and os.eventfd_write(e, 3) is None
        and l.getsockname()[1] > 0 and u.getsockname()[1] > 0)
    until = time.time() + 9
    while time.time() < until and (min(counts) <= max(then[0]) - 99 or len(rang) <= then[1]): time.sleep(0.005)
    log.write('tick\\n' if whole and len(rang) > then[1] else 'WRONG\\n')
";

/// Three that pass a byte round through pipes that all have, with a file and memory of all.
const TREE: &str = "
import os, mmap, time
m = mmap.mmap(-1, 4096); f = open('data', 'w+'); f.write('0123456789'); f.flush(); f.seek(4)
pipes = [os.pipe() for _ in range(3)]
log = open('ticks', 'a', buffering=1)
me = 0
for child in (1, 2):
    if os.fork() == 0: me = child; break
if me == 0: os.write(pipes[0][1], b'x'); print('ready', flush=True)
while True:
    got = os.read(pipes[me][0], 9)
    whole = got == b'x' and f.tell() == 4 and m[0] == me
    m[0] = (me + 1) % 3
    if me == 0: log.write('tick\\n' if whole else 'WRONG\\n')
    time.sleep(0.002)
    os.write(pipes[(me + 1) % 3][1], got)
";

/// A program in a partition, with a checkpoint named `whole`, that has been killed.
struct Made {
    sls: Sls,
    pids: Vec<i32>,
    /// More that is asked of a restore.
    how: &'static [&'static str],
}

impl Made {
    fn of(program: &str, how: &'static [&'static str]) -> Self {
        let sls = Sls::new();
        let mut target = Target::python(sls.folder(), program);
        sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
        sls.run(&["checkpoint", "-m", "-n", "whole"]);
        let pids = sls.pids();
        end_all(&mut target, &pids);
        Self { sls, pids, how }
    }

    fn ticks(&self) -> String {
        fs::read_to_string(self.sls.folder().join("ticks")).unwrap_or_default()
    }

    /// They run, and find all as it was.
    fn runs(&self, when: &str) {
        let before = self.ticks().lines().count();
        let goes = || self.ticks().lines().count() > before + 2;
        if !comes(SOON, goes) {
            let now: Vec<String> = self.pids.iter().map(|&pid| where_it_is(pid)).collect();
            let ticks = &self.ticks();
            panic!("not in {SOON:?}: {when}: {ticks:?}\n{}", now.join("\n"));
        }
        let ticks = self.ticks();
        assert!(!ticks.contains("WRONG"), "{when}: {ticks}");
    }

    /// A restore in which this step of this process fails, 0 for the daemon's; what it was, if it came
    /// to that.
    fn with_fault(&self, whose: i32, n: u64) -> (Option<String>, Output) {
        let asked = format!("{whose} {n}");
        fs::write(self.sls.fault(), &asked).unwrap();
        let restore = ["--json", "restore", "-m", "-d", "@whole"];
        let out = self.sls.try_run(&[&restore, self.how].concat());
        let said = fs::read_to_string(self.sls.fault()).unwrap();
        fs::remove_file(self.sls.fault()).unwrap();
        ((said != asked).then_some(said), out)
    }

    fn undisturbed(&self, when: &str) {
        let (again, told) = Again::made(&self.sls, &[&["@whole"], self.how].concat());
        assert_eq!(told["pids"].as_object().unwrap().len(), self.pids.len());
        self.runs(when);
        again.end();
    }

    /// It failed: no process, keeper or file is left, and the error says what it was.
    fn assert_nothing_left(&self, whose: i32, step: &str, out: &Output, files: &BTreeSet<PathBuf>) {
        let said = &out.stderr;
        assert_eq!(out.code, 1, "{step}: {out:?}");
        assert!(said.contains(step), "{step:?} is not in {said:?}");
        let named = |pid: &i32| said.contains(&format!("process {pid}"));
        let named = match whose {
            INIT => true, // Which is nobody's that the user knows.
            0 => self.pids.iter().any(named),
            pid => named(&pid),
        };
        assert!(named, "{step}: no process is in {said:?}");
        let left: Vec<&i32> = self.pids.iter().filter(|&&pid| !is_gone(pid)).collect();
        assert!(left.is_empty(), "{step}: {left:?} are there: {said}");
        let daemon = self.sls.daemon();
        let what = format!("{step}: its keepers leave");
        wait_until(SOON, &what, || children(daemon).is_empty());
        assert_eq!(&self.files(), files, "{step}");
    }

    /// Of the daemon in memory, and beside its socket.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::new();
        below(&self.sls.memory(), &mut all);
        below(&libsls::state_folder(&self.sls.socket()), &mut all);
        all
    }
}

fn below(folder: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        below(&path, all);
        all.insert(path);
    }
}

fn told_of(out: &Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap()
}

fn is_told(out: &Output, step: &str) -> bool {
    let told = told_of(out);
    let lines = told["not_restored"].as_array().unwrap().iter();
    lines.map(|l| l.as_str().unwrap()).any(|l| l.contains(step))
}

/// Every n-th step in `./x test`, in `./x soak` every one.
fn sweep(campaign: &str, program: &str, stride: u64, how: &'static [&'static str]) {
    let made = Made::of(program, how);
    let mut row = Row {
        campaign: campaign.to_owned(),
        about: "Each step of a restore fails once, as if the kernel had refused it: nothing stays behind and the error names the step and the process; or the step is named in not_restored, and all run".to_owned(),
        seed: seed(23),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let stride = rounds_of(stride, 1);
    let mut named = 0;
    let init: &[i32] = if how.contains(&"--pidns") {
        &[INIT]
    } else {
        &[]
    };
    for whose in [&[0], init, &made.pids[..]].concat() {
        let mut n = 1 + dice.below(stride);
        loop {
            let files = made.files();
            let (step, out) = made.with_fault(whose, n);
            let Some(step) = step else {
                assert_eq!(out.code, 0, "{out:?}");
                let again = Again::of(&told_of(&out));
                made.runs("beyond the last step");
                again.end();
                break;
            };
            row.tries += 1;
            if out.code == 0 {
                assert!(is_told(&out, &step), "{step} is not in {}", out.stdout);
                Again::of(&told_of(&out)).end();
                named += 1;
            } else {
                made.assert_nothing_left(whose, &step, &out, &files);
            }
            if row.tries.is_multiple_of(BETWEEN) {
                made.undisturbed(&format!("after {step} of {whose}"));
            }
            n += 1 + dice.below(2 * stride - 1);
        }
        assert!(n > 1, "no step of {whose} was reached");
    }
    made.undisturbed("at the end");
    wait_gone(&made.pids);
    row.unharmed = row.tries;
    row.note = format!("{named} were only named");
    row.report();
}

#[test]
fn of_one_process() {
    sweep("a step of a restore fails", ONE, 7, &[]);
}

#[test]
fn of_one_process_on_demand() {
    let campaign = "a step of a restore on demand fails";
    sweep(campaign, ONE, 43, &["--lazy"]);
}

#[test]
fn of_a_tree() {
    sweep("a step of a restore of a group fails", TREE, 251, &[]);
}

#[test]
fn of_a_tree_in_a_namespace() {
    let campaign = "a step of a restore into a PID namespace fails";
    sweep(campaign, TREE, 251, &["--pidns"]);
}
