//! A userfaultfd that brings the pages of a process made anew as they are needed.
//!
//! It is a whole one, unlike that of [`crate::uffd`]: a read(2) into a page that is not there yet waits for it
//! rather than fail. And it is told of all that moves memory or lets it go: each such call of the
//! process waits until its event was read, so who reads it knows at any time what belongs where.
//!
//! - **Invariant**: what is asked for between such a call and the reading of its event is refused
//!   ([`Brought::Later`]), so nothing is brought to where it belonged before.
//!
//! When its last descriptor is closed, what was not brought reads as zeros.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use userfaultfd::{Error, Event as Raw, RegisterMode, Uffd};

use crate::uffd::shake_hands;

/// Flags to create it with.
pub const CREATE_FLAGS: u64 = 0o2000000 | 0o4000; // O_CLOEXEC | O_NONBLOCK

const PAGE: u64 = crate::PAGE;
const EVENT_FORK: u64 = 1 << 1;
const EVENT_REMAP: u64 = 1 << 2;
const EVENT_REMOVE: u64 = 1 << 3;
const EVENT_UNMAP: u64 = 1 << 6;

/// It, for one address space.
#[derive(Debug)]
pub struct Missing {
    uffd: Uffd,
}

/// What happened in the process. It goes on once this was read; but for a fault, which waits for its page.
#[derive(Debug)]
pub enum Event {
    /// Somebody waits for this page.
    Fault(u64),
    /// It made a child, in whose memory the same is missing.
    Fork(Missing),
    /// What is missing from the first address on is missing from the second on now, so many bytes.
    Moved(u64, u64, u64),
    /// What was missing there is zero, or nothing is mapped there any more.
    Gone(u64, u64),
}

/// What has come of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// All.
    All,
    /// The first so many bytes; ask for the rest.
    Part(u64),
    /// Nothing: the first page is there already.
    There,
    /// Nothing: nothing can be brought there, which is not mapped so any more.
    Elsewhere,
    /// Nothing yet: read events first.
    Later,
    /// Nothing ever: the address space is gone.
    Over,
}

impl Missing {
    /// Takes over a fresh descriptor.
    ///
    /// # Errors
    /// EPERM: only root (CAP_SYS_PTRACE) is told of forks.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        shake_hands(&fd, EVENT_FORK | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP)?;
        Ok(Self::from(fd))
    }

    /// Pages that are not in `[start, end)` are waited for from now on. It may span several mappings
    /// of anonymous memory.
    ///
    /// # Errors
    /// EINVAL: a mapping of another kind.
    pub fn register(&self, (start, end): (u64, u64)) -> io::Result<()> {
        let len = crate::size(end - start);
        let at = start as *mut libc::c_void;
        let registered = self.uffd.register_with_mode(at, len, RegisterMode::MISSING);
        registered.map(drop).map_err(system_error)
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// The event cannot be read.
    pub fn event(&self) -> io::Result<Option<Event>> {
        let event = self.uffd.read_event().map_err(system_error)?;
        let span = |start: *mut libc::c_void, end: *mut libc::c_void| {
            Event::Gone(start as u64, end as u64)
        };
        Ok(event.map(|event| match event {
            Raw::Pagefault { addr, .. } => Event::Fault(addr as u64 / PAGE * PAGE),
            Raw::Fork { uffd } => Event::Fork(Self { uffd }),
            Raw::Remap { from, to, len } => Event::Moved(from as u64, to as u64, len as u64),
            Raw::Remove { start, end } | Raw::Unmap { start, end } => span(start, end),
        }))
    }

    /// Brings whole pages, and wakes who waits for them.
    ///
    /// # Errors
    /// Out of memory, for example.
    pub fn bring(&self, address: u64, pages: &[u8]) -> io::Result<Brought> {
        let to = address as *mut libc::c_void;
        // SAFETY: the kernel reads `pages`, and writes to another address space.
        let done = unsafe { self.uffd.copy(pages.as_ptr().cast(), to, pages.len(), true) };
        match done {
            Ok(_) => Ok(Brought::All),
            // A negative number where none came, which says why.
            Err(Error::PartiallyCopied(bytes)) if (1..pages.len()).contains(&bytes) => {
                Ok(Brought::Part(bytes as u64))
            }
            Err(Error::PartiallyCopied(_)) => Ok(Brought::Later),
            Err(Error::CopyFailed(errno)) => failed(errno as i32),
            Err(other) => Err(system_error(other)),
        }
    }

    /// Brings a page of zeros, and wakes who waits for it.
    ///
    /// # Errors
    /// As [`Missing::bring`].
    pub fn bring_zeros(&self, address: u64) -> io::Result<Brought> {
        let at = address as *mut libc::c_void;
        // SAFETY: the kernel writes to another address space.
        match unsafe { self.uffd.zeropage(at, crate::size(PAGE), true) } {
            Ok(_) => Ok(Brought::All),
            Err(Error::ZeropageFailed(errno)) => failed(errno as i32),
            Err(other) => Err(system_error(other)),
        }
    }

    /// Wakes who waits for a page, to look again.
    ///
    /// # Errors
    /// The descriptor is none.
    pub fn wake(&self, address: u64) -> io::Result<()> {
        let at = address as *mut libc::c_void;
        let woken = self.uffd.wake(at, crate::size(PAGE));
        woken.map_err(system_error)
    }
}

impl From<OwnedFd> for Missing {
    /// One that has been made by [`Missing::new`] elsewhere.
    fn from(fd: OwnedFd) -> Self {
        // SAFETY: the descriptor is owned here and given away whole.
        let uffd = unsafe { Uffd::from_raw_fd(fd.into_raw_fd()) };
        Self { uffd }
    }
}

impl AsFd for Missing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }
}

fn failed(errno: i32) -> io::Result<Brought> {
    match errno {
        libc::EEXIST => Ok(Brought::There),
        libc::ENOENT | libc::EINVAL => Ok(Brought::Elsewhere),
        libc::EAGAIN => Ok(Brought::Later),
        libc::ESRCH => Ok(Brought::Over),
        other => Err(io::Error::from_raw_os_error(other)),
    }
}

fn system_error(error: Error) -> io::Error {
    match error {
        Error::SystemError(errno) => io::Error::from_raw_os_error(errno as i32),
        other => io::Error::other(other),
    }
}
