//! Who is at the other end of a socket, as the kernel tells over netlink, and what waits in it.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{self, ExtensionFlags, InetRequest, SocketId};
use netlink_packet_sock_diag::unix::{self, ShowFlags, UnixRequest};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, recvmsg, send};

use crate::{messages, repair, sockets};

nix::ioctl_read_bad!(inq, libc::FIONREAD, libc::c_int);

/// Inodes of the Unix sockets at the other ends of connected ones, by inode, in the network of the
/// caller; 0 where that one has been closed.
///
/// # Errors
/// The kernel has no CONFIG_UNIX_DIAG.
pub fn unix() -> io::Result<HashMap<u64, u64>> {
    let request = UnixRequest {
        state_flags: unix::StateFlags::ESTABLISHED,
        inode: 0,
        show_flags: ShowFlags::PEER,
        cookie: [0xff; 8],
    };
    let mut found = HashMap::new();
    dump(SockDiagMessage::UnixRequest(request), |message| {
        if let SockDiagMessage::UnixResponse(one) = message {
            let peer = one.peer().unwrap_or(0);
            found.insert(u64::from(one.header.inode), u64::from(peer));
        }
    })?;
    Ok(found)
}

/// Inodes of TCP sockets whose other end is a socket in the network of the caller as well, by inode.
///
/// # Errors
/// The kernel has no CONFIG_INET_DIAG.
pub fn tcp() -> io::Result<HashMap<u64, u64>> {
    let mut by_ends: HashMap<(SocketAddr, SocketAddr), u64> = HashMap::new();
    for family in [AF_INET, AF_INET6] {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: inet::StateFlags::ESTABLISHED
                | inet::StateFlags::CLOSE_WAIT
                | inet::StateFlags::FIN_WAIT1
                | inet::StateFlags::FIN_WAIT2,
            socket_id: if family == AF_INET {
                SocketId::new_v4()
            } else {
                SocketId::new_v6()
            },
        };
        dump(SockDiagMessage::InetRequest(request), |message| {
            if let SockDiagMessage::InetResponse(one) = message {
                let id = &one.header.socket_id;
                // An IPv6 socket may have its other end in an IPv4 one.
                let local = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
                let peer =
                    SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
                by_ends.insert((local, peer), u64::from(one.header.inode));
            }
        })?;
    }
    // One that nobody has accepted yet has no inode, nor has one that nobody has open any more.
    let pairs = by_ends.iter().filter_map(|(&(local, peer), &inode)| {
        let other = *by_ends.get(&(peer, local))?;
        (inode != 0 && other != 0 && inode != other).then_some((inode, other))
    });
    Ok(pairs.collect())
}

/// The sockets that a process has open: number and inode.
#[must_use]
pub fn of(pid: i32) -> Vec<(i32, u64)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let links = entries.into_iter().flatten().flatten();
    let inode = |entry: std::fs::DirEntry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?;
        let inode = inode.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    };
    links.filter_map(inode).collect()
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// Everything the kernel answers to one question.
fn dump(request: SockDiagMessage, mut each: impl FnMut(SockDiagMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, request.into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest)
                .map_err(|e| io::Error::other(e.to_string()))?;
            let len = crate::size(u64::from(message.header.length)).next_multiple_of(4);
            rest = rest.get(len..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(message) => each(message),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(()),
                _ => {}
            }
        }
    }
}

/// What waits to be received, without taking it out; and how long each message is, where they are kept
/// apart. Err: why it cannot be told.
///
/// # Errors
/// In words.
pub fn queued(fd: BorrowedFd<'_>, kind: i32) -> Result<(Vec<u8>, Vec<u32>), String> {
    if kind == libc::SOCK_STREAM {
        stream(fd).map(|bytes| (bytes, Vec::new()))
    } else {
        messages::waiting(fd)
    }
}

fn stream(fd: BorrowedFd<'_>) -> Result<Vec<u8>, String> {
    let mut waits = 0;
    #[allow(unsafe_code)]
    // SAFETY: the kernel writes one int.
    unsafe { inq(fd.as_raw_fd(), &raw mut waits) }.map_err(|e| e.to_string())?;
    let mut bytes = vec![0; usize::try_from(waits).unwrap_or(0)];
    if bytes.is_empty() {
        return Ok(bytes);
    }
    // A look would move on where the program's own next look begins.
    let offset = sockets::number(fd, libc::SO_PEEK_OFF);
    if offset.is_none_or(|offset| offset >= 0) {
        return Err("the program has set SO_PEEK_OFF".to_owned());
    }
    let mut into = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let got = recvmsg::<()>(fd.as_raw_fd(), &mut into, None, flags).map_err(|e| e.to_string())?;
    if got.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err("descriptors wait in it".to_owned());
    }
    let all = got.bytes == usize::try_from(waits).unwrap_or(0);
    if all {
        Ok(bytes)
    } else {
        Err("not all that waits in it can be looked at".to_owned())
    }
}

/// How long what is on its way may take to come.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Takes out all that waits between two sockets and is on its way there, and has these bytes wait, in
/// messages of these lengths where it is no stream. Both ends must stand still. More than a new socket
/// takes needs CAP_NET_ADMIN. False: it has been shut down, so that nothing could be sent again, and is
/// left as it is.
///
/// # Errors
/// There is no room.
pub fn refill(
    reader: BorrowedFd<'_>,
    writer: BorrowedFd<'_>,
    (bytes, messages): (&[u8], &[u32]),
) -> io::Result<bool> {
    if has_ended(reader)? {
        return Ok(false);
    }
    drain(reader, writer)?;
    let mut left = Unsent { bytes, messages };
    if !left.send(writer)? {
        // It is told twice what it is asked for.
        let size = sockets::number(writer, libc::SO_SNDBUF).unwrap_or(0);
        let lock = sockets::number(writer, sockets::SO_BUF_LOCK).unwrap_or(0);
        let more = left.bytes.len() + MESSAGE * left.messages.len();
        let more = i32::try_from(more).unwrap_or(i32::MAX).saturating_mul(4);
        let force = (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE);
        sockets::set(writer, force, size.saturating_add(more))?;
        let is_all = left.send(writer)?;
        sockets::set(writer, force, size / 2)?;
        sockets::set(writer, (libc::SOL_SOCKET, sockets::SO_BUF_LOCK), lock)?;
        if !is_all {
            return Err(io::ErrorKind::WouldBlock.into());
        }
    }
    Ok(true)
}

/// What the kernel takes for a message beside its bytes, and more.
const MESSAGE: usize = 1024;

/// What is to be sent.
struct Unsent<'a> {
    bytes: &'a [u8],
    /// Lengths of the messages; of a stream none.
    messages: &'a [u32],
}

impl Unsent<'_> {
    /// Sends as much as there is room for: whether that was all.
    fn send(&mut self, writer: BorrowedFd<'_>) -> io::Result<bool> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            let next = match self.messages.first() {
                Some(&len) => {
                    let message = self.bytes.get(..crate::size(u64::from(len)));
                    message.ok_or(io::ErrorKind::InvalidData)?
                }
                None if self.bytes.is_empty() => return Ok(true),
                None => self.bytes,
            };
            match send(writer.as_raw_fd(), next, flags) {
                Ok(sent) => self.bytes = &self.bytes[sent..],
                Err(Errno::EAGAIN | Errno::EMSGSIZE) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            self.messages = self.messages.get(1..).unwrap_or_default();
        }
    }
}

/// Has either end been shut down, so that nothing more comes to this one?
pub(crate) fn has_ended(reader: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = libc::pollfd {
        fd: reader.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    #[allow(unsafe_code)]
    // SAFETY: one struct, which outlives the call.
    let told = unsafe { libc::poll(&raw mut asked, 1, 0) };
    Errno::result(told)?;
    Ok(asked.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0)
}

fn drain(reader: BorrowedFd<'_>, writer: BorrowedFd<'_>) -> io::Result<()> {
    let is_tcp = sockets::number(reader, libc::SO_PROTOCOL) == Some(libc::IPPROTO_TCP);
    let is_stream = sockets::number(reader, libc::SO_TYPE) == Some(libc::SOCK_STREAM);
    let until = Instant::now() + ON_ITS_WAY;
    let mut into = vec![0; 64 << 10];
    loop {
        match recv(reader.as_raw_fd(), &mut into, MsgFlags::MSG_DONTWAIT) {
            Ok(0) if is_stream => return Ok(()), // Its end; else a message of no bytes.
            Ok(_) => continue,
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        if !is_tcp || repair::unacknowledged(writer)? == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // It is known to have come when it is acknowledged, which else may take its time.
        let at_once = (libc::IPPROTO_TCP, libc::TCP_QUICKACK);
        sockets::set(reader, at_once, 1)?;
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    fn inode(stream: &UnixStream) -> u64 {
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_stream_is_refilled_unless_it_has_ended() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"now").unwrap();
        assert!(refill(other.as_fd(), one.as_fd(), (b"and then", &[])).unwrap());
        let waits = || queued(other.as_fd(), libc::SOCK_STREAM).unwrap().0;
        assert_eq!(waits(), b"and then");
        one.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!refill(other.as_fd(), one.as_fd(), (b"another", &[])).unwrap());
        assert_eq!(waits(), b"and then", "nothing is lost");
    }

    #[test]
    fn a_pair() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let peers = super::unix().unwrap();
        assert_eq!(peers.get(&inode(&one)), Some(&inode(&other)));
        assert_eq!(peers.get(&inode(&other)), Some(&inode(&one)));
        one.write_all(b"first").unwrap();
        one.write_all(&[7; 5000]).unwrap();
        let stream = libc::SOCK_STREAM;
        for _ in 0..2 {
            let (waits, _) = queued(other.as_fd(), stream).unwrap();
            assert_eq!(waits, [&b"first"[..], &[7; 5000]].concat());
        }
        assert_eq!(queued(one.as_fd(), stream).unwrap().0, b"");
        let two = 2;
        #[allow(unsafe_code)]
        // SAFETY: the value is one int, which outlives the call.
        let set = unsafe {
            let (level, name) = (libc::SOL_SOCKET, libc::SO_PEEK_OFF);
            libc::setsockopt(other.as_raw_fd(), level, name, (&raw const two).cast(), 4)
        };
        assert_eq!(set, 0);
        assert!(queued(other.as_fd(), stream).is_err());
        let offset = sockets::number(other.as_fd(), libc::SO_PEEK_OFF);
        assert_eq!(offset, Some(two), "a look of ours is none of its own");
    }
}
