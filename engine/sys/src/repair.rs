//! What a TCP connection has still to send, which the kernel tells only in its repair mode.
//!
//! As long as a socket is in that mode it sends nothing, or refuses to. Whoever looks may be killed
//! meanwhile. So a process of its own looks, which ends the mode whatever becomes of the one that
//! asked; and for the case that it is killed itself, whose sockets are looked at is written down
//! before, for [`end`].
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, clone};

use crate::fd::{pidfd_getfd, pidfd_open};
use crate::{connections, sockets};

nix::ioctl_read_bad!(outq, libc::TIOCOUTQ, libc::c_int);

const REPAIR: (i32, i32) = (libc::IPPROTO_TCP, libc::TCP_REPAIR);
const QUEUE: (i32, i32) = (libc::IPPROTO_TCP, 20);
const REUSE: (i32, i32) = (libc::SOL_SOCKET, libc::SO_REUSEADDR);
const TO_SEND: i32 = 2;
const ON: i32 = 1;
/// The peer is asked how much it takes, since packets may have been held back.
const OFF: i32 = 0;
/// Without a packet.
const OFF_IN_SILENCE: i32 = -1;

/// Of each the last bytes that the program has written: all that the other end may not have. It must
/// stand still. Err: why they cannot be told, in words.
#[must_use]
pub fn sending(fds: &[BorrowedFd<'_>]) -> Vec<Result<Vec<u8>, String>> {
    if fds.is_empty() {
        return Vec::new();
    }
    let Some(_alone) = alone() else {
        let why = "others were looking at it".to_owned();
        return fds.iter().map(|_| Err(why.clone())).collect();
    };
    let mut looks: Vec<Result<Look<'_>, String>> = fds.iter().map(|&fd| Look::at(fd)).collect();
    let ready = looks.iter_mut().filter_map(|look| look.as_mut().ok());
    let mut ready: Vec<&mut Look<'_>> = ready.collect();
    let done = if ready.is_empty() {
        Ok(())
    } else {
        unharmed(|| ready.iter_mut().for_each(|look| look.take()))
    };
    let result = |look: Result<Look<'_>, String>| {
        let look = look?;
        done.as_ref().map_err(ToString::to_string)?;
        let mut bytes = look.bytes;
        bytes.truncate(look.got.map_err(|e| e.to_string())?);
        Ok(bytes)
    };
    looks.into_iter().map(result).collect()
}

/// Bytes of which the other end has not said yet that they have come; its end counts as one.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut waits = 0;
    // SAFETY: the kernel writes one int.
    unsafe { outq(fd.as_raw_fd(), &raw mut waits) }?;
    Ok(usize::try_from(waits).unwrap_or(0))
}

/// One that is looked at.
struct Look<'a> {
    fd: BorrowedFd<'a>,
    reuse: i32,
    bytes: Vec<u8>,
    got: io::Result<usize>,
}

impl<'a> Look<'a> {
    /// With room for what it will find.
    fn at(fd: BorrowedFd<'a>) -> Result<Self, String> {
        if is_on(fd) {
            return Err("the program has it in repair mode".to_owned());
        }
        Ok(Self {
            fd,
            reuse: sockets::number(fd, libc::SO_REUSEADDR).unwrap_or(0),
            bytes: vec![0; unacknowledged(fd).map_err(|e| e.to_string())?],
            got: Err(io::ErrorKind::Interrupted.into()),
        })
    }

    /// Allocates nothing: it runs in the memory of another process.
    fn take(&mut self) {
        self.got = look(self.fd, self.reuse, &mut self.bytes);
    }
}

fn look(fd: BorrowedFd<'_>, reuse: i32, bytes: &mut [u8]) -> io::Result<usize> {
    sockets::set(fd, REPAIR, ON)?;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = sockets::set(fd, QUEUE, TO_SEND).and_then(|()| {
        // SAFETY: the kernel writes as many bytes as there are at most.
        let len = unsafe {
            libc::recv(
                fd.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                flags,
            )
        };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    });
    sockets::set(fd, REPAIR, OFF_IN_SILENCE)?;
    // It goes with the mode.
    sockets::set(fd, REUSE, reuse)?;
    peeked
}

/// As long as this lives nobody else looks: what several processes have open is looked at by the keeper
/// of each, and the second one would find it as the first one has made it.
pub(crate) struct Alone {
    /// None where nothing can be locked.
    _lock: Option<Flock<File>>,
}

/// How long others may take. Somebody stands still meanwhile, and whoever can read the program can
/// lock it.
const PATIENCE: Duration = Duration::from_millis(20);

/// None: others take too long.
pub(crate) fn alone() -> Option<Alone> {
    // Something that all of them can open; where nothing can be locked nobody is waited for. It stays
    // locked for as long as `unharmed` takes, whoever is killed.
    let Ok(mut file) = File::open("/proc/self/exe") else {
        return Some(Alone { _lock: None });
    };
    let until = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(Alone { _lock: Some(lock) }),
            Err((again, Errno::EAGAIN)) => file = again,
            Err(_) => return Some(Alone { _lock: None }),
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Does it in a process that shares all with this one but its end.
pub(crate) fn unharmed(mut act: impl FnMut()) -> io::Result<()> {
    const STACK: usize = 64 << 10;
    let mut stack = vec![0; STACK];
    let act = Box::new(|| {
        act();
        0
    });
    // As vfork does, this waits until the process has ended.
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK | CloneFlags::CLONE_FILES;
    // SAFETY: the process runs on a stack of its own and makes a few calls; this thread, whose errno
    // it shares, waits meanwhile, so what it borrows outlives it.
    let pid = unsafe { clone(act, &mut stack, flags, None) }?;
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::__WALL) };
    Ok(())
}

/// Lets those of a process's connections send again that somebody who was killed was looking at, by
/// the inodes of all that were looked at.
///
/// # Errors
/// The process is gone.
pub fn end(pid: i32, looked_at: &[u64]) -> io::Result<()> {
    let pidfd = pidfd_open(pid)?;
    for (number, inode) in connections::of(pid) {
        if !looked_at.contains(&inode) {
            continue;
        }
        let Ok(fd) = pidfd_getfd(pidfd.as_fd(), number) else {
            continue; // Closed.
        };
        if is_on(fd.as_fd()) {
            sockets::set(fd.as_fd(), REPAIR, OFF)?;
            // Who is connected has its address already: this can only make room for others.
            sockets::set(fd.as_fd(), REUSE, 1)?;
        }
    }
    Ok(())
}

fn is_on(fd: BorrowedFd<'_>) -> bool {
    let option = sockets::option(fd, REPAIR.0, REPAIR.1, 4);
    option.is_some_and(|bytes| bytes.first() == Some(&1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_has_not_been_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        let sending = |of: &TcpStream| super::sending(&[of.as_fd()]).remove(0);
        assert_eq!(sending(&writer), Ok(Vec::new()));
        let many = super::sending(&[writer.as_fd(), reader.as_fd()]);
        assert_eq!(many, [Ok(Vec::new()), Ok(Vec::new())]);
        writer.set_nonblocking(true).unwrap();
        let data: Vec<u8> = (0..u8::MAX).cycle().take(20 << 20).collect();
        let written = writer.write(&data).unwrap();
        let waits = sending(&writer).unwrap();
        assert!(!waits.is_empty() && data[..written].ends_with(&waits));
        // It goes on as if nothing had been.
        let mut read = vec![0; written];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, data[..written]);
        sockets::set(writer.as_fd(), REPAIR, ON).unwrap();
        assert!(sending(&writer).is_err());
        assert!(writer.write(b"refused").is_err());
        let own = i32::try_from(std::process::id()).unwrap();
        let inodes = connections::of(own).into_iter().map(|(_, inode)| inode);
        end(own, &inodes.collect::<Vec<_>>()).unwrap();
        writer.write_all(b"and on").unwrap();
        let len = reader.read(&mut read).unwrap();
        assert_eq!(read[..len], *b"and on");
    }
}
