//! What a program has advised the kernel of its memory (madvise).

use std::collections::BTreeMap;

use testkit::Obedient;

const KINDS: [(&str, &str, i32, i32); 7] = [
    ("dd", "core dumps", 16, 17),
    ("dc", "forks", 10, 11),
    ("wf", "wiped on fork", 18, 19),
    ("mg", "merged", 12, 13),
    ("rr", "random", 1, 0),
    ("sr", "in sequence", 2, 0),
    ("hg", "huge pages", 14, 15),
];
const PAGES: usize = 4;

/// By the page of `area` at which they begin: flags that only advice sets.
fn advised(it: &mut Obedient) -> BTreeMap<u64, String> {
    let pid = it.pid();
    let base: u64 = it.tell("base").parse().unwrap();
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut found = BTreeMap::new();
    let mut start = 0;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let all = ["dd", "dc", "wf", "mg", "rr", "sr", "hg", "nh"];
            let own = flags.split_whitespace().filter(|f| all.contains(f));
            let own: Vec<&str> = own.collect();
            let end = base + ((KINDS.len() * 2 * PAGES) << 12) as u64;
            if (base..end).contains(&start) && !own.is_empty() {
                found.insert((start - base) >> 12, own.join(" "));
            }
        } else if let Some((first, _)) = line.split_once('-') {
            start = u64::from_str_radix(first, 16).unwrap_or(start);
        }
    }
    found
}

#[test]
fn it_comes_back_and_goes() {
    let mut it = Obedient::start();
    it.order("import mmap, ctypes", "imported");
    let len = (KINDS.len() * 2 * PAGES) << 12;
    it.order(
        &format!("area = mmap.mmap(-1, {len}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); area[0:9] = b'something'"),
        "mapped",
    );
    it.order(
        "base = ctypes.addressof(ctypes.c_char.from_buffer(area)); c = ctypes.CDLL(None); \
         advise = lambda page, how: c.madvise(ctypes.c_void_p(base + page * 4096), 16384, how)",
        "ready to advise",
    );
    let plain = it.checkpoint();
    for (n, (_, name, give, _)) in KINDS.iter().enumerate() {
        let page = n * 2 * PAGES;
        it.order(&format!("assert advise({page}, {give}) == 0"), name);
    }
    let given = advised(&mut it);
    let kinds: Vec<&str> = given.values().map(String::as_str).collect();
    assert_eq!(kinds, KINDS.map(|kind| kind.0));
    let all = it.checkpoint();
    for round in 0..2 {
        let lost = it.rewind(plain);
        let left = advised(&mut it);
        // There is no way back from advice about huge pages but the opposite.
        assert!(
            lost.contains("huge pages that was given since stays"),
            "{lost}"
        );
        assert_eq!(left.values().collect::<Vec<_>>(), ["hg"], "{round}");
        assert_eq!(it.rewind(all), "[]");
        assert_eq!(advised(&mut it), given);
    }
    it.order("c.munmap(ctypes.c_void_p(base), 65536)", "unmapped");
    assert_eq!(it.rewind(all), "[]");
    assert_eq!(advised(&mut it), given, "mapped anew");
    assert_eq!(it.restore(all), [""; 0]);
    assert_eq!(advised(&mut it), given, "after a restore");
    it.order("assert area[0:9] == b'something'", "its content too");
    assert_eq!(it.restore(plain), [""; 0]);
    assert_eq!(advised(&mut it).len(), 0);
    it.order("advise(0, 15)", "no huge pages");
    let none = it.checkpoint();
    it.order("advise(0, 14)", "huge pages");
    assert_eq!(it.rewind(none), "[]");
    assert_eq!(advised(&mut it)[&0], "nh");
    it.end();
}
