//! Frames that are right, and what is in them is not.

use libsls::control::{Act, By, Wait};
use libsls::protocol::{Answer, Keep, MAX_ANSWER, MAX_REQUEST, Request};
use libsls::{read_frame, write_frame};
use testkit::Dice;

use super::Scene;
use super::attacks::greeted;

const LONG: usize = 200 << 10;

fn names() -> Vec<String> {
    let mut names: Vec<String> = ["", ".", "..", ".journals", "../../x", "/etc", "a/b", "a\0b"]
        .map(String::from)
        .to_vec();
    names.extend(["a\nb", "\x1b[2J", "lock\u{202e}/"].map(String::from));
    names.extend([
        "x".repeat(65),
        "\x07".repeat(LONG),
        "\u{1f980}".repeat(LONG / 4),
    ]);
    names
}

/// Requests that must be refused, or do no harm. None names what an honest client could not ask
/// just as well: whoever is let in may remove a partition.
pub fn hostile(daemon: i32) -> Vec<Request> {
    let mut all = Vec::new();
    for name in names() {
        let (part, given) = (name.clone(), Some(name.clone()));
        all.push(Request::PartAdd {
            part: name.clone(),
            keep: Keep::Last(0),
            budget: Some(0),
            period_ms: Some(u64::MAX),
            store: None,
        });
        all.push(Request::Attach {
            pid: i32::MAX,
            part,
            period_ms: None,
            follow: false,
            hold: false,
            begins: false,
        });
        all.push(Request::PartDel { part: name.clone() });
        all.push(Request::History {
            part: given.clone(),
        });
        all.push(Request::Checkpoint {
            part: Some("no such".into()),
            name: given.clone(),
            follow: false,
        });
        all.push(Request::Name {
            part: None,
            epoch: u64::MAX,
            name: given,
        });
    }
    for pid in [0, -1, i32::MIN, i32::MAX, daemon] {
        all.push(Request::Attach {
            pid,
            part: "extreme".into(),
            period_ms: Some(u64::MAX),
            follow: false,
            hold: true,
            begins: false,
        });
        all.push(Request::Detach {
            pid: Some(pid),
            part: None,
        });
    }
    for epoch in [0, u64::MAX, 1 << 62] {
        all.extend(of_epoch(epoch));
    }
    for (keep, budget) in [
        (Keep::Last(0), 0),
        (Keep::Last(u64::MAX), u64::MAX),
        (Keep::Log, 1),
    ] {
        all.push(Request::PartAdd {
            part: "extreme".into(),
            keep,
            budget: Some(budget),
            period_ms: Some(u64::MAX),
            store: None,
        });
        all.push(Request::PartDel {
            part: "extreme".into(),
        });
    }
    all
}

fn of_epoch(epoch: u64) -> Vec<Request> {
    let part = None;
    let list = |n: usize| vec![u64::MAX; n];
    vec![
        Request::Rewind {
            part: None,
            epoch,
            stay_stopped: true,
        },
        Request::Restore {
            part: None,
            epoch,
            stay_stopped: false,
            force: true,
            inherit: vec![(i32::MIN, "/".repeat(4096)), (i32::MAX, String::new())],
            lazy: false,
            pidns: false,
            tcp_close: false,
        },
        Request::Branch {
            part: None,
            epoch,
            into: Some("../..".into()),
            stay_stopped: false,
            force: true,
            lazy: true,
        },
        Request::Ended {
            part: None,
            pid: i32::MIN,
        },
        Request::Control {
            part: None,
            pid: Some(i32::MIN),
            act: Act::Step {
                by: By::Line,
                over: true,
                count: u32::MAX,
                tid: Some(i32::MIN),
                wait: Wait::Ms(u64::MAX),
            },
        },
        Request::Record { part: None, epoch },
        Request::Pages {
            part: None,
            epoch,
            space: u32::MAX,
            runs: vec![(u64::MAX, 4096)],
        },
        Request::Pages {
            part: None,
            epoch,
            space: 0,
            runs: vec![(0, u32::MAX); 10_000],
        },
        Request::Changed {
            part: None,
            from: epoch,
            to: u64::MAX,
            pages: vec![(0, 0, u64::MAX); 1000],
        },
        Request::Changed {
            part: None,
            from: epoch,
            to: epoch,
            pages: vec![(0, u64::MAX, 1 << 20)],
        },
        Request::DiffPages {
            part: None,
            from: epoch,
            to: 0,
            space: u32::MAX,
        },
        Request::Kept {
            part: None,
            epoch: 0,
            space: u32::MAX,
        },
        Request::Steady {
            part,
            pid: Some(i32::MIN),
            from: epoch,
            epochs: list(20_000),
            pages: vec![(u32::MAX, u64::MAX, u64::MAX); 1000],
        },
    ]
}

/// Nothing hostile is done, and a refusal is no longer than it needs to be.
pub fn assert_fair(request: &Request, answer: &Answer) {
    let removes_what_it_made = matches!(request, Request::PartAdd { part, .. } | Request::PartDel { part } if part == "extreme");
    match answer {
        Answer::Failed { message, .. } => {
            assert!(
                message.len() < 1000,
                "{}: {} bytes",
                short(request),
                message.len()
            );
        }
        Answer::Done if removes_what_it_made => {}
        // Absent pages, and what never changes.
        Answer::Pages { bytes, .. } => assert!(bytes.is_empty(), "{}", short(request)),
        Answer::Changed(_) => {}
        other => panic!("{}: {other:?}", short(request)),
    }
}

/// Its beginning, for a message.
pub fn short(request: &Request) -> String {
    format!("{request:?}").chars().take(200).collect()
}

/// Frames that are no requests.
pub fn no_requests() -> Vec<Vec<u8>> {
    let framed = |body: &[u8]| {
        let len = u32::try_from(body.len()).unwrap();
        [&len.to_le_bytes(), body].concat()
    };
    // PartDel is 1, then the name's length and its bytes.
    let mut bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![1, 3, 0xff, 0xfe, 0xfd],
        vec![1, 4, 0xf0, 0x9f, 0x98],
        [&[1][..], &[0xff; 10]].concat(),
        vec![0xff; 10],
        vec![200, 1],
    ];
    let mut trailing = Vec::new();
    write_frame(&mut trailing, &Request::Ps, MAX_REQUEST).unwrap();
    bodies.push([&trailing[4..], b"more"].concat());
    bodies.iter().map(|body| framed(body)).collect()
}

/// A page that a checkpoint has.
pub fn a_page(scene: &Scene, epoch: u64) -> u64 {
    let mut stream = greeted(&scene.socket()).unwrap();
    let ask = Request::Record { part: None, epoch };
    write_frame(&mut stream, &ask, MAX_REQUEST).unwrap();
    let answer: Answer = read_frame(&mut stream, MAX_ANSWER).unwrap();
    let Answer::Record(bytes) = answer else {
        panic!("{answer:?}");
    };
    let record = libsls::record::decode(&bytes).unwrap();
    record.processes[0].threads[0].regs.rsp / 4096
}

/// A request that costs much to answer.
pub fn costly(dice: &mut Dice) -> Request {
    let part = || Some("mem".to_owned());
    match dice.below(5) {
        0 => Request::Checkpoint {
            part: part(),
            name: None,
            follow: false,
        },
        1 => Request::History { part: part() },
        2 => Request::Pages {
            part: part(),
            epoch: 1,
            space: 0,
            runs: vec![(0, 4096)],
        },
        3 => Request::Changed {
            part: part(),
            from: 1,
            to: 2,
            pages: vec![(0, 0, 1 << 20)],
        },
        _ => Request::Attach {
            pid: i32::MAX,
            part: format!("extreme-{}", dice.below(4)),
            period_ms: None,
            follow: false,
            hold: false,
            begins: false,
        },
    }
}
