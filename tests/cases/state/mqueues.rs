//! POSIX message queues, which outlive the processes that have them open.

use testkit::Obedient;

use super::both_ways;

/// Flags, capacity, longest message and how many wait, of a descriptor `q`.
const TOLD: &str = "libc.mq_getattr(q, attr), list(attr[:4])";

fn with_queue() -> Obedient {
    let mut it = Obedient::start();
    it.order("import ctypes, os; libc = ctypes.CDLL(None)", "made");
    it.order("attr = (ctypes.c_long * 8)(0, 3, 100)", "made");
    it.order("name = b'/sls-state-%d' % os.getpid()", "made");
    it.order(
        "q = libc.mq_open(name, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o640, attr)",
        "open",
    );
    it
}

#[test]
fn one_with_a_name_is_opened_again() {
    let mut it = with_queue();
    it.order("libc.mq_send(q, b'x', 1, 0)", "sent");
    let open = it.checkpoint();
    assert!(it.tell(TOLD).ends_with("[2048, 3, 100, 1])"));
    both_ways(&mut it, open, |it| {
        assert!(it.tell(TOLD).ends_with("[2048, 3, 100, 1])"));
    });
    it.order("libc.mq_close(q)", "closed");
    assert_eq!(it.rewind(open), "[]");
    assert!(it.tell(TOLD).ends_with("[2048, 3, 100, 1])"));
    it.order("libc.mq_send(q, b'y', 1, 0)", "sent");
    let lost = it.rewind(open);
    assert!(lost.contains("1 messages waited then, 2 now"), "{lost}");
    it.order("libc.mq_unlink(name)", "gone");
    // Another has its name: what is asked of it is not for that one.
    it.order(
        "r = libc.mq_open(name, os.O_RDWR | os.O_CREAT, 0o600, None)",
        "open",
    );
    it.order("libc.mq_close(q)", "closed");
    let lost = it.rewind(open);
    assert!(
        lost.contains("another message queue has its name"),
        "{lost}"
    );
    it.order("libc.mq_unlink(name)", "gone");
    it.end();
}

#[test]
fn one_without_a_name_is_made_again() {
    let mut it = with_queue();
    it.order("libc.mq_send(q, b'x', 1, 0)", "sent");
    it.order("libc.mq_unlink(name)", "gone");
    let open = it.checkpoint();
    for _ in 0..2 {
        let lost = it.restore(open);
        assert!(lost.concat().contains("without the messages"), "{lost:?}");
        assert!(it.tell(TOLD).ends_with("[2048, 3, 100, 0])"));
        let mode = "oct(os.fstat(q).st_mode & 0o777), libc.mq_send(q, b'x', 1, 0)";
        assert_eq!(it.tell(mode), "('0o640', 0)");
    }
    it.end();
}
