//! Several processes made anew together: what they shared they share again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use testkit::{
    Again, Ring, Sls, Target, children, end_all, field, is_gone, kill, wait_gone, wait_until,
};

const SOON: Duration = Duration::from_secs(20);

/// Parent and process group of each.
fn ids(pids: &[i32]) -> Vec<[String; 2]> {
    let of = |&pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        [words[1], words[2]].map(str::to_owned)
    };
    pids.iter().map(of).collect()
}

/// Lines of a file that goes on growing.
fn lines(path: &PathBuf) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn a_ring_goes_on_where_it_was() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 5, &["-t", "10"]);
    std::thread::sleep(Duration::from_millis(200));
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    let pids = ring.pids.clone();
    let before = ids(&pids);
    end_all(&mut ring.target, &pids);
    let (again, _) = Again::made(&sls, &[]);
    goes_round(&ring);
    again.end();
    let (_again, told) = Again::made(&sls, &[]);
    assert_eq!(told["pids"].as_object().unwrap().len(), 5, "{told}");
    assert_eq!(ids(&pids)[1..], before[1..], "parents and groups");
    goes_round(&ring);
    let taken = sls.json(&["checkpoint", "-m"]);
    ring.assert_one_cut(&sls, taken["epoch"].as_u64().unwrap());
    assert_eq!(sls.pids(), pids);
    // Also from before the first restore: pipes and shared memory have been made again since.
    for at in ["@whole", "@2"] {
        let done = sls.json(&["rewind", "-m", at]);
        let lines = done["not_restored"].to_string();
        let whole = !lines.contains("pipe") && !lines.contains("memory");
        assert!(whole, "{lines}");
        goes_round(&ring);
    }
    // A daemon that comes later knows that as well.
    sls.kill_daemon();
    sls.run(&["attach", "-p", &ring.target.p(), "-m", "-r"]);
    sls.run(&["rewind", "-m", "@whole"]);
    goes_round(&ring);
}

fn goes_round(ring: &Ring) {
    let rounds = ring.rounds();
    wait_until(SOON, "it goes round", || ring.rounds() > rounds + 1);
    let said = ring.target.output();
    assert!(!said.contains("WRONG"), "{said}");
}

/// A parent and two children, one of the session of the other's: descriptors from before the fork,
/// each by the same description; a pipe between the children; memory by mapping and by descriptor.
const SHARED: &str = "
import os, mmap, socket, select, time, fcntl
os.setsid()
f = open('data', 'w+'); f.write('0123456789' * 3); f.flush(); f.seek(4)
e = os.eventfd(3); r, w = os.pipe(); r2, w2 = os.pipe()
os.write(w, b'hello')
m = mmap.mmap(-1, 65536); m[0:4] = b'from'
d = os.memfd_create('both'); os.ftruncate(d, 8192); os.pwrite(d, b'by descriptor', 0)
md = mmap.mmap(d, 8192)
g = os.open('gone', os.O_RDWR | os.O_CREAT); os.write(g, b'unlinked')
fcntl.flock(f, fcntl.LOCK_EX)
listener = socket.socket(); listener.bind(('127.0.0.1', 0)); listener.listen(4)
listener.setblocking(False)
port = listener.getsockname()[1]
def wait():
    while not os.path.exists('go'): time.sleep(0.01)
def await_byte(at, value):
    until = time.time() + 9
    while m[at] != value:
        assert time.time() < until, ('waits for', at, value)
        time.sleep(0.001)
me = 0
for child in (1, 2):
    if os.fork() == 0:
        me = child
        break
if me == 1:
    os.setsid(); own = mmap.mmap(-1, 4096); own[0:1] = b'1'
    if os.fork() == 0: me = 3
if me == 2:
    os.setpgid(0, 0); own_g = os.open('gone', os.O_RDONLY)
    poll = select.epoll(); poll.register(r, select.EPOLLIN); poll.register(listener, select.EPOLLIN)
m[100 + me] = 1
if me == 0:
    until = time.time() + 9
    while m[101] + m[102] + m[103] < 3: assert time.time() < until; time.sleep(0.001)
    os.unlink('gone')
    print('ready', flush=True)
ids = os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0)
wait()
try:
    now = os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0)
    assert me == 0 or now == ids, ('ids', ids, now)
    assert m[0:4] == b'from' and md[0:13] == b'by descriptor', 'memory'
    assert os.pread(g, 8, 0) == b'unlinked', 'a file without a name'
    if me == 0:
        assert os.lseek(f.fileno(), 0, 1) == 4; os.lseek(f.fileno(), 9, 0); m[10] = 1
        await_byte(13, 1)
        pids = {os.wait()[0], os.wait()[0]}
        assert len(pids) == 2
    if me == 1:
        await_byte(10, 1); assert os.lseek(f.fileno(), 0, 1) == 9, 'one offset'
        assert os.eventfd_read(e) == 3; os.eventfd_write(e, 8)
        os.pwrite(d, b'changed', 100); os.pwrite(g, b'more', 8); m[11] = 1; os.write(w2, b'to two')
        os.wait()
        assert own[0:1] == b'3', 'memory of two'
    if me == 2:
        await_byte(11, 1); assert os.eventfd_read(e) == 8, 'one counter'
        assert md[100:107] == b'changed' and os.pread(own_g, 4, 8) == b'more'
        assert poll.poll(0) == [(r, select.EPOLLIN)], 'a set'
        assert os.read(r, 9) == b'hello' and os.read(r2, 9) == b'to two', 'pipes'
        client = socket.create_connection(('127.0.0.1', port))
        assert dict(poll.poll(2)) == {listener.fileno(): select.EPOLLIN}
        listener.accept(); m[13] = 1
    if me == 3:
        try:
            fcntl.flock(open('data'), fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert False, 'the lock is held'
        except BlockingIOError: pass
        await_byte(11, 1); own[0:1] = b'3'
    print('whole', me, flush=True)
except BaseException as error:
    print('WRONG', me, repr(error), flush=True)
os._exit(0)
";

fn python(sls: &Sls, program: &str) -> Target {
    let mut command = Command::new("python3");
    command.args(["-c", program]).current_dir(sls.folder());
    Target::ready(sls.folder(), command)
}

#[test]
fn what_was_shared_is_shared_again() {
    let sls = Sls::new();
    let mut target = python(&sls, SHARED);
    sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m"]);
    let pids = sls.pids();
    assert_eq!(pids.len(), 4, "{pids:?}");
    end_all(&mut target, &pids);
    fs::write(sls.folder().join("go"), "").unwrap();
    let out = sls.try_run(&["restore", "-m"]);
    let said = || fs::read_to_string(sls.folder().join("python3.out")).unwrap();
    wait_until(SOON, "all of them tell", || said().lines().count() == 5);
    assert!(
        out.code == 0 && said().matches("whole").count() == 4,
        "{out:?}\n{}",
        said()
    );
}

#[test]
fn a_shells_pipeline_goes_on() {
    let sls = Sls::new();
    let mut shell = Command::new("bash");
    let script = "echo ready; i=0; while echo $((i++)); do sleep 0.01; done \
        | while read n; do echo $((n * 2)); done | cat > numbers";
    shell.args(["-c", script]).current_dir(sls.folder());
    let mut shell = Target::ready(sls.folder(), shell);
    let file = sls.folder().join("numbers");
    wait_until(SOON, "it counts", || lines(&file) > 20);
    sls.run(&["attach", "-p", &shell.p(), "-m", "-r", "-t", "20"]);
    std::thread::sleep(Duration::from_millis(300));
    sls.run(&["checkpoint", "-m"]);
    let all = descendants(shell.pid());
    end_all(&mut shell, &all);
    for _ in 0..3 {
        let before = lines(&file);
        let (again, _) = Again::made(&sls, &[]);
        wait_until(SOON, "it counts on", || lines(&file) > before + 20);
        let all = descendants(again.0[0]);
        again.end();
        for pid in all {
            let _ = send(Pid::from_raw(pid), Signal::SIGKILL); // Born since.
        }
        // What was counted since the checkpoint was counted again: each number follows one before it.
        let said = fs::read_to_string(&file).unwrap();
        let numbers: Vec<u64> = said.lines().filter_map(|l| l.parse().ok()).collect();
        let follows = |w: &[u64]| w[1] == w[0] + 2 || w[1] <= w[0];
        assert!(numbers.windows(2).all(follows), "{numbers:?}");
    }
}

fn descendants(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

/// Children that have ended.
fn zombies(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = list.split_whitespace().map(|pid| pid.parse().unwrap());
    children
        .filter(|&pid| field(pid, "State:").starts_with('Z'))
        .collect()
}

/// Children that have ended are there for their parent to take note of, each with how it ended.
#[test]
fn zombies_are_taken_note_of() {
    let sls = Sls::new();
    let program = "
import os, signal, time
os.setsid()
seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
r, w = os.pipe()
def child(act):
    pid = os.fork()
    if pid == 0:
        os.read(r, 1); act()
    return pid
one = child(lambda: os._exit(7)); two = child(lambda: os.abort())
leader = child(lambda: (os.setpgid(0, 0), os._exit(0)))
print('attach', flush=True)
while not os.path.exists('attached'): time.sleep(0.01)
os.write(w, b'xxx')
while len(open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read().split()) > 3 or \
    any(open(f'/proc/{p}/stat').read().split()[2] != 'Z' for p in (one, two, leader)): time.sleep(0.01)
time.sleep(0.1)
print('ready', flush=True)
before = len(seen)
while not os.path.exists('go'): time.sleep(0.01)
status = dict((os.waitpid(-1, 0) for _ in range(3)))
ok = os.WEXITSTATUS(status[one]) == 7 and os.WTERMSIG(status[two]) == 6 and status[leader] == 0
ok = ok and len(seen) == before
try: os.wait(); ok = False
except ChildProcessError: pass
print('whole' if ok else ('WRONG', status, seen), flush=True)
os._exit(0)
";
    let mut command = Command::new("python3");
    command.args(["-c", program]).current_dir(sls.folder());
    let mut target = Target::start(sls.folder(), command);
    wait_until(SOON, "its children", || target.output().contains("attach"));
    sls.run(&["attach", "-p", &target.p(), "-m", "-r", "-t", "5"]);
    assert_eq!(sls.pids().len(), 4);
    fs::write(sls.folder().join("attached"), "").unwrap();
    wait_until(SOON, "their ends", || target.output().contains("ready"));
    sls.run(&["checkpoint", "-m", "-n", "ended"]);
    let pid = target.pid();
    let all = [&[pid], &zombies(pid)[..]].concat();
    end_all(&mut target, &all);
    let mut made = None;
    for at in ["@ended", "@again"] {
        if let Some(made) = made.take() {
            drop::<Again>(made);
            wait_gone(&all);
        }
        let (again, told) = Again::made(&sls, &[at]);
        assert_eq!(told["pids"].as_object().unwrap().len(), 1, "{told}");
        assert_eq!(zombies(pid), all[1..]);
        // They are in checkpoints to come as well.
        sls.run(&["checkpoint", "-m", "-n", "again"]);
        made = Some(again);
    }
    fs::write(sls.folder().join("go"), "").unwrap();
    let said = || fs::read_to_string(sls.folder().join("python3.out")).unwrap();
    wait_until(SOON, "it took note", || {
        said().contains("whole") || said().contains("WRONG")
    });
    assert!(!said().contains("WRONG"), "{}", said());
}

/// All or none: what stands in the way of one is told, and nobody is left.
#[test]
fn none_is_left_when_one_cannot_be_made() {
    let sls = Sls::new();
    let mut ring = Ring::attached(&sls, 4, &[]);
    sls.run(&["checkpoint", "-m"]);
    let pids = ring.pids.clone();
    end_all(&mut ring.target, &pids);
    let other = taken(pids[2]);
    let says = format!("process {} is in use", pids[2]);
    for _ in 0..2 {
        sls.refused(&["restore", "-m"], 1, &says);
        let others = [pids[0], pids[1], pids[3]];
        for pid in others {
            assert!(
                is_gone(pid),
                "{pid} of {pids:?} is left: {}",
                field(pid, "State:")
            );
        }
    }
    kill(other, 9);
    let (_again, _) = Again::made(&sls, &[]);
    goes_round(&ring);
}

/// A process of this number.
pub fn taken(pid: i32) -> i32 {
    let last = "/proc/sys/kernel/ns_last_pid";
    // Somebody else may be quicker, and is gone soon.
    for _ in 0..100 {
        let was = fs::read_to_string(last).unwrap();
        fs::write(last, (pid - 1).to_string()).unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null());
        let mut sleep = sleep.stderr(Stdio::null()).spawn().unwrap();
        // The next numbers are wanted as well.
        fs::write(last, was).unwrap();
        let is_it = i32::try_from(sleep.id()) == Ok(pid);
        if !is_it {
            sleep.kill().unwrap();
        }
        // Waited for, so that its number is free when it is killed.
        std::thread::spawn(move || sleep.wait());
        if is_it {
            return pid;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the number {pid} is not to be had");
}

/// Unix sockets that are connected to each other, within a process and between two, with what waits
/// in them; a child that shares an end with its parent.
const CONNECTED: &str = "
import os, socket, time, select
os.setsid()
a, b = socket.socketpair(); c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
x, y = socket.socketpair(); a.setblocking(False)
b.send(b'first '); b.send(b'second'); x.send(b'for the child')
e, f = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); g, h = socket.socketpair(type=socket.SOCK_DGRAM)
messages = [b'one', b'', b'3' * 70000, b'four']
for m in messages: e.send(m); g.send(m)
named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); named.bind('\\0sls-named-' + str(os.getpid()))
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'lost', named.getsockname())
server = socket.socket(socket.AF_UNIX); server.bind('\\0sls-test-' + str(os.getpid())); server.listen(3)
client = socket.socket(socket.AF_UNIX); client.connect(server.getsockname()); accepted, _ = server.accept()
client.send(b'asked')
own, theirs = socket.socketpair()
if os.fork() == 0:
    me = 1
    if os.fork() == 0: me = 2
else: me = 0
poll = select.epoll(); poll.register((b, y, y)[me], select.EPOLLIN)
print('ready' if me == 0 else '', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
try:
    if me == 0:
        assert a.recv(99) == b'first second', 'what waited'
        for end in f, h: assert [end.recv(99999) for _ in messages] == messages, 'messages'
        try: a.recv(1); assert False, 'it has flags of its own'
        except BlockingIOError: pass
        b.send(b'more'); assert a.recv(99) == b'more'; a.send(b'back'); assert b.recv(9) == b'back'
        assert accepted.recv(9) == b'asked'; accepted.send(b'answer'); assert client.recv(9) == b'answer'
        new = socket.socket(socket.AF_UNIX); new.connect(server.getsockname())
        other, _ = server.accept(); other.send(b'new'); assert new.recv(9) == b'new', 'it listens'
        assert own.recv(9) == b'of one'; x.send(b'and more')
        os.wait()
    if me == 1:
        assert y.recv(99) == b'for the child', 'across'
        assert poll.poll(0) == [], 'a set'
        theirs.send(b'of one')
        os.wait()
    if me == 2:
        while poll.poll(9) and y.recv(99, socket.MSG_PEEK)[:3] != b'and': time.sleep(0.001)
        assert y.recv(99) == b'and more', 'an end that two have'
    c.send(b'packet %d' % me); assert d.recv(99)[:6] == b'packet'
    print('whole', me, flush=True)
except BaseException as error:
    print('WRONG', me, repr(error), flush=True)
os._exit(0)
";

#[test]
fn unix_sockets_are_connected_again() {
    let sls = Sls::new();
    let mut target = python(&sls, CONNECTED);
    sls.run(&["attach", "-p", &target.p(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m"]);
    let pids = sls.pids();
    assert_eq!(pids.len(), 3, "{pids:?}");
    end_all(&mut target, &pids);
    fs::write(sls.folder().join("go"), "").unwrap();
    let out = sls.try_run(&["restore", "-m"]);
    let said = || fs::read_to_string(sls.folder().join("python3.out")).unwrap();
    wait_until(SOON, "all of them tell", || {
        said().matches("whole").count() + said().matches("WRONG").count() == 3
    });
    let whole = out.code == 0 && !said().contains("WRONG");
    assert!(whole, "{out:?}\n{}", said());
    assert!(
        out.stdout.contains("messages that waited in it are gone"),
        "{out:?}"
    );
}

/// Takes two messages when it is told to, and sends another.
const MESSAGES: &str = "
import os, socket, time
a, b = socket.socketpair(type=socket.SOCK_DGRAM)
a.send(b'one'); a.send(b'two')
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
said = [b.recv(99), b.recv(99)]; a.send(b'three')
os.write(os.open('said', os.O_CREAT | os.O_WRONLY | os.O_APPEND), repr(said).encode())
while True: time.sleep(1)
";

#[test]
fn messages_that_were_read_since_wait_again() {
    let sls = Sls::new();
    let mut target = python(&sls, MESSAGES);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m", "-n", "unread"]);
    fs::write(sls.folder().join("go"), "").unwrap();
    let said = || fs::read_to_string(sls.folder().join("said")).unwrap_or_default();
    wait_until(SOON, "it has read", || said() == "[b'one', b'two']");
    let told = sls.json(&["rewind", "-m", "@unread"]);
    wait_until(SOON, "it has read again", || {
        said() == "[b'one', b'two'][b'one', b'two']"
    });
    assert!(
        !told["not_restored"].to_string().contains("socket"),
        "{told}"
    );
    target.assert_alive();
}
