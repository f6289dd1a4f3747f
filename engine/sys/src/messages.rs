//! Messages that wait in a socket that keeps them apart, looked at without being taken out.
//!
//! Beyond the first one only a socket shows them that is told where the next look is to begin
//! (SO_PEEK_OFF), which is the program's to set. So a process of its own looks, as at what a TCP
//! connection is sending (repair.rs), and takes that back whatever becomes of the one that asked.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::repair::{self, unharmed};
use crate::{connections, fd, sockets};

/// The most that is looked at; a new socket takes a fifth of that.
const MOST: usize = 1 << 20;
/// The kernel keeps ten of those that are not connected as a stream is, or as many as fit.
const MOST_MESSAGES: usize = 4096;
const PEEK_OFF: (i32, i32) = (libc::SOL_SOCKET, libc::SO_PEEK_OFF);
const NONE: i32 = -1;
/// A struct cmsghdr and a struct ucred, and not a descriptor beside it.
const CREDENTIALS: usize = 32;

/// Do any?
pub fn wait(fd: BorrowedFd<'_>) -> bool {
    fd::is_readable_within(fd, Duration::ZERO)
}

/// The bytes of all, and how long each is. Err: why they cannot be told, in words.
///
/// # Errors
/// In words.
pub fn waiting(fd: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<u32>), String> {
    if !wait(fd) {
        return Ok((Vec::new(), Vec::new()));
    }
    let _alone = repair::alone().ok_or("others were looking at it")?;
    // A look would move on where the program's own next look begins.
    if sockets::number(fd, libc::SO_PEEK_OFF).is_none_or(|offset| offset >= 0) {
        return Err("the program has set SO_PEEK_OFF".to_owned());
    }
    let mut look = Look {
        fd,
        has_credentials: sockets::number(fd, libc::SO_PASSCRED) == Some(1),
        bytes: vec![0; MOST],
        len: 0,
        messages: vec![0; MOST_MESSAGES],
        count: 0,
        done: Err(Why::Interrupted),
    };
    unharmed(|| look.done = look.all()).map_err(|e| e.to_string())?;
    match look.done {
        Ok(()) => {
            look.bytes.truncate(look.len);
            look.messages.truncate(look.count);
            Ok((look.bytes, look.messages))
        }
        Err(Why::Descriptors) => Err("descriptors wait in it".to_owned()),
        Err(Why::TooMuch) => Err("more than 1 MiB of messages waits in it".to_owned()),
        Err(Why::Interrupted) => Err("who looked at it was killed".to_owned()),
        Err(Why::Errno(errno)) => Err(io::Error::from_raw_os_error(errno).to_string()),
    }
}

/// Why it was no use.
enum Why {
    Interrupted,
    Descriptors,
    TooMuch,
    Errno(i32),
}

impl Why {
    fn last() -> Self {
        Self::Errno(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

struct Look<'a> {
    fd: BorrowedFd<'a>,
    has_credentials: bool,
    bytes: Vec<u8>,
    len: usize,
    messages: Vec<u32>,
    count: usize,
    done: Result<(), Why>,
}

impl Look<'_> {
    /// Allocates nothing: it runs in the memory of another process.
    fn all(&mut self) -> Result<(), Why> {
        let from = |error: io::Error| Why::Errno(error.raw_os_error().unwrap_or(0));
        sockets::set(self.fd, PEEK_OFF, 0).map_err(from)?;
        let looked = loop {
            match self.next() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(why) => break Err(why),
            }
        };
        sockets::set(self.fd, PEEK_OFF, NONE).map_err(from)?;
        looked
    }

    fn next(&mut self) -> Result<bool, Why> {
        let Some(length) = self.messages.get_mut(self.count) else {
            return Err(Why::TooMuch);
        };
        let mut control = [0u64; CREDENTIALS / 8];
        let rest = &mut self.bytes[self.len..];
        let mut part = libc::iovec {
            iov_base: rest.as_mut_ptr().cast(),
            iov_len: rest.len(),
        };
        // SAFETY: all-zero bytes are a valid msghdr of integers and null pointers.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        if self.has_credentials {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = CREDENTIALS;
        }
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: the message points at the rest of our bytes and at room for control data, with
        // their lengths; all of it outlives the call.
        let len = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
        if len < 0 {
            return match Why::last() {
                Why::Errno(libc::EAGAIN) => Ok(false),
                why => Err(why),
            };
        }
        if message.msg_flags & libc::MSG_CTRUNC != 0 {
            return Err(Why::Descriptors);
        }
        let len = usize::try_from(len).unwrap_or(0);
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(Why::TooMuch);
        }
        // The end of what was shut down looks like a message of no bytes.
        if len == 0 && connections::has_ended(self.fd).unwrap_or(true) {
            return Ok(false);
        }
        *length = u32::try_from(len).unwrap_or(u32::MAX);
        self.count += 1;
        self.len += len;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    use nix::sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg,
        setsockopt, socketpair, sockopt,
    };

    fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn they_are_told_apart_and_stay_there() {
        for kind in [SockType::SeqPacket, SockType::Datagram] {
            let (one, other) = pair(kind);
            assert_eq!(waiting(other.as_fd()), Ok((Vec::new(), Vec::new())));
            let all: [&[u8]; 4] = [b"first", b"", &[7; 5000], b"last"];
            for message in all {
                send(one.as_raw_fd(), message, MsgFlags::empty()).unwrap();
            }
            setsockopt(&other, sockopt::PassCred, &true).unwrap();
            let told = waiting(other.as_fd());
            assert_eq!(told, Ok((all.concat(), vec![5, 0, 5000, 4])), "{kind:?}");
            // Those that had been sent before have no credentials.
            assert_eq!(
                sockets::number(other.as_fd(), libc::SO_PEEK_OFF),
                Some(NONE)
            );
            let mut into = [0; 8192];
            for message in all {
                let len = recv(other.as_raw_fd(), &mut into, MsgFlags::MSG_DONTWAIT).unwrap();
                assert_eq!(&into[..len], message);
            }
        }
    }

    #[test]
    fn what_has_ended_holds_no_message() {
        let (one, other) = pair(SockType::SeqPacket);
        send(one.as_raw_fd(), b"last", MsgFlags::empty()).unwrap();
        drop(one);
        assert_eq!(waiting(other.as_fd()), Ok((b"last".to_vec(), vec![4])));
    }

    #[test]
    fn descriptors_are_told_of_and_not_taken() {
        let (one, other) = pair(SockType::Datagram);
        let passed = [one.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&passed)];
        let part = [std::io::IoSlice::new(b"x")];
        sendmsg::<()>(one.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        assert!(waiting(other.as_fd()).unwrap_err().contains("descriptors"));
        assert!(open() <= before);
    }
}
