//! A connection on which a whole message has a deadline, not each read or write of it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// One write may wait for each part of it that fits no buffer; short ones wait once.
const CHUNK: usize = 32 << 10;

/// A connection until a moment; past it every read and write is `TimedOut`.
#[derive(Debug)]
pub struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    pub fn new(stream: &'a UnixStream, patience: Duration) -> Self {
        Self {
            stream,
            until: Instant::now() + patience,
        }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

/// A socket's own timeout is EAGAIN.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buf).map_err(named)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        let chunk = &buf[..buf.len().min(CHUNK)];
        self.stream.write(chunk).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    /// A byte now and then keeps no message alive.
    #[test]
    fn a_trickle_is_not_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let trickle = std::thread::spawn(move || {
            while theirs.write_all(&[0]).is_ok() {
                std::thread::sleep(PATIENCE / 10);
            }
        });
        let started = Instant::now();
        let got = Timed::new(&ours, PATIENCE).read_exact(&mut [0; 4096]);
        assert_eq!(got.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < PATIENCE * 3);
        drop(ours);
        trickle.join().unwrap();
    }

    #[test]
    fn a_reader_that_sips_is_not_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sips = std::thread::spawn(move || {
            while theirs.read(&mut [0; 16 << 10]).is_ok_and(|n| n > 0) {
                std::thread::sleep(PATIENCE / 10);
            }
        });
        let started = Instant::now();
        let sent = Timed::new(&ours, PATIENCE).write_all(&vec![0; 16 << 20]);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < PATIENCE * 3);
        drop(ours);
        sips.join().unwrap();
    }
}
