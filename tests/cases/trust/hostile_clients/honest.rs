//! A client that only wants to work.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::{Sls, program};

use super::rss_mib;

const COMMANDS: &[&[&str]] = &[
    &["--json", "stat"],
    &["ps"],
    &["regs", "-m", "@-1"],
    &["history", "-m"],
    &["checkpoint", "-m"],
    &["maps", "-m", "@-1"],
];

/// slsctl, again and again.
pub struct Honest {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Served>,
}

/// How it was served.
#[derive(Debug, Default)]
pub struct Served {
    pub commands: u64,
    /// Checkpoints of its own.
    pub checkpoints: u64,
    pub p99: Duration,
    /// What took longest.
    pub slowest: (Duration, &'static str),
    pub most_rss_mib: u64,
    /// The first thing that went wrong.
    pub failed: Option<String>,
}

impl Honest {
    pub fn start(sls: &Sls, daemon: i32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let socket = sls.socket();
        let thread = std::thread::spawn(move || work(&socket, daemon, &seen));
        Self { over, thread }
    }

    pub fn stop(self) -> Served {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn work(socket: &PathBuf, daemon: i32, over: &AtomicBool) -> Served {
    let mut served = Served::default();
    let mut times = Vec::new();
    while !over.load(Ordering::SeqCst) || times.len() < COMMANDS.len() {
        for args in COMMANDS {
            let mut command = Command::new(program("slsctl"));
            command.arg("--socket").arg(socket).args(*args);
            let started = Instant::now();
            let out = command.stdin(Stdio::null()).output().unwrap();
            served.checkpoints += u64::from(args[0] == "checkpoint");
            let took = started.elapsed();
            times.push(took);
            served.slowest = served.slowest.max((took, args[0]));
            if !out.status.success() && served.failed.is_none() {
                served.failed = Some(format!(
                    "{args:?}: {}",
                    String::from_utf8_lossy(&out.stderr)
                ));
            }
            served.most_rss_mib = served.most_rss_mib.max(rss_mib(daemon));
        }
    }
    times.sort_unstable();
    served.commands = times.len() as u64;
    served.p99 = times[(times.len() - 1) * 99 / 100];
    served
}
