//! Two sockets connected to each other, made anew with what waits in them.
//!
//! TCP sockets are made in the kernel's repair mode (tcp(7) calls it TCP_REPAIR): each is told whom it
//! is connected to and by which numbers, without a packet. Their own addresses may be those of a
//! connection that has ended and whose rest the kernel keeps for a while.

use sls_keeper::{Arg, OWN, Step, Want};
use sls_record::{Queued, Socket, SocketOption, Tcp};
use sls_sys::sockets;

use super::anew_files::keep;
use super::kin::Kin;
use super::sockets::{options, set};
use super::{Steps, int};

const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_OPTIONS: i32 = 22;
const RECEIVED: u32 = 1;
const TO_SEND: u32 = 2;

/// Makes both ends, kept under two numbers for those that have them.
pub fn make(steps: &mut Steps, kin: &Kin<'_>, (low, high): (u64, u64), fd: i32) {
    let (Some(one), Some(other)) = (kin.socket(low), kin.socket(high)) else {
        return;
    };
    let what = &*format!("connect socket {low} to {high}");
    if one.family == libc::AF_UNIX {
        unix(steps, what, one, fd);
    } else {
        tcp(steps, what, (one, other), fd);
    }
}

/// Lets what waited in them come, once all that listen are there: a connection is in the way of
/// those that are to have its address, but not while it is in repair mode.
pub fn begin(steps: &mut Steps, kin: &Kin<'_>, (low, high): (u64, u64), fd: i32) {
    let (Some(one), Some(other)) = (kin.socket(low), kin.socket(high)) else {
        return;
    };
    let what = &*format!("connect socket {low} to {high}");
    let ends = [(one, fd, (other, fd + 1)), (other, fd + 1, (one, fd))];
    for (_, fd, _) in ends.iter().filter(|(s, ..)| s.family != libc::AF_UNIX) {
        // Now each asks the other how much it may send.
        tcp_option(steps, what, *fd, libc::TCP_REPAIR, &[0]);
    }
    for (socket, fd, peer) in ends {
        fill(steps, what, (socket, fd), peer);
        let usual = sockets::fresh(socket.family, socket.kind, socket.protocol);
        let mut socket = socket.clone();
        socket.options.retain(|option| !is_v6_only(option));
        options(steps, what, &int(fd), &socket, &usual.unwrap_or_default());
    }
    for (socket, fd, _) in ends {
        if has_ended(socket) {
            let args = vec![int(fd), int(libc::SHUT_WR)];
            steps.call(what, libc::SYS_shutdown, args, Want::Success);
        }
    }
}

fn unix(steps: &mut Steps, what: &str, socket: &Socket, fd: i32) {
    let args = vec![
        int(libc::AF_UNIX),
        int(socket.kind | libc::SOCK_CLOEXEC),
        int(socket.protocol),
        Arg::Bytes(vec![0; 8]),
    ];
    let ends = (2, 3);
    steps.call(what, libc::SYS_socketpair, args, Want::SavePair(ends.0));
    keep(steps, ends.0, fd);
    keep(steps, ends.1, fd + 1);
}

fn tcp(steps: &mut Steps, what: &str, (one, other): (&Socket, &Socket), fd: i32) {
    // Where each begins to count is as good as any other number, but not to be guessed by others.
    let (low, high) = (rand(), rand());
    connect(steps, what, one, fd, (low, high));
    connect(steps, what, other, fd + 1, (high, low));
}

/// A connection begins anywhere.
fn rand() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or(0)
}

/// One end, connected to the other as far as it knows.
fn connect(steps: &mut Steps, what: &str, socket: &Socket, fd: i32, (sent, received): (u32, u32)) {
    let args = vec![
        int(socket.family),
        int(socket.kind | libc::SOCK_CLOEXEC),
        int(socket.protocol),
    ];
    steps.call(what, libc::SYS_socket, args, Want::Save(2));
    keep(steps, 2, fd);
    tcp_option(steps, what, fd, libc::TCP_REPAIR, &[1]);
    for option in socket.options.iter().filter(|o| is_v6_only(o)) {
        set(steps, what, &int(fd), V6_ONLY, &option.value);
    }
    let address = |bytes: &[u8]| {
        let len = bytes.len() as u64;
        vec![int(fd), Arg::Bytes(bytes.to_vec()), len.into()]
    };
    let args = address(&socket.local);
    steps.call(format!("{what}: bind"), libc::SYS_bind, args, Want::Success);
    for (queue, number) in [(TO_SEND, sent), (RECEIVED, received)] {
        tcp_option(steps, what, fd, TCP_REPAIR_QUEUE, &[queue]);
        tcp_option(steps, what, fd, TCP_QUEUE_SEQ, &[number]);
    }
    let args = address(&socket.peer);
    let connecting = format!("{what}: connect");
    steps.call(connecting, libc::SYS_connect, args, Want::Success);
    if let Some(tcp) = tcp_of(socket) {
        let agreed = agreed(tcp);
        tcp_option(steps, what, fd, TCP_REPAIR_OPTIONS, &agreed);
    }
}

const V6_ONLY: (i32, i32) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);

/// It can be set before the socket has a name.
fn is_v6_only(option: &SocketOption) -> bool {
    (option.level, option.name) == V6_ONLY
}

/// What both ends agreed on when they connected: struct tcp_repair_opt, code and value each.
fn agreed(tcp: &Tcp) -> Vec<u32> {
    const SEGMENT: u32 = 2;
    const WINDOW: u32 = 3;
    const SELECTIVE: u32 = 4;
    const TIMESTAMPS: u32 = 8;
    let scales = u32::from(tcp.send_scale) | u32::from(tcp.receive_scale) << 16;
    let mut list = vec![SEGMENT, tcp.segment];
    for (flag, code, value) in [(4, WINDOW, scales), (2, SELECTIVE, 0), (1, TIMESTAMPS, 0)] {
        if tcp.options & flag != 0 {
            list.extend([code, value]);
        }
    }
    list
}

fn tcp_option(steps: &mut Steps, what: &str, fd: i32, name: i32, words: &[u32]) {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let len = bytes.len() as u64;
    let args = vec![
        int(fd),
        int(libc::IPPROTO_TCP),
        int(name),
        Arg::Bytes(bytes),
        len.into(),
    ];
    steps.call(what, libc::SYS_setsockopt, args, Want::Success);
}

fn tcp_of(socket: &Socket) -> Option<&Tcp> {
    socket.connected.as_ref()?.tcp.as_ref()
}

/// The program sends nothing more by it.
fn has_ended(socket: &Socket) -> bool {
    const FIN_WAIT: [u8; 2] = [4, 5];
    tcp_of(socket).is_some_and(|tcp| FIN_WAIT.contains(&tcp.state))
}

/// What waits in a socket, and what was on its way there, comes by way of its other end.
fn fill(
    steps: &mut Steps,
    what: &str,
    (socket, fd): (&Socket, i32),
    (other, peer): (&Socket, i32),
) {
    let (Some(here), Some(there)) = (&socket.connected, &other.connected) else {
        return;
    };
    if let Queued::Unread(why) = &here.queued {
        let line = format!("what waits in a Unix socket: {why}");
        steps.not_restored.push(line);
    }
    let bytes = here.to_read(there).unwrap_or_default();
    if !bytes.is_empty() || !here.messages.is_empty() {
        steps.list.push(Step::Refill {
            what: what.to_owned(),
            reader: (OWN, fd),
            writer: (OWN, peer),
            bytes,
            messages: here.messages.clone(),
        });
    }
}
