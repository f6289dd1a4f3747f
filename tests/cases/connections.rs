//! TCP connections between processes that are made anew together.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testkit::{Again, Dice, Obedient, Sls, Target, children, end_all, rounds_of, seed, wait_until};

use crate::trust::sweep::{Prey, client, kill_after};

const SOON: Duration = Duration::from_secs(20);

/// A server and a client, its child: one connection over which numbers go to and fro without end, by
/// IPv6, one whose writer is always ahead of its reader, and others with something special each.
const TALKERS: &str = "
import os, socket, time, threading, select
def listen(family, address):
    l = socket.socket(family); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    l.bind((address, 0)); l.listen(8)
    return l
four, six = listen(socket.AF_INET, '127.0.0.1'), listen(socket.AF_INET6, '::')
plain = socket.socket(); plain.bind(('127.0.0.1', 0)); plain.listen(4)
def connected(listener, address, family=socket.AF_INET):
    client = socket.socket(family); client.connect((address, listener.getsockname()[1]))
    return client, listener.accept()[0]
talk, answer = connected(six, '::1', socket.AF_INET6)
mapped, full = connected(six, '127.0.0.1')
ends, half = connected(four, '127.0.0.1')
_, own = connected(plain, '127.0.0.1')
back, forth = connected(four, '127.0.0.1')
slow, quick = connected(four, '127.0.0.1')
near_slow, near_quick = socket.socketpair()
mapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
full.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
full.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 300000)
data = bytes(i * 7 % 251 for i in range(90000))
full.setblocking(False)
sent = full.send(data); assert sent == len(data), sent
full.setblocking(True)
mapped.sendall(b'little')
ends.sendall(b'last words'); ends.shutdown(socket.SHUT_WR)
names = [(s.getsockname(), s.getpeername()) for s in (mapped, full, ends, half, back, forth)]
child = os.fork()
shown = open('shown', 'a', buffering=1)
def numbers():
    if child == 0:
        n = 0
        while True:
            talk.sendall(n.to_bytes(8, 'little') * 512)
            got = answer_of(talk)
            assert got == n + 1, ('answer', got, n)
            n = got
            if n % 100 == 0: shown.write(f'{n}\\n')
    else:
        while True:
            got = answer_of(answer)
            answer.sendall((got + 1).to_bytes(8, 'little') * 512)
def stream(slow, quick, name):
    n = 0
    while True:
        if child:
            quick.sendall(b''.join((n + i).to_bytes(8, 'little') for i in range(4096)))
            n += 4096
        else:
            had = exactly(slow, 8192)
            numbers = [int.from_bytes(had[i:i + 8], 'little') for i in range(0, 8192, 8)]
            assert numbers == list(range(n, n + 1024)), ('a hole', name, n, numbers[0])
            n += 1024
            shown.write(f'{name} {n}\\n')
            time.sleep(0.005)
def exactly(s, many):
    had = b''
    while len(had) < many:
        more = s.recv(many - len(had))
        assert more, 'the other end is gone'
        had += more
    return had
def answer_of(s):
    had = exactly(s, 4096)
    assert had == had[:8] * 512, 'another order'
    return int.from_bytes(had[:8], 'little')
def guarded(act):
    try: act()
    except BaseException as error:
        if not os.path.exists('go'): print('WRONG', child, repr(error), flush=True)
for s in (talk, mapped, ends, back, slow, near_slow) if child else (answer, quick, near_quick, full, half, forth, four, six, plain): s.close()
poll = select.epoll(); poll.register(half if child else mapped, select.EPOLLIN)
far = lambda: stream(slow, quick, 'stream')
near = lambda: stream(near_slow, near_quick, 'near')
for act in (numbers, far, near): threading.Thread(target=guarded, args=(act,), daemon=True).start()
time.sleep(0.2)
if child: print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
try:
    now = [(s.getsockname(), s.getpeername()) for s in ((full, half, forth) if child else (mapped, ends, back))]
    assert now == ([names[1], names[3], names[5]] if child else [names[0], names[2], names[4]]), now
    assert len(poll.poll(0)) == 1, 'a set'
    if child == 0:
        had = b''
        while len(had) < len(data): had += mapped.recv(65536)
        assert had == data, 'what waited'
        assert mapped.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert ends.recv(99) == b'an answer to one that has ended', 'the other direction'
        back.sendall(b'x' * 3000000)
    else:
        assert full.recv(99) == b'little'
        assert full.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert full.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 600000
        assert half.recv(99) == b'last words' and half.recv(99) == b'', 'an end'
        half.sendall(b'an answer to one that has ended')
        got = 0
        while got < 3000000: got += len(forth.recv(99999))
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        connected(four, '127.0.0.1'); connected(six, '::1', socket.AF_INET6); connected(plain, '127.0.0.1')
    print('whole', flush=True)
except BaseException as error:
    print('WRONG', child, repr(error), flush=True)
if child: os.wait()
os._exit(0)
";

/// Runs them until the test ends.
struct Talkers {
    target: Target,
    shown: PathBuf,
}

impl Talkers {
    fn start(sls: &Sls) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", TALKERS]).current_dir(sls.folder());
        Self {
            target: Target::ready(sls.folder(), command),
            shown: sls.folder().join("shown"),
        }
    }

    /// How often numbers have come to and fro, and one way by TCP and by a Unix socket.
    fn far(&self) -> [usize; 3] {
        let said = fs::read_to_string(&self.shown).unwrap();
        let both = said.lines().filter(|line| line.parse::<u64>().is_ok());
        let count = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
        [both.count(), count("stream"), count("near")]
    }

    fn talk_on(&self, when: &str) {
        let before = self.far();
        wait_until(SOON, "they talk on", || {
            let now = self.far();
            now.iter()
                .zip(before)
                .all(|(now, before)| *now > before + 3)
        });
        let said = self.target.output();
        assert!(!said.contains("WRONG"), "{when}: {said}");
    }
}

#[test]
fn those_inside_go_on() {
    let sls = Sls::new();
    let mut it = Talkers::start(&sls);
    sls.run(&["attach", "-p", &it.target.p(), "-m", "-r", "-t", "20"]);
    it.talk_on("captured");
    sls.run(&["checkpoint", "-m", "-n", "whole"]);
    let mut pids = sls.pids();
    let mut last = None;
    let rounds = rounds_of(5, 50);
    for round in 0..=rounds {
        match last.take() {
            None => end_all(&mut it.target, &pids),
            Some(again) => Again::end(again),
        }
        if round == rounds {
            break;
        }
        let (again, told) = Again::made(&sls, &["@whole"]);
        pids.clone_from(&again.0);
        let lines = told["not_restored"].to_string();
        assert!(!lines.contains("hang-up"), "{lines}");
        it.talk_on(&format!("round {round}"));
        sls.run(&["checkpoint", "-m", "-n", "later"]);
        assert_eq!(sls.pids(), pids);
        last = Some(again);
    }
    fs::write(sls.folder().join("go"), "").unwrap();
    let out = sls.try_run(&["restore", "-m", "@later"]);
    let said = || it.target.output();
    wait_until(SOON, "both tell", || said().matches("whole").count() == 2);
    assert!(
        out.code == 0 && !said().contains("WRONG"),
        "{out:?}\n{}",
        said()
    );
}

/// Memory on both sides and what is on its way between them are of one moment.
#[test]
fn those_inside_are_rewound() {
    let sls = Sls::new();
    let it = Talkers::start(&sls);
    sls.run(&["attach", "-p", &it.target.p(), "-m", "-r"]);
    let mut dice = Dice::new(seed(29));
    let mut last = 0;
    for round in 0..rounds_of(12, 300) {
        it.talk_on(&format!("round {round}"));
        let taken = sls.json(&["checkpoint", "-m"])["epoch"].clone();
        last = taken.as_u64().unwrap().max(last);
        let at = format!("@{}", 1 + dice.below(last));
        let told = sls.json(&["rewind", "-m", &at]);
        let lines = told["not_restored"].to_string();
        assert!(!lines.contains("socket"), "{lines}");
    }
    it.talk_on("at the end");
}

/// A connection that is looked at sends nothing for a moment. Whoever is killed in it, it sends on.
#[test]
fn none_is_left_silent() {
    let sls = Sls::new();
    let it = Talkers::start(&sls);
    let target = it.target.p();
    let attach = ["attach", "-p", &target, "-m", "-r"];
    sls.run(&attach);
    let mut dice = Dice::new(seed(23));
    let mut n = 1 + dice.below(20);
    let mut tries = 0;
    loop {
        sls.run(&["checkpoint", "-m"]);
        let keepers = children(sls.daemon());
        let prey = Prey::Process(keepers[usize::try_from(n % 2).unwrap()]);
        let others: Vec<i32> = n
            .is_multiple_of(3)
            .then(|| sls.daemon())
            .into_iter()
            .collect();
        if !kill_after(prey, n, &others, || client(&sls, &["checkpoint", "-m"])) {
            break;
        }
        it.talk_on(&format!("killed after call {n}"));
        if !others.is_empty() {
            sls.run(&attach);
        }
        tries += 1;
        n += 1 + dice.below(rounds_of(40, 1));
    }
    assert!(tries > 3, "only {tries}");
    it.talk_on("at the end");
}

#[test]
fn they_are_closed_where_that_is_asked_for() {
    let mut it = Obedient::start();
    it.order("import socket, select", "imported");
    it.order(
        "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname()); b = l.accept()[0]; a.sendall(b'x')",
        "connected",
    );
    let all = it.checkpoint();
    assert_eq!(it.restore(all), [""; 0]);
    assert_eq!(it.tell("b.recv(9)"), "b'x'");
    let lost = it.restore_as(&["--tcp-close", &format!("@{all}")]);
    let closed = lost.iter().filter(|line| line.contains("hang-up"));
    assert_eq!(closed.count(), 2, "{lost:?}");
    it.order(
        "p = select.poll(); p.register(a, select.POLLIN); p.register(b, select.POLLIN)",
        "asked",
    );
    assert_eq!(
        it.tell("all(e & select.POLLHUP for _, e in p.poll(0))"),
        "True"
    );
    // Others can connect.
    it.order(
        "c = socket.create_connection(l.getsockname()); d = l.accept()[0]",
        "connected again",
    );
}
