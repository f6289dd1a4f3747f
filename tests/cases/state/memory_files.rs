//! memfd_create(2): what one holds that nobody has mapped, and its seals.

use testkit::Obedient;

use super::both_ways;

#[test]
fn one_that_nobody_has_mapped() {
    let mut it = Obedient::start();
    it.order("m = os.memfd_create('plain', 0); other = os.dup(m)", "made");
    it.order("fill = os.urandom(70000); os.write(m, fill)", "filled");
    let full = it.checkpoint();
    it.order("os.ftruncate(m, 10); os.pwrite(m, b'short', 2)", "changed");
    let short = it.checkpoint();
    let all = "assert os.pread(other, 99999, 0) == fill; assert os.lseek(m, 0, 1) == 70000";
    let part = "assert os.pread(m, 99, 0) == fill[:2] + b'short' + fill[7:10]";
    for _ in 0..2 {
        assert_eq!(it.rewind(full), "[]");
        it.order(all, "all of it");
        assert_eq!(it.rewind(short), "[]");
        it.order(part, "a part");
    }
    it.order("os.close(m); os.close(other)", "closed");
    both_ways(&mut it, short, |it| it.order(part, "a part again"));
    it.order("os.close(m); os.close(other)", "closed again");
    both_ways(&mut it, full, |it| it.order(all, "all of it again"));
    it.order("os.write(m, b'more')", "more");
    let more = it.checkpoint();
    both_ways(&mut it, more, |it| {
        it.order("assert os.pread(m, 99999, 0) == fill + b'more'", "and more");
    });
    it.end();
}

/// Periodic checkpoints find a change without reading what did not change.
#[test]
fn a_change_is_seen_without_being_asked_for() {
    let mut it = Obedient::start();
    it.order(
        "m = os.memfd_create('seen'); os.write(m, b'a' * 9000)",
        "made",
    );
    it.attach(&["-t", "20"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    it.order("os.pwrite(m, b'b', 5000)", "written");
    std::thread::sleep(std::time::Duration::from_millis(300));
    it.kill();
    let newest = it.sls.json(&["history", "-m"]);
    let newest = newest["checkpoints"].as_array().unwrap().last().unwrap();
    let newest = newest["epoch"].as_u64().unwrap();
    assert!(newest > 10, "{newest}");
    assert_eq!(it.restore(newest), [""; 0]);
    let told = it.tell("os.pread(m, 2, 4999), os.fstat(m).st_size");
    assert_eq!(told, "(b'ab', 9000)");
    it.end();
}

#[test]
fn seals_come_back_and_stay() {
    let mut it = Obedient::start();
    it.order("import fcntl, mmap", "imported");
    it.order(
        "m = os.memfd_create('sealed', os.MFD_ALLOW_SEALING)",
        "made",
    );
    it.order(
        "os.write(m, b's' * 5000); n = os.memfd_create('no more')",
        "filled",
    );
    let free = it.checkpoint();
    it.order("view = mmap.mmap(os.open(f'/proc/self/fd/{m}', os.O_RDONLY), 5000, mmap.MAP_SHARED, mmap.PROT_READ)", "mapped");
    let seal = "fcntl.fcntl(m, 1033, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)";
    it.order(seal, "sealed");
    let sealed = it.checkpoint();
    let seals = "fcntl.fcntl(m, fcntl.F_GET_SEALS), fcntl.fcntl(n, fcntl.F_GET_SEALS)";
    assert_eq!(it.tell(seals), "(14, 1)");
    both_ways(&mut it, sealed, |it| {
        assert_eq!(it.tell(seals), "(14, 1)");
        it.order(
            "assert view[4990:] == b's' * 10 == os.pread(m, 99, 4990)",
            "as it was",
        );
    });
    let lost = it.rewind(free);
    assert!(lost.contains("seals that were added since stay"), "{lost}");
    assert_eq!(it.restore(free), [""; 0]);
    assert_eq!(it.tell(seals), "(0, 1)");
    it.order("os.pwrite(m, b'x', 0)", "writable");
    assert_eq!(it.rewind(sealed), "[]");
    assert_eq!(it.tell(seals), "(14, 1)");
    assert_eq!(it.tell("os.pread(m, 2, 0)"), "b'ss'");
    it.end();
}

/// Longer than what is kept, and nobody has mapped it.
#[test]
fn one_that_is_too_long_is_named() {
    let mut it = Obedient::start();
    it.order(
        "m = os.memfd_create('long'); os.ftruncate(m, 3 << 20)",
        "made",
    );
    let epoch = it.checkpoint();
    it.kill();
    it.sls
        .refused(&["restore", "-m"], 1, "longer than the 1 MiB");
    let lost = it.restore_as(&[&format!("@{epoch}"), "--force"]);
    assert!(
        lost.len() == 1 && lost[0].contains("memfd:long"),
        "{lost:?}"
    );
    assert_eq!(it.tell("os.fstat(m).st_size"), "3145728");
    it.end();
}
