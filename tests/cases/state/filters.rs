//! Seccomp filters, of the main thread and of another, and securebits.

use testkit::Obedient;

/// `deny(nr, errno, flags)`: from now on this thread's calls of that number fail so.
const DENY: &str = "
def deny(nr, errno, flags=0):
    code = b''.join(struct.pack('<HBBI', *i) for i in (
        (0x20, 0, 0, 0), (0x15, 0, 1, nr), (6, 0, 0, 0x50000 | errno), (6, 0, 0, 0x7fff0000)))
    room = ctypes.create_string_buffer(code)
    head = struct.pack('<H6xQ', len(code) // 8, ctypes.addressof(room))
    assert c.syscall(317, 1, flags, head) == 0, ctypes.get_errno()
def fails(nr):
    return ctypes.get_errno() if c.syscall(nr, 0, 0) == -1 else 0
def other():
    global turn, said
    deny(145, 55)
    while True:
        if turn: said = fails(145), fails(140); turn = False
        time.sleep(0.001)
";

const GETPRIORITY: &str = "140";
const GETSCHEDULER: &str = "145";
const PRIORITY_MAX: &str = "146";

fn begun() -> Obedient {
    let mut it = Obedient::start();
    let imports = "import ctypes, struct, threading, time; c = ctypes.CDLL(None, use_errno=True)";
    it.order(&format!("{imports}; turn, said = False, None"), "imported");
    it.order(&format!("exec({DENY:?})"), "defined");
    it
}

fn filters(it: &mut Obedient) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", it.pid())).unwrap();
    let own = |line: &&str| line.starts_with("Seccomp") || line.starts_with("NoNewPrivs");
    status.lines().filter(own).collect()
}

fn fails(it: &mut Obedient, nr: &str) -> String {
    it.tell(&format!("fails({nr})"))
}

#[test]
fn they_hold_again() {
    let mut it = begun();
    it.order("deny(140, 33); deny(146, 44, 2)", "denied");
    it.order(
        "threading.Thread(target=other, daemon=True).start(); time.sleep(0.1)",
        "begun",
    );
    let all = it.checkpoint();
    let then = filters(&mut it);
    assert!(then.contains("Seccomp_filters:\t2"), "{then}");
    for round in 0..3 {
        if round > 0 {
            assert_eq!(it.restore(all), [""; 0], "{round}");
        }
        assert_eq!(filters(&mut it), then);
        assert_eq!(fails(&mut it, GETPRIORITY), "33");
        assert_eq!(fails(&mut it, PRIORITY_MAX), "44");
        assert_eq!(fails(&mut it, GETSCHEDULER), "0", "only the other thread's");
        it.order("turn = True", "asked");
        it.order("time.sleep(0.1)", "waited");
        assert_eq!(it.tell("said"), "(55, 33)");
    }
}

#[test]
fn one_that_was_set_since_stays_and_is_named() {
    let mut it = begun();
    let plain = it.checkpoint();
    it.order("deny(140, 33)", "denied");
    let lost = it.rewind(plain);
    assert!(lost.contains("1 seccomp filters were set since"), "{lost}");
    it.order("deny(146, 44)", "denied");
    assert_eq!(fails(&mut it, GETPRIORITY), "33");
    let all = it.checkpoint();
    assert_eq!(it.rewind(all), "[]");
}

#[test]
fn securebits() {
    let mut it = begun();
    // PR_SET_SECUREBITS: no root by set-user-ID programs.
    it.order("assert c.prctl(28, 4, 0, 0, 0) == 0", "set");
    let all = it.checkpoint();
    it.order("assert c.prctl(28, 0, 0, 0, 0) == 0", "unset");
    super::both_ways(&mut it, all, |it| {
        assert_eq!(it.tell("c.prctl(27, 0, 0, 0, 0)"), "4");
    });
}
