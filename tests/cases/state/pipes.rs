//! How much a pipe may hold, and the packets that wait in it.

use testkit::Obedient;

use super::both_ways;

const CAPACITY: &str = "fcntl.fcntl(r, fcntl.F_GETPIPE_SZ)";

#[test]
fn what_it_may_hold() {
    let mut it = Obedient::start();
    it.order("import fcntl; r, w = os.pipe()", "made");
    it.order("fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 1 << 18)", "widened");
    it.order("fill = os.urandom(200000); os.write(w, fill)", "filled");
    let wide = it.checkpoint();
    it.order("assert os.read(r, 200000) == fill", "drained");
    it.order("fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096)", "narrowed");
    it.order("os.write(w, b'x' * 4096)", "filled with a little");
    let narrow = it.checkpoint();
    for _ in 0..2 {
        assert_eq!(it.rewind(wide), "[]");
        assert_eq!(it.tell(CAPACITY), "262144");
        it.order("assert os.read(r, 300000) == fill", "all of it");
        assert_eq!(it.rewind(narrow), "[]");
        assert_eq!(it.tell(CAPACITY), "4096");
        it.order("assert os.read(r, 9999) == b'x' * 4096", "a little");
    }
    it.order("os.close(r); os.close(w)", "closed");
    both_ways(&mut it, wide, |it| {
        assert_eq!(it.tell(CAPACITY), "262144");
        it.order("assert os.read(r, 300000) == fill", "all of it again");
    });
    both_ways(&mut it, narrow, |it| {
        assert_eq!(it.tell(CAPACITY), "4096");
        it.order("assert os.read(r, 9999) == b'x' * 4096", "a little again");
    });
    it.end();
}

#[test]
fn packets_stay_apart() {
    let mut it = Obedient::start();
    it.order("r, w = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)", "made");
    it.order(
        "[os.write(w, p) for p in (b'one', b'and', b'2' * 4000)]",
        "filled",
    );
    let three = it.checkpoint();
    it.order("os.read(r, 2); os.read(r, 9)", "one is left");
    let last = it.checkpoint();
    let read = "os.read(r, 9), os.read(r, 9), len(os.read(r, 9999))";
    both_ways(&mut it, three, |it| {
        assert_eq!(it.tell(read), "(b'one', b'and', 4000)");
    });
    both_ways(&mut it, last, |it| {
        // What is not read of a packet is gone.
        assert_eq!(it.tell("len(os.read(r, 5))"), "5");
        it.order("os.write(w, b'a'); os.write(w, b'b')", "more");
        assert_eq!(it.tell("os.read(r, 9), os.read(r, 9)"), "(b'a', b'b')");
    });
    it.order("os.close(r); os.close(w)", "closed");
    assert_eq!(it.rewind(three), "[]");
    assert_eq!(it.tell(read), "(b'one', b'and', 4000)");
    it.end();
}

/// Whoever wrote has gone without being restored; what it wrote has not.
#[test]
fn what_waits_at_the_end_of_a_half() {
    let mut it = Obedient::start();
    it.order("r, w = os.pipe(); os.write(w, b'last words')", "made");
    it.order("os.close(w)", "closed");
    let epoch = it.checkpoint();
    let lost = it.restore(epoch);
    assert!(
        lost.len() == 1 && lost[0].contains("its other end"),
        "{lost:?}"
    );
    assert_eq!(
        it.tell("os.read(r, 99), os.read(r, 99)"),
        "(b'last words', b'')"
    );
    it.end();
}

/// Opened while the other end was there, which has been closed since: neither opens by itself any more,
/// one fails and one waits.
#[test]
fn ends_of_a_fifo_that_are_alone() {
    let mut it = Obedient::start();
    it.order("import fcntl, select, errno; os.mkfifo('fifo')", "made");
    it.order("r = os.open('fifo', os.O_RDONLY | os.O_NONBLOCK)", "read");
    it.order("w = os.open('fifo', os.O_WRONLY); os.close(r)", "written");
    let writer = it.checkpoint();
    it.order(
        "r = os.open('fifo', os.O_RDWR); os.close(w); w = None",
        "both",
    );
    it.order("b = os.open('fifo', os.O_RDONLY); os.close(r)", "only read");
    let reader = it.checkpoint();
    it.order("os.close(b)", "closed");
    let flags = |fd: &str| format!("fcntl.fcntl({fd}, fcntl.F_GETFL) & ~0o100000");
    let look = |it: &mut Obedient, at: &str, fd: &str, mode: &str| {
        assert_eq!(it.tell(&flags(fd)), mode, "{at}");
        let open = "sorted(os.readlink(f'/proc/self/fd/{n}')[-5:] for n in range(3, 99) if os.path.lexists(f'/proc/self/fd/{n}')).count('/fifo')";
        assert_eq!(it.tell(open), "1", "{at}");
    };
    both_ways(&mut it, writer, |it| {
        look(it, "the writer", "w", "1");
        // It writes again once somebody reads.
        it.order(
            "x = os.open('fifo', os.O_RDONLY | os.O_NONBLOCK); os.write(w, b'hello')",
            "written again",
        );
        assert_eq!(it.tell("os.read(x, 9)"), "b'hello'");
        it.order("os.close(x)", "closed again");
    });
    both_ways(&mut it, reader, |it| {
        look(it, "the reader", "b", "0");
        assert_eq!(it.tell("os.read(b, 9)"), "b''");
    });
    it.end();
}
