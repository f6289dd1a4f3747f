//! Processes made anew after their end: they go on where the checkpoint was.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::{Redis, Sls, Target, field, kill, threads, tracee, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A process that was restored; it is the daemon's child and ends with its test.
struct Again(i32);

impl Drop for Again {
    fn drop(&mut self) {
        // It may have ended by itself.
        let pid = nix::unistd::Pid::from_raw(self.0);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

impl Again {
    fn is_there(&self) -> bool {
        !matches!(
            field(self.0, "State:").chars().next(),
            None | Some('Z' | 'X')
        )
    }

    /// Dead, and known to be.
    fn end(self, sls: &Sls) {
        let pid = self.0;
        drop(self);
        wait_until(SOON, "its end is known", || {
            sls.json(&["ps"])["processes"][0]["state"] == "dead"
        });
        // `ps` tells of an end as soon as /proc does, which may be before slsd takes note of it.
        wait_until(SOON, "no zombie is left", || {
            field(pid, "State:").is_empty()
        });
    }
}

/// Killed and taken note of: its number is free.
fn killed(mut target: Target) -> i32 {
    let pid = target.pid();
    kill(pid, 9);
    target.wait(SOON);
    pid
}

fn restored(sls: &Sls, how: &[&str]) -> (Again, Value) {
    let told = sls.json(&[&["restore", "-m", "-d"], how].concat());
    let (old, new) = told["pids"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(*old, new.to_string());
    let pid = i32::try_from(new.as_i64().unwrap()).unwrap();
    (Again(pid), told)
}

fn number(sls: &Sls, at: &str, what: &str) -> i64 {
    let told = sls.json(&["print", "-m", at, what]);
    told["value"].as_i64().unwrap_or_else(|| panic!("{told}"))
}

fn python(folder: &Path, program: &str) -> Target {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", program]).current_dir(folder);
    Target::ready(folder, command)
}

#[test]
fn a_killed_program_goes_on_and_has_its_past() {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m", "-n", "first"]);
    std::thread::sleep(Duration::from_millis(100));
    sls.run(&["checkpoint", "-m"]);
    let then = number(&sls, "@2", "counter");
    killed(target);
    for round in 1..=3 {
        let (again, told) = restored(&sls, &["@2"]);
        assert_eq!(of_its_own(&told), [""; 0], "{told}");
        assert_eq!(
            number(&sls, "@-1", "counter"),
            then,
            "the newest of its branch"
        );
        assert_eq!(threads(again.0).len(), 4);
        assert_eq!(field(again.0, "TracerPid:"), "0");
        std::thread::sleep(Duration::from_millis(200));
        let now = sls.json(&["checkpoint", "-m"])["epoch"].clone();
        let now = format!("@{now}");
        assert!(number(&sls, &now, "counter") > then);
        for thread in 0..3 {
            let ticks = |at: &str| number(&sls, at, &format!("thread_ticks[{thread}]"));
            assert!(
                ticks(&now) > ticks("@2"),
                "thread {thread} of round {round}"
            );
        }
        // What it was before its death is its own past.
        let back = sls.json(&["rewind", "-m", "@first"]);
        assert_eq!(back["to"], 1);
        std::thread::sleep(Duration::from_millis(50));
        assert!(again.is_there());
        let history = sls.json(&["history", "-m"]);
        let of = |n: &str| {
            let rows = history["checkpoints"].as_array().unwrap();
            rows.iter().any(|row| row["branch"] == n)
        };
        assert!(of(&format!("restore-{round}")), "{history}");
        again.end(&sls);
    }
}

/// What was not restored, but for what the test gave it: its session, and descriptors that whoever
/// runs the tests leaves open.
fn of_its_own(told: &Value) -> Vec<&str> {
    let lines = told["not_restored"].as_array().unwrap();
    let given = |line: &&str| {
        let number = line
            .strip_prefix("descriptor ")
            .and_then(|l| l.split(' ').next());
        let inherited = number
            .and_then(|n| n.parse().ok())
            .is_some_and(|fd: i32| fd > 9);
        line.starts_with("session ") || inherited
    };
    let lines = lines.iter().map(|line| line.as_str().unwrap());
    lines.filter(|line| !given(line)).collect()
}

#[test]
fn its_exit_status_is_passed_on() {
    let sls = Sls::new();
    for (end, status) in [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", 128 + 9)] {
        let program = format!(
            "import os,time\nprint('ready',flush=True)\nfor i in range(8): time.sleep(0.1)\n{end}"
        );
        let target = python(sls.folder(), &program);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        sls.run(&["checkpoint", "-m"]);
        killed(target);
        let out = sls.try_run(&["restore", "-m"]);
        assert_eq!(out.code, status, "{out:?}");
        sls.run(&["partdel", "-m"]);
    }
}

/// Descriptors with offsets and what they share, a pipe with what it holds, signals blocked and
/// pending, a timer, a working directory: the program itself looks at them.
const STATE: &str = "
import os, signal, socket, time, select
f = open('data', 'w+'); f.write('0123456789'); f.flush(); f.seek(3)
same = os.dup(f.fileno()); other = os.open('data', os.O_RDONLY); os.lseek(other, 7, 0)
r, w = os.pipe(); os.write(w, b'hello')
e = os.eventfd(5)
p = select.epoll(); p.register(r, select.EPOLLIN, )
os.makedirs('deep/er', exist_ok=True); os.chdir('deep/er'); os.umask(0o27)
signal.signal(signal.SIGUSR1, lambda *_: None)
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
os.kill(os.getpid(), signal.SIGUSR2)
os.nice(3); os.sched_setaffinity(0, {1})
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (333, 444))
signal.setitimer(signal.ITIMER_REAL, 2.0)
open('/proc/self/oom_score_adj', 'w').write('77')
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
assert os.lseek(same, 0, 1) == 3 == f.tell(), 'offset'
assert os.lseek(other, 0, 1) == 7, 'an offset of its own'
os.lseek(same, 5, 0); assert os.lseek(f.fileno(), 0, 1) == 5, 'shared'
assert p.poll(0) == [(r, select.EPOLLIN)], 'epoll'
assert os.read(r, 9) == b'hello', 'pipe'
os.write(w, b'x'); assert os.read(r, 9) == b'x', 'pipe goes on'
assert os.eventfd_read(e) == 5, 'eventfd'
assert os.getcwd().endswith('deep/er'), 'cwd'
assert os.umask(0) == 0o27, 'umask'
assert signal.sigpending() == {signal.SIGUSR2}, 'pending'
assert signal.getsignal(signal.SIGUSR1) is not None
assert os.nice(0) == 3 and os.sched_getaffinity(0) == {1}, 'scheduling'
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (333, 444), 'limits'
assert open('/proc/self/oom_score_adj').read().strip() == '77', 'oom'
assert open('/proc/self/comm').read().startswith('python3'), 'comm'
assert b'while not os.path' in open('/proc/self/cmdline', 'rb').read(), 'arguments'
assert 'python3' in os.readlink('/proc/self/exe'), 'exe'
until = time.time() + 5
while not seen and time.time() < until: time.sleep(0.01)
assert seen, 'timer'
print('whole', flush=True)
os._exit(0)
";

#[test]
fn its_state_is_whole() {
    for how in [&[][..], &["--pidns"]] {
        let sls = Sls::new();
        let target = python(sls.folder(), STATE);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        sls.run(&["checkpoint", "-m"]);
        let output = sls.folder().join("python3.out");
        killed(target);
        fs::write(sls.folder().join("deep/er/go"), "").unwrap();
        let out = sls.try_run(&[&["restore", "-m"], how].concat());
        let said = fs::read_to_string(output).unwrap();
        assert!(out.code == 0 && said.contains("whole"), "{out:?}\n{said}");
    }
}

/// It listens where it did, and has its data.
#[test]
fn redis_answers_again() {
    let sls = Sls::new();
    let mut redis = Redis::start(sls.folder());
    let (pid, port) = (redis.pid(), redis.port());
    let ask = |words: &[&str]| {
        let mut command = Command::new("redis-cli");
        let out = command.args(["-p", &port.to_string()]).args(words).output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    ask(&["set", "a", "before"]);
    sls.run(&["attach", "-p", &pid.to_string(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    ask(&["set", "a", "after"]);
    kill(pid, 9);
    redis.wait(SOON);
    for _ in 0..3 {
        let (again, told) = restored(&sls, &["@1"]);
        assert_eq!(of_its_own(&told), [""; 0], "{told}");
        wait_until(SOON, "it answers", || ask(&["get", "a"]) == "before\n");
        ask(&["set", "a", "again"]);
        assert_eq!(ask(&["get", "a"]), "again\n");
        again.end(&sls);
    }
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    sls.refused(&["restore", "-m", "@1"], 1, "Address already in use");
    assert_eq!(field(pid, "State:"), "", "something of it is left");
    drop(taken);
}

#[test]
fn it_stands_still_where_it_is_told_to() {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    killed(target);
    let (again, _) = restored(&sls, &["-s"]);
    wait_until(SOON, "it is stopped", || {
        field(again.0, "State:").starts_with('T')
    });
    let then = number(&sls, "@1", "counter");
    sls.run(&["checkpoint", "-m"]);
    assert_eq!(number(&sls, "@-1", "counter"), then);
    sls.run(&["resume", "-m"]);
    std::thread::sleep(Duration::from_millis(100));
    sls.run(&["checkpoint", "-m"]);
    assert!(number(&sls, "@-1", "counter") > then);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let sls = Sls::new();
    // A program of its own, so that it can be changed under it.
    let program = sls.folder().join("ticker");
    fs::copy(tracee("ticker"), &program).unwrap();
    let mut target = Target::ready(sls.folder(), Command::new(&program));
    let pid = target.pid();
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    sls.refused(&["restore", "-m"], 1, "is alive: `slsctl rewind");
    target.assert_unharmed();
    kill(pid, 9);
    wait_until(SOON, "a zombie", || field(pid, "State:").starts_with('Z'));
    sls.refused(&["restore", "-m"], 1, "has not taken note of it");
    target.wait(SOON);
    fs::write(&program, fs::read(&program).unwrap()).unwrap();
    sls.refused(&["restore", "-m"], 1, "has been changed since");
    assert_eq!(field(pid, "State:"), "", "something of it is left");
    let (again, told) = restored(&sls, &["--force"]);
    assert!(told["not_restored"].to_string().contains("changed since"));
    again.end(&sls);
    fs::remove_file(&program).unwrap();
    sls.refused(&["restore", "-m", "--force"], 1, "nothing of it is left");
    assert_eq!(field(pid, "State:"), "", "something of it is left");
    sls.refused(&["restore", "-m", "@99"], 1, "@99");
}

/// Each thread has its own credentials as far as the kernel is concerned.
#[test]
fn a_plain_users_process_keeps_its_credentials() {
    let sls = Sls::new();
    let program = sls.folder().join("ticker");
    fs::copy(tracee("ticker"), &program).unwrap();
    std::os::unix::fs::chown(sls.folder(), Some(65534), None).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid", "65534", "--regid", "65534", "--groups", "100,101",
    ]);
    command.args([
        "--inh-caps",
        "-all",
        "--bounding-set",
        "-sys_time",
        "--no-new-privs",
    ]);
    let target = Target::ready(sls.folder(), {
        command.arg(&program);
        command
    });
    let keys = [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "NoNewPrivs:",
    ];
    let who = |pid: i32| {
        let of = |tid: i32| keys.map(|key| field(tid, key));
        threads(pid).into_iter().map(of).collect::<Vec<_>>()
    };
    let before = who(target.pid());
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    killed(target);
    let (again, _) = restored(&sls, &[]);
    assert_eq!(who(again.0), before);
    assert!(before[0][0].starts_with("65534"));
    again.end(&sls);
}

/// Whoever may not choose a process's number is told so.
#[test]
fn a_plain_user_is_told() {
    let sls = Sls::plain();
    let target = sls.tracee("ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    killed(target);
    sls.refused(&["restore", "-m"], 1, "only root");
}

/// A pipe whose other end somebody else still has is the same pipe.
#[test]
fn a_pipe_to_a_neighbour_goes_on() {
    let sls = Sls::new();
    let fifo = "import os,subprocess,time
r, w = os.pipe()
cat = subprocess.Popen(['cat'], stdin=r, stdout=open('cat.out', 'w'))
os.close(r)
print('ready', flush=True)
while True: os.write(w, b'tick '); time.sleep(0.02)";
    let target = python(sls.folder(), fifo);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let said = || fs::read(sls.folder().join("cat.out")).unwrap().len();
    sls.run(&["checkpoint", "-m"]);
    let cat = testkit::children(target.pid())[0];
    // Held open, so that it does not end with its writer.
    let other = fs::File::options()
        .write(true)
        .open(format!(
            "/proc/{}/fd/{}",
            target.pid(),
            pipe_of(target.pid())
        ))
        .unwrap();
    killed(target);
    let before = said();
    let (_again, told) = restored(&sls, &[]);
    assert_eq!(of_its_own(&told), [""; 0], "{told}");
    drop(other);
    wait_until(SOON, "it writes on", || said() > before);
    kill(cat, 15);
}

/// The descriptor of its only pipe.
fn pipe_of(pid: i32) -> String {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let is_pipe = |link: &fs::DirEntry| {
        let to = fs::read_link(link.path()).unwrap();
        let inherited = link.file_name().to_str().unwrap().parse::<i32>().unwrap() > 50;
        to.to_string_lossy().starts_with("pipe:") && !inherited
    };
    let found = links.into_iter().find(is_pipe).unwrap();
    found.file_name().to_string_lossy().into_owned()
}
