//! A seqpacket socket that carries one postcard message each, with a descriptor where wanted.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const MAX_MESSAGE: usize = 128 << 10;

/// One end.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    /// For receiving: mapped anew for each message it would cost a fault a page.
    buffer: Vec<u8>,
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            buffer: vec![0; MAX_MESSAGE],
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel {
    /// Two connected ends; the second is meant for a child's standard input.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self::from(a), b))
    }

    /// Sends `message`, with `fd` along.
    ///
    /// # Errors
    /// EPIPE: the other end is gone. EMSGSIZE: too long.
    pub fn send<T: Serialize>(&self, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        let raw: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() {
            &rights[..0]
        } else {
            &rights[..]
        };
        sendmsg::<()>(
            self.fd.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Waits for a message, without sleeping for the first `spin`: while a target stands still,
    /// waking up costs more than the CPU time that sleeping would save.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    pub fn receive_soon<T: DeserializeOwned>(
        &mut self,
        spin: Duration,
    ) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let until = Instant::now() + spin;
        let mut bytes = [0; 1];
        while Instant::now() < until {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
            if recv(self.fd.as_raw_fd(), &mut bytes, flags) != Err(nix::errno::Errno::EAGAIN) {
                break;
            }
            // To the other end, when it is as urgent and waits for this very CPU.
            std::thread::yield_now();
        }
        self.receive()
    }

    /// Waits for a message; None when the other end is gone.
    ///
    /// # Errors
    /// A message that does not parse.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let (len, fd) = {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let message = loop {
                match recvmsg::<()>(
                    self.fd.as_raw_fd(),
                    &mut slices,
                    Some(&mut control),
                    MsgFlags::MSG_CMSG_CLOEXEC,
                ) {
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                    other => break other?,
                }
            };
            let mut fd = None;
            for item in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = item {
                    fd = fds.first().copied();
                }
            }
            (message.bytes, fd)
        };
        let fd = fd.map(own);
        if len == 0 {
            return Ok(None);
        }
        let value = postcard::from_bytes(&self.buffer[..len]).map_err(io::Error::other)?;
        Ok(Some((value, fd)))
    }
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: SCM_RIGHTS installed it for us in this very recvmsg; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
