//! POSIX message queues. They live without processes; what waits in one cannot be looked at without
//! being taken out.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// The size that fstat(2) tells of any queue.
pub const STAT_SIZE: u64 = 80;

/// A queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Messages it takes.
    pub capacity: u32,
    /// Bytes of the longest it takes.
    pub longest: u32,
    /// Messages that wait in it.
    pub waiting: u32,
}

/// What a descriptor tells. EBADF: it is of no queue.
///
/// # Errors
/// See above.
pub fn read(fd: BorrowedFd<'_>) -> io::Result<Queue> {
    // struct mq_attr: flags, maxmsg, msgsize, curmsgs, and four words of nothing.
    let mut words = [0i64; 8];
    let none = std::ptr::null::<i64>();
    // SAFETY: a null new attribute, and room for the old one, which outlives the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mq_getsetattr,
            fd.as_raw_fd(),
            none,
            words.as_mut_ptr(),
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = |at: usize| u32::try_from(words[at]).unwrap_or(u32::MAX);
    Ok(Queue {
        capacity: number(1),
        longest: number(2),
        waiting: number(3),
    })
}

/// struct mq_attr for a new one.
#[must_use]
pub fn attributes(capacity: u32, longest: u32) -> Vec<u8> {
    let words = [0, i64::from(capacity), i64::from(longest), 0, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Opens one of our namespace by its name, which has no slash before it, to be looked at.
///
/// # Errors
/// ENOENT: there is none.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(io::Error::other)?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let none = std::ptr::null::<i64>();
    // SAFETY: a string that ends in null, alive for the call, and plain integers.
    let fd = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, none) };
    match i32::try_from(fd) {
        // SAFETY: the call just returned this descriptor to us and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_a_queue_tells() {
        let name = format!("sls-test-{}", std::process::id());
        assert_eq!(open(&name).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let path = CString::new(&*name).unwrap();
        let attributes = attributes(3, 100);
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: strings and an attribute that live for the calls; a message of one byte.
        let fd = unsafe {
            let made = attributes.as_ptr();
            let fd = libc::syscall(libc::SYS_mq_open, path.as_ptr(), flags, 0o600, made);
            let fd = OwnedFd::from_raw_fd(i32::try_from(fd).unwrap());
            let none = std::ptr::null::<u8>();
            let one = c"x".as_ptr();
            libc::syscall(libc::SYS_mq_timedsend, fd.as_raw_fd(), one, 1, 7, none);
            fd
        };
        let told = read(open(&name).unwrap().as_fd()).unwrap();
        let queue = Queue {
            capacity: 3,
            longest: 100,
            waiting: 1,
        };
        assert_eq!(told, queue);
        assert_eq!(nix::sys::stat::fstat(&fd).unwrap().st_size, 80);
        let other = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(
            read(other.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
        // SAFETY: a string that lives for the call.
        unsafe { libc::syscall(libc::SYS_mq_unlink, path.as_ptr()) };
    }
}
