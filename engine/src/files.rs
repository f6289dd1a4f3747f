//! What the descriptors that the keeper read under the stop mean.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_bytes::ByteBuf;
use sls_record::{
    Connected, Epoll, File, FileKind, Lock, LockKind, MessageQueue, Queued, Socket, SocketFile,
    SocketOption, Tcp, Terminal,
};
use sls_sys::descriptors::Raw;
use sls_sys::sockets;

use crate::sockets::Sockets;
use crate::watches::Watches;

fn field<'a>(info: &'a [u8], key: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(info).ok()?;
    text.lines()
        .find_map(|l| l.strip_prefix(key))
        .map(str::trim)
}

fn number(info: &[u8], key: &str) -> u64 {
    field(info, key).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Ranges that the kernel writes behind every scan's back: buffers registered with io_uring.
pub fn unvouched_buffers(raws: &[Raw]) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for raw in raws
        .iter()
        .filter(|r| r.link[..] == b"anon_inode:[io_uring]"[..])
    {
        let Ok(text) = std::str::from_utf8(&raw.info) else {
            continue;
        };
        let after = text
            .lines()
            .skip_while(|l| !l.starts_with("UserBufs:"))
            .skip(1);
        for line in after {
            // "    0: 0x7f0000000000/4096"; the first line of another kind ends the list.
            let Some((_, range)) = line.split_once(": 0x") else {
                break;
            };
            let Some((address, len)) = range.split_once('/') else {
                break;
            };
            let (Ok(at), Ok(len)) = (u64::from_str_radix(address, 16), len.trim().parse::<u64>())
            else {
                break;
            };
            let page = sls_sys::PAGE;
            ranges.push((at / page * page, (at + len).next_multiple_of(page)));
        }
    }
    ranges
}

/// What the raw texts mean.
pub fn understand(
    raws: Vec<Raw>,
    pid: i32,
    sockets: &mut Sockets,
    watches: &mut Watches,
) -> Vec<File> {
    let inodes = raws.iter().filter(|raw| raw.link.starts_with(b"socket:"));
    let connected = |raw: &Raw| {
        let socket = raw.socket.as_deref();
        socket.is_some_and(|s| s.family == libc::AF_UNIX && !s.peer.is_empty())
    };
    sockets.meet(
        pid,
        inodes.map(|raw| (inode(raw), connected(raw))).collect(),
    );
    raws.into_iter()
        .map(|raw| file(raw, sockets, watches))
        .collect()
}

fn file(raw: Raw, sockets: &Sockets, watches: &mut Watches) -> File {
    let target = String::from_utf8_lossy(&raw.link).into_owned();
    let flags = field(&raw.info, "flags:")
        .and_then(|v| u32::from_str_radix(v, 8).ok())
        .unwrap_or(0);
    let inode = inode(&raw);
    File {
        fd: raw.fd,
        flags,
        offset: number(&raw.info, "pos:"),
        dev: raw.stat.map_or(0, |s| s.dev),
        inode,
        kind: kind((&raw, &target, inode), sockets, watches),
        target,
        shares: raw.shares,
        shared_with: None,
        locks: locks(&raw.info),
        unnamed: None,
    }
}

/// "lock: 1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF", a line each; not those that are waited for.
fn locks(info: &[u8]) -> Vec<Lock> {
    let text = String::from_utf8_lossy(info);
    let lines = text.lines().filter_map(|l| l.strip_prefix("lock:"));
    lines.filter_map(lock).collect()
}

fn lock(line: &str) -> Option<Lock> {
    let mut words = line.split_whitespace().skip(1);
    let kind = match words.next()? {
        "FLOCK" => LockKind::Flock,
        "POSIX" => LockKind::Posix,
        "OFDLCK" => LockKind::OpenFile,
        "LEASE" => LockKind::Lease,
        _ => return None,
    };
    let write = words.nth(1)? == "WRITE";
    let start = words.nth(2)?.parse().ok()?;
    let end = words.next()?.parse().ok();
    Some(Lock {
        kind,
        write,
        start,
        end,
    })
}

/// As `stat` tells, or as the link does: "socket:[1234]".
fn inode(raw: &Raw) -> u64 {
    let bracketed = || {
        let (_, rest) = std::str::from_utf8(&raw.link).ok()?.split_once('[')?;
        rest.strip_suffix(']')?.parse().ok()
    };
    let stat = raw.stat.map(|s| s.ino);
    stat.or_else(bracketed).unwrap_or(0)
}

fn kind(
    (raw, target, inode): (&Raw, &str, u64),
    sockets: &Sockets,
    watches: &mut Watches,
) -> FileKind {
    let info = &raw.info[..];
    let hex = |key| {
        field(info, key)
            .and_then(|v| u64::from_str_radix(v, 16).ok())
            .unwrap_or(0)
    };
    match target {
        t if t.starts_with("pipe:") => pipe(raw),
        t if t.starts_with("socket:") => {
            let (description, listening) = sockets.describe(inode);
            FileKind::Socket {
                description,
                listening,
                state: raw
                    .socket
                    .as_deref()
                    .map(|s| Box::new(socket(s, sockets.peer(inode)))),
            }
        }
        "anon_inode:[eventfd]" => FileKind::EventFd {
            count: hex("eventfd-count:"),
        },
        "anon_inode:[timerfd]" => timerfd(info),
        "anon_inode:[signalfd]" => FileKind::SignalFd {
            mask: hex("sigmask:"),
        },
        "anon_inode:[eventpoll]" => FileKind::Epoll {
            members: members(info),
        },
        "anon_inode:inotify" => FileKind::Inotify {
            watches: watches.understand(info),
            waiting: raw.waiting,
        },
        t if t.starts_with("/memfd:") || t.starts_with("/dev/shm/") => FileKind::Memory {
            size: raw.stat.map_or(0, |s| s.size),
        },
        _ => match (&raw.queue, &raw.stat) {
            (Some(queue), Some(stat)) => FileKind::MessageQueue(MessageQueue {
                capacity: queue.capacity,
                longest: queue.longest,
                waiting: queue.waiting,
                mode: stat.mode & 0o777,
                uid: stat.owner.0,
                gid: stat.owner.1,
            }),
            _ => of_mode(raw),
        },
    }
}

fn socket(s: &sockets::Socket, peer: Option<u64>) -> Socket {
    let option = |(level, name, value): &(i32, i32, ByteBuf)| SocketOption {
        level: *level,
        name: *name,
        value: value.to_vec(),
    };
    let mut socket = Socket {
        family: s.family,
        kind: s.kind,
        protocol: s.protocol,
        local: s.local.to_vec(),
        peer: s.peer.to_vec(),
        listens: s.listens,
        backlog: s.backlog,
        options: s.options.iter().map(option).collect(),
        connected: peer.map(|peer| Connected {
            peer,
            messages: s.messages.clone(),
            tcp: s.stream.as_ref().map(tcp),
            queued: match &s.queued {
                Some(Ok(bytes)) => Queued::Bytes(bytes.to_vec()),
                Some(Err(why)) => Queued::Unread(why.clone()),
                None => Queued::Unread("it was not looked at".to_owned()),
            },
        }),
        has_unread: peer.is_none() && s.kind != libc::SOCK_STREAM && has_messages(s),
        file: None,
    };
    let meta = socket
        .path()
        .and_then(|path| fs::symlink_metadata(path).ok());
    socket.file = meta.map(|meta| SocketFile {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    });
    socket
}

fn has_messages(socket: &sockets::Socket) -> bool {
    match &socket.queued {
        Some(Ok(_)) => !socket.messages.is_empty(),
        Some(Err(_)) => true,
        None => false,
    }
}

fn tcp(stream: &sockets::Stream) -> Tcp {
    Tcp {
        state: stream.state,
        options: stream.options,
        send_scale: stream.send_scale,
        receive_scale: stream.receive_scale,
        segment: stream.segment,
        written: stream.written,
        received: stream.received,
        sending: match &stream.sending {
            Ok(bytes) => Queued::Bytes(bytes.to_vec()),
            Err(why) => Queued::Unread(why.clone()),
        },
    }
}

fn pipe(raw: &Raw) -> FileKind {
    match &raw.pipe {
        Some(Ok(pipe)) => FileKind::Pipe {
            content: Queued::Bytes(pipe.bytes.to_vec()),
            capacity: pipe.capacity,
            packets: pipe.packets.clone(),
        },
        Some(Err(why)) => unread(why),
        None => unread("only the write end is here"),
    }
}

/// A pipe of which only that is known.
fn unread(why: &str) -> FileKind {
    FileKind::Pipe {
        content: Queued::Unread(why.to_owned()),
        capacity: 0,
        packets: Vec::new(),
    }
}

fn terminal(raw: &Raw) -> Option<Box<Terminal>> {
    let terminal = raw.terminal.as_deref()?;
    Some(Box::new(Terminal {
        master: terminal.master,
        modes: terminal.modes.to_vec(),
        window: terminal.window,
        packets: terminal.packets,
        waiting: terminal.waiting,
    }))
}

fn of_mode(raw: &Raw) -> FileKind {
    let Some(stat) = raw.stat else {
        return FileKind::Other;
    };
    match stat.mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular {
            size: stat.size,
            mtime_ns: stat.mtime_ns,
        },
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFCHR | libc::S_IFBLK => FileKind::Device {
            terminal: terminal(raw),
        },
        libc::S_IFIFO => unread("a named fifo"),
        _ => FileKind::Other,
    }
}

fn timerfd(info: &[u8]) -> FileKind {
    // "it_value: (0, 999000)": seconds, ns.
    let pair = |key| {
        let text = field(info, key)?.strip_prefix('(')?.strip_suffix(')')?;
        let (s, ns) = text.split_once(',')?;
        Some(s.trim().parse::<u64>().ok()? * 1_000_000_000 + ns.trim().parse::<u64>().ok()?)
    };
    FileKind::TimerFd {
        clock: i32::try_from(number(info, "clockid:")).unwrap_or(0),
        ticks: number(info, "ticks:"),
        settime_flags: field(info, "settime flags:")
            .and_then(|v| u32::from_str_radix(v, 8).ok())
            .unwrap_or(0),
        value_ns: pair("it_value:").unwrap_or(0),
        interval_ns: pair("it_interval:").unwrap_or(0),
    }
}

/// "tfd:        5 events:       19 data:                5  pos:0 ino:... sdev:..."
fn members(info: &[u8]) -> Vec<Epoll> {
    let text = String::from_utf8_lossy(info);
    let member = |line: &str| {
        let mut words = line.strip_prefix("tfd:")?.split_whitespace();
        let fd = words.next()?.parse().ok()?;
        let events = u32::from_str_radix(words.nth(1)?, 16).ok()?;
        let data = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        Some(Epoll { fd, events, data })
    };
    text.lines().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_members_as_the_kernel_prints_them() {
        let info = b"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1057\n\
            tfd:        5 events:       19 data:                5  pos:0 ino:61af sdev:8\n";
        assert_eq!(
            members(info),
            [Epoll {
                fd: 5,
                events: 0x19,
                data: 5
            }]
        );
    }

    #[test]
    fn locks_as_the_kernel_prints_them() {
        let info = b"pos:\t0\nlock:\t1: FLOCK  ADVISORY  WRITE 9282 fe:00:10223701 0 EOF\n\
            lock:\t2: POSIX  ADVISORY  READ 9282 fe:00:10223701 10 19\n";
        let [flock, posix] = locks(info)[..] else {
            panic!("two of them");
        };
        assert_eq!((flock.kind, flock.write), (LockKind::Flock, true));
        assert_eq!((flock.start, flock.end), (0, None));
        assert_eq!((posix.kind, posix.write), (LockKind::Posix, false));
        assert_eq!((posix.start, posix.end), (10, Some(19)));
    }

    #[test]
    fn registered_buffers_are_whole_pages() {
        let raw = Raw {
            fd: 3,
            link: b"anon_inode:[io_uring]".to_vec().into(),
            info: b"UserFiles:\t0\nUserBufs:\t2\n    0: 0x7f0000000800/4096\n    1: 0x7f0000010000/512\nPollList:\n".to_vec().into(),
            stat: None,
            pipe: None,
            socket: None,
            terminal: None,
            shares: None,
            waiting: 0,
            queue: None,
            unnamed: None,
        };
        assert_eq!(
            unvouched_buffers(&[raw]),
            [
                (0x7f00_0000_0000, 0x7f00_0000_2000),
                (0x7f00_0001_0000, 0x7f00_0001_1000)
            ]
        );
    }
}
