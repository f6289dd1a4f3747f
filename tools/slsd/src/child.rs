//! A process that was restored: the daemon's own child, attached or not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A process that was restored: it is the daemon's to take note of its end.
pub struct Child {
    pub pid: i32,
    /// Readable once it has ended; None when it has been reaped.
    life: Option<OwnedFd>,
    /// As wait(2) gives it.
    pub status: Option<i32>,
}

impl Child {
    /// `life` is a pidfd.
    pub fn new(pid: i32, life: OwnedFd) -> Self {
        Self {
            pid,
            life: Some(life),
            status: None,
        }
    }

    pub fn life(&self) -> Option<BorrowedFd<'_>> {
        self.life.as_ref().map(AsFd::as_fd)
    }

    /// Takes note of its end, if it has come.
    pub fn reap(&mut self) {
        if !self.life.as_ref().is_some_and(is_readable) {
            return;
        }
        match sls_engine::reap(self.pid) {
            Ok(None) => {} // Its keeper has to take note of it first.
            Ok(status) => (self.life, self.status) = (None, status),
            Err(error) => {
                tracing::warn!(pid = self.pid, %error, "reap");
                self.life = None;
            }
        }
    }
}

impl Drop for Child {
    /// Nobody asks for it any more, but it may live on.
    fn drop(&mut self) {
        let (pid, Some(life)) = (self.pid, self.life.take()) else {
            return;
        };
        std::thread::spawn(move || {
            let mut fds = [PollFd::new(life.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::NONE);
            while sls_engine::reap(pid).is_ok_and(|status| status.is_none()) {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
