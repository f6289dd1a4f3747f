//! The way to the terminal: a frame is one write, and no more is sent than a slow line takes.
//!
//! What is sent over ssh is queued by two hosts before it is seen: a key that is held down would leave seconds of screens
//! nobody wants any more in that queue. So there a frame waits until the one before has had its time, and shows what
//! holds by then.

use std::cell::Cell;
use std::io::{self, Stdout, Write, stdout};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes a second that the slowest line has.
const RATE: f64 = 28_000.0;
/// Bytes at once, after a rest: a whole screen, or a few steps.
const BURST: f64 = 12_000.0;

/// Collects what is written until it is flushed.
#[derive(Debug)]
pub struct Line {
    out: Stdout,
    frame: Vec<u8>,
    sent: Rc<Cell<usize>>,
}

impl Line {
    /// To standard output; what is sent is counted.
    pub fn new(sent: Rc<Cell<usize>>) -> Self {
        Self {
            out: stdout(),
            frame: Vec::new(),
            sent,
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sent.set(self.sent.get() + self.frame.len());
        let written = self.out.write_all(&self.frame);
        self.frame.clear();
        written?;
        self.out.flush()
    }
}

/// What a line has left for more.
#[derive(Debug)]
pub struct Pace {
    /// Below zero: what was sent is still on its way.
    left: f64,
    at: Instant,
}

impl Pace {
    /// None where the terminal is near: only ssh says that it is not.
    pub fn of_environment() -> Option<Self> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_far = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
        is_far.then(|| Self::begin(Instant::now()))
    }

    fn begin(at: Instant) -> Self {
        Self { left: BURST, at }
    }

    /// How long the next frame has to wait.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = passed.mul_add(RATE, self.left).min(BURST);
        self.at = now;
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / RATE))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a frame is no longer than a screen"
    )]
    pub fn sent(&mut self, bytes: usize) {
        self.left -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_at_once_and_one_held_down_at_the_rate_of_the_line() {
        const FRAME: u32 = 5000;
        const STEP: Duration = Duration::from_millis(50);
        let mut now = Instant::now();
        let mut pace = Pace::begin(now);
        let mut sent = 0;
        for step in 0..200 {
            if pace.wait(now).is_none() {
                pace.sent(FRAME as usize);
                sent += FRAME;
            } else {
                assert!(step > 1, "the first are not held back");
            }
            now += STEP;
        }
        let most = RATE * 10.0 + BURST + f64::from(FRAME);
        assert!(
            f64::from(sent) < most && f64::from(sent) > RATE * 9.0,
            "{sent}"
        );
        // What it has to wait is as long as that takes.
        pace.sent(FRAME as usize * 4);
        let wait = pace.wait(now).unwrap();
        assert!(pace.wait(now + wait + Duration::from_millis(1)).is_none());
        // A rest gives back no more than there was.
        assert!(pace.wait(now + Duration::from_secs(3600)).is_none());
        assert!(pace.left <= BURST);
    }
}
