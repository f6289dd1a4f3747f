//! inotify: watches under their numbers, also where others were removed before.

use testkit::Obedient;

const IMPORT: &str = "import ctypes, struct; c = ctypes.CDLL(None, use_errno=True); \
    names = lambda b: [struct.unpack_from('iI', b, at) for at in range(0, len(b), 16)]";

/// What is watched, as the kernel shows it.
fn watched(it: &mut Obedient) -> String {
    it.tell("sorted(l for l in open(f'/proc/self/fdinfo/{i}') if l.startswith('inotify '))")
}

#[test]
fn watches_come_back_under_their_numbers() {
    let mut it = Obedient::start();
    it.order(IMPORT, "imported");
    it.order(
        "os.mkdir('d'); open('f', 'w').close(); i = c.inotify_init1(0o4000)",
        "made",
    );
    it.order("a = c.inotify_add_watch(i, b'd', 0x100)", "a folder");
    it.order(
        "[c.inotify_rm_watch(i, c.inotify_add_watch(i, b'f', 2)) for _ in range(300)]",
        "removed",
    );
    it.order(
        "b = c.inotify_add_watch(i, b'f', 0x6); n = len(os.read(i, 99999))",
        "a file",
    );
    assert_eq!(it.tell("a, b"), "(1, 302)");
    let epoch = it.checkpoint();
    let all = watched(&mut it);
    assert!(all.contains("wd:12e ") && all.contains("wd:1 "), "{all}");
    let works = "os.rmdir('d/x') if os.path.exists('d/x') else 0; os.mkdir('d/x'); os.chmod('f', 0o600); \
        seen = os.read(i, 9999)";
    let changes = [
        "c.inotify_rm_watch(i, b)",
        "c.inotify_add_watch(i, b'f', 0x100)",
        "c.inotify_add_watch(i, b'.', 0x2)",
        "os.close(i)",
    ];
    for (n, change) in changes.iter().enumerate() {
        it.order(change, &format!("changed {n}"));
        assert_eq!(it.rewind(epoch), "[]", "{change}");
        assert_eq!(watched(&mut it), all, "{change}");
        // Nothing of how it was made waits to be read.
        assert_eq!(
            it.tell("c.read(i, ctypes.create_string_buffer(99), 99)"),
            "-1"
        );
    }
    for _ in 0..2 {
        assert_eq!(it.restore(epoch), [""; 0]);
        assert_eq!(watched(&mut it), all);
        it.order(works, "works");
        assert_eq!(
            it.tell("struct.unpack_from('iI', seen)[0], seen[-16:-12] == struct.pack('i', b)"),
            "(1, True)"
        );
    }
    it.end();
}

#[test]
fn what_cannot_be_watched_again_is_named() {
    let mut it = Obedient::start();
    it.order(IMPORT, "imported");
    it.order(
        "os.mkdir('d'); open('f', 'w').close(); i = c.inotify_init1(0o4000)",
        "made",
    );
    it.order(
        "c.inotify_add_watch(i, b'd', 0x300); c.inotify_add_watch(i, b'f', 2)",
        "watched",
    );
    it.order("os.mkdir('d/x')", "an event");
    let epoch = it.checkpoint();
    it.kill();
    std::fs::remove_dir_all(it.sls.folder().join("d")).unwrap();
    let lost = it.restore(epoch);
    let [events, gone] = &lost[..] else {
        panic!("{lost:?}");
    };
    assert!(events.contains("32 bytes of events"), "{events}");
    assert!(gone.contains("/d: it is gone"), "{gone}");
    let left = watched(&mut it);
    assert!(left.contains("wd:2 ") && !left.contains("wd:1 "), "{left}");
    it.end();
}
