//! The store on tmpfs under a real `kill -9`, and under readers beside a writer.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use slos::{
    Base, Draft, Epoch, Excerpt, ExcerptError, Keep, OpenError, Options, PAGE, PageIndex,
    Partition, Settings, SpaceDelta, SpaceId, Store,
};

const PAGES: u64 = 40;
const CHILD: &str = "SLOS_TEST_CHILD";

/// What page `page` holds at commit number `n`: half of the pages change each time.
fn content(n: u64, page: u64) -> [u8; PAGE] {
    let changed = n - (n + page) % 2;
    let mut bytes = [page as u8; PAGE];
    bytes[..8].copy_from_slice(&changed.to_le_bytes());
    bytes[2000..2008].copy_from_slice(&changed.wrapping_mul(0x9e37_79b9).to_le_bytes());
    bytes
}

fn commit(part: &Partition, parent: Option<Epoch>) -> Epoch {
    let n = parent.map_or(1, |p| p.0 + 1);
    let contents: Vec<[u8; PAGE]> = (0..PAGES).map(|p| content(n, p)).collect();
    let pages = contents
        .iter()
        .zip(0..)
        .map(|(b, p)| (PageIndex(p), &b[..]));
    let draft = Draft {
        parent,
        branch: "main".to_owned(),
        name: None,
        time_ns: n,
        stop_us: 0,
        record: &n.to_le_bytes(),
        spaces: vec![SpaceDelta {
            space: SpaceId(0),
            base: parent.map_or(Base::Empty, |_| Base::Parent),
            dropped: Vec::new(),
            pages: pages.collect(),
        }],
        meta: Vec::new(),
    };
    part.commit(&draft).unwrap().epoch
}

fn check(part: &Partition, epoch: Epoch) {
    let mut out = [0; PAGE];
    for page in 0..PAGES {
        part.read_page(epoch, SpaceId(0), PageIndex(page), &mut out)
            .unwrap();
        assert!(out == content(epoch.0, page), "{epoch} page {page}");
    }
    assert_eq!(part.record(epoch).unwrap(), epoch.0.to_le_bytes());
}

fn options() -> Options {
    Options {
        budget: Some(2 << 20),
        segment_size: None,
    }
}

/// Commits for ever, naming each checkpoint once it is acknowledged.
fn write_for_ever(dir: &Path) -> ! {
    let (store, _) = Store::open(dir, options()).unwrap();
    let part = store.partition("p").unwrap();
    let mut parent = part.newest().unwrap();
    loop {
        let epoch = commit(&part, parent);
        println!("acked {}", epoch.0);
        parent = Some(epoch);
    }
}

#[test]
fn acknowledged_checkpoints_survive_kill_9() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    store.add_partition("p", Settings::default()).unwrap();
    drop(store);
    for round in 0..8u64 {
        let acked = kill_a_writer(dir.path(), Duration::from_millis(30 + round * 23));
        let (store, report) = Store::open(dir.path(), options()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        let part = store.partition("p").unwrap();
        let newest = part.newest().unwrap().unwrap();
        assert!(
            newest.0 == acked || newest.0 == acked + 1,
            "{newest}, acked {acked}"
        );
        for info in part.history().unwrap() {
            check(&part, info.epoch);
        }
        assert!(store.verify().unwrap().is_clean());
    }
}

/// Runs a writer for a while and kills it; the last epoch it said was acknowledged.
fn kill_a_writer(dir: &Path, life: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "acknowledged_checkpoints_survive_kill_9",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut started = None;
    let mut acked = 0;
    for line in lines.map_while(Result::ok) {
        // The harness may print its own words before the first one of ours on the line.
        let Some((_, number)) = line.split_once("acked ") else {
            continue;
        };
        acked = number.parse().unwrap_or(acked);
        let started = *started.get_or_insert_with(Instant::now);
        if started.elapsed() > life {
            child.kill().ok();
        }
    }
    child.wait().unwrap();
    assert!(acked > 0, "the writer never got anywhere");
    acked
}

#[test]
fn readers_beside_a_writer_and_its_cleaner_read_exactly() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    let settings = Settings {
        keep: Keep::Last(50),
        budget: None,
    };
    let part = store.add_partition("p", settings).unwrap();
    let mut last = commit(&part, None);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut checked = 0u64;
            while !done.load(Ordering::Relaxed) {
                for info in part.history().unwrap().into_iter().step_by(9) {
                    // It may be thinned between the listing and the hold.
                    if let Ok(hold) = part.hold(info.epoch) {
                        check(&part, hold.epoch());
                        checked += 1;
                    }
                }
            }
            checked
        });
        for _ in 0..if cfg!(debug_assertions) { 200 } else { 3000 } {
            last = commit(&part, Some(last));
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 10);
    });
    check(&part, last);
}

#[test]
fn a_store_has_one_user_at_a_time() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("s");
    let missing = Store::open(&path, Options::default());
    assert!(matches!(missing, Err(OpenError::NoStore { .. })));
    let store = Store::create(&path, Options::default()).unwrap();
    let second = Store::open(&path, Options::default());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    drop(store);
    let again = Store::create(&path, Options::default());
    assert!(matches!(again, Err(OpenError::Exists { .. })));
    assert!(Store::open(&path, Options::default()).unwrap().1.is_clean());
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn an_excerpt_is_read_without_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (list, segments, kept) = {
        let store = Store::create(&path, options()).unwrap();
        let part = store.add_partition("p", Settings::default()).unwrap();
        let mut epoch = commit(&part, None);
        for _ in 0..20 {
            epoch = commit(&part, Some(epoch));
        }
        let all = PageIndex(0)..PageIndex(PAGES / 2);
        let some = PageIndex(PAGES - 2)..PageIndex(PAGES + 5);
        let wanted = [(SpaceId(0), vec![all, some])];
        let excerpt = part.excerpt(epoch, &wanted).unwrap();
        assert_eq!(excerpt.len() as u64, PAGES / 2 + 2);
        let segments = excerpt.segments().unwrap().into_iter();
        let segments: Vec<_> = segments
            .map(|(id, fd)| (id, fd.try_clone_to_owned().unwrap()))
            .collect();
        (excerpt.to_bytes().unwrap(), segments, epoch)
    };
    std::fs::remove_dir_all(&path).unwrap();
    assert!(Excerpt::from_parts(&list[..list.len() - 1], Vec::new()).is_err());
    assert!(matches!(
        Excerpt::from_parts(&list, Vec::new()),
        Err(ExcerptError::Missing(_))
    ));
    let excerpt = Excerpt::from_parts(&list, segments).unwrap();
    let pages: Vec<u64> = excerpt.pages(0).map(|p| p.0).collect();
    let expected: Vec<u64> = (0..PAGES / 2).chain(PAGES - 2..PAGES).collect();
    assert_eq!(pages, expected);
    let mut out = [0; PAGE];
    for page in 0..PAGES {
        let is_there = excerpt.read(0, PageIndex(page), &mut out).unwrap();
        assert_eq!(is_there, expected.contains(&page), "page {page}");
        let content = if is_there {
            content(kept.0, page)
        } else {
            [0; PAGE]
        };
        assert!(out == content, "page {page}");
    }
}
