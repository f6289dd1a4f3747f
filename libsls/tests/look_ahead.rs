//! A history query asks far ahead while nothing changes, and is right where something does.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // Tests fail by panicking.

use std::cell::RefCell;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use introspect::{History as _, ReadSet};
use libsls::protocol::{Answer, Hello, History, HistoryRow, MAGIC, Request, VERSION};
use libsls::record::{Backing, Mapping, Perms, Process, Record, encode};
use libsls::view::PartitionHistory;
use libsls::{Client, read_frame, write_frame};

const EPOCHS: u64 = 1000;
const LIMIT: u32 = 1 << 24;

/// The page changes at every 100th epoch, other mappings come and go at every 250th.
fn content(epoch: u64) -> u64 {
    epoch / 100
}

fn process(epoch: u64) -> Process {
    let mapping = |start: u64| Mapping {
        start,
        end: start + 0x1000,
        perms: Perms::default(),
        offset: 0,
        dev: 0,
        inode: 0,
        path: String::new(),
        backing: Backing::Anonymous,
        file_mtime_ns: 0,
        grows_down: false,
        locked: false,
        advice: Vec::new(),
        key: 0,
    };
    let other = 0x10_0000 * (1 + epoch / 250);
    Process {
        pid: 7,
        start_ticks: 1,
        space: 1,
        mappings: vec![mapping(0x1000), mapping(other)],
        ..Process::default()
    }
}

fn answer(request: &Request) -> Answer {
    match request {
        Request::Record { epoch, .. } => {
            let record = Record {
                processes: vec![process(*epoch)],
                ..Record::default()
            };
            Answer::Record(encode(&record).unwrap())
        }
        Request::Changed {
            from, to, pages, ..
        } => {
            assert_eq!(pages, &[(1, 1, 1)]);
            Answer::Changed(content(*from) != content(*to))
        }
        Request::Steady {
            from,
            epochs,
            pages,
            ..
        } => {
            assert_eq!(pages, &[(1, 1, 1)]);
            let maps = |epoch| process(epoch).mappings;
            let stays = |e: &&u64| content(**e) == content(*from) && maps(**e) == maps(*from);
            let same = epochs.iter().take_while(stays).count();
            let remapped = (epochs.get(same)).is_some_and(|next| maps(*next) != maps(*from));
            Answer::Steady {
                same: same as u32,
                remapped,
            }
        }
        other => panic!("{other:?}"),
    }
}

fn serve(socket: &Path, asked: Arc<AtomicUsize>) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _: Hello = read_frame(&mut stream, LIMIT).unwrap();
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
        };
        write_frame(&mut stream, &hello, LIMIT).unwrap();
        while let Ok(request) = read_frame::<Request>(&mut stream, LIMIT) {
            asked.fetch_add(1, Ordering::SeqCst);
            write_frame(&mut stream, &answer(&request), LIMIT).unwrap();
        }
    });
}

fn tree() -> History {
    let row = |epoch: u64| HistoryRow {
        epoch,
        parent: epoch.checked_sub(1).filter(|parent| *parent > 0),
        branch: "main".into(),
        name: None,
        time: epoch,
        stop_us: 0,
        pages: 0,
        bytes: 0,
        pids: vec![7],
    };
    History {
        partition: "mem".into(),
        head: EPOCHS,
        branch: "main".into(),
        checkpoints: (1..=EPOCHS).map(row).collect(),
    }
}

#[test]
fn few_questions_and_every_change_found() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let asked = Arc::new(AtomicUsize::new(0));
    serve(&socket, Arc::clone(&asked));
    let client = Rc::new(RefCell::new(Client::connect(&socket).unwrap()));
    let history = PartitionHistory::new(&client, &tree(), None, (1, EPOCHS));
    let mut read = ReadSet::default();
    read.add(0x1010, 8);
    for epoch in 1..EPOCHS {
        let same = history.unchanged(epoch, epoch + 1, &read).unwrap();
        assert_eq!(same, content(epoch) == content(epoch + 1), "@{epoch}");
    }
    let few = asked.load(Ordering::SeqCst);
    assert!(few < 200, "{few} questions for {EPOCHS} epochs");
    // Another read set is another question, whatever is known of the last one.
    read.add(0x5000, 8);
    let before = asked.load(Ordering::SeqCst);
    assert!(history.unchanged(10, 11, &read).unwrap());
    assert!(asked.load(Ordering::SeqCst) > before);
}
