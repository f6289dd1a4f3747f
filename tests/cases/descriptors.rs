//! Descriptors that were closed come back by a rewind.

use std::net::TcpStream;
use std::process::Command;

use testkit::{Obedient, Target};

#[test]
fn a_pipe_closed_at_both_ends() {
    let mut it = Obedient::start();
    it.order("r, w = os.pipe(); os.set_blocking(r, False)", "made");
    it.order("os.write(w, b'in the pipe')", "filled");
    let epoch = it.checkpoint();
    // Twice: the pipe that was made again is not the one the checkpoint knows.
    for round in 0..2 {
        it.order("os.close(r); os.close(w)", &format!("closed {round}"));
        let lost = it.rewind(epoch);
        assert!(!lost.contains("pipe:"), "{lost}");
    }
    it.order("assert os.read(r, 100) == b'in the pipe'", "as it was");
    it.order(
        "assert not os.get_blocking(r) and not os.get_inheritable(w)",
        "with its flags",
    );
    it.order("os.write(w, b'more')", "filled again");
    it.order("assert os.read(r, 100) == b'more'", "and works");
    it.end();
}

/// Two descriptors of one description, and one that is another on the same file.
#[test]
fn duplicates_share_their_offset_again() {
    let mut it = Obedient::start();
    it.order("a = os.open('f', os.O_RDWR | os.O_CREAT)", "opened");
    it.order("b = os.dup(a); c = os.open('f', os.O_RDONLY)", "shared");
    it.order("os.write(a, b'0123456789'); os.lseek(a, 4, 0)", "placed");
    let epoch = it.checkpoint();
    let shared = "os.lseek(b, 7, 0); assert os.lseek(a, 0, 1) == 7 and os.lseek(c, 0, 1) == 0";
    let ways = [
        "os.close(a); os.close(b); os.close(c)",
        "os.close(b)",
        // Now the wrong two share.
        "os.dup2(c, b)",
        "os.dup2(a, c)",
    ];
    for (n, way) in ways.iter().enumerate() {
        it.order(way, &format!("changed {n}"));
        it.rewind(epoch);
        let as_it_was = "assert os.lseek(a, 0, 1) == 4 == os.lseek(b, 0, 1)";
        it.order(as_it_was, &format!("offset {n}"));
        it.order(shared, &format!("shared {n}"));
    }
    it.end();
}

/// One that listens is there again, also where it has been opened anew since.
#[test]
fn a_socket_that_listened() {
    let mut it = Obedient::start();
    it.order("s = socket.create_server(('127.0.0.1', 0))", "listens");
    it.order("open('port', 'w').write(str(s.getsockname()[1]))", "named");
    let port = std::fs::read_to_string(it.sls.folder().join("port")).unwrap();
    let port: u16 = port.parse().unwrap();
    let epoch = it.checkpoint();
    let again = format!("s.close(); s = socket.create_server(('127.0.0.1', {port}))");
    for (n, way) in ["s.close()", &again].iter().enumerate() {
        it.order(way, &format!("closed {n}"));
        let lost = it.rewind(epoch);
        assert!(!lost.contains("hang-up"), "{lost}");
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accepted = "assert s.accept()[0].fileno() > 2";
        it.order(accepted, &format!("accepts {n}"));
    }
    it.end();
}

/// Who opens the file waits for this program, for as long as /proc/sys/fs/lease-break-time says: 45 s.
const LEASE: &str = "
import fcntl, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open('leased')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('ready', flush=True)
signal.pause()
";

/// A call of ours that waits for somebody else is broken off: the present is put back, and goes on.
#[test]
fn one_that_cannot_be_opened_for_now() {
    let mut it = Obedient::start();
    it.order("open('leased', 'w').write('text'); n = 1", "made");
    it.order("a = os.open('leased', os.O_RDONLY)", "opened");
    let epoch = it.checkpoint();
    it.order("os.close(a); n = 2", "closed");
    let mut python = Command::new("python3");
    python.args(["-c", LEASE]).current_dir(it.sls.folder());
    let holder = Target::ready(&it.sls.subfolder("holder"), python);
    let to = format!("@{epoch}");
    it.sls
        .refused(&["rewind", "-m", &to], 1, "the present was put back");
    it.order("assert n == 2", "it is as it was");
    drop(holder);
    assert_eq!(it.rewind(epoch), "[]");
    it.order("assert n == 1 and os.read(a, 9) == b'text'", "it went back");
    it.end();
}
