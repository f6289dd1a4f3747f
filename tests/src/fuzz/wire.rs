//! The protocol in both directions, and the record that comes with it.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use introspect::{History as _, View};
use libsls::control::{Act, By, Wait, What};
use libsls::protocol::{
    Answer, Breach, CheckRow, Checkpoint, Failure, Hello, History, HistoryRow, Keep, MAGIC,
    MAX_ANSWER, MAX_REQUEST, PartStat, PsRow, Request, Restored, Rewound, Stat, VERSION, Watched,
};
use libsls::record::{self, Record};
use libsls::view::{CheckpointView, PartitionHistory};
use libsls::{Client, EpochRef, read_frame, write_frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::within;

/// A byte on the wire stands for at most so many in memory: the smallest element of a list against
/// its size, twice as a growing list is copied.
const BYTES_A_BYTE: usize = 400;
/// serde sets aside a megabyte for each list that announces more.
const BYTES_IN_ANY_CASE: usize = 8 << 20;
/// What a socket holds although nobody reads.
const LONGEST_CONVERSATION: usize = 64 << 10;

/// Bytes that slsd gets.
pub fn request(bytes: &[u8]) {
    comes_back::<Hello>(bytes, 64);
    comes_back::<Request>(bytes, MAX_REQUEST);
}

/// Bytes that a client gets.
pub fn answer(bytes: &[u8]) {
    comes_back::<Hello>(bytes, MAX_REQUEST);
    comes_back::<Answer>(bytes, MAX_ANSWER);
}

/// What parses is the same once written and read again.
fn comes_back<T>(mut bytes: &[u8], limit: u32)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let memory = bytes.len() * BYTES_A_BYTE + BYTES_IN_ANY_CASE;
    let read = within(memory, "a frame", || read_frame::<T>(&mut bytes, limit));
    if let Ok(message) = read {
        let mut again = Vec::new();
        write_frame(&mut again, &message, u32::MAX).expect("what was read can be written");
        let read: T = read_frame(&mut &again[..], u32::MAX).expect("and read");
        assert_eq!(read, message);
    }
}

/// Bytes of a record.
pub fn record(bytes: &[u8]) {
    let memory = bytes.len() * BYTES_A_BYTE + BYTES_IN_ANY_CASE;
    if let Ok(record) = within(memory, "a record", || record::decode(bytes)) {
        let again = record::encode(&record).expect("what was read can be written");
        assert_eq!(record::decode(&again).expect("and read"), record);
    }
}

/// Everything slsd says to a client that looks at two checkpoints.
pub fn view(bytes: &[u8]) {
    let (mut daemon, client) = UnixStream::pair().expect("a socket pair");
    let bytes = &bytes[..bytes.len().min(LONGEST_CONVERSATION)];
    daemon.write_all(bytes).expect("it is short");
    daemon.shutdown(Shutdown::Write).expect("it is open");
    if let Ok(client) = Client::over(client) {
        converse(client);
    }
}

fn converse(mut client: Client) {
    let Ok(history) = client.history(None) else {
        return;
    };
    for epoch in ["@-1", "@n", "@2"] {
        let epoch: EpochRef = epoch.parse().expect("a reference");
        let _ = epoch.resolve(&history);
    }
    let client = Rc::new(RefCell::new(client));
    if let Ok(view) = CheckpointView::open(&client, "mem", history.head, None) {
        look(&view);
    }
    let line = PartitionHistory::new(&client, &history, None, (0, history.head));
    let epochs = line.epochs();
    let read: introspect::ReadSet = Default::default();
    for pair in epochs.windows(2).take(4) {
        let _ = line.unchanged(pair[0].0, pair[1].0, &read);
        if let Ok(view) = line.view(pair[0].0) {
            look(&*view);
        }
    }
}

fn look(view: &dyn View) {
    view.auxv();
    view.threads();
    for mapping in view.mappings().iter().take(8) {
        for address in [mapping.start, mapping.end.wrapping_sub(4)] {
            let _ = view.read(address, &mut [0; 8]);
        }
    }
}

fn framed<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, message, u32::MAX).expect("a message of ours");
    bytes
}

const HELLO: Hello = Hello {
    magic: MAGIC,
    version: VERSION,
};

/// One of each kind.
#[must_use]
pub fn every_request() -> Vec<Request> {
    let part = || Some("mem".to_owned());
    vec![
        Request::PartAdd {
            part: "web".into(),
            keep: Keep::Last(9),
            budget: Some(1 << 20),
            period_ms: Some(10),
            store: Some("/s".into()),
        },
        Request::PartDel { part: "web".into() },
        Request::Export {
            part: part(),
            first: Some(1),
            last: None,
            store: "/s".into(),
            name: Some("web".into()),
        },
        Request::Import {
            store: "/s".into(),
            from: None,
            part: part(),
            budget: Some(1 << 20),
        },
        Request::Bundle {
            part: part(),
            first: None,
            last: Some(9),
            file: "/b.sls".into(),
            name: None,
        },
        Request::Files { part: part() },
        Request::Unstore {
            store: "/s".into(),
            part: "web".into(),
        },
        Request::Snapshots {
            store: Some("/s".into()),
        },
        Request::Control {
            part: Some("web".into()),
            pid: Some(4711),
            act: Act::Break {
                what: What::Place("main.c:12".into()),
                condition: Some("i == 7".into()),
                tid: Some(4712),
                temporary: true,
            },
        },
        Request::Control {
            part: None,
            pid: None,
            act: Act::Step {
                by: By::Line,
                over: true,
                count: 3,
                tid: None,
                wait: Wait::Ms(250),
            },
        },
        Request::EpochWait {
            part: part(),
            epoch: Some(7),
        },
        Request::Watch {
            part: part(),
            pid: Some(7),
            expr: "counter >= 0".into(),
            tid: Some(8),
            frame: Some("main".into()),
        },
        Request::Attach {
            pid: 1,
            part: "web".into(),
            period_ms: None,
            follow: true,
            hold: true,
            begins: false,
        },
        Request::Detach {
            pid: Some(-1),
            part: part(),
        },
        Request::Checkpoint {
            part: None,
            name: part(),
            follow: false,
        },
        Request::Rewind {
            part: part(),
            epoch: 3,
            stay_stopped: true,
        },
        Request::Restore {
            part: part(),
            epoch: 3,
            stay_stopped: false,
            force: true,
            inherit: vec![(3, "pipe:[7]".into())],
            lazy: true,
            pidns: true,
            tcp_close: true,
        },
        Request::Branch {
            part: part(),
            epoch: 3,
            into: Some("other".into()),
            stay_stopped: true,
            force: false,
            lazy: true,
        },
        Request::Ended { part: None, pid: 7 },
        Request::Suspend { part: part() },
        Request::Resume { part: None },
        Request::Ps,
        Request::History { part: part() },
        Request::Record {
            part: part(),
            epoch: u64::MAX,
        },
        Request::Pages {
            part: part(),
            epoch: 1,
            space: 0,
            runs: vec![(7, 8), (100, 1)],
        },
        Request::Changed {
            part: part(),
            from: 1,
            to: 2,
            pages: vec![(0, 7, 8)],
        },
        Request::DiffPages {
            part: part(),
            from: 1,
            to: 2,
            space: 0,
        },
        Request::Kept {
            part: part(),
            epoch: 1,
            space: 0,
        },
        Request::Name {
            part: part(),
            epoch: 1,
            name: None,
        },
        Request::Stat,
        Request::Check,
        Request::Steady {
            part: part(),
            pid: Some(1),
            from: 1,
            epochs: vec![2, 3, 4],
            pages: vec![(0, 7, 8)],
        },
    ]
}

/// Frames of [`every_request`].
pub fn requests() -> Vec<Vec<u8>> {
    let hello = framed(&HELLO);
    let frames = every_request();
    frames.iter().map(framed).chain([hello]).collect()
}

fn history() -> History {
    let row = |epoch: u64| HistoryRow {
        epoch,
        parent: epoch.checked_sub(1).filter(|&n| n > 0),
        branch: "main".into(),
        name: Some("n".into()),
        time: epoch,
        stop_us: 300,
        pages: 4,
        bytes: 1900,
        pids: vec![1],
    };
    History {
        partition: "mem".into(),
        head: 3,
        branch: "main".into(),
        checkpoints: (1..=3).map(row).collect(),
    }
}

fn every_answer() -> Vec<Answer> {
    vec![
        Answer::Done,
        Answer::Failed {
            kind: Failure::Usage,
            message: "no".into(),
        },
        Answer::Attached {
            part: "mem".into(),
            tracking: "write protection".into(),
        },
        Answer::Checkpoint(Checkpoint {
            partition: "mem".into(),
            epoch: 3,
            stop_us: 300,
            pages: 4,
            bytes: 1900,
            cost: Default::default(),
        }),
        Answer::Rewound(Rewound {
            from: 3,
            to: 1,
            branch: "rewind-1".into(),
            pages: 2,
            stop_us: 900,
            not_restored: vec!["a socket".into()],
        }),
        Answer::Restored(Restored {
            partition: "mem".into(),
            epoch: 3,
            pids: vec![(7, 7)],
            branch: "restore-1".into(),
            pages: 2,
            us: 900,
            not_restored: vec!["a socket".into()],
        }),
        Answer::Ended(Some(256)),
        Answer::Watched(Watched {
            partition: "web".into(),
            checked: 7,
            evaluations: 2,
            untold: 1,
            breach: Some(Breach {
                epoch: 7,
                time: 1 << 60,
                name: Some("breach".into()),
                text: "false".into(),
                kept: vec![6, 7],
            }),
        }),
        Answer::Ps(vec![PsRow {
            pid: 1,
            partition: "mem".into(),
            state: "running".into(),
            threads: 1,
            comm: "init".into(),
            period_ms: Some(9),
            checkpoints: 3,
            tracking: String::new(),
            trouble: None,
        }]),
        Answer::History(history()),
        pages(),
        Answer::Changed(true),
        Answer::PageRuns(vec![(7, 8)]),
        Answer::Stat(Stat {
            partitions: vec![PartStat::default()],
            ..Stat::default()
        }),
        Answer::Check(vec![CheckRow {
            name: "root".into(),
            ok: true,
            effect: "all".into(),
            remedy: None,
        }]),
        Answer::Steady {
            same: 1,
            remapped: false,
        },
    ]
}

fn pages() -> Answer {
    Answer::Pages {
        present: vec![true, false],
        bytes: vec![7; 4096],
    }
}

/// One of each kind of answer.
pub fn answers() -> Vec<Vec<u8>> {
    let records = records().into_iter().map(|r| framed(&Answer::Record(r)));
    every_answer().iter().map(framed).chain(records).collect()
}

/// Whole conversations that go well.
pub fn conversations() -> Vec<Vec<u8>> {
    let well = |record: Vec<u8>| {
        let record = framed(&Answer::Record(record));
        let steady = framed(&Answer::Steady {
            same: 2,
            remapped: false,
        });
        [
            framed(&HELLO),
            framed(&Answer::History(history())),
            record.clone(),
            framed(&pages()),
            framed(&pages()),
            record,
            steady,
            framed(&pages()),
        ]
        .concat()
    };
    records().into_iter().map(well).collect()
}

/// A record of everything, and an empty one.
pub fn records() -> Vec<Vec<u8>> {
    let event = Some(record::Event::Exec { tid: 7 });
    let processes = vec![super::sample::process()];
    let ended = vec![super::sample::ended()];
    [
        Record::default(),
        Record {
            event,
            processes,
            ended,
            renamed: vec![super::sample::renamed()],
            taken_ns: 1,
            is_family: true,
        },
    ]
    .iter()
    .map(|r| record::encode(r).expect("a record of ours"))
    .collect()
}
