//! What the target's sockets are, by the kernel's tables of its network.

use sls_sys::procfs;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use sls_sys::connections;

use crate::group::connections::{Ends, is_in_our_network};

/// What is known of the sockets that the target has open.
#[derive(Debug, Default)]
pub struct Sockets {
    /// By inode; nothing for those that no table lists.
    known: HashMap<u64, Option<Socket>>,
    read_at: Option<Instant>,
    /// TCP sockets that are connected to others of the group.
    pub within: Ends,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    name: String,
    listening: bool,
    /// Inode of what a Unix socket is connected to, 0 when that is closed.
    peer: Option<u64>,
}

/// A socket that no table lists may be in one later, when it is connected or listens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Sockets {
    /// Looks up those that are new. The kernel walks all its sockets for each reading of a table,
    /// so all are taken from one. With each inode comes whether it is of a Unix socket that is
    /// connected.
    pub fn meet(&mut self, pid: i32, inodes: Vec<(u64, bool)>) {
        let old = self.read_at.is_none_or(|at| at.elapsed() > LOOK_AGAIN);
        let news = |&(inode, connected): &(u64, bool)| match self.known.get(&inode) {
            None => true,
            Some(None) => old,
            Some(Some(known)) => connected && known.peer.is_none(),
        };
        let look = inodes.iter().any(news);
        let before = std::mem::take(&mut self.known);
        let kept = |&(inode, _): &(u64, bool)| (inode, before.get(&inode).cloned().flatten());
        self.known = inodes.iter().map(kept).collect();
        if look {
            self.read_at = Some(Instant::now());
            for (inode, socket) in tables(pid) {
                if let Some(known) = self.known.get_mut(&inode) {
                    *known = Some(socket);
                }
            }
            // Not to be looked for again.
            for (inode, _) in inodes.iter().filter(|(_, connected)| *connected) {
                if let Some(Some(known)) = self.known.get_mut(inode) {
                    known.peer.get_or_insert(0);
                }
            }
        }
    }

    /// The socket's name, and whether it listens.
    pub fn describe(&self, inode: u64) -> (String, bool) {
        match self.known.get(&inode) {
            Some(Some(socket)) => (socket.name.clone(), socket.listening),
            _ => (format!("socket:[{inode}]"), false),
        }
    }

    /// What a connected Unix socket is connected to, or a TCP socket if that is in the group.
    pub fn peer(&self, inode: u64) -> Option<u64> {
        let unix = || self.known.get(&inode)?.as_ref()?.peer;
        self.within.get(&inode).copied().or_else(unix)
    }
}

/// The sockets of the target's network, by inode.
fn tables(pid: i32) -> Vec<(u64, Socket)> {
    let mut found = Vec::new();
    for family in ["tcp", "tcp6", "udp", "udp6"] {
        found.extend(lines(pid, family, |fields| inet(family, fields)));
    }
    let peers = peers(pid);
    let unix = lines(pid, "unix", unix).into_iter();
    found.extend(unix.map(|(inode, mut socket)| {
        socket.peer = peers.get(&inode).copied();
        (inode, socket)
    }));
    found
}

/// Of another network than slsd's they are not known.
fn peers(pid: i32) -> HashMap<u64, u64> {
    if !is_in_our_network(pid) {
        return HashMap::new();
    }
    connections::unix().unwrap_or_default()
}

fn lines<T>(pid: i32, table: &str, meaning: impl Fn(&[&str]) -> Option<T>) -> Vec<T> {
    let text = procfs::read_text(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    let fields = |line: &str| meaning(&line.split_whitespace().collect::<Vec<_>>());
    text.lines().skip(1).filter_map(fields).collect()
}

fn inet(family: &str, fields: &[&str]) -> Option<(u64, Socket)> {
    let inode = fields.get(9)?.parse().ok()?;
    let listening = *fields.get(3)? == "0A";
    let state = if listening { " listening" } else { "" };
    let peer = if listening || family.starts_with("udp") {
        String::new()
    } else {
        format!(" -> {}", address(fields.get(2)?))
    };
    let name = format!("{family} {}{peer}{state}", address(fields.get(1)?));
    Some((
        inode,
        Socket {
            name,
            listening,
            peer: None,
        },
    ))
}

fn unix(fields: &[&str]) -> Option<(u64, Socket)> {
    let inode = fields.get(6)?.parse().ok()?;
    let listening = *fields.get(3)? == "00010000";
    let state = if listening { " listening" } else { "" };
    let path = fields.get(7).unwrap_or(&"unnamed");
    let name = format!("unix {path}{state}");
    Some((
        inode,
        Socket {
            name,
            listening,
            peer: None,
        },
    ))
}

/// "0100007F:18EB" as 127.0.0.1:6379; IPv6 as the kernel's hex.
fn address(hex: &str) -> String {
    let parse = || {
        let (ip, port) = hex.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        if ip.len() == 8 {
            let [a, b, c, d] = u32::from_str_radix(ip, 16).ok()?.to_le_bytes();
            return Some(format!("{a}.{b}.{c}.{d}:{port}"));
        }
        let mut octets = [0u8; 16];
        for (i, word) in ip.as_bytes().chunks_exact(8).enumerate() {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            octets
                .get_mut(i * 4..i * 4 + 4)?
                .copy_from_slice(&word.to_le_bytes());
        }
        Some(format!("[{}]:{port}", std::net::Ipv6Addr::from(octets)))
    };
    parse().unwrap_or_else(|| hex.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address("0100007F:18EB"), "127.0.0.1:6379");
        assert_eq!(address("00000000000000000000000001000000:0050"), "[::1]:80");
    }

    #[test]
    fn a_listener_has_no_peer() {
        let line = "   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21523 1";
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (inode, socket) = inet("tcp", &fields).unwrap();
        assert_eq!(inode, 21523);
        assert_eq!(socket.name, "tcp 127.0.0.1:6379 listening");
        assert!(socket.listening);
    }
}
