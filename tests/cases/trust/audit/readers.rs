//! Clients that read while all else goes on, and one after another that stops in the middle of it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use libsls::protocol::{Failure, Hello, MAGIC, MAX_REQUEST, Request, VERSION};
use libsls::{Client, ClientError, read_frame, write_frame};
use testkit::{Dice, Sls, counted};

const READERS: u64 = 3;

/// What they found.
#[derive(Debug, Default)]
pub struct Found {
    pub epochs: u64,
    pub wrong: u64,
    /// Readers that stopped in the middle of an answer.
    pub stopped: u64,
}

pub struct Readers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Found>>,
}

impl Readers {
    pub fn start(sls: &Sls, seed: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let start = |n: u64| {
            let (socket, over) = (sls.socket(), Arc::clone(&over));
            std::thread::spawn(move || match n {
                READERS => stop_again_and_again(&socket, &over),
                _ => read(&socket, Dice::new(seed + n), &over),
            })
        };
        let threads = (0..=READERS).map(start).collect();
        Self { over, threads }
    }

    pub fn stop(self) -> Found {
        self.over.store(true, Ordering::SeqCst);
        let mut all = Found::default();
        for thread in self.threads {
            let found = thread.join().unwrap();
            all.epochs += found.epochs;
            all.wrong += found.wrong;
            all.stopped += found.stopped;
        }
        all
    }
}

/// Somebody else may have thinned it, and the daemon may just have been killed.
fn is_expected(error: &ClientError) -> bool {
    match error {
        ClientError::Failed { kind, .. } => *kind == Failure::NotFound,
        ClientError::Connect { .. } | ClientError::Frame(_) => true,
        _ => false,
    }
}

fn read(socket: &Path, mut dice: Dice, over: &AtomicBool) -> Found {
    let mut found = Found::default();
    while !over.load(Ordering::SeqCst) {
        // Gone with its daemon: another one comes.
        if let Err(error) = read_on(socket, &mut dice, over, &mut found) {
            assert!(is_expected(&error), "{error}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    found
}

fn read_on(
    socket: &Path,
    dice: &mut Dice,
    over: &AtomicBool,
    found: &mut Found,
) -> Result<(), ClientError> {
    let mut client = Client::connect(socket)?;
    while !over.load(Ordering::SeqCst) {
        let known = client.history(Some("mem"))?.checkpoints;
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(2));
            let Some(one) = known.get(usize::try_from(dice.below(known.len() as u64)).unwrap())
            else {
                break;
            };
            match counted::judge(&mut client, "mem", one.epoch, &counted::something(dice)) {
                Ok(verdict) => {
                    found.epochs += 1;
                    if let Some(wrong) = verdict.wrong {
                        println!("WRONG, for a reader: {wrong}");
                        found.wrong += 1;
                    }
                }
                Err(error @ ClientError::Failed { .. }) if is_expected(&error) => {}
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

/// Asks for all it can get, reads the beginning of the answer, and then no more.
fn stop_again_and_again(socket: &Path, over: &AtomicBool) -> Found {
    let mut found = Found::default();
    while !over.load(Ordering::SeqCst) {
        let stopped = ask_and_stop(socket);
        found.stopped += u64::from(stopped.is_some());
        for _ in 0..15 {
            if !over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
    found
}

fn ask_and_stop(socket: &Path) -> Option<UnixStream> {
    let epoch = Client::connect(socket)
        .ok()?
        .history(Some("mem"))
        .ok()?
        .head;
    let space = {
        let record = Client::connect(socket)
            .ok()?
            .record(Some("mem"), epoch)
            .ok()?;
        record.processes.first()?.space
    };
    let mut stream = UnixStream::connect(socket).ok()?;
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
    };
    write_frame(&mut stream, &hello, MAX_REQUEST).ok()?;
    let _: Hello = read_frame(&mut stream, MAX_REQUEST).ok()?;
    let pages = Request::Pages {
        part: Some("mem".into()),
        epoch,
        space,
        runs: vec![(0x2_0000_0000, 513)],
    };
    write_frame(&mut stream, &pages, MAX_REQUEST).ok()?;
    stream.read_exact(&mut [0; 1000]).ok()?;
    Some(stream)
}
