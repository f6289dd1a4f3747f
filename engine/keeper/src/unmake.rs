//! A process that was made since is gone, and its parent has never heard of it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sls_sys::{fd, procfs};

use crate::steps::Run;

const PATIENCE: Duration = Duration::from_secs(5);
const WNOHANG: u64 = 1;
/// Also those that end without a signal.
const WALL: u64 = 0x4000_0000;

impl Run<'_, '_> {
    /// Ends it, by its number here and as its parent knows it. Where it is a child of this one, this one takes note of that, and of the `signal`
    /// that comes with it, without running.
    pub fn unmake(
        &mut self,
        (pid, known_as): (i32, i32),
        start_ticks: u64,
        signal: i32,
    ) -> io::Result<()> {
        if let Ok(life) = fd::pidfd_open(pid)
            && procfs::stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks)
        {
            let _ = fd::pidfd_signal(life.as_fd(), libc::SIGKILL); // It has ended by itself.
            if !fd::is_readable_within(life.as_fd(), PATIENCE) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let leader = self.plan.leader;
        let deadline = Instant::now() + PATIENCE;
        let child = u64::from(known_as.cast_unsigned());
        loop {
            // Its own tracer takes note first.
            let noted = self.borrow(leader, |thread| {
                thread.call(libc::SYS_wait4, &[child, 0, WNOHANG | WALL, 0])
            })?;
            if noted != 0 {
                break; // Or it is somebody else's.
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        if signal == 0 {
            return Ok(());
        }
        let bit = 1u64.wrapping_shl(signal.cast_unsigned().wrapping_sub(1));
        self.borrow(leader, |thread| {
            let set = thread.lay(0, &bit.to_le_bytes())?;
            let no_time = thread.lay(64, &[0; 16])?;
            // There may be none: it was ignored.
            thread.call(libc::SYS_rt_sigtimedwait, &[set, 0, no_time, 8])
        })?;
        Ok(())
    }
}
