//! A program in a terminal of its own: keys in, a screen out, and when each of its bytes came.
//!
//! The terminal is a pty whose other end is read by a thread here and understood by the crate vt100, so that a test can
//! wait for what a user sees. There is no tmux between: it would add its own time, and paces what it shows.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use sls_sys::urgent::Urgent;

/// A running program and its screen. It is ended when this is dropped.
pub struct Pty {
    child: Child,
    master: std::fs::File,
    seen: Arc<Seen>,
}

struct Seen {
    screen: Mutex<Shown>,
    more: Condvar,
}

/// What has come so far.
struct Shown {
    parser: vt100::Parser,
    bytes: u64,
    last: Instant,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pty {
    /// Runs a program in a terminal so large, whose line discipline does nothing. It leads a session of its own, as a
    /// terminal's does: the kernel shares out the CPU by sessions.
    ///
    /// # Errors
    /// There is no terminal to be had, or it does not start.
    pub fn start(command: Command, (columns, rows): (u16, u16)) -> std::io::Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None)?;
        let mut modes = tcgetattr(&pty.slave)?;
        cfmakeraw(&mut modes);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &modes)?;
        let slave = std::fs::File::from(pty.slave);
        let mut command = in_session(&command);
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?);
        command.stderr(slave).env("TERM", "xterm-256color");
        let child = command.spawn()?;
        // The command holds the terminal too; without it reading ends when the program does.
        drop(command);
        let master = std::fs::File::from(pty.master);
        let seen = Arc::new(Seen {
            screen: Mutex::new(Shown {
                parser: vt100::Parser::new(extent(rows)?, extent(columns)?, 0),
                bytes: 0,
                last: Instant::now(),
            }),
            more: Condvar::new(),
        });
        let (mut reader, shared) = (master.try_clone()?, Arc::clone(&seen));
        std::thread::spawn(move || {
            // As a terminal on another machine, it does not wait for those whose time is measured.
            let _first = Urgent::begin();
            let mut bytes = [0; 1 << 16];
            // EIO: nobody has the other end any more.
            while let Ok(len @ 1..) = reader.read(&mut bytes) {
                let last = Instant::now();
                let mut shown = shared.lock();
                shown.parser.process(&bytes[..len]);
                shown.bytes += len as u64;
                shown.last = last;
                drop(shown);
                shared.more.notify_all();
            }
        });
        Ok(Self {
            child,
            master,
            seen,
        })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends keys as a terminal does; the moment before.
    ///
    /// # Errors
    /// The program has ended.
    pub fn press(&mut self, keys: &str) -> std::io::Result<Instant> {
        let began = Instant::now();
        self.master.write_all(keys.as_bytes())?;
        Ok(began)
    }

    /// What is on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.seen.lock().parser.screen().contents()
    }

    /// Bytes that have come so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.seen.lock().bytes
    }

    /// When the bytes came with which the screen was first as wanted.
    ///
    /// # Errors
    /// It is not in time; the message has the screen.
    pub fn shows(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + patience;
        let mut shown = self.seen.lock();
        loop {
            let screen = shown.parser.screen().contents();
            if wanted(&screen) {
                return Ok(shown.last);
            }
            let is_over = Instant::now() >= deadline;
            anyhow::ensure!(!is_over, "not shown in {patience:?}: {what}\n{screen}");
            let waited = self
                .seen
                .more
                .wait_timeout(shown, Duration::from_millis(100));
            shown = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When more came than there was.
    ///
    /// # Errors
    /// Nothing did in time.
    pub fn answers(&self, before: u64, patience: Duration) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + patience;
        let mut shown = self.seen.lock();
        loop {
            if shown.bytes > before {
                return Ok(shown.last);
            }
            anyhow::ensure!(Instant::now() < deadline, "no answer in {patience:?}");
            let waited = self
                .seen
                .more
                .wait_timeout(shown, Duration::from_millis(100));
            shown = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// It does not in time.
    pub fn ends(&mut self, patience: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "it does not end in {patience:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The same by way of setsid(1), whose process it becomes.
fn in_session(command: &Command) -> Command {
    let mut with = Command::new("setsid");
    with.arg("--ctty")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => with.env(name, value),
            None => with.env_remove(name),
        };
    }
    with
}

fn extent(cells: u16) -> std::io::Result<NonZeroU16> {
    NonZeroU16::new(cells).ok_or_else(|| std::io::Error::other("a terminal has cells"))
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
