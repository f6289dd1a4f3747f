//! What the descriptors that the keeper read under the stop mean.

use std::collections::HashMap;
use std::fs;

use sls_record::{Epoll, File, FileKind, Queued};
use sls_sys::descriptors::{FileStat, Raw};

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

/// Looks sockets up once each.
#[derive(Debug, Default)]
pub struct Sockets {
    known: HashMap<u64, (String, bool)>,
}

impl Sockets {
    fn describe(&mut self, pid: i32, inode: u64) -> (String, bool) {
        if let Some(known) = self.known.get(&inode) {
            return known.clone();
        }
        let found = look_up(pid, inode).unwrap_or_else(|| (format!("socket:[{inode}]"), false));
        if self.known.len() > 4096 {
            self.known.clear();
        }
        self.known.insert(inode, found.clone());
        found
    }
}

fn look_up(pid: i32, inode: u64) -> Option<(String, bool)> {
    for family in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default();
        let inode = inode.to_string();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(9) == Some(&inode.as_str()) {
                let listening = fields[3] == "0A";
                let state = if listening { " listening" } else { "" };
                let peer = if listening || family.starts_with("udp") {
                    String::new()
                } else {
                    format!(" -> {}", address(fields[2]))
                };
                return Some((
                    format!("{family} {}{peer}{state}", address(fields[1])),
                    listening,
                ));
            }
        }
    }
    let text = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let line = text
        .lines()
        .find(|l| l.split_whitespace().nth(6) == Some(inode.to_string().as_str()))?;
    let listening = line.split_whitespace().nth(3) == Some("00010000");
    let path = line.split_whitespace().nth(7).unwrap_or("unnamed");
    Some((
        format!("unix {path}{}", if listening { " listening" } else { "" }),
        listening,
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

/// What the raw texts mean.
pub fn understand(raws: Vec<Raw>, pid: i32, sockets: &mut Sockets) -> Vec<File> {
    raws.into_iter()
        .map(|raw| file(raw, pid, sockets))
        .collect()
}

fn file(raw: Raw, pid: i32, sockets: &mut Sockets) -> File {
    let target = String::from_utf8_lossy(&raw.link).into_owned();
    let flags = field(&raw.info, "flags:")
        .and_then(|v| u32::from_str_radix(v, 8).ok())
        .unwrap_or(0);
    let bracketed = || {
        let (_, rest) = target.split_once('[')?;
        rest.strip_suffix(']')?.parse::<u64>().ok()
    };
    let inode = raw.stat.map(|s| s.ino).or_else(bracketed).unwrap_or(0);
    File {
        fd: raw.fd,
        flags,
        offset: number(&raw.info, "pos:"),
        dev: raw.stat.map_or(0, |s| s.dev),
        inode,
        kind: kind(&raw, &target, inode, pid, sockets),
        target,
    }
}

fn kind(raw: &Raw, target: &str, inode: u64, pid: i32, sockets: &mut Sockets) -> FileKind {
    let info = &raw.info[..];
    let hex = |key| {
        field(info, key)
            .and_then(|v| u64::from_str_radix(v, 16).ok())
            .unwrap_or(0)
    };
    match target {
        t if t.starts_with("pipe:") => FileKind::Pipe {
            content: queued(raw),
        },
        t if t.starts_with("socket:") => {
            let (description, listening) = sockets.describe(pid, inode);
            FileKind::Socket {
                description,
                listening,
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
            watches: watches(info),
        },
        t if t.starts_with("/memfd:") || t.starts_with("/dev/shm/") => FileKind::Memory {
            size: raw.stat.map_or(0, |s| s.size),
        },
        _ => of_mode(raw.stat),
    }
}

fn queued(raw: &Raw) -> Queued {
    match &raw.pipe {
        Some(Ok(bytes)) => Queued::Bytes(bytes.to_vec()),
        Some(Err(why)) => Queued::Unread(why.clone()),
        None => Queued::Unread("only the write end is here".into()),
    }
}

fn of_mode(stat: Option<FileStat>) -> FileKind {
    let Some(stat) = stat else {
        return FileKind::Other;
    };
    match stat.mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular {
            size: stat.size,
            mtime_ns: stat.mtime_ns,
        },
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFCHR | libc::S_IFBLK => FileKind::Device,
        libc::S_IFIFO => FileKind::Pipe {
            content: Queued::Unread("a named fifo".into()),
        },
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

fn watches(info: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(info)
        .lines()
        .filter(|l| l.starts_with("inotify "))
        .map(str::to_owned)
        .collect()
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
    fn addresses() {
        assert_eq!(address("0100007F:18EB"), "127.0.0.1:6379");
        assert_eq!(address("00000000000000000000000001000000:0050"), "[::1]:80");
    }

    #[test]
    fn registered_buffers_are_whole_pages() {
        let raw = Raw {
            fd: 3,
            link: b"anon_inode:[io_uring]".to_vec().into(),
            info: b"UserFiles:\t0\nUserBufs:\t2\n    0: 0x7f0000000800/4096\n    1: 0x7f0000010000/512\nPollList:\n".to_vec().into(),
            stat: None,
            pipe: None,
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
