//! TCP connections between processes that are made anew together.

use std::fs;
use std::process::Command;
use std::time::Duration;

use testkit::{Again, Sls, Target, end_all, rounds_of, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A server and a client, its child: one connection over which numbers go to and fro without end, by
/// IPv6, and others with something special each.
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
def answer_of(s):
    had = b''
    while len(had) < 4096:
        more = s.recv(4096 - len(had))
        assert more, 'the other end is gone'
        had += more
    assert had == had[:8] * 512, 'another order'
    return int.from_bytes(had[:8], 'little')
def guarded():
    try: numbers()
    except BaseException as error: print('WRONG', child, repr(error), flush=True)
for s in (talk, mapped, ends, back) if child else (answer, full, half, forth, four, six, plain): s.close()
poll = select.epoll(); poll.register(half if child else mapped, select.EPOLLIN)
threading.Thread(target=guarded, daemon=True).start()
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

#[test]
fn those_inside_go_on() {
    let sls = Sls::new();
    let mut command = Command::new("python3");
    command.args(["-c", TALKERS]).current_dir(sls.folder());
    let mut target = Target::ready(sls.folder(), command);
    sls.run(&["attach", "-p", &target.p(), "-m", "-r", "-t", "20"]);
    std::thread::sleep(Duration::from_millis(300));
    let shown = || {
        let lines = fs::read_to_string(sls.folder().join("shown")).unwrap();
        lines
            .lines()
            .last()
            .map_or(0, |n| n.parse::<u64>().unwrap())
    };
    let pids = sls.pids();
    sls.run(&["checkpoint", "-m"]);
    end_all(&mut target, &pids);
    for _ in 0..rounds_of(5, 50) {
        let (again, told) = Again::made(&sls, &[]);
        let lines = told["not_restored"].to_string();
        assert!(!lines.contains("hang-up"), "{lines}");
        let before = shown();
        wait_until(SOON, "they talk on", || shown() > before + 300);
        sls.run(&["checkpoint", "-m"]);
        assert!(!target.output().contains("WRONG"), "{}", target.output());
        again.end();
    }
    fs::write(sls.folder().join("go"), "").unwrap();
    let out = sls.try_run(&["restore", "-m"]);
    let said = target.output();
    assert!(
        out.code == 0 && said.matches("whole").count() == 2,
        "{out:?}\n{said}"
    );
}
