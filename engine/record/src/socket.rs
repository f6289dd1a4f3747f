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
