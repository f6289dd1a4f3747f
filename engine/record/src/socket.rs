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
    /// Options; none of a TCP connection.
    pub options: Vec<SocketOption>,
    /// Of a connected Unix socket.
    pub unix: Option<Unix>,
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

/// What a connected Unix socket has besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unix {
    /// Inode of the socket at its other end, 0 when that is closed.
    pub peer: u64,
    /// What waits to be received.
    pub queued: Queued,
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
