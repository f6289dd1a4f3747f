//! What pipes hold, read without taking it out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sls_record::Queued;
use sls_sys::fd;

/// Content of the pipe whose read end is descriptor `number` of the process behind `pidfd`.
pub fn content(pidfd: BorrowedFd<'_>, number: i32) -> Queued {
    let read = || -> io::Result<Vec<u8>> {
        let end = fd::pidfd_getfd(pidfd, number)?;
        fd::peek_pipe(end.as_fd())
    };
    match read() {
        Ok(bytes) => Queued::Bytes(bytes),
        Err(error) => Queued::Unread(error.to_string()),
    }
}
