//! What a socket's descriptor tells of it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::unix_sockets;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A socket as it was made, named and set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// AF_*.
    pub family: i32,
    /// SOCK_*.
    pub kind: i32,
    /// IPPROTO_*.
    pub protocol: i32,
    /// sockaddr; empty without a name.
    pub local: ByteBuf,
    /// sockaddr; empty when not connected.
    pub peer: ByteBuf,
    /// It listens.
    pub listens: bool,
    /// Of a TCP socket that listens.
    pub backlog: Option<u32>,
    /// Level, name, value; none of a TCP connection.
    pub options: Vec<(i32, i32, ByteBuf)>,
    /// What waits to be received of a connected Unix socket, or why it is not known.
    pub queued: Option<Result<ByteBuf, String>>,
}

impl Socket {
    /// Looks again at what waits in it, where that is looked at.
    pub fn look_again(&mut self, fd: impl FnOnce() -> io::Result<OwnedFd>) {
        if self.family == libc::AF_UNIX && !self.listens {
            let queued = fd().map_err(|e| e.to_string());
            let queued = queued.and_then(|fd| unix_sockets::queued(fd.as_fd(), self.kind));
            self.queued = Some(queued.map(ByteBuf::from));
        }
    }
}

const NUMBER: usize = 4;
/// struct linger.
const LINGER: usize = 8;
/// struct timeval.
const TIME: usize = 16;

/// Options that a program sets and that stay, with the length of their values.
const OPTIONS: &[(i32, i32, usize)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, NUMBER),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, NUMBER),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, NUMBER),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, NUMBER),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, NUMBER),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, NUMBER),
    (libc::SOL_SOCKET, libc::SO_MARK, NUMBER),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, NUMBER),
    (libc::SOL_SOCKET, libc::SO_PASSCRED, NUMBER),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, NUMBER),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, NUMBER),
    (libc::SOL_SOCKET, libc::SO_LINGER, LINGER),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, TIME),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO, TIME),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, NUMBER),
    (libc::IPPROTO_IP, libc::IP_TOS, NUMBER),
    (libc::IPPROTO_IP, libc::IP_TTL, NUMBER),
    (libc::IPPROTO_IP, libc::IP_FREEBIND, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, NUMBER),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN, NUMBER),
];

/// struct sockaddr_storage.
const ADDRESS: usize = 128;

type Name = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

fn name(fd: BorrowedFd<'_>, ask: Name) -> ByteBuf {
    let mut bytes = vec![0u8; ADDRESS];
    let mut len = 128;
    // SAFETY: `bytes` is as long as `len` says, and both outlive the call.
    let ret = unsafe { ask(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) };
    let len = if ret == 0 { len as usize } else { 0 };
    bytes.truncate(len.min(ADDRESS));
    ByteBuf::from(bytes)
}

fn option(fd: BorrowedFd<'_>, level: i32, name: i32, len: usize) -> Option<ByteBuf> {
    let mut bytes = vec![0u8; len];
    let mut len = libc::socklen_t::try_from(len).ok()?;
    // SAFETY: `bytes` is as long as `len` says, and both outlive the call.
    let ret = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    bytes.truncate(len as usize);
    (ret == 0).then(|| ByteBuf::from(bytes))
}

/// An option of SOL_SOCKET that is a number.
pub(crate) fn number(fd: BorrowedFd<'_>, name: i32) -> Option<i32> {
    let bytes = option(fd, libc::SOL_SOCKET, name, NUMBER)?;
    bytes.first_chunk().map(|b| i32::from_le_bytes(*b))
}

/// Everything [`Socket`] has.
#[must_use]
pub fn read(fd: BorrowedFd<'_>) -> Socket {
    let number = |name| number(fd, name).unwrap_or(0);
    let family = number(libc::SO_DOMAIN);
    let inet = matches!(family, libc::AF_INET | libc::AF_INET6);
    let kind = number(libc::SO_TYPE);
    let listens = number(libc::SO_ACCEPTCONN) != 0;
    let of_family = |level| match level {
        libc::SOL_SOCKET => true,
        libc::IPPROTO_IPV6 => family == libc::AF_INET6,
        libc::IPPROTO_TCP => inet && kind == libc::SOCK_STREAM,
        _ => family == libc::AF_INET,
    };
    let peer = name(fd, libc::getpeername);
    // Of a stream that is connected they are of no use to anybody yet, and there may be thousands.
    let wanted = peer.is_empty() || kind == libc::SOCK_DGRAM || family == libc::AF_UNIX;
    let options = OPTIONS
        .iter()
        .filter(|(level, ..)| wanted && of_family(*level));
    let options = options
        .filter_map(|&(level, name, len)| Some((level, name, option(fd, level, name, len)?)))
        .collect();
    Socket {
        family,
        kind,
        protocol: number(libc::SO_PROTOCOL),
        local: name(fd, libc::getsockname),
        peer,
        listens,
        backlog: (listens && inet).then(|| backlog(fd)).flatten(),
        options,
        queued: None,
    }
}

/// The limit of the queue of a TCP socket that listens is where tcp_info has `sacked` otherwise.
fn backlog(fd: BorrowedFd<'_>) -> Option<u32> {
    const SACKED_AT: usize = 28;
    let info = option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, 104)?;
    let bytes = info.get(SACKED_AT..SACKED_AT + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The options a socket of this kind has when nobody has set any.
///
/// # Errors
/// There are no such sockets, or none for us.
pub fn fresh(family: i32, kind: i32, protocol: i32) -> io::Result<Socket> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor to us and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(read(fd.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = read(listener.as_fd());
        assert!(socket.listens && socket.peer.is_empty());
        assert_eq!(socket.local.len(), 16);
        assert_eq!(socket.backlog, Some(128));
        let new = fresh(socket.family, socket.kind, socket.protocol).unwrap();
        let reuse = |s: &Socket| {
            let found = s.options.iter().find(|o| o.1 == libc::SO_REUSEADDR);
            found.map(|o| o.2[0])
        };
        assert_eq!((reuse(&socket), reuse(&new)), (Some(1), Some(0)));
    }

    #[test]
    fn a_datagram_socket() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let read = read(socket.as_fd());
        assert_eq!((read.kind, read.listens), (libc::SOCK_DGRAM, false));
    }
}
