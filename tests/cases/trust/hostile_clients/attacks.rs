//! What hostile clients of our own uid try.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libsls::protocol::{Answer, Failure, Hello, MAGIC, MAX_ANSWER, MAX_REQUEST, Request, VERSION};
use libsls::{read_frame, write_frame};
use testkit::{Dice, kill};

use super::Scene;

/// One attack; it ends by itself, and all its connections with it.
type Attack = fn(&Scene, &mut Dice);

/// All of them.
pub const ALL: &[(&str, Attack)] = &[
    ("random bytes", random_bytes),
    ("half frames", half_frames),
    ("huge lengths", huge_lengths),
    ("hostile contents", hostile_contents),
    ("a thousand connections", a_thousand),
    ("come and go", come_and_go),
    ("never reads", never_reads),
    ("asks without end", asks_without_end),
    ("stopped in the middle", stopped),
];

/// How long an attack is kept up.
const KEPT_UP: Duration = Duration::from_millis(1500);

/// A client's first words.
pub fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
    };
    write_frame(&mut bytes, &hello, 64).unwrap();
    bytes
}

/// A connection that has been greeted; None when it was turned away.
pub fn greeted(socket: &Path) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(&hello()).ok()?;
    read_frame::<Hello>(&mut stream, 64).ok()?;
    Some(stream)
}

fn noise(dice: &mut Dice, most: u64) -> Vec<u8> {
    (0..=dice.below(most))
        .map(|_| dice.below(256) as u8)
        .collect()
}

fn random_bytes(scene: &Scene, dice: &mut Dice) {
    let until = Instant::now() + KEPT_UP;
    let mut held = Vec::new();
    while Instant::now() < until {
        let stream = match dice.below(2) {
            0 => UnixStream::connect(scene.socket()).ok(),
            _ => greeted(&scene.socket()),
        };
        let Some(mut stream) = stream else { continue };
        // It may have been shown the door by now.
        let _ = stream.write_all(&noise(dice, 4096));
        if dice.below(4) == 0 && held.len() < 100 {
            held.push(stream);
        }
    }
}

fn half_frames(scene: &Scene, dice: &mut Dice) {
    let mut held = Vec::new();
    for _ in 0..300 {
        let Some(mut stream) = greeted(&scene.socket()) else {
            continue;
        };
        let body = vec![1; dice.below(u64::from(MAX_REQUEST)) as usize];
        stream.write_all(&MAX_REQUEST.to_le_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        held.push(stream);
    }
    // And some that do not even greet.
    for _ in 0..100 {
        let mut stream = UnixStream::connect(scene.socket()).unwrap();
        let _ = stream.write_all(&hello()[..dice.below(6) as usize]);
        held.push(stream);
    }
    std::thread::sleep(KEPT_UP);
}

fn huge_lengths(scene: &Scene, dice: &mut Dice) {
    let until = Instant::now() + KEPT_UP;
    while Instant::now() < until {
        for len in [MAX_REQUEST + 1, 1 << 31, u32::MAX - 3, u32::MAX] {
            let mut stream = greeted(&scene.socket()).unwrap();
            stream.write_all(&len.to_le_bytes()).unwrap();
            let _ = stream.write_all(&[0xff; 12][..dice.below(12) as usize]);
            let answer: Answer = read_frame(&mut stream, MAX_ANSWER).unwrap();
            let Answer::Failed { kind, message } = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(kind, Failure::Usage);
            assert!(message.contains("are allowed"), "{message}");
            assert_eq!(
                stream.read(&mut [0]).unwrap_or(0),
                0,
                "it is not listened to any more"
            );
            // And before the greeting.
            let mut stream = UnixStream::connect(scene.socket()).unwrap();
            stream.write_all(&len.to_le_bytes()).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        }
    }
}

fn hostile_contents(scene: &Scene, _: &mut Dice) {
    for request in super::contents::hostile(scene.daemon) {
        let mut stream = greeted(&scene.socket()).unwrap();
        write_frame(&mut stream, &request, MAX_REQUEST).unwrap();
        let started = Instant::now();
        let answer: Answer = read_frame(&mut stream, MAX_ANSWER)
            .unwrap_or_else(|e| panic!("{}: {e}", super::contents::short(&request)));
        super::contents::assert_fair(&request, &answer);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    for bytes in super::contents::no_requests() {
        let mut stream = greeted(&scene.socket()).unwrap();
        stream.write_all(&bytes).unwrap();
        let answer: Answer = read_frame(&mut stream, MAX_ANSWER).unwrap();
        assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
    }
}

fn a_thousand(scene: &Scene, _: &mut Dice) {
    let mut held = Vec::new();
    for _ in 0..1000 {
        let mut stream = UnixStream::connect(scene.socket()).unwrap();
        let _ = stream.write_all(&hello());
        held.push(stream);
    }
    std::thread::sleep(KEPT_UP);
    // The first are served still; of the last some were told why they are not.
    write_frame(&mut held[400], &Request::Stat, MAX_REQUEST).unwrap();
    read_frame::<Hello>(&mut held[400], 64).unwrap();
    let answer: Answer = read_frame(&mut held[400], MAX_ANSWER).unwrap();
    assert!(matches!(answer, Answer::Stat(_)), "{answer:?}");
    // A place that the honest client has left is free for anybody.
    let refused = (0..200).find_map(|_| {
        let mut one_more = greeted(&scene.socket())?;
        write_frame(&mut one_more, &Request::Stat, MAX_REQUEST).ok()?;
        let answer = read_frame(&mut one_more, MAX_ANSWER).ok()?;
        held.push(one_more);
        match answer {
            Answer::Failed { message, .. } => Some(message),
            _ => None,
        }
    });
    let message = refused.expect("somebody is told");
    assert!(message.contains("connections already"), "{message}");
}

fn come_and_go(scene: &Scene, dice: &mut Dice) {
    let until = Instant::now() + KEPT_UP;
    while Instant::now() < until {
        let Ok(mut stream) = UnixStream::connect(scene.socket()) else {
            continue;
        };
        if dice.below(2) == 0 {
            let _ = stream.write_all(&hello());
        }
        if dice.below(4) == 0 {
            let _ = write_frame(&mut stream, &Request::History { part: None }, MAX_REQUEST);
        }
    }
}

/// Each asks for 16 MiB, and again, and reads nothing.
fn never_reads(scene: &Scene, _: &mut Dice) {
    let mut first = greeted(&scene.socket()).unwrap();
    write_frame(&mut first, &Request::History { part: None }, MAX_REQUEST).unwrap();
    let Answer::History(history) = read_frame(&mut first, MAX_ANSWER).unwrap() else {
        panic!("no history");
    };
    let hold = Request::Name {
        part: None,
        epoch: history.head,
        name: Some("asked for".into()),
    };
    write_frame(&mut first, &hold, MAX_REQUEST).unwrap();
    assert_eq!(
        read_frame::<Answer>(&mut first, MAX_ANSWER).unwrap(),
        Answer::Done
    );
    let large = Request::Pages {
        part: None,
        epoch: history.head,
        space: 0,
        runs: vec![(super::contents::a_page(scene, history.head), 1); 4096],
    };
    let mut held = Vec::new();
    for n in 0..200 {
        let Some(mut stream) = greeted(&scene.socket()) else {
            continue;
        };
        let history = Request::History { part: None };
        for _ in 0..3 {
            let request = if n % 2 == 0 { &large } else { &history };
            stream
                .set_write_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            let _ = write_frame(&mut stream, request, MAX_REQUEST);
        }
        held.push(stream);
    }
    std::thread::sleep(2 * KEPT_UP);
}

/// Questions that cost much and answers that are thrown away, from many connections at once.
fn asks_without_end(scene: &Scene, dice: &mut Dice) {
    let until = Instant::now() + KEPT_UP;
    let seeds: Vec<u64> = (0..48).map(|_| dice.below(1 << 30)).collect();
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || {
                let mut dice = Dice::new(seed);
                let Some(mut stream) = greeted(&scene.socket()) else {
                    return;
                };
                while Instant::now() < until {
                    let request = super::contents::costly(&mut dice);
                    let sent = write_frame(&mut stream, &request, MAX_REQUEST);
                    if sent.is_err() || read_frame::<Answer>(&mut stream, MAX_ANSWER).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// slsctl stopped at a random moment of its work.
fn stopped(scene: &Scene, dice: &mut Dice) {
    let until = Instant::now() + KEPT_UP;
    let mut held: Vec<Child> = Vec::new();
    while Instant::now() < until {
        let mut command = scene.sls.command(&["history", "-m"]);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        kill(child.id().cast_signed(), 19);
        held.push(child);
    }
    for mut child in held {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
