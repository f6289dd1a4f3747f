//! PID namespaces with mounts of their own, in which /proc tells of them.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::skeleton::{CloneArgs, clone};

/// What a clone has of its own, beside its numbers and mounts, so that nobody else notices it.
pub const APART: i32 = libc::CLONE_NEWNET | libc::CLONE_NEWIPC;

/// Who one is after [`begin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The init of the namespace.
    Init,
    /// Its maker; the number of the init as the maker has it.
    Maker(i32),
}

/// Makes a namespace, by a copy of this process, which must have one thread only, as its init. The
/// maker's parent is the parent of that too. With `users` it has users of its own too, as which a
/// plain user may do so; with `apart` a network of its own, and System V memory, semaphores and queues.
///
/// # Errors
/// EPERM: only root may.
pub fn begin(users: bool, apart: bool) -> io::Result<Side> {
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PARENT;
    let flags = if users {
        flags | libc::CLONE_NEWUSER
    } else {
        flags
    };
    let flags = if apart { flags | APART } else { flags };
    let made = clone(&CloneArgs::new(flags))?;
    Ok(if made == 0 {
        Side::Init
    } else {
        Side::Maker(made)
    })
}

/// Has the loopback of a new network work, and lets programs in it have the addresses that they had.
///
/// # Errors
/// The network is not this process's own.
pub fn begin_network() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeros is a struct ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: SIOCSIFFLAGS takes a struct ifreq, which outlives the call.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    done(libc::c_long::from(set))?;
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
        match std::fs::write(path, "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // Without IPv6 there is nothing to be bound.
        }
    }
    Ok(())
}

/// Has /proc tell of the namespace. What is mounted outside from now on is seen inside, and not the
/// other way round.
///
/// # Errors
/// The kernel refuses where parts of the /proc outside are hidden from this process.
pub fn mount_proc() -> io::Result<()> {
    let nothing = c"none";
    mount(nothing, c"/", None, libc::MS_REC | libc::MS_SLAVE)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"proc", c"/proc", Some(c"proc"), flags)
}

fn mount(source: &CStr, at: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: strings that end in null, alive for the call.
    let done = unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind, flags, std::ptr::null()) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whoever is not root in a namespace of users keeps what it may do there over an exec, for the programs
/// to give up.
///
/// # Errors
/// It may not.
pub fn keep_capabilities() -> io::Result<()> {
    const VERSION: u32 = 0x2008_0522;
    /// Effective, permitted, inheritable.
    type Sets = [[u32; 3]; 2];
    let header = [VERSION, 0];
    let mut sets: Sets = [[0; 3]; 2];
    // SAFETY: struct __user_cap_header_struct, and the two __user_cap_data_struct of that version.
    done(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) })?;
    for [_, permitted, inheritable] in &mut sets {
        *inheritable = *permitted;
    }
    // SAFETY: as above.
    done(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })?;
    let permitted = u64::from(sets[1][1]) << 32 | u64::from(sets[0][1]);
    for cap in (0..64u64).filter(|cap| permitted >> cap & 1 == 1) {
        // SAFETY: plain integers.
        done(unsafe {
            let raise = libc::PR_CAP_AMBIENT_RAISE;
            libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, raise, cap, 0, 0)
        })?;
    }
    Ok(())
}

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes every descriptor but the standard three and these, whoever believes to own it: for a process
/// that goes on with nothing of what it was.
pub fn close_all_but(kept: &[OwnedFd]) {
    let mut kept: Vec<u32> = kept
        .iter()
        .map(|fd| fd.as_raw_fd().cast_unsigned())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if first < fd {
            close(first, fd - 1);
        }
        first = fd + 1;
    }
    close(first, u32::MAX);
}

fn close(first: u32, last: u32) {
    // SAFETY: plain integers. Nobody is left who uses them.
    unsafe { libc::close_range(first, last, 0) };
}
