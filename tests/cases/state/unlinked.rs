//! Files that were unlinked while they are open.

use testkit::Obedient;

use super::both_ways;

const MADE: &str = "a = os.open('gone', os.O_RDWR | os.O_CREAT, 0o640); fill = os.urandom(9999); \
    os.write(a, fill); b = os.open('gone', os.O_RDONLY); os.lseek(b, 7, 0); \
    c = os.open('gone', os.O_WRONLY | os.O_APPEND); os.unlink('gone')";

const LOOK: &str = "assert os.pread(b, 99999, 0) == fill and os.lseek(b, 0, 1) == 7; \
    assert os.pread(a, 9, 20) == fill[20:29] and os.lseek(a, 0, 1) == 9999; \
    assert os.fstat(a).st_ino == os.fstat(b).st_ino == os.fstat(c).st_ino; \
    s = os.fstat(a); assert s.st_nlink == 0 and s.st_mode & 0o777 == 0o640 and s.st_size == 9999";

/// Reads and writes go to one file, by way of descriptors as they were.
const GOES_ON: &str = "os.write(c, b'end'); assert os.pread(b, 9, 9999) == b'end'; \
    os.ftruncate(a, 5); assert os.pread(b, 99, 0) == fill[:5]";

#[test]
fn it_has_what_it_held() {
    let mut it = Obedient::start();
    it.order(MADE, "made");
    let whole = it.checkpoint();
    let changes = [
        "pass",
        "os.pwrite(a, b'other', 100)",
        "os.ftruncate(a, 3)",
        "os.write(c, b'x' * 5000)",
        "os.close(a)",
        "os.close(b); os.close(c)",
        "os.close(a); os.close(b); os.close(c)",
    ];
    for (n, change) in changes.iter().enumerate() {
        it.order(change, &format!("changed {n}"));
        assert_eq!(it.rewind(whole), "[]", "{change}");
        it.order(LOOK, &format!("as it was {n}"));
    }
    both_ways(&mut it, whole, |it| {
        it.order(LOOK, "as it was");
        it.order(GOES_ON, "goes on");
    });
    it.end();
}

/// Mapped, privately and with others.
#[test]
fn mappings_of_it_are_made_again() {
    let mut it = Obedient::start();
    it.order("import mmap, tempfile", "imported");
    it.order(
        "t = tempfile.TemporaryFile(dir='.'); t.write(b't' * 8192); t.flush()",
        "made",
    );
    it.order("own = mmap.mmap(t.fileno(), 8192, mmap.MAP_PRIVATE)", "own");
    it.order("with_all = mmap.mmap(t.fileno(), 8192)", "shared");
    it.order("own[0:3] = b'own'; with_all[4096:4099] = b'all'", "written");
    let epoch = it.checkpoint();
    let look = "assert own[:4] == b'ownt' and own[4096:4100] == b'allt'; \
        assert with_all[:4] == b'tttt' and os.pread(t.fileno(), 4, 4096) == b'allt'";
    it.order(look, "as it is");
    it.order("with_all[0:8192] = b'z' * 8192", "changed");
    both_ways(&mut it, epoch, |it| {
        it.order(look, "as it was");
        it.order("with_all[8000:8003] = b'new'", "written again");
        assert_eq!(it.tell("os.pread(t.fileno(), 3, 8000)"), "b'new'");
        it.order("t.seek(0, 2); assert t.tell() == 8192", "its end");
    });
    it.end();
}

/// Above the limit nothing is kept; it says so, and which limit.
#[test]
fn one_that_is_too_long_is_refused() {
    let mut it = Obedient::start();
    it.order(
        "l = os.open('long', os.O_RDWR | os.O_CREAT); os.unlink('long')",
        "made",
    );
    it.order("os.ftruncate(l, (1 << 20) + 1)", "too long");
    let epoch = it.checkpoint();
    it.order("os.ftruncate(l, 1 << 20)", "just right");
    let right = it.checkpoint();
    it.kill();
    let at = format!("@{epoch}");
    it.sls
        .refused(&["restore", "-m", &at], 1, "longer than the 1 MiB");
    assert_eq!(it.restore(right), [""; 0]);
    assert_eq!(it.tell("os.fstat(l).st_size"), "1048576");
    it.end();
}

/// A folder without a name cannot be made again.
#[test]
fn a_folder_is_refused_by_name() {
    let mut it = Obedient::start();
    it.order(
        "os.mkdir('d'); d = os.open('d', os.O_RDONLY); os.rmdir('d')",
        "made",
    );
    let _ = it.checkpoint();
    it.kill();
    it.sls.refused(&["restore", "-m"], 1, "/d (deleted)");
    let lost = it.restore_as(&["--force"]);
    assert!(
        lost.len() == 1 && lost[0].contains("/d (deleted)"),
        "{lost:?}"
    );
    it.end();
}
