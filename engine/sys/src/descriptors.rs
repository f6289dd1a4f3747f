//! Descriptors of a process as /proc shows them: read raw while it stands still, understood later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::fd::{pidfd_getfd, queued};
use crate::mqueue::{self, Queue};
use crate::pipes::{self, Pipe};
use crate::running::compare_files;
use crate::sockets::{self, Ahead, Socket};
use crate::terminals::{self, Terminal};
use crate::unnamed::{Body, Reader, Unnamed, is_unnamed};
use crate::{connections, repair};

/// What stat(2) tells that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// S_IF* and rights.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since 1970.
    pub mtime_ns: i128,
    /// Change of status, ns since 1970.
    pub ctime_ns: i128,
    /// Names it has.
    pub links: u64,
    /// User and group.
    pub owner: (u32, u32),
}

/// One descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raw {
    /// Number.
    pub fd: i32,
    /// Text of the link /proc/PID/fd/N.
    pub link: ByteBuf,
    /// Text of /proc/PID/fdinfo/N.
    pub info: ByteBuf,
    /// Of what has a path.
    pub stat: Option<FileStat>,
    /// What a pipe holds, read without taking it out, or why it could not be; read ends only.
    pub pipe: Option<Result<Pipe, String>>,
    /// A socket's own state.
    pub socket: Option<Box<Socket>>,
    /// A terminal's.
    pub terminal: Option<Box<Terminal>>,
    /// The lowest descriptor on the same open file description, when that is another one.
    pub shares: Option<i32>,
    /// Bytes of events that wait in an inotify descriptor.
    pub waiting: u32,
    /// A file without a name.
    pub unnamed: Option<Box<Unnamed>>,
    /// A POSIX message queue.
    pub queue: Option<Queue>,
}

/// The two folders of a process, held open: a name is then one step away.
///
/// Each file of /proc costs microseconds, so what was read last is used again where it cannot have
/// changed: a link that reads the same is the same object, and of a socket or a device nothing but
/// its O_* flags could differ (those are read anew when `full` is asked for).
#[derive(Debug)]
pub struct Folders {
    pid: i32,
    links: OwnedFd,
    infos: OwnedFd,
    /// Files of the second folder: they tell of whatever has the number when they are read, and
    /// opening one takes longer than reading it.
    open: BTreeMap<i32, File>,
    last: BTreeMap<i32, Raw>,
    /// Those whose links read the same.
    alike: Vec<Vec<i32>>,
    /// Links of TCP connections to look at.
    connections: HashSet<Vec<u8>>,
    /// What is known of those.
    ahead: HashMap<Vec<u8>, Ahead>,
}

/// So many files of /proc/PID/fdinfo stay open.
const KEPT_OPEN: usize = 256;

fn link_of(socket: u64) -> Vec<u8> {
    format!("socket:[{socket}]").into_bytes()
}

fn folder(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

impl Folders {
    /// Opens them.
    ///
    /// # Errors
    /// The process is gone or not ours to look at.
    pub fn open(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            links: folder(&format!("/proc/{pid}/fd"))?,
            infos: folder(&format!("/proc/{pid}/fdinfo"))?,
            open: BTreeMap::new(),
            last: BTreeMap::new(),
            alike: Vec::new(),
            connections: HashSet::new(),
            ahead: HashMap::new(),
        })
    }

    /// From now on these TCP connections are looked at, by their inodes. Others, of which there may
    /// be thousands, are not.
    pub fn look_at(&mut self, connections: &[u64]) {
        self.connections = connections.iter().map(|&inode| link_of(inode)).collect();
        self.ahead.retain(|link, _| self.connections.contains(link));
    }

    /// Takes note of what those are sending, of a program that has just come to a stop. What others
    /// have received is read after that ([`Folders::read`]), once all stand still: so what is on its
    /// way between the two is in one of them at least.
    pub fn look_ahead(&mut self, pidfd: BorrowedFd<'_>) {
        if self.connections.is_empty() {
            return;
        }
        let mut numbers: HashMap<&[u8], i32> = HashMap::new();
        for (&fd, raw) in &self.last {
            if self.connections.contains(&raw.link[..]) {
                numbers.insert(&raw.link, fd);
            }
        }
        let listed: Vec<(i32, Vec<u8>)>;
        if numbers.len() < self.connections.len() {
            let all = connections::of(self.pid).into_iter();
            listed = all.map(|(fd, inode)| (fd, link_of(inode))).collect();
            let ours = listed
                .iter()
                .filter(|(_, link)| self.connections.contains(link));
            numbers = ours.map(|(fd, link)| (&link[..], *fd)).collect();
        }
        let mut ends = Vec::new();
        for (link, number) in numbers {
            let Ok(fd) = pidfd_getfd(pidfd, number) else {
                continue;
            };
            let ahead = match self.ahead.get_mut(link) {
                Some(ahead) => ahead,
                None => self.ahead.entry(link.to_vec()).or_insert(Ahead {
                    counts_from: sockets::counts_from(fd.as_fd()),
                    sending: None,
                }),
            };
            ahead.sending = None;
            if repair::unacknowledged(fd.as_fd()).unwrap_or(0) > 0 {
                ends.push((link.to_vec(), fd));
            }
        }
        let fds: Vec<BorrowedFd<'_>> = ends.iter().map(|(_, fd)| fd.as_fd()).collect();
        let sending = repair::sending(&fds);
        for ((link, fd), sending) in ends.iter().zip(sending) {
            if let Some(ahead) = self.ahead.get_mut(link)
                && let Some(from) = ahead.counts_from
                && let Some(written) = sockets::written(fd.as_fd(), from)
            {
                ahead.sending = Some((written, sending.map(ByteBuf::from)));
            }
        }
    }

    /// Every descriptor, by number.
    ///
    /// # Errors
    /// The process is gone.
    pub fn read(&mut self, pidfd: BorrowedFd<'_>, full: bool) -> io::Result<Vec<Raw>> {
        let mut raws = BTreeMap::new();
        for fd in self.numbers()? {
            if let Some(raw) = self.one(fd, pidfd, full)? {
                raws.insert(fd, raw);
            } else if !self.last.is_empty() {
                // As many as before, but others.
                self.last.clear();
                return self.read(pidfd, full);
            }
        }
        self.open.retain(|fd, _| raws.contains_key(fd));
        self.read_unnamed(&mut raws, pidfd, full);
        let same = |(a, b): (&Raw, &Raw)| (a.fd, &a.link) == (b.fd, &b.link);
        if raws.len() != self.last.len() || !raws.values().zip(self.last.values()).all(same) {
            self.alike = alike(&raws);
        }
        find_shared(self.pid, &mut self.alike, &mut raws);
        self.remember(&mut raws);
        Ok(raws.into_values().collect())
    }

    /// All but what files without a name hold, which may be much.
    fn remember(&mut self, raws: &mut BTreeMap<i32, Raw>) {
        let mut bodies = Vec::new();
        for raw in raws.values_mut() {
            if let Some(told) = &mut raw.unnamed
                && let Body::Bytes(_) = told.body
            {
                bodies.push((raw.fd, std::mem::replace(&mut told.body, Body::Same)));
            }
        }
        self.last.clone_from(raws);
        for (fd, body) in bodies {
            if let Some(told) = raws.get_mut(&fd).and_then(|raw| raw.unnamed.as_mut()) {
                told.body = body;
            }
        }
    }

    /// The open numbers. When there are as many as last time and each of those is still open, they
    /// are those: the size of the folder (Linux 6.2) is much cheaper than its listing.
    fn numbers(&self) -> io::Result<Vec<i32>> {
        let count = fstat(&self.links)?.st_size;
        let known = !self.last.is_empty() && usize::try_from(count) == Ok(self.last.len());
        if known {
            return Ok(self.last.keys().copied().collect());
        }
        let mut numbers = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            numbers.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|n| n.parse::<i32>().ok()),
            );
        }
        Ok(numbers)
    }

    fn one(&mut self, fd: i32, pidfd: BorrowedFd<'_>, full: bool) -> io::Result<Option<Raw>> {
        let name = fd.to_string();
        let name = Path::new(&name);
        let link = match readlinkat(&self.links, name) {
            Ok(link) => link.as_bytes().to_vec(),
            Err(nix::errno::Errno::ENOENT) => return Ok(None), // Closed by a thread that dies.
            Err(error) => return Err(error.into()),
        };
        let last = self
            .last
            .get(&fd)
            .filter(|last| !full && last.link[..] == link[..]);
        if let Some(last) = last
            && (last.socket.as_ref().is_some_and(|s| is_settled(s))
                || last.stat.is_some_and(is_device))
        {
            let mut again = last.clone();
            let asked = self.connections.contains(&link);
            if let Some(socket) = &mut again.socket {
                socket.look_again(asked, &self.ahead_of(&link), || pidfd_getfd(pidfd, fd));
            }
            return Ok(Some(again));
        }
        let info = match last {
            Some(last) if link.starts_with(b"pipe:") => last.info.to_vec(),
            _ => info(&self.infos, &mut self.open, fd)?,
        };
        let socket = if link.starts_with(b"socket:") {
            let ours = pidfd_getfd(pidfd, fd).ok();
            ours.map(|ours| {
                let asked = self.connections.contains(&link);
                let mut socket = Box::new(sockets::read(ours.as_fd(), asked));
                socket.look_again(asked, &self.ahead_of(&link), || Ok(ours));
                socket
            })
        } else {
            None
        };
        let stat = if link.first() == Some(&b'/') {
            self.stat(name)
        } else {
            None
        };
        let terminal = if stat.is_some_and(is_device) && may_be_terminal(&link) {
            let ours = pidfd_getfd(pidfd, fd).ok();
            ours.and_then(|ours| terminals::read(ours.as_fd()).map(Box::new))
        } else {
            None
        };
        let pipe = (link.starts_with(b"pipe:") && is_read_end(&info)).then(|| {
            let end = pidfd_getfd(pidfd, fd);
            let seen = end.and_then(|end| pipes::look(end.as_fd()));
            seen.map_err(|e| e.to_string())
        });
        let waiting = if link == b"anon_inode:inotify" {
            let waits = pidfd_getfd(pidfd, fd).and_then(|ours| queued(ours.as_fd()));
            waits.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX))
        } else {
            0
        };
        let place = |stat: Option<FileStat>| stat.map(|s| (s.dev, s.ino));
        let is_none = last.is_some_and(|l| l.queue.is_none() && place(l.stat) == place(stat));
        let may_be = |s: &FileStat| s.size == mqueue::STAT_SIZE && !is_none;
        let queue = stat.filter(may_be).and_then(|_| {
            let ours = pidfd_getfd(pidfd, fd).ok()?;
            mqueue::read(ours.as_fd()).ok()
        });
        Ok(Some(Raw {
            fd,
            link: ByteBuf::from(link),
            info: ByteBuf::from(info),
            stat,
            pipe,
            socket,
            terminal,
            shares: None,
            waiting,
            unnamed: None,
            queue,
        }))
    }

    fn ahead_of(&self, link: &[u8]) -> Ahead {
        self.ahead.get(link).cloned().unwrap_or_default()
    }

    /// Files without a name, each once.
    fn read_unnamed(&self, raws: &mut BTreeMap<i32, Raw>, pidfd: BorrowedFd<'_>, full: bool) {
        let mut reader = Reader::new(self.pid);
        let mut met: BTreeMap<(u64, u64), Unnamed> = BTreeMap::new();
        for (&fd, raw) in raws {
            let has_none = |stat: &&FileStat| is_unnamed(stat) && raw.queue.is_none();
            let Some(stat) = raw.stat.as_ref().filter(has_none) else {
                continue;
            };
            let read = || {
                let last = self.last.get(&fd).filter(|_| !full);
                let last = last.and_then(|raw| raw.stat.as_ref().zip(raw.unnamed.as_deref()));
                reader.read((pidfd, fd), stat, last)
            };
            let told = met.entry((stat.dev, stat.ino)).or_insert_with(read);
            raw.unnamed = Some(Box::new(told.clone()));
            if let Body::Bytes(_) = told.body {
                told.body = Body::Same; // To the others that have it open.
            }
        }
    }

    fn stat(&self, name: &Path) -> Option<FileStat> {
        let s = fstatat(&self.links, name, AtFlags::empty()).ok()?;
        Some(FileStat {
            dev: s.st_dev,
            ino: s.st_ino,
            mode: s.st_mode,
            size: s.st_size.cast_unsigned(),
            mtime_ns: i128::from(s.st_mtime) * 1_000_000_000 + i128::from(s.st_mtime_nsec),
            ctime_ns: i128::from(s.st_ctime) * 1_000_000_000 + i128::from(s.st_ctime_nsec),
            links: s.st_nlink,
            owner: (s.st_uid, s.st_gid),
        })
    }
}

/// Descriptors by what their links read, where several read the same. As every stop asks which of
/// them share an open file description, they are kept in the order in which the kernel compares
/// them: while it stays so, one comparison each tells.
fn alike(raws: &BTreeMap<i32, Raw>) -> Vec<Vec<i32>> {
    let mut by_link: BTreeMap<&[u8], Vec<i32>> = BTreeMap::new();
    for raw in raws.values() {
        by_link.entry(&raw.link).or_default().push(raw.fd);
    }
    let several = by_link.into_values().filter(|fds| fds.len() > 1);
    several.collect()
}

/// Notes which share an open file description.
fn find_shared(pid: i32, alike: &mut [Vec<i32>], raws: &mut BTreeMap<i32, Raw>) {
    // A comparison that fails is of a descriptor that a dying thread has closed.
    let compare = |a: i32, b: i32| compare_files((pid, a), (pid, b)).unwrap_or_else(|_| a.cmp(&b));
    for fds in alike {
        fds.sort_by(|&a, &b| compare(a, b).then(a.cmp(&b)));
        for same in fds.chunk_by(|&a, &b| compare(a, b).is_eq()) {
            for fd in same {
                if let Some(raw) = raws.get_mut(fd) {
                    raw.shares = (*fd != same[0]).then_some(same[0]);
                }
            }
        }
    }
}

fn info(folder: &OwnedFd, open: &mut BTreeMap<i32, File>, fd: i32) -> io::Result<Vec<u8>> {
    if let Some(file) = open.get(&fd) {
        return read_info(file);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let name = fd.to_string();
    let file = File::from(openat(folder, Path::new(&name), flags, Mode::empty())?);
    let info = read_info(&file)?;
    if open.len() < KEPT_OPEN {
        open.insert(fd, file);
    }
    Ok(info)
}

fn read_info(file: &File) -> io::Result<Vec<u8>> {
    // One read is enough for all but large epoll sets: the kernel gives a page at a time.
    let mut info = vec![0; 4096];
    let mut len = 0;
    loop {
        let n = file.read_at(&mut info[len..], len as u64)?;
        len += n;
        if n == 0 || len < 1024 {
            info.truncate(len);
            return Ok(info);
        }
        info.resize(len + 4096, 0);
    }
}

/// Nothing of it will change, as a rule, but options: it is connected, listens, or is bound for
/// datagrams.
fn is_settled(socket: &Socket) -> bool {
    let bound = socket.kind == libc::SOCK_DGRAM && !socket.local.is_empty();
    socket.listens || !socket.peer.is_empty() || bound
}

fn is_device(stat: FileStat) -> bool {
    const KIND: u32 = 0o170_000;
    matches!(stat.mode & KIND, 0o020_000 | 0o060_000)
}

fn may_be_terminal(link: &[u8]) -> bool {
    let starts = |what: &&[u8]| link.starts_with(what);
    [&b"/dev/pt"[..], b"/dev/tty", b"/dev/console"]
        .iter()
        .any(starts)
}

fn is_read_end(info: &[u8]) -> bool {
    const O_ACCMODE: u32 = 3;
    const O_WRONLY: u32 = 1;
    let text = String::from_utf8_lossy(info);
    let flags = text.lines().find_map(|l| l.strip_prefix("flags:"));
    flags
        .and_then(|v| u32::from_str_radix(v.trim(), 8).ok())
        .is_some_and(|f| f & O_ACCMODE != O_WRONLY)
}
