//! Sockets.

use serde::{Deserialize, Serialize};

use crate::Queued;

/// A socket as it was made, named and set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// AF_*.
    pub family: i32,
    /// SOCK_STREAM and its kin.
    pub kind: i32,
    /// IPPROTO_*.
    pub protocol: i32,
    /// Its own address, the kernel's bytes; empty when it has none.
    #[serde(with = "serde_bytes")]
    pub local: Vec<u8>,
    /// The address it is connected to; empty when it is not.
    #[serde(with = "serde_bytes")]
    pub peer: Vec<u8>,
    /// It listens.
    pub listens: bool,
    /// Connections that may wait to be accepted, where the kernel tells.
    pub backlog: Option<u32>,
    /// Options; none of a TCP connection to somebody outside.
    pub options: Vec<SocketOption>,
    /// Of a Unix socket that is connected, and of a TCP socket that is connected to another of the
    /// checkpoint's.
    pub connected: Option<Connected>,
    /// Messages wait in it that are not kept: of a Unix socket that is not connected to another.
    pub has_unread: bool,
    /// The file that a Unix socket with a path is found by.
    pub file: Option<SocketFile>,
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFile {
    /// Rights.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Socket {
    /// The path of a Unix socket that has one, from / on.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        const AF_UNIX: i32 = 1;
        // struct sockaddr_un: the family, then the name.
        let name = self.local.get(2..).filter(|_| self.family == AF_UNIX)?;
        let name = name.split(|&b| b == 0).next()?;
        let name = String::from_utf8_lossy(name);
        name.starts_with('/').then(|| name.into_owned())
    }
}

/// What a connected socket has besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Inode of the socket at its other end, 0 when that is closed.
    pub peer: u64,
    /// What waits to be received.
    pub queued: Queued,
    /// How long each message of that is, in a socket that keeps them apart.
    pub messages: Vec<u32>,
    /// Of TCP.
    pub tcp: Option<Tcp>,
}

/// One end of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// TCP_ESTABLISHED (1) and so on.
    pub state: u8,
    /// TCPI_OPT_*: what both ends agreed on.
    pub options: u8,
    /// Bits by which the window it is told is shifted.
    pub send_scale: u8,
    /// Bits by which the window it tells is shifted.
    pub receive_scale: u8,
    /// Largest segment, bytes.
    pub segment: u32,
    /// Bytes it had written.
    pub written: u64,
    /// Bytes that had come to it.
    pub received: u64,
    /// The last of what it had written, at least what had not been sent.
    pub sending: Queued,
}

impl Connected {
    /// What the program would have read next: what waited, and what the other end had written by
    /// then. None where some of it is not known.
    #[must_use]
    pub fn to_read(&self, other: &Self) -> Option<Vec<u8>> {
        let Queued::Bytes(queued) = &self.queued else {
            return None;
        };
        let mut bytes = queued.clone();
        if let (Some(here), Some(there)) = (&self.tcp, &other.tcp) {
            let on_its_way = usize::try_from(there.written.checked_sub(here.received)?).ok()?;
            if on_its_way > 0 {
                let Queued::Bytes(sending) = &there.sending else {
                    return None;
                };
                bytes.extend(&sending[sending.len().checked_sub(on_its_way)?..]);
            }
        }
        Some(bytes)
    }
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOption {
    /// SOL_* or IPPROTO_*.
    pub level: i32,
    /// SO_* and its kin.
    pub name: i32,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}
