//! `slsctl branch`: clones beside running originals, which do not notice them.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use testkit::{Again, Sls, Target, children, field, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Counts, writes each number into a log, the last also into a file of its own, and serves at two addresses.
const SERVER: &str = "
import os, socket, threading, time
log, data = open('log', 'a+'), open('data', 'w+')
tcp = socket.socket(); tcp.bind(('127.0.0.1', 0)); tcp.listen()
unix = socket.socket(socket.AF_UNIX); unix.bind('socket'); unix.listen()
open('port', 'w').write(str(tcp.getsockname()[1]))
n = 0
def serve(at):
    while True: at.accept()[0].sendall(b'%d\\n' % os.getppid())
for at in (tcp, unix): threading.Thread(target=serve, args=(at,), daemon=True).start()
print('ready', flush=True)
while not os.path.exists('quit'):
    n += 1
    log.write(f'{n}\\n'); log.flush()
    os.pwrite(data.fileno(), b'%08d' % n, 0)
    open(f'new-{n % 3}', 'w').write('x')
    time.sleep(0.003)
os._exit(7)
";

struct Original {
    sls: Sls,
    target: Target,
}

impl Original {
    fn of(target: impl FnOnce(&Sls) -> Target) -> Self {
        let sls = Sls::new();
        let target = target(&sls);
        sls.run(&["attach", "-p", &target.p(), "-m"]);
        sls.run(&["checkpoint", "-m", "-n", "whole"]);
        Self { sls, target }
    }

    fn branch(&self, how: &[&str]) -> (Again, Value) {
        let told = self.sls.json(&[&["branch", "-m", "@whole"], how].concat());
        (Again::of(&told), told)
    }

    fn number(&self, part: &str, at: &str, what: &str) -> i64 {
        let told = self.sls.json(&["print", "-o", part, at, what]);
        told["value"].as_i64().unwrap_or_else(|| panic!("{told}"))
    }

    /// Nothing of the clones is left.
    fn end(self, parts: &[&str]) {
        for part in parts {
            self.sls.run(&["partdel", "-o", part]);
        }
        let inits = || {
            let all = children(self.sls.daemon());
            all.into_iter().any(|pid| field(pid, "Name:") == "sls-init")
        };
        wait_until(SOON, "no namespace is left", || !inits());
        let parts = self.sls.json(&["listsnaps"]);
        assert_eq!(parts.as_array().map_or(1, Vec::len), 1, "{parts}");
    }
}

#[test]
fn both_have_histories() {
    let mut it = Original::of(|sls| sls.tracee("ticker", &[]));
    let then = it.number("mem", "@whole", "counter");
    let (one, told) = it.branch(&["--as", "one"]);
    let (two, again) = it.branch(&["--lazy"]);
    assert_eq!(
        (&told["partition"], &again["partition"]),
        (&"one".into(), &"mem-1".into())
    );
    assert_eq!(
        told["pids"].as_object().unwrap().keys().next(),
        Some(&it.target.p())
    );
    assert_ne!(one.0[0], it.target.pid());
    for part in ["one", "mem-1"] {
        assert_eq!(it.number(part, "@whole", "counter"), then, "{part}");
        std::thread::sleep(Duration::from_millis(100));
        it.sls.run(&["checkpoint", "-o", part, "-n", "later"]);
        let later = it.number(part, "@later", "counter");
        assert!(later > then, "{part}: {later} after {then}");
    }
    // Each goes back by itself.
    it.sls.run(&["checkpoint", "-m", "-n", "later"]);
    let own = it.number("mem", "@later", "counter");
    let back = it.sls.json(&["rewind", "-o", "one", "@whole"]);
    assert_eq!(
        back["not_restored"].as_array().map(Vec::len),
        Some(0),
        "{back}"
    );
    it.sls.run(&["checkpoint", "-m", "-n", "last"]);
    assert!(it.number("mem", "@last", "counter") > own);
    let frames = it.sls.run(&["bt", "-o", "one", "@-1"]);
    assert!(
        frames.contains("main () at") && frames.contains("ticker.c"),
        "{frames}"
    );
    it.target.assert_unharmed();
    one.end();
    two.end();
    it.end(&["one", "mem-1"]);
}

#[test]
fn the_original_does_not_notice() {
    let mut it = Original::of(|sls| Target::python(sls.folder(), SERVER));
    let folder = it.sls.folder().to_path_buf();
    let socket = fs::metadata(folder.join("socket")).unwrap().ino();
    let (one, told) = it.branch(&[]);
    let (two, _) = it.branch(&[]);
    let of_clone = |pid: i32, name: &str| {
        let path = format!("/proc/{pid}/root{}/{name}", folder.display());
        fs::read_to_string(PathBuf::from(path)).unwrap_or_default()
    };
    let data = |pid: i32| of_clone(pid, "data").parse::<u64>().unwrap_or(0);
    let (first, second) = (one.0[0], two.0[0]);
    let before = (data(first), data(second));
    wait_until(SOON, "both go on", || {
        data(first) > before.0 + 20 && data(second) > before.1 + 20
    });
    // One that stands still is not moved by the others.
    it.sls.run(&["suspend", "-o", "mem-1"]);
    let still = data(first);
    let now = data(second);
    wait_until(SOON, "the other goes on", || data(second) > now + 5);
    assert_eq!(data(first), still);
    it.sls.run(&["resume", "-o", "mem-1"]);
    // Its own network: it listens at the same address, and nobody outside gets there.
    let port: u16 = fs::read_to_string(folder.join("port"))
        .unwrap()
        .parse()
        .unwrap();
    let listens = format!("0100007F:{port:04X} 00000000:0000 0A");
    assert!(
        fs::read_to_string(format!("/proc/{first}/net/tcp"))
            .unwrap()
            .contains(&listens)
    );
    let own = std::process::id().to_string();
    for _ in 0..5 {
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let unix = UnixStream::connect(folder.join("socket")).unwrap();
        assert_eq!(std::io::read_to_string(tcp).unwrap().trim(), own);
        assert_eq!(std::io::read_to_string(unix).unwrap().trim(), own);
    }
    assert_eq!(fs::metadata(folder.join("socket")).unwrap().ino(), socket);
    // Back to before its own writes, by its own history.
    it.sls.run(&["rewind", "-o", "mem-1", "@whole"]);
    one.end();
    two.end();
    fs::write(folder.join("quit"), "").unwrap();
    it.target.wait(SOON);
    let log = fs::read_to_string(folder.join("log")).unwrap();
    let last: u64 = fs::read_to_string(folder.join("data"))
        .unwrap()
        .parse()
        .unwrap();
    let expected: String = (1..=last).map(|n| format!("{n}\n")).collect();
    assert!(
        log == expected,
        "its log is as it alone has written it: {told}"
    );
    it.end(&["mem-1", "mem-2"]);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let it = Original::of(|sls| sls.tracee("ticker", &[]));
    it.sls.refused(&["branch", "-m", "@99"], 1, "@99");
    it.sls
        .refused(&["branch", "-m", "@whole", "--as", "mem"], 1, "mem");
    it.sls
        .refused(&["branch", "-m", "@whole", "--as", "a/b"], 2, "partition");
    it.end(&[]);
}
