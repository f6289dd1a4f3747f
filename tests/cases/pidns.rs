//! Processes in PID namespaces of their own: clones that are restored beside their originals, and
//! those that slsd looks at from outside.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{
    Again, Sls, Target, children, end_all, field, is_gone, kill, threads, wait_gone, wait_until,
};

const SOON: Duration = Duration::from_secs(20);

/// A process that needs its numbers: threads lock and signal each other by them, and /proc and its
/// children have them. What it finds goes into a file of its parent's number: 0 outside a namespace.
const ONE: &str = "
import os, signal, threading, time
me, tids, got = os.getpid(), {}, []
signal.signal(signal.SIGUSR1, lambda *_: got.append(threading.get_native_id()))
lock = threading.RLock()
def work(at):
    tids[at] = threading.get_native_id()
    while at == 1 or not os.path.exists('fewer'):
        with lock:
            if threading.get_native_id() != tids[at]: open('WRONG', 'w').write('tid')
        time.sleep(0.002)
for at in (1, 2): threading.Thread(target=work, args=(at,), daemon=True).start()
while len(tids) < 2: time.sleep(0.01)
n = 0
print('ready', flush=True)
while not os.path.exists('quit'):
    n += 1
    os.kill(me, signal.SIGUSR1); time.sleep(0.005)
    listed = {int(tid) for tid in os.listdir('/proc/self/task')}
    right = (os.getpid() == me == threading.get_native_id() and got.count(me) >= n - 1
        and int(os.readlink('/proc/self')) == me and me in listed and tids[1] in listed)
    open(f'ticks-{os.getppid()}', 'a').write('tick\\n' if right else f'WRONG {n} {got[-9:]} {listed} {tids}\\n')
os._exit(7)
";

/// A parent and two children that signal and reap by number, and pass a byte round.
const TREE: &str = "
import os, mmap, signal, time
m = mmap.mmap(-1, 4096); pipes = [os.pipe() for _ in range(3)]
ids, me = [os.getpid()], 0
for child in (1, 2):
    pid = os.fork()
    if pid == 0: me = child; break
    ids.append(pid)
if me == 1: os.setpgid(0, 0)
mine = os.getpid(), os.getpgid(0)
if me == 0: os.write(pipes[0][1], b'x'); print('ready', flush=True)
out = None
while True:
    got = os.read(pipes[me][0], 9)
    right = got == b'x' and m[0] == me and mine == (os.getpid(), os.getpgid(0) if me == 1 else mine[1])
    if me == 0:
        out = out or f'ticks-{os.getppid()}'
        for pid in ids: os.kill(pid, 0)
        right = right and os.path.exists(f'/proc/{ids[2]}/fd')
        if os.getppid() == 0 and os.path.exists('forks'):
            dead = os.fork()
            if dead == 0: os._exit(3)
            right = right and os.waitpid(dead, 0) == (dead, 768)
            os.unlink('forks')
        open(f'ticks-{os.getppid()}', 'a').write('tick\\n' if right else 'WRONG\\n')
        if os.path.exists('quit'):
            for pid in ids[1:]: os.kill(pid, signal.SIGTERM); os.waitpid(pid, 0)
            os._exit(9)
    elif not right: open('WRONG', 'w').write(str(me))
    elif me == 1 and os.getppid() != ids[0]: open('WRONG', 'w').write('parent')
    m[0] = (me + 1) % 3
    time.sleep(0.002)
    os.write(pipes[(me + 1) % 3][1], got)
";

/// A program that goes on beside what is restored of it.
struct Beside {
    sls: Sls,
    target: Target,
}

impl Beside {
    /// There is a checkpoint `whole` of it, and it is let go.
    fn of(program: &str) -> Self {
        let sls = Sls::new();
        let target = Target::python(sls.folder(), program);
        sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
        sls.run(&["checkpoint", "-m", "-n", "whole"]);
        sls.run(&["detach", "-o", "mem"]);
        Self { sls, target }
    }

    fn clones(&self) -> Again {
        let (again, told) = Again::made(&self.sls, &["@whole", "--pidns"]);
        let pids = told["pids"].as_object().unwrap();
        assert!(pids.contains_key(&self.target.p()), "{told}");
        assert!(
            pids.iter()
                .all(|(old, new)| old.parse() != Ok(new.as_i64().unwrap())),
            "{told}"
        );
        again
    }

    fn lines(&self, parent: i32) -> usize {
        assert!(!self.sls.folder().join("WRONG").exists(), "a WRONG file");
        let path = self.sls.folder().join(format!("ticks-{parent}"));
        let said = fs::read_to_string(path).unwrap_or_default();
        assert!(!said.contains("WRONG"), "{said}");
        said.lines().count()
    }

    /// Both run, and find all as it is to be.
    fn both_run(&mut self, what: &str) {
        let own = std::process::id().cast_signed();
        let before = (self.lines(own), self.lines(0));
        wait_until(SOON, what, || {
            self.lines(own) > before.0 + 3 && self.lines(0) > before.1 + 3
        });
        self.target.assert_unharmed();
    }

    fn init(&self) -> i32 {
        let is_init = |&pid: &i32| field(pid, "Name:") == "sls-init";
        children(self.sls.daemon())
            .into_iter()
            .find(is_init)
            .unwrap()
    }

    fn make(&self, file: &str) {
        fs::write(self.sls.folder().join(file), "").unwrap();
    }
}

fn inner(pid: i32) -> String {
    let numbers = field(pid, "NSpid:");
    numbers
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_clone_has_its_numbers_beside_the_original() {
    let mut beside = Beside::of(ONE);
    let sls = &beside.sls;
    let taken = "--pidns";
    sls.refused(&["restore", "-m", "@whole", "-d"], 1, taken);
    let again = beside.clones();
    let clone = again.0[0];
    assert_eq!(inner(clone), beside.target.p());
    beside.both_run("a clone runs beside it");
    // A thread of the clone ends, and is made again by a rewind.
    beside.sls.run(&["checkpoint", "-m", "-n", "three"]);
    let shown = beside
        .sls
        .json(&["threads", "-m", "@three", "--pid", &clone.to_string()]);
    let tid = |at: usize| shown["threads"][at]["tid"].to_string();
    assert_eq!(tid(0), beside.target.p(), "{shown}");
    beside.make("fewer");
    wait_until(SOON, "a thread ends", || threads(clone).len() == 2);
    fs::remove_file(beside.sls.folder().join("fewer")).unwrap();
    for at in ["@three", "@whole", "@three"] {
        let done = beside.sls.json(&["rewind", "-m", at]);
        assert!(
            !done["not_restored"].to_string().contains("thread"),
            "{done}"
        );
        let inside: Vec<String> = threads(clone).into_iter().map(inner).collect();
        assert_eq!(inside.len(), 3);
        assert!(
            (0..3).all(|i| inside.contains(&tid(i))),
            "{inside:?} {shown}"
        );
        beside.both_run("both run after a rewind");
    }
    // Without anything held, and attached again by the number it has outside.
    beside.sls.run(&["detach", "-o", "mem"]);
    beside.sls.run(&["attach", "-p", &clone.to_string(), "-m"]);
    beside.sls.run(&["rewind", "-m", "@whole"]);
    beside.both_run("both run after it was attached again");
    let init = beside.init();
    again.end();
    wait_gone(&[init]);
    beside.target.assert_unharmed();
}

#[test]
fn a_tree_goes_on_beside_the_original_and_its_status_is_passed_on() {
    let mut beside = Beside::of(TREE);
    let again = beside.clones();
    assert_eq!(again.0.len(), 3);
    beside.both_run("a tree runs beside it");
    beside.make("forks");
    let forks = beside.sls.folder().join("forks");
    wait_until(SOON, "it has a child more", || !forks.exists());
    beside.sls.run(&["checkpoint", "-m", "-n", "later"]);
    for at in ["@whole", "@later"] {
        beside.sls.run(&["rewind", "-m", at]);
        beside.both_run("both run after a rewind");
    }
    let init = beside.init();
    again.end();
    wait_gone(&[init]);
    let mut waiting = beside.sls.command(&["restore", "-m", "@later", "--pidns"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
    beside.both_run("it runs once more");
    let init = beside.init();
    beside.make("quit");
    assert_eq!(waiting.wait().unwrap().code(), Some(9));
    wait_gone(&[init]);
    beside.target.wait(SOON);
}

#[test]
fn the_init_of_a_clone_may_be_killed() {
    let mut beside = Beside::of(TREE);
    let mut waiting = beside.sls.command(&["restore", "-m", "@whole", "--pidns"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
    beside.both_run("it runs");
    let pids = beside.sls.pids();
    kill(beside.init(), 9);
    assert_eq!(waiting.wait().unwrap().code(), Some(128 + 9));
    wait_gone(&pids);
    // The history is as it was, and there for the next one.
    let again = beside.clones();
    beside.both_run("another runs");
    again.end();
}

#[test]
fn a_clone_needs_no_daemon() {
    let mut beside = Beside::of(TREE);
    let again = beside.clones();
    beside.both_run("it runs");
    beside.sls.run(&["checkpoint", "-m"]);
    let init = beside.init();
    beside.sls.kill_daemon();
    beside.both_run("it runs without slsd");
    let root = again.0[0].to_string();
    beside.sls.run(&["attach", "-p", &root, "-m", "-r"]);
    assert_eq!(beside.sls.pids().len(), 3);
    beside.sls.run(&["checkpoint", "-m", "-n", "now"]);
    beside.sls.run(&["rewind", "-m", "@whole"]);
    beside.both_run("it runs under another slsd");
    // Those that are left by the first one keep the namespace.
    let (first, rest) = (again.0[0], &again.0[1..]);
    beside.sls.run(&["detach", "-o", "mem"]);
    kill(first, 9);
    wait_gone(&[first]);
    assert!(!is_gone(init) && rest.iter().all(|&pid| !is_gone(pid)));
    rest.iter().for_each(|&pid| kill(pid, 9));
    wait_gone(&[init]);
    beside.target.assert_unharmed();
}

#[test]
fn one_of_a_container_is_known_by_its_own_numbers() {
    let sls = Sls::new();
    let mut command = Command::new("unshare");
    let shell = format!("python3 -c \"{ONE}\"; true");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.args(["sh", "-c", &shell]).current_dir(sls.folder());
    let maker = Target::ready(sls.folder(), command);
    let shell = children(maker.pid())[0];
    let pid = children(shell)[0];
    assert_eq!(inner(pid), "2");
    let p = pid.to_string();
    sls.run(&["attach", "-p", &p, "-m"]);
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    let main = sls.json(&["threads", "-m", "@whole", "--pid", &p]);
    assert_eq!(main["threads"][0]["tid"], 2, "{main}");
    fs::write(sls.folder().join("fewer"), "").unwrap();
    wait_until(SOON, "a thread ends", || threads(pid).len() == 2);
    fs::remove_file(sls.folder().join("fewer")).unwrap();
    let ticks = || {
        let said = fs::read_to_string(sls.folder().join("ticks-1")).unwrap_or_default();
        assert!(!said.contains("WRONG"), "{said}");
        said.lines().count()
    };
    sls.run(&["rewind", "-m", "@whole"]);
    let before = ticks();
    wait_until(SOON, "it goes on after a rewind", || ticks() > before + 3);
    assert_eq!(threads(pid).len(), 3);
    drop(maker);
    wait_gone(&[pid]);
    // Its number is one that is taken outside.
    let (again, told) = Again::made(&sls, &["@whole", "--pidns"]);
    assert!(told["pids"]["2"].is_i64(), "{told}");
    let path = sls.folder().join("ticks-0");
    wait_until(SOON, "it is restored", || {
        let said = fs::read_to_string(&path).unwrap_or_default();
        assert!(!said.contains("WRONG"), "{said}");
        said.lines().count() > 3
    });
    again.end();
}

#[test]
fn an_init_is_refused_by_name() {
    let sls = Sls::new();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    let program = "import time; print('ready', flush=True); time.sleep(999)";
    command
        .args(["python3", "-c", program])
        .current_dir(sls.folder());
    let maker = Target::ready(sls.folder(), command);
    let pid = children(maker.pid())[0];
    sls.run(&["attach", "-p", &pid.to_string(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    drop(maker);
    wait_gone(&[pid]);
    sls.refused(
        &["restore", "-m", "-d", "--pidns"],
        1,
        "process 1 is the init",
    );
}

/// Where plain users may make namespaces of users, as here.
#[test]
fn a_plain_user_has_clones_too() {
    for program in [ONE, TREE] {
        let sls = Sls::plain();
        let mut python = sls.program(Path::new("/usr/bin/python3"));
        python.args(["-c", program]).current_dir(sls.folder());
        let target = Target::ready(sls.folder(), python);
        // It is opened again by whoever is restored.
        let nobody = Some(65534);
        std::os::unix::fs::chown(sls.folder().join("python3.out"), nobody, nobody).unwrap();
        sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
        sls.run(&["checkpoint", "-m", "-n", "whole"]);
        sls.run(&["detach", "-o", "mem"]);
        let mut beside = Beside { sls, target };
        let again = beside.clones();
        beside.both_run("a clone of a plain user's runs");
        let who = |pid: i32| ["Uid:", "Gid:", "CapEff:"].map(|key| field(pid, key));
        assert_eq!(who(again.0[0]), who(beside.target.pid()));
        beside.sls.run(&["checkpoint", "-m"]);
        beside.sls.run(&["rewind", "-m", "@whole"]);
        beside.both_run("a clone of a plain user's was rewound");
        let init = beside.init();
        again.end();
        wait_gone(&[init]);
    }
}

/// A process without a parent among them has what it is given by slsd, whom it cannot name.
#[test]
fn what_is_inherited_is_had_in_a_namespace_too() {
    let sls = Sls::new();
    let program = "
import os, time
r, w = os.pipe(); os.dup2(w, 40)
print('ready', flush=True)
while True: os.write(40, b'x'); time.sleep(0.01); os.read(r, 99) if os.getppid() else None
";
    let target = Target::python(sls.folder(), program);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    sls.run(&["detach", "-o", "mem"]);
    let pipe = fs::read_link(format!("/proc/{}/fd/40", target.pid())).unwrap();
    let given = format!("fd[0]:{}", pipe.display());
    let (reader, writer) = std::io::pipe().unwrap();
    let mut restore = sls.command(&["--json", "restore", "-m", "-d", "--pidns", "--inherit-fd"]);
    let told = restore.arg(given).stdin(writer).output().unwrap();
    drop(restore);
    let again = Again::of(&serde_json::from_slice(&told.stdout).unwrap());
    let mut bytes = [0; 9];
    (&reader).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"xxxxxxxxx");
    again.end();
}

#[test]
fn a_terminal_is_had_in_a_namespace_too() {
    let sls = Sls::new();
    let program = "
import os, pty, time
pid, master = pty.fork()
if pid == 0:
    while True: print(os.tcgetpgrp(0) == os.getpgid(0), os.getpid(), flush=True); time.sleep(0.01)
print('ready', flush=True)
while True:
    said = os.read(master, 999).decode().splitlines()
    right = any(line == f'True {pid}' for line in said)
    if right: open(f'ticks-{os.getppid()}', 'a').write('tick\\n')
";
    let mut target = Target::python(sls.folder(), program);
    sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    let pids = sls.pids();
    end_all(&mut target, &pids); // Its terminal's number is free then.
    let (again, told) = Again::made(&sls, &["--pidns"]);
    assert!(!told["not_restored"].to_string().contains("pts"), "{told}");
    let path = sls.folder().join("ticks-0");
    wait_until(SOON, "it reads its terminal", || {
        fs::read_to_string(&path)
            .unwrap_or_default()
            .lines()
            .count()
            > 5
    });
    again.end();
}

/// What is on its way between two of them is drained and sent again by numbers that the keepers know.
#[test]
fn a_rewind_fills_streams_between_clones() {
    let program = "
import os, socket, time
a, b = socket.socketpair()
child = os.fork()
if child:
    a.send(b'waits'); print('ready', flush=True)
    os.waitpid(child, 0)
while not os.path.exists('read'): time.sleep(0.005)
said = b.recv(99)
open(f'read-{said.decode()}', 'a').write('once\\n')
while True: time.sleep(1)
";
    let sls = Sls::new();
    let mut target = Target::python(sls.folder(), program);
    sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    end_all(&mut target, &sls.pids());
    let (again, _) = Again::made(&sls, &["--pidns"]);
    sls.run(&["checkpoint", "-m", "-n", "again"]);
    let path = sls.folder().join("read-waits");
    let times = || {
        fs::read_to_string(&path)
            .unwrap_or_default()
            .lines()
            .count()
    };
    fs::write(sls.folder().join("read"), "").unwrap();
    for round in 1..4 {
        wait_until(SOON, "it is read", || times() == round);
        let done = sls.json(&["rewind", "-m", "@again"]);
        assert!(
            !done["not_restored"].to_string().contains("socket"),
            "{done}"
        );
    }
    again.end();
}
