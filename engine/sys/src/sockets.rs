//! What a socket's descriptor tells of it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{connections, messages, repair};
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
    /// Level, name, value; none of a TCP connection that nobody asked about.
    pub options: Vec<(i32, i32, ByteBuf)>,
    /// What waits to be received of a connected Unix socket, or of a TCP connection that was asked
    /// about, or why it is not known.
    pub queued: Option<Result<ByteBuf, String>>,
    /// How long each message of that is, in a socket that keeps them apart.
    pub messages: Vec<u32>,
    /// Of a TCP connection that was asked about.
    pub stream: Option<Stream>,
}

/// A TCP connection as struct tcp_info tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// TCP_ESTABLISHED and so on.
    pub state: u8,
    /// TCPI_OPT_*: what both agreed on.
    pub options: u8,
    /// By how many bits the windows of this end are shifted that it is told.
    pub send_scale: u8,
    /// And those it tells.
    pub receive_scale: u8,
    /// Largest segment.
    pub segment: u32,
    /// Bytes the program has written.
    pub written: u64,
    /// Bytes that have come from the other end.
    pub received: u64,
    /// The last bytes of what it has written, when some may not have come to the other end yet; or
    /// why they cannot be told.
    pub sending: Sending,
}

/// See [`Stream::sending`].
pub type Sending = Result<ByteBuf, String>;

// Offsets of struct tcp_info, which only grows.
const SCALES: usize = 6;
const SEGMENT: usize = 16;
const ACKNOWLEDGED: usize = 120;
const RECEIVED: usize = 128;
const NOT_SENT: usize = 144;
const SENT: usize = 200;
const SENT_AGAIN: usize = 208;

/// struct tcp_info.
struct Info(ByteBuf);

impl Info {
    fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, SENT_AGAIN + 8).map(Self)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    fn long(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at + 8)?.try_into().ok()?))
    }

    /// Bytes that have come. The end of the stream counts as one.
    fn received(&self) -> Option<u64> {
        const CLOSE_WAIT: u8 = 8;
        let has_ended = self.byte(0)? == CLOSE_WAIT;
        Some(self.long(RECEIVED)?.wrapping_sub(u64::from(has_ended)))
    }

    /// Bytes the program has written, as the counts of what was sent have it. In repair mode the
    /// kernel may take packets for sent that are not, and later sends them again: from then on it is
    /// less than that.
    fn counted(&self) -> Option<u64> {
        let sent = self.long(SENT)?.wrapping_sub(self.long(SENT_AGAIN)?);
        Some(sent.wrapping_add(u64::from(self.word(NOT_SENT)?)))
    }

    /// Bytes the program has written, and perhaps one: an end that began the connection counts that.
    fn acknowledged_or_not(&self, unacknowledged: usize) -> Option<u64> {
        const ENDED: [u8; 4] = [4, 5, 9, 11];
        let ended = u64::from(ENDED.contains(&self.byte(0)?));
        let all = self.long(ACKNOWLEDGED)? + unacknowledged as u64;
        Some(all.saturating_sub(ended))
    }

    /// With how much is not acknowledged at that moment.
    fn with_unacknowledged(fd: BorrowedFd<'_>) -> Option<(Self, usize)> {
        let mut info = Self::of(fd)?;
        for _ in 0..LOOKS {
            let unacknowledged = repair::unacknowledged(fd).ok()?;
            let now = Self::of(fd)?;
            if now.long(ACKNOWLEDGED) == info.long(ACKNOWLEDGED) {
                return Some((now, unacknowledged));
            }
            info = now;
        }
        None
    }
}

/// How far the kernel's count of acknowledged bytes of a TCP connection is from what the program has
/// written, 0 or 1. None: it cannot be told, of one that somebody had in repair mode before.
pub(crate) fn counts_from(fd: BorrowedFd<'_>) -> Option<u64> {
    let (info, unacknowledged) = Info::with_unacknowledged(fd)?;
    let all = info.acknowledged_or_not(unacknowledged)?;
    all.checked_sub(info.counted()?).filter(|&from| from <= 1)
}

/// Bytes the program has written, where that began to be counted at [`counts_from`].
pub(crate) fn written(fd: BorrowedFd<'_>, from: u64) -> Option<u64> {
    let (info, unacknowledged) = Info::with_unacknowledged(fd)?;
    info.acknowledged_or_not(unacknowledged)?.checked_sub(from)
}

/// What is known of a TCP connection before it is looked at: [`counts_from`], and what it was sending
/// when the program had just come to a stop, and had written so much.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ahead {
    pub counts_from: Option<u64>,
    pub sending: Option<(u64, Sending)>,
}

impl Stream {
    fn of(fd: BorrowedFd<'_>, ahead: &Ahead) -> Option<Self> {
        let info = Info::of(fd)?;
        let (written, sending) = match ahead.counts_from.and_then(|from| written(fd, from)) {
            None => (0, Err("how much was written is not known".to_owned())),
            Some(written) => match &ahead.sending {
                Some((then, sending)) if *then == written => (written, sending.clone()),
                // Others who have it open wrote more until they stood still.
                _ if repair::unacknowledged(fd).ok()? > 0 => (written, sending_of(fd)),
                _ => (written, Ok(ByteBuf::new())),
            },
        };
        let scales = info.byte(SCALES)?;
        Some(Self {
            state: info.byte(0)?,
            options: info.byte(SCALES - 1)?,
            send_scale: scales & 0xf,
            receive_scale: scales >> 4,
            segment: info.word(SEGMENT)?,
            written,
            received: info.received()?,
            sending,
        })
    }
}

fn sending_of(fd: BorrowedFd<'_>) -> Sending {
    let mut sending = repair::sending(&[fd]).into_iter();
    let bytes = sending.next().unwrap_or_else(|| Ok(Vec::new()));
    bytes.map(ByteBuf::from)
}

/// What has come to a connection may grow while it is looked at.
const LOOKS: usize = 16;

impl Socket {
    /// Looks again at what waits in it, where that is looked at. `asked`: it is a TCP connection that
    /// is looked at too; `ahead`: what is known of that.
    pub(crate) fn look_again(
        &mut self,
        asked: bool,
        ahead: &Ahead,
        fd: impl FnOnce() -> io::Result<OwnedFd>,
    ) {
        (self.queued, self.stream) = (None, None);
        self.messages.clear();
        if !asked && (self.family != libc::AF_UNIX || self.listens) {
            return;
        }
        let queued = fd().map_err(|e| e.to_string()).and_then(|fd| {
            // Of one that is connected to nobody they are not kept: whether there are any is enough.
            if self.kind != libc::SOCK_STREAM && self.peer.is_empty() {
                return match messages::wait(fd.as_fd()) {
                    true => Err("it is connected to nobody".to_owned()),
                    false => Ok((Vec::new(), Vec::new())),
                };
            }
            if !asked {
                return connections::queued(fd.as_fd(), self.kind);
            }
            for _ in 0..LOOKS {
                self.stream = Stream::of(fd.as_fd(), ahead);
                let queued = connections::queued(fd.as_fd(), self.kind);
                let received = Info::of(fd.as_fd()).and_then(|info| info.received());
                if received == self.stream.as_ref().map(|stream| stream.received) {
                    return queued;
                }
            }
            Err("more and more comes".to_owned())
        });
        self.queued = Some(queued.map(|(bytes, messages)| {
            self.messages = messages;
            ByteBuf::from(bytes)
        }));
    }
}

const NUMBER: usize = 4;
/// struct linger.
const LINGER: usize = 8;
/// struct timeval.
const TIME: usize = 16;

/// Which of its buffers are as large as the program has said (1 for sending, 2 for receiving); the
/// kernel sees to the others.
pub const SO_BUF_LOCK: i32 = 72;

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
    (libc::SOL_SOCKET, SO_BUF_LOCK, NUMBER),
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

pub(crate) fn option(fd: BorrowedFd<'_>, level: i32, name: i32, len: usize) -> Option<ByteBuf> {
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

/// Sets an option that is a number.
pub(crate) fn set(fd: BorrowedFd<'_>, (level, name): (i32, i32), value: i32) -> io::Result<()> {
    let at = (&raw const value).cast();
    // SAFETY: the value is one int, which outlives the call.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, at, 4) };
    if ret == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An option of SOL_SOCKET that is a number.
pub(crate) fn number(fd: BorrowedFd<'_>, name: i32) -> Option<i32> {
    let bytes = option(fd, libc::SOL_SOCKET, name, NUMBER)?;
    bytes.first_chunk().map(|b| i32::from_le_bytes(*b))
}

/// Everything [`Socket`] has but what waits in it. `asked`: also of a TCP connection.
#[must_use]
pub fn read(fd: BorrowedFd<'_>, asked: bool) -> Socket {
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
    // Of a stream that leads to somebody else they are of no use to anybody, and there may be thousands.
    let wanted = asked || peer.is_empty() || kind == libc::SOCK_DGRAM || family == libc::AF_UNIX;
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
        messages: Vec::new(),
        stream: None,
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
    Ok(read(fd.as_fd(), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn a_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = read(listener.as_fd(), false);
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
        let read = read(socket.as_fd(), false);
        assert_eq!((read.kind, read.listens), (libc::SOCK_DGRAM, false));
    }

    #[test]
    fn what_a_connection_has_written() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        for (end, from) in [(&mut client, 1), (&mut server, 0)] {
            assert_eq!(counts_from(end.as_fd()), Some(from));
            end.set_nonblocking(true).unwrap();
            // More than fits, so that some of it is not sent.
            let len = end.write(&vec![0; 20 << 20]).unwrap();
            let len = Some(len as u64);
            assert_eq!(written(end.as_fd(), from), len);
            repair::sending(&[end.as_fd()]).remove(0).unwrap();
            assert_eq!(written(end.as_fd(), from), len);
            end.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(written(end.as_fd(), from), len, "its end is no byte");
        }
    }
}
