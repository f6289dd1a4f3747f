//! Sockets that can be made again: of IPv4 and IPv6, those that listen, and those for datagrams.

use sls_keeper::{Arg, Want};
use sls_record::Socket;
use sls_sys::sockets;

use super::{Steps, int};

/// A stream that was connected, or on its way to be, is of no use without its peer.
pub fn can_be_made(socket: &Socket) -> bool {
    let inet = matches!(socket.family, libc::AF_INET | libc::AF_INET6);
    inet && (socket.listens || socket.kind == libc::SOCK_DGRAM)
}

/// Makes one, saved as 0. Err: why it cannot be. `must`: without its address there is no use in it.
pub fn make(steps: &mut Steps, what: &str, socket: &Socket, must: bool) -> Result<(), String> {
    if !can_be_made(socket) {
        return Err("it cannot be made again; a placeholder reports hang-up".to_owned());
    }
    let fresh = sockets::fresh(socket.family, socket.kind, socket.protocol)
        .map_err(|error| format!("it cannot be made again: {error}"))?;
    let args = vec![
        int(socket.family),
        int(socket.kind | libc::SOCK_CLOEXEC),
        int(socket.protocol),
    ];
    steps.call(what, libc::SYS_socket, args, Want::Save(0));
    for option in &socket.options {
        let usual = fresh
            .options
            .iter()
            .find(|(level, name, _)| (*level, *name) == (option.level, option.name));
        if usual.is_none_or(|(_, _, value)| value[..] != option.value[..]) {
            set(steps, what, option.level, option.name, &option.value);
        }
    }
    let want = || {
        if must {
            Want::Success
        } else {
            Want::Report(what.to_owned())
        }
    };
    if has_port(&socket.local) {
        let args = address(&socket.local);
        steps.call(format!("{what}: bind"), libc::SYS_bind, args, want());
    }
    if socket.listens {
        let backlog = i32::try_from(socket.backlog.unwrap_or(128)).unwrap_or(i32::MAX);
        let args = vec![Arg::Saved(0), int(backlog)];
        steps.call(format!("{what}: listen"), libc::SYS_listen, args, want());
    } else if !socket.peer.is_empty() {
        let args = address(&socket.peer);
        let want = Want::Report(format!("connection of a datagram socket ({what})"));
        steps.call(format!("{what}: connect"), libc::SYS_connect, args, want);
    }
    Ok(())
}

fn set(steps: &mut Steps, what: &str, level: i32, name: i32, value: &[u8]) {
    // Of buffers the kernel tells twice what it was asked for; what its limit forbids is root's.
    let (name, value) = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => (libc::SO_SNDBUFFORCE, half(value)),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => (libc::SO_RCVBUFFORCE, half(value)),
        _ => (name, value.to_vec()),
    };
    let len = value.len() as u64;
    let args = vec![
        Arg::Saved(0),
        int(level),
        int(name),
        Arg::Bytes(value),
        len.into(),
    ];
    let want = Want::Report(format!("option {level}/{name} ({what})"));
    steps.call(format!("{what}: options"), libc::SYS_setsockopt, args, want);
}

fn half(value: &[u8]) -> Vec<u8> {
    let number = value.first_chunk().map_or(0, |b| i32::from_le_bytes(*b));
    (number / 2).to_le_bytes().to_vec()
}

fn address(bytes: &[u8]) -> Vec<Arg> {
    let len = bytes.len() as u64;
    vec![Arg::Saved(0), Arg::Bytes(bytes.to_vec()), len.into()]
}

/// struct sockaddr_in and sockaddr_in6 have the port behind the family.
fn has_port(address: &[u8]) -> bool {
    address.get(2..4).is_some_and(|port| port != [0, 0])
}
