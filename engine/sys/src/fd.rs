//! Descriptors of other processes: pidfd_open, pidfd_getfd, and what only a descriptor tells.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn owned(ret: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(ret).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_open(2).
///
/// # Errors
/// ESRCH: no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers go in, a descriptor or -1 comes out.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Does a descriptor become readable in time? That of a process does when it has ended.
#[must_use]
pub fn is_readable_within(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

/// A duplicate of descriptor `fd` of the process behind `pidfd`, close-on-exec.
///
/// # Errors
/// EBADF: it has no such descriptor. EPERM: not ours to look at.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers go in, a descriptor or -1 comes out.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

/// A duplicate of descriptor `fd` of the very process that has connected to a Unix socket, never of
/// one that has its number by now.
///
/// # Errors
/// ENOPROTOOPT before Linux 6.5. EBADF: it has no such descriptor. EPERM: not ours to look at. ESRCH:
/// it has ended.
pub fn of_peer(socket: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    let mut len: libc::socklen_t = 4;
    // SAFETY: `pidfd` and `len` describe an int, which the option fills.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut len,
        )
    };
    let pidfd = owned(if ret < 0 { -1 } else { pidfd.into() })?;
    pidfd_getfd(pidfd.as_fd(), fd)
}

/// Sends `signal` to the very process behind `pidfd`, never to a reuse of its number.
///
/// # Errors
/// ESRCH: it is gone.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no pointer but a null siginfo.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            0usize,
            0,
        )
    };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Bytes waiting in a pipe or socket.
///
/// # Errors
/// ENOTTY for descriptors that cannot tell.
pub fn queued(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut n) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(n).unwrap_or(0))
}

/// A socket's SO_RCVTIMEO (`send` false) or SO_SNDTIMEO in ns, None for none.
///
/// # Errors
/// ENOTSOCK.
pub fn socket_timeout(fd: BorrowedFd<'_>, send: bool) -> io::Result<Option<u64>> {
    let mut tv = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let mut len: libc::socklen_t = 16;
    let option = if send {
        libc::SO_SNDTIMEO
    } else {
        libc::SO_RCVTIMEO
    };
    // SAFETY: `tv` and `len` describe a timeval, which both options fill.
    let ret = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut tv).cast(),
            &raw mut len,
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let ns = u64::try_from(tv.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(tv.tv_usec).unwrap_or(0) * 1000;
    Ok((ns > 0).then_some(ns))
}

fn socket_number(fd: BorrowedFd<'_>, option: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len: libc::socklen_t = 4;
    // SAFETY: `value` and `len` describe an int, which the options asked for here fill.
    let ret = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    (ret == 0).then_some(value)
}

/// Is it a Unix socket?
#[must_use]
pub fn is_local_socket(fd: BorrowedFd<'_>) -> bool {
    socket_number(fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX)
}

/// Takes the pending error of a socket away, if there is one.
pub fn take_socket_error(fd: BorrowedFd<'_>) -> Option<i32> {
    socket_number(fd, libc::SO_ERROR).filter(|&error| error != 0)
}

/// How long a read of a terminal waits for the first byte, ns: termios(3), noncanonical mode with
/// MIN 0 and TIME above. None for any other descriptor.
#[must_use]
pub fn terminal_timeout(fd: BorrowedFd<'_>) -> Option<u64> {
    const TENTH: u64 = 100_000_000;
    // SAFETY: plain numbers may be all zero.
    let mut termios: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills a termios.
    if unsafe { libc::tcgetattr(fd.as_raw_fd(), &raw mut termios) } != 0 {
        return None;
    }
    let tenths = u64::from(termios.c_cc[libc::VTIME]);
    let waits = termios.c_lflag & libc::ICANON == 0 && termios.c_cc[libc::VMIN] == 0;
    (waits && tenths > 0).then_some(tenths * TENTH)
}

/// get_robust_list(2) of a thread: head address and length.
///
/// # Errors
/// EPERM, ESRCH.
pub fn robust_list(tid: i32) -> io::Result<(u64, u64)> {
    let (mut head, mut len) = (0u64, 0u64);
    // SAFETY: both pointers are to u64s, the width of the kernel's pointer and size_t.
    let ret = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok((head, len))
    }
}

/// From now on no program that this process starts inherits a descriptor but the standard three.
///
/// # Errors
/// ENOSYS: a kernel before 5.11.
pub fn pass_on_none() -> io::Result<()> {
    // SAFETY: plain integers; nothing is closed now.
    let ret = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Do the two processes share their address space (`kcmp(KCMP_VM)`)?
///
/// # Errors
/// EPERM, ESRCH, ENOSYS.
pub fn same_memory(a: i32, b: i32) -> io::Result<bool> {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: plain integers.
    let ret = unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_VM, 0, 0) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret == 0)
    }
}
