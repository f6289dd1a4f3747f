//! A descriptor that is not there, opened again as it was, or something in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use sls_keeper::{Arg, Want};
use sls_record::{Content, File, FileKind, Process, Unnamed};
use sls_sys::procfs;

use super::files::{
    ACCESS_MODE, close_saved, is_seekable, move_up, name_once, place, seek, set_flags,
};
use super::kin::Kin;
use super::pipes::{is_unnamed_pipe, writes_packets};
use super::{Steps, inotify, int, path, pipes, queues, sockets, unnamed};

/// Flags that make or change the file when it is opened; they have had their effect.
const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC;
/// Where a descriptor is saved that is open for a moment only.
const READER: u8 = 2;
pub(super) const DELETED: &str = " (deleted)";

/// How descriptors are opened in one plan.
pub struct Openings<'a> {
    from: &'a Process,
    /// Descriptors that are what they were until all are opened.
    stay: BTreeSet<i32>,
    /// A number that nobody wants.
    above: i32,
    /// Those that keep what they have meanwhile.
    untouched: &'a [Process],
    /// The process is made anew, with its kin: files may have been replaced by others of their name,
    /// and its pipes may be in other hands.
    anew: Option<(&'a Kin<'a>, &'a Process)>,
    /// Files without a name that were made again, each with the descriptor that has it.
    made: BTreeMap<(u64, u64), i32>,
}

/// Where something can be opened, and what is to be said of it.
enum Source {
    At(String),
    /// Not as it was, but to go on with.
    Instead(String, String),
    Nowhere(String),
}

impl<'a> Openings<'a> {
    pub fn new(
        from: &'a Process,
        stay: BTreeSet<i32>,
        above: i32,
        untouched: &'a [Process],
    ) -> Self {
        Self {
            from,
            stay,
            above,
            untouched,
            anew: None,
            made: BTreeMap::new(),
        }
    }

    /// Of a process that is made anew.
    pub fn anew(from: &'a Process, above: i32, kin: (&'a Kin<'a>, &'a Process)) -> Self {
        Self {
            from,
            stay: BTreeSet::new(),
            above,
            untouched: &[],
            anew: Some(kin),
            made: BTreeMap::new(),
        }
    }

    fn restored(&self) -> bool {
        self.anew.is_some()
    }

    /// Can it have what processes outside have, by their numbers?
    fn sees_others(&self) -> bool {
        self.anew.is_some_and(|(kin, _)| kin.lent().is_none())
    }

    /// Opens it under its number.
    pub fn open(&mut self, steps: &mut Steps, file: &File) {
        let flags = i32::try_from(file.flags).unwrap_or(0) & !ONCE;
        let is_unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        let flags = if is_unnamed {
            flags & !libc::O_TMPFILE
        } else {
            flags
        };
        if let Some(is) = self.gone(file) {
            return self.make(steps, file, &is, flags);
        }
        let what = format!("open {} as {}", file.target, file.fd);
        match &file.kind {
            FileKind::Regular { .. }
            | FileKind::Directory
            | FileKind::Device { .. }
            | FileKind::Memory { .. }
            | FileKind::Pipe { .. } => return self.open_named(steps, file, flags),
            FileKind::EventFd { .. } => {
                let args = vec![Arg::Value(0), int(flags & !3)];
                steps.call(what, libc::SYS_eventfd2, args, Want::Save(0));
            }
            FileKind::TimerFd { clock, .. } => {
                let args = vec![int(*clock), int(flags & !3)];
                steps.call(what, libc::SYS_timerfd_create, args, Want::Save(0));
            }
            FileKind::SignalFd { mask } => {
                let mask = Arg::Bytes(mask.to_le_bytes().to_vec());
                let args = vec![Arg::Value(u64::MAX), mask, Arg::Value(8), int(flags & !3)];
                steps.call(what, libc::SYS_signalfd4, args, Want::Save(0));
            }
            FileKind::Epoll { .. } => {
                let args = vec![int(flags & libc::O_CLOEXEC)];
                steps.call(what, libc::SYS_epoll_create1, args, Want::Save(0));
            }
            FileKind::Socket {
                state, description, ..
            } => {
                if state.as_deref().is_some_and(|socket| socket.has_unread) {
                    let why = "messages that waited in it are gone";
                    let line = format!("socket {} ({description}): {why}", file.fd);
                    steps.not_restored.push(line);
                }
                let unknown = || Err("a placeholder reports hang-up".to_owned());
                let made = state.as_deref().map_or_else(unknown, |socket| {
                    let has_layer = self.anew.is_some_and(|(kin, _)| kin.has_layer());
                    sockets::make(steps, &what, socket, (self.restored(), has_layer))
                });
                if let Err(why) = made {
                    return self.placeholder(steps, file, &why);
                }
            }
            FileKind::MessageQueue(queue) => {
                if self.is_open_elsewhere(file) {
                    return self.open_named(steps, file, flags);
                }
                let is_apart = self.anew.is_some_and(|(kin, _)| kin.has_layer());
                let made = queues::open(steps, &what, (file, queue), flags, is_apart);
                if let Err(why) = made {
                    if self.restored() {
                        steps.object(format!("descriptor {} ({}): {why}", file.fd, file.target));
                    }
                    return self.placeholder(steps, file, &why);
                }
            }
            FileKind::Inotify { .. } => {
                let args = vec![int(libc::IN_NONBLOCK | flags & libc::O_CLOEXEC)];
                steps.call(what, libc::SYS_inotify_init1, args, Want::Save(0));
            }
            FileKind::Other => {
                return self.placeholder(steps, file, "a placeholder reports hang-up");
            }
        }
        place(steps, file, self.above);
        match &file.kind {
            FileKind::Socket { .. } => set_flags(steps, file),
            FileKind::Inotify { watches, waiting } => {
                let sure = self.restored() || self.from.attributes.uids[1] == 0;
                inotify::watch(steps, file, watches, *waiting, sure);
            }
            _ => {}
        }
    }

    /// Makes a pipe again, for whoever is to have its other end.
    pub fn make_half(&mut self, steps: &mut Steps, file: &File, other: &File) {
        self.made.insert((file.dev, file.inode), file.fd);
        pipes::make_half(steps, (file, Some(other)), self.above);
    }

    fn open_named(&self, steps: &mut Steps, file: &File, flags: i32) {
        let source = match self.source(file) {
            Source::At(source) => source,
            Source::Instead(source, why) => {
                name_once(steps, why);
                source
            }
            Source::Nowhere(why) => {
                let standard = file.fd <= libc::STDERR_FILENO;
                if !(self.restored() && standard) && is_unnamed_pipe(file) {
                    pipes::make_half(steps, (file, None), self.above);
                    let since = self.since();
                    let line = format!("descriptor {} ({}): {since}{why}", file.fd, file.target);
                    return name_once(steps, line);
                }
                // The standard three are nobody's data.
                if self.restored() && !standard {
                    steps.object(format!("descriptor {} ({}): {why}", file.fd, file.target));
                }
                return self.placeholder(steps, file, &why);
            }
        };
        // A pipe cannot be opened with what makes its writes packets, but then be set to it.
        let is_pipe = matches!(file.kind, FileKind::Pipe { .. });
        let flags = if is_pipe {
            flags & !libc::O_DIRECT
        } else {
            flags
        };
        let access = file.flags & ACCESS_MODE;
        let waits = is_pipe && !is_unnamed_pipe(file) && access != libc::O_RDWR.cast_unsigned();
        let reads = waits && access == libc::O_WRONLY.cast_unsigned() && self.may_read(file);
        if reads {
            open_reader(steps, &source, self.above);
        }
        let flags = flags | if waits { libc::O_NONBLOCK } else { 0 };
        // A terminal must not become the controlling one of whoever opens it here.
        let args = vec![
            int(libc::AT_FDCWD),
            path(&source),
            int(flags | libc::O_NOCTTY),
            Arg::Value(0),
        ];
        let what = format!("open {} as {}", file.target, file.fd);
        steps.call(what, libc::SYS_openat, args, Want::Save(0));
        if reads {
            close_saved(steps, READER);
        }
        place(steps, file, self.above);
        if waits || writes_packets(file) {
            set_flags(steps, file);
        }
        if is_seekable(file) {
            seek(steps, file);
        }
    }

    /// May the process open it to read? Where that depends on its groups it is left alone.
    fn may_read(&self, file: &File) -> bool {
        let user = self.from.attributes.uids[1];
        let Ok(meta) = std::fs::metadata(&file.target) else {
            return false;
        };
        let needed = if meta.uid() == user { 0o400 } else { 0o044 };
        user == 0 || meta.mode() & needed == needed
    }

    fn by_kin(&self, file: &File) -> Option<String> {
        self.anew.and_then(|(kin, to)| kin.path(to, file))
    }

    fn is_open_elsewhere(&self, file: &File) -> bool {
        self.by_kin(file).is_some() || self.other_descriptor(file).is_some()
    }

    fn since(&self) -> &'static str {
        if self.restored() {
            ""
        } else {
            "closed since; "
        }
    }

    /// Another descriptor on it, a mapping of it, or its path.
    fn source(&self, file: &File) -> Source {
        if let Some(path) = self.by_kin(file) {
            return Source::At(path);
        }
        if let Some(fd) = self.other_descriptor(file) {
            return Source::At(format!("/proc/self/fd/{fd}"));
        }
        if let FileKind::Pipe { .. } = file.kind {
            return self.pipe(file);
        }
        let same = |m: &&sls_record::Mapping| (m.dev, m.inode) == (file.dev, file.inode);
        let mapped = self.from.mappings.iter().filter(|_| file.inode != 0);
        if let Some(map) = mapped.filter(|m| m.perms.shared).find(same) {
            let (start, end) = (map.start, map.end);
            return Source::At(format!("/proc/self/map_files/{start:x}-{end:x}"));
        }
        if file.target.ends_with(DELETED) {
            return Source::Nowhere(match file.unnamed.as_deref().map(|u| &u.content) {
                Some(Content::Unread(why)) => format!("deleted, and {why}"),
                _ => "deleted, so it can no longer be opened".to_owned(),
            });
        }
        self.named(file)
    }

    /// One that is still what it was when this is opened: it stays, or is given up only after it.
    fn other_descriptor(&self, file: &File) -> Option<i32> {
        if let Some(&fd) = self.made.get(&(file.dev, file.inode)) {
            return Some(fd);
        }
        let same = |f: &&File| match file.kind {
            FileKind::Pipe { .. } => f.target == file.target,
            _ => (f.dev, f.inode) == (file.dev, file.inode) && f.inode != 0,
        };
        let stays = |f: &&File| self.stay.contains(&f.fd) || f.fd > file.fd;
        let found = self.from.files.iter().filter(same).find(stays);
        found.map(|f| f.fd)
    }

    /// By its path, where that still leads to it.
    fn named(&self, file: &File) -> Source {
        let target = &file.target;
        let meta = match std::fs::metadata(target) {
            Ok(meta) => meta,
            Err(error) => {
                return Source::Nowhere(format!("can no longer be opened: {error}"));
            }
        };
        if let FileKind::Device { terminal } = &file.kind {
            let master = terminal.as_ref().and_then(|t| t.master);
            return match master {
                Some(number) => {
                    Source::Nowhere(format!("somebody else has pseudo terminal {number} by now"))
                }
                None => Source::At(target.clone()),
            };
        }
        let another = (meta.dev(), meta.ino()) != (file.dev, file.inode);
        if another && !self.restored() {
            return Source::Nowhere("can no longer be opened: another file has its name".into());
        }
        let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        match file.kind {
            FileKind::Regular { size, mtime_ns } if (meta.size(), mtime) != (size, mtime_ns) => {
                Source::Instead(target.clone(), format!("content of {target}"))
            }
            FileKind::Regular { .. } if !meta.is_file() => {
                Source::Nowhere("is no file any more".to_owned())
            }
            FileKind::Directory if !meta.is_dir() => {
                Source::Nowhere("is no directory any more".to_owned())
            }
            _ => Source::At(target.clone()),
        }
    }

    /// A named fifo, or a pipe by way of whoever has its other end.
    fn pipe(&self, file: &File) -> Source {
        if file.target.starts_with('/') {
            return self.named(file);
        }
        // One end leads to the other; to what is another's only root is led.
        let is_root = self.from.attributes.uids[1] == 0;
        let others = self.untouched.iter().filter(|_| is_root);
        for other in others {
            let mut files = other.files.iter();
            if let Some(end) = files.find(|f| is_unnamed_pipe(f) && f.target == file.target) {
                return Source::At(format!("/proc/{}/fd/{}", other.outside(), end.fd));
            }
        }
        if self.sees_others()
            && let Some(holder) = holder(file)
        {
            return Source::At(holder);
        }
        Source::Nowhere("its other end is closed, or was in a process that has ended".to_owned())
    }

    /// A file without a name that nobody has any more, and how it was.
    fn gone(&self, file: &File) -> Option<Unnamed> {
        let is_memory = unnamed::is_memory(file);
        if !is_memory && file.content().is_none() {
            return None;
        }
        let is_gone = match self.anew {
            // Made once; the others that have it open it by way of the first.
            Some((kin, to)) => kin.path(to, file).is_none(),
            None => matches!(self.source(file), Source::Nowhere(_)) && self.from.root == "/",
        };
        let unknown = || {
            let FileKind::Memory { size } = file.kind else {
                return None;
            };
            Some(Unnamed {
                size,
                mode: 0o777,
                uid: 0,
                gid: 0,
                seals: 0,
                content: Content::Unread("it was not looked at".to_owned()),
            })
        };
        let known = file.unnamed.as_deref().cloned();
        known.or_else(unknown).filter(|_| is_gone)
    }

    /// Makes it again; what it held is written to it later.
    fn make(&mut self, steps: &mut Steps, file: &File, is: &Unnamed, flags: i32) {
        self.made.insert((file.dev, file.inode), file.fd);
        let (fd, target) = (file.fd, &file.target);
        let anybodys = !self.restored() && self.from.attributes.uids[1] != 0;
        let Some(folder) = unnamed::folder(file, anybodys) else {
            let why = "deleted, and there is no folder for files without a name";
            return self.placeholder(steps, file, why);
        };
        if let Content::Unread(why) = &is.content {
            let line = format!("descriptor {fd} ({target}): it is empty, {why}");
            if self.restored() {
                steps.object(line);
            } else {
                name_once(steps, line);
            }
        }
        let is_there = |m: std::fs::Metadata| m.dev() == file.dev;
        if !unnamed::is_memory(file) && !std::fs::metadata(&folder).is_ok_and(is_there) {
            let line = format!("{target}: it is in {folder} now, on another filesystem");
            name_once(steps, line);
        }
        unnamed::make(steps, file, is, &folder);
        place(steps, file, self.above);
        if file.flags & ACCESS_MODE == libc::O_RDWR.cast_unsigned() {
            set_flags(steps, file);
        } else {
            let args = vec![
                int(libc::AT_FDCWD),
                path(&format!("/proc/self/fd/{fd}")),
                int(flags),
            ];
            let what = format!("open {target} as {fd}");
            steps.call(what, libc::SYS_openat, args, Want::Save(0));
            place(steps, file, self.above);
        }
        seek(steps, file);
    }

    /// What cannot be had is a socket that reports hang-up; of the standard three, which a program
    /// writes to unasked, it is /dev/null.
    fn placeholder(&self, steps: &mut Steps, file: &File, why: &str) {
        let fd = file.fd;
        let name = match &file.kind {
            FileKind::Socket { description, .. } => format!("socket {fd} ({description})"),
            _ => format!("descriptor {fd} ({})", file.target),
        };
        let since = self.since();
        let what = format!("a placeholder for {fd}");
        if self.restored() && fd <= libc::STDERR_FILENO {
            steps
                .not_restored
                .push(format!("{name}: {why}; it is /dev/null now"));
            let mode = i32::try_from(file.flags & ACCESS_MODE).unwrap_or(0);
            let args = vec![int(libc::AT_FDCWD), path("/dev/null"), int(mode), 0.into()];
            steps.call(what, libc::SYS_openat, args, Want::Save(0));
        } else {
            steps.not_restored.push(format!("{name}: {since}{why}"));
            let args = vec![int(libc::AF_INET), int(libc::SOCK_STREAM), Arg::Value(0)];
            steps.call(what, libc::SYS_socket, args, Want::Save(0));
        }
        place(steps, file, self.above);
    }
}

/// Nobody can open a fifo to write that nobody reads, but may well have opened it while somebody did:
/// one opens it to read for as long. (To read it opens at once where it is not to wait.)
fn open_reader(steps: &mut Steps, fifo: &str, above: i32) {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let args = vec![int(libc::AT_FDCWD), path(fifo), int(flags), 0.into()];
    let what = format!("open {fifo} to read");
    steps.call(what, libc::SYS_openat, args, Want::Save(0));
    move_up(steps, 0, READER, above);
}

/// A process that has the other end of a pipe open, by whose descriptor this end can be opened too.
fn holder(file: &File) -> Option<String> {
    for pid in procfs::processes().ok()? {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for entry in entries.flatten() {
            let is_it =
                std::fs::read_link(entry.path()).is_ok_and(|l| l.as_os_str() == &*file.target);
            if is_it && is_other_end(&entry, file) {
                return Some(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    None
}

/// The rights of the link are those of the descriptor.
fn is_other_end(entry: &std::fs::DirEntry, file: &File) -> bool {
    const READ: u32 = 0o400;
    const WRITE: u32 = 0o200;
    let wanted = match file.flags & ACCESS_MODE {
        0 => WRITE,
        _ => READ,
    };
    std::fs::symlink_metadata(entry.path()).is_ok_and(|m| m.mode() & wanted != 0)
}
