//! Sockets that can be made again: of IPv4 and IPv6, those that listen, and those for datagrams.

use std::os::unix::fs::FileTypeExt;

use sls_keeper::{Arg, Want};
use sls_record::{Socket, SocketOption};
use sls_sys::sockets;

use super::{Steps, int, path};

/// A stream that was connected, or on its way to be, is of no use without its peer.
pub fn can_be_made(socket: &Socket) -> bool {
    let stands_alone = socket.listens || socket.kind == libc::SOCK_DGRAM;
    match socket.family {
        libc::AF_INET | libc::AF_INET6 => stands_alone,
        // One of a pair is of no use without the other; and a path tells only where it leads from /.
        libc::AF_UNIX => {
            let paired = socket.connected.is_some() && has_no_name(&socket.peer);
            let starts = |name: &[u8]| has_no_name(name) || matches!(name[2], 0 | b'/');
            stands_alone && !paired && starts(&socket.local) && starts(&socket.peer)
        }
        _ => false,
    }
}

/// struct sockaddr_un has the name behind the family.
fn has_no_name(address: &[u8]) -> bool {
    address.len() <= 2
}

/// The file that the socket had is in the way, unless somebody else's has taken its place.
fn clear_path(steps: &mut Steps, what: &str, name: &str, has_layer: bool) -> Result<(), String> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let has_it = |line: &&str| line.split_whitespace().nth(7) == Some(name);
    if !has_layer && table.lines().any(|line| has_it(&line)) {
        return Err(format!("{name} is in use by another socket"));
    }
    match std::fs::symlink_metadata(name) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(format!("{name} is no socket any more"));
        }
        _ => {}
    }
    let want = Want::Or(vec![libc::ENOENT]);
    let what = format!("{what}: remove {name}");
    steps.call(what, libc::SYS_unlink, vec![path(name)], want);
    Ok(())
}

/// Makes one, saved as 0. Err: why it cannot be. `must`: without its address there is no use in it.
/// `has_layer`: the file it had there is nobody else's.
pub fn make(
    steps: &mut Steps,
    what: &str,
    socket: &Socket,
    (must, has_layer): (bool, bool),
) -> Result<(), String> {
    if !can_be_made(socket) {
        let tcp = socket.connected.as_ref().and_then(|c| c.tcp.as_ref());
        let why = match tcp {
            Some(_) => "its other end, or some of what was sent, is not known",
            None => "it cannot be made again",
        };
        return Err(format!("{why}; a placeholder reports hang-up"));
    }
    let fresh = sockets::fresh(socket.family, socket.kind, socket.protocol)
        .map_err(|error| format!("it cannot be made again: {error}"))?;
    let args = vec![
        int(socket.family),
        int(socket.kind | libc::SOCK_CLOEXEC),
        int(socket.protocol),
    ];
    steps.call(what, libc::SYS_socket, args, Want::Save(0));
    options(steps, what, &Arg::Saved(0), socket, &fresh);
    // The ends of its connections may be made by others before it.
    let is_in_the_way = socket.listens && socket.family != libc::AF_UNIX && !reuses_address(socket);
    if is_in_the_way {
        reuse_address(steps, what, &Arg::Saved(0), true);
    }
    let want = || {
        if must {
            Want::Success
        } else {
            Want::Report(what.to_owned())
        }
    };
    if let Some(name) = socket.path() {
        clear_path(steps, what, &name, has_layer)?;
    }
    if has_address(socket.family, &socket.local) {
        let args = address(&socket.local);
        steps.call(format!("{what}: bind"), libc::SYS_bind, args, want());
    }
    if let (Some(name), Some(file)) = (socket.path(), socket.file) {
        let args = vec![path(&name), u64::from(file.mode).into()];
        steps.call(
            format!("{what}: rights of {name}"),
            libc::SYS_chmod,
            args,
            want(),
        );
        let args = vec![
            path(&name),
            u64::from(file.uid).into(),
            u64::from(file.gid).into(),
        ];
        steps.call(
            format!("{what}: owner of {name}"),
            libc::SYS_lchown,
            args,
            want(),
        );
    }
    if socket.listens {
        let backlog = i32::try_from(socket.backlog.unwrap_or(128)).unwrap_or(i32::MAX);
        let args = vec![Arg::Saved(0), int(backlog)];
        steps.call(format!("{what}: listen"), libc::SYS_listen, args, want());
        if is_in_the_way {
            reuse_address(steps, what, &Arg::Saved(0), false);
        }
    } else if has_address(socket.family, &socket.peer) {
        let args = address(&socket.peer);
        let want = Want::Report(format!("connection of a datagram socket ({what})"));
        steps.call(format!("{what}: connect"), libc::SYS_connect, args, want);
    }
    Ok(())
}

/// Has the program set SO_REUSEADDR?
fn reuses_address(socket: &Socket) -> bool {
    let is_it = |o: &&SocketOption| (o.level, o.name) == (libc::SOL_SOCKET, libc::SO_REUSEADDR);
    let option = socket.options.iter().find(is_it);
    option.is_some_and(|o| o.value.iter().any(|&b| b != 0))
}

/// Two sockets may have one address when both have set this, and but one of them listens.
fn reuse_address(steps: &mut Steps, what: &str, fd: &Arg, yes: bool) {
    let option = (libc::SOL_SOCKET, libc::SO_REUSEADDR);
    set(steps, what, fd, option, &i32::from(yes).to_le_bytes());
}

/// Options that are not what they usually are.
pub fn options(steps: &mut Steps, what: &str, fd: &Arg, socket: &Socket, fresh: &sockets::Socket) {
    let value_of = |wanted: i32| {
        let found = socket
            .options
            .iter()
            .find(|o| o.name == wanted && o.level == libc::SOL_SOCKET);
        found.and_then(|o| o.value.first().copied())
    };
    let locked = value_of(sockets::SO_BUF_LOCK);
    for option in &socket.options {
        let same =
            |(level, name, _): &&(i32, i32, _)| (*level, *name) == (option.level, option.name);
        let usual = fresh.options.iter().find(same);
        // Where the kernel sees to the size of a buffer, it goes on to.
        let is_kernels = match (option.level, option.name) {
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => locked.is_some_and(|l| l & 1 == 0),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => locked.is_some_and(|l| l & 2 == 0),
            (libc::SOL_SOCKET, sockets::SO_BUF_LOCK) => true, // Set with the size.
            _ => false,
        };
        if !is_kernels && usual.is_none_or(|(_, _, value)| value[..] != option.value[..]) {
            set(steps, what, fd, (option.level, option.name), &option.value);
        }
    }
}

pub fn set(steps: &mut Steps, what: &str, fd: &Arg, (level, name): (i32, i32), value: &[u8]) {
    // Of buffers the kernel tells twice what it was asked for; what its limit forbids is root's.
    let (name, value) = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => (libc::SO_SNDBUFFORCE, half(value)),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => (libc::SO_RCVBUFFORCE, half(value)),
        _ => (name, value.to_vec()),
    };
    let len = value.len() as u64;
    let args = vec![
        fd.clone(),
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

/// struct sockaddr_in and sockaddr_in6 have the port behind the family, struct sockaddr_un the name.
fn has_address(family: i32, address: &[u8]) -> bool {
    match family {
        libc::AF_UNIX => !has_no_name(address),
        _ => address.get(2..4).is_some_and(|port| port != [0, 0]),
    }
}
