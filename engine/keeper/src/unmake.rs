//! A process that is not to be there is gone, and its parent has never heard of it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sls_keeper::Which;
use sls_sys::{fd, procfs};

use crate::steps::Run;

const PATIENCE: Duration = Duration::from_secs(5);
const WNOHANG: u64 = 1;
/// Also those that end without a signal.
const WALL: u64 = 0x4000_0000;

impl Run<'_, '_> {
    /// Ends it, by its number here and as its parent knows it. Where it is a child of this one, this one
    /// takes note of that, and of the `signal` that comes with it, without running.
    pub fn unmake(
        &mut self,
        (pid, known_as): (i32, i32),
        which: Which,
        signal: i32,
    ) -> io::Result<()> {
        let there = procfs::stat(pid).ok();
        let parent = self.executor.group.pid;
        let is_it = there.is_some_and(|stat| match which {
            Which::Started(ticks) => stat.start_ticks == ticks,
            Which::ChildBut(ticks) => stat.ppid == parent && stat.start_ticks != ticks,
        });
        if let Which::ChildBut(_) = which
            && !is_it
        {
            return Ok(()); // It has not come to that.
        }
        if is_it && let Ok(life) = fd::pidfd_open(pid) {
            let _ = fd::pidfd_signal(life.as_fd(), libc::SIGKILL); // It has ended by itself.
            if !fd::is_readable_within(life.as_fd(), PATIENCE) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let noted = loop {
            // Its own tracer takes note first.
            let noted = self.note_end(known_as)?;
            if noted != 0 {
                break noted;
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        // Else it is somebody else's child, or was noted before.
        if noted > 0 && signal != 0 {
            self.take_signal(signal)?;
        }
        Ok(())
    }

    /// Has this process take note of the end of its child of that number: 0 as long as that lives, less
    /// where there is none.
    pub fn note_end(&mut self, known_as: i32) -> io::Result<i64> {
        let child = u64::from(known_as.cast_unsigned());
        self.borrow(self.plan.leader, |thread| {
            thread.call(libc::SYS_wait4, &[child, 0, WNOHANG | WALL, 0])
        })
    }

    /// Takes a signal from those that wait; there may be none, where it was ignored.
    fn take_signal(&mut self, signal: i32) -> io::Result<()> {
        let bit = 1u64.wrapping_shl(signal.cast_unsigned().wrapping_sub(1));
        self.borrow(self.plan.leader, |thread| {
            let set = thread.lay(0, &bit.to_le_bytes())?;
            let no_time = thread.lay(64, &[0; 16])?;
            thread.call(libc::SYS_rt_sigtimedwait, &[set, 0, no_time, 8])
        })?;
        Ok(())
    }
}
