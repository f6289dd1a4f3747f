//! System V shared memory, semaphores and message queues.

use testkit::Obedient;

const IMPORT: &str = "import ctypes; c = ctypes.CDLL(None, use_errno=True); \
    c.shmat.restype = ctypes.c_void_p";

/// Removes what a test has made, and what it failed to remove.
struct Cleanup(&'static str, i32);

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Gone already where all is well.
        let _ = std::process::Command::new("ipcrm")
            .args([self.0, &self.1.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

fn number(it: &mut Obedient, what: &str) -> i32 {
    it.tell(what).parse().unwrap()
}

/// Key, number, rights and owner as the kernel lists them.
fn listed(id: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let lines = text
        .lines()
        .map(|l| l.split_whitespace().map(str::to_owned));
    let mut lines = lines.map(Iterator::collect::<Vec<_>>);
    let line = lines.find(|words| words[1] == id.to_string())?;
    Some([0, 1, 2, 3, 7, 8].map(|at| line[at].clone()).to_vec())
}

#[test]
fn a_segment_keeps_its_key_and_number() {
    let mut it = Obedient::start();
    it.order(IMPORT, "imported");
    let key = 0x5150_0000 + it.pid();
    it.order(&format!("id = c.shmget({key}, 10000, 0o1640)"), "made");
    let id = number(&mut it, "id");
    let _cleanup = Cleanup("-m", id);
    it.order(
        "at = c.shmat(id, None, 0); also = c.shmat(id, None, 0o10000)",
        "attached",
    );
    it.order("ctypes.memmove(at + 9000, b'segment', 7)", "written");
    it.order(
        "ds = (ctypes.c_char * 112)(); c.shmctl(id, 2, ds); \
         ds[4:12] = (1234).to_bytes(4, 'little') + (4321).to_bytes(4, 'little'); \
         assert c.shmctl(id, 1, ds) == 0",
        "given away",
    );
    let as_it_was = listed(id).unwrap();
    assert_eq!(as_it_was[4..], ["1234", "4321"]);
    let epoch = it.checkpoint();
    let look =
        "assert ctypes.string_at(at + 9000, 7) == b'segment' == ctypes.string_at(also + 9000, 7)";
    it.order("ctypes.memmove(at + 9000, b'changed', 7)", "changed");
    // As it is left by whoever ends.
    assert_eq!(it.restore(epoch), [""; 0]);
    it.order(look, "as it was");
    assert_eq!(listed(id).unwrap(), as_it_was);
    it.order(
        "ctypes.memmove(at, b'x', 1); assert ctypes.string_at(also, 1) == b'x'",
        "shared",
    );
    // Removed after its end.
    it.kill();
    drop(Cleanup("-m", id));
    assert_eq!(listed(id), None);
    assert_eq!(it.restore(epoch), [""; 0]);
    it.order(look, "as it was again");
    assert_eq!(listed(id).unwrap(), as_it_was);
    assert_eq!(it.tell(&format!("c.shmget({key}, 0, 0)")), id.to_string());
    // Another has its key: refused, and nothing is left of it.
    it.kill();
    drop(Cleanup("-m", id));
    let mut other = Obedient::start();
    other.order(IMPORT, "imported");
    let taken = number(&mut other, &format!("c.shmget({key}, 4096, 0o1600)"));
    let _taken = Cleanup("-m", taken);
    it.sls
        .refused(&["restore", "-m"], 1, "another segment has its");
    let lost = it.restore_as(&[&format!("@{epoch}"), "--force"]);
    assert!(
        lost.iter().any(|line| line.contains("another segment")),
        "{lost:?}"
    );
    it.order(look, "what it held at least");
    other.end();
    it.end();
}

/// One that was removed while it was attached goes with the last that has it.
#[test]
fn a_removed_one_is_removed_again() {
    let mut it = Obedient::start();
    it.order(IMPORT, "imported");
    it.order(
        "id = c.shmget(0, 4096, 0o1600); at = c.shmat(id, None, 0)",
        "made",
    );
    let id = number(&mut it, "id");
    it.order(
        "c.shmctl(id, 0, None); ctypes.memmove(at, b'removed', 7)",
        "removed",
    );
    let epoch = it.checkpoint();
    for _ in 0..2 {
        assert_eq!(it.restore(epoch), [""; 0]);
        assert_eq!(it.tell("ctypes.string_at(at, 7)"), "b'removed'");
        assert!(listed(id).unwrap()[2].starts_with('1'), "{:?}", listed(id));
    }
    it.kill();
    assert_eq!(listed(id), None);
}

/// They belong to nobody, so they are still there.
#[test]
fn semaphores_and_queues_are_as_they_are_left() {
    let mut it = Obedient::start();
    it.order(IMPORT, "imported");
    it.order(
        "s = c.semget(0, 1, 0o1600); q = c.msgget(0, 0o1600)",
        "made",
    );
    let _semaphores = Cleanup("-s", number(&mut it, "s"));
    let _queue = Cleanup("-q", number(&mut it, "q"));
    it.order("assert c.semctl(s, 0, 16, 5) == 0", "set");
    it.order(
        "m = (1).to_bytes(8, 'little') + b'message'; assert c.msgsnd(q, m, 7, 0) == 0",
        "sent",
    );
    let epoch = it.checkpoint();
    assert_eq!(it.restore(epoch), [""; 0]);
    assert_eq!(it.tell("c.semctl(s, 0, 12)"), "5");
    it.order(
        "b = (ctypes.c_char * 99)(); n = c.msgrcv(q, b, 91, 0, 0)",
        "received",
    );
    assert_eq!(it.tell("n, b[8:15]"), "(7, b'message')");
    it.end();
}
