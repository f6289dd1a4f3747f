//! Descriptors opened, closed, moved, filled and drained again.

use std::collections::BTreeMap;

use sls_keeper::{Arg, Want};
use sls_record::{Epoll, File, FileKind, Process};

use super::{Steps, int, path};
use super::{faults, pipes};

pub(super) const ACCESS_MODE: u32 = 3;
const F_DUPFD_CLOEXEC: i32 = 1030;
/// Flags that make or change the file when it is opened; they have had their effect.
const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY;
/// Flags that can be changed on an open description.
const STATUS: u32 = 0o2000 | 0o4000 | 0o20000 | 0o40000 | 0o1000000;

/// Adds the steps and names what cannot be put back.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) {
    let index = |p: &Process| -> BTreeMap<i32, File> {
        p.files.iter().map(|f| (f.fd, f.clone())).collect()
    };
    let (old, new) = (index(from), index(to));
    let above = old.keys().chain(new.keys()).max().map_or(3, |fd| fd + 1);
    for (fd, file) in old.iter().filter(|(fd, _)| !new.contains_key(fd)) {
        if let FileKind::Socket { description, .. } = &file.kind {
            steps
                .not_restored
                .push(format!("socket {fd} ({description}): opened since, closed"));
        }
        steps.call(
            "close",
            libc::SYS_close,
            vec![int(*fd)],
            Want::Or(vec![libc::EBADF]),
        );
    }
    let remade = pipes::remade(from, to);
    for (fd, file) in &new {
        match old.get(fd) {
            Some(was) if is_same(was, file) => adjust(steps, was, file),
            _ if remade.contains(&file.target) => {} // All its ends at once, below.
            _ => {
                reopen(steps, file, from, above);
                fill(steps, file);
            }
        }
    }
    pipes::steps(steps, from, to, &remade, above);
    epolls(steps, &old, &new);
}

/// Open on the same thing, in the same way?
fn is_same(a: &File, b: &File) -> bool {
    a.target == b.target
        && (a.dev, a.inode) == (b.dev, b.inode)
        && a.flags & ACCESS_MODE == b.flags & ACCESS_MODE
        && std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind)
}

/// The descriptor is still open on the same thing.
fn adjust(steps: &mut Steps, was: &File, is: &File) {
    let fd = is.fd;
    if (was.flags ^ is.flags) & STATUS != 0 {
        set_flags(steps, is);
    }
    if (was.flags ^ is.flags) & cloexec() != 0 {
        let args = vec![
            int(fd),
            int(libc::F_SETFD),
            Arg::Value(u64::from(is.flags & cloexec() != 0)),
        ];
        steps.call(
            format!("set close-on-exec of {fd}"),
            libc::SYS_fcntl,
            args,
            Want::Success,
        );
    }
    if was.offset != is.offset && is_seekable(is) {
        seek(steps, is);
    }
    if faults::is_userfaultfd(is) {
        faults::name(steps, fd);
    }
    match (&was.kind, &is.kind) {
        (FileKind::Regular { .. }, FileKind::Regular { .. }) if was.kind != is.kind => {
            name_once(steps, format!("content of {}", is.target));
        }
        (
            FileKind::Socket { .. },
            FileKind::Socket {
                description,
                listening: false,
            },
        ) => {
            steps.not_restored.push(format!(
                "socket {fd} ({description}): what was sent and received since stays so"
            ));
        }
        (FileKind::EventFd { count: was }, FileKind::EventFd { count: is }) if was != is => {
            count(steps, fd, *was, *is);
        }
        (FileKind::SignalFd { mask: was }, FileKind::SignalFd { mask: is }) if was != is => {
            let mask = Arg::Bytes(is.to_le_bytes().to_vec());
            let args = vec![int(fd), mask, Arg::Value(8), Arg::Value(0)];
            steps.call(
                "set a signalfd's mask",
                libc::SYS_signalfd4,
                args,
                Want::Success,
            );
        }
        (FileKind::TimerFd { .. }, FileKind::TimerFd { .. }) => timerfd(steps, is),
        (FileKind::Inotify { watches: was }, FileKind::Inotify { watches: is }) if was != is => {
            steps
                .not_restored
                .push(format!("inotify {fd}: its watches have changed since"));
        }
        _ => {}
    }
}

fn cloexec() -> u32 {
    libc::O_CLOEXEC.cast_unsigned()
}

fn is_seekable(file: &File) -> bool {
    matches!(
        file.kind,
        FileKind::Regular { .. } | FileKind::Directory | FileKind::Memory { .. }
    )
}

fn seek(steps: &mut Steps, file: &File) {
    let args = vec![int(file.fd), file.offset.into(), int(libc::SEEK_SET)];
    let want = Want::Exactly(file.offset);
    steps.call(format!("seek {}", file.fd), libc::SYS_lseek, args, want);
}

fn name_once(steps: &mut Steps, line: String) {
    if !steps.not_restored.contains(&line) {
        steps.not_restored.push(line);
    }
}

fn count(steps: &mut Steps, fd: i32, was: u64, is: u64) {
    let nonblock = Want::Or(vec![libc::EAGAIN]);
    if was > 0 {
        let args = vec![int(fd), Arg::Bytes(vec![0; 8]), Arg::Value(8)];
        steps.call("empty an eventfd", libc::SYS_read, args, nonblock.clone());
    }
    if is > 0 {
        let args = vec![
            int(fd),
            Arg::Bytes(is.to_le_bytes().to_vec()),
            Arg::Value(8),
        ];
        steps.call("fill an eventfd", libc::SYS_write, args, nonblock);
    }
}

fn timerfd(steps: &mut Steps, file: &File) {
    let FileKind::TimerFd {
        ticks,
        value_ns,
        interval_ns,
        ..
    } = file.kind
    else {
        return;
    };
    // Expirations that were not read yet are made to happen again at once.
    let value = if ticks > 0 { 1 } else { value_ns };
    let mut bytes = Vec::with_capacity(32);
    for ns in [interval_ns, value] {
        bytes.extend_from_slice(&(ns / 1_000_000_000).to_le_bytes());
        bytes.extend_from_slice(&(ns % 1_000_000_000).to_le_bytes());
    }
    let args = vec![
        int(file.fd),
        Arg::Value(0),
        Arg::Bytes(bytes),
        Arg::Value(0),
    ];
    steps.call(
        "set a timerfd",
        libc::SYS_timerfd_settime,
        args,
        Want::Success,
    );
}

/// Opens what has been closed, under its old number.
fn reopen(steps: &mut Steps, file: &File, from: &Process, above: i32) {
    let flags = i32::try_from(file.flags).unwrap_or(0) & !ONCE;
    let what = format!("open {} as {}", file.target, file.fd);
    match &file.kind {
        FileKind::Regular { .. }
        | FileKind::Directory
        | FileKind::Device
        | FileKind::Memory { .. } => {
            let source = source(file, from);
            let args = vec![
                int(libc::AT_FDCWD),
                path(&source),
                int(flags),
                Arg::Value(0),
            ];
            let Some(source_is_there) = can_open(&source, file) else {
                placeholder(steps, file, above, "can no longer be opened");
                return;
            };
            if !source_is_there {
                name_once(steps, format!("content of {}", file.target));
            }
            steps.call(what, libc::SYS_openat, args, Want::Save(0));
        }
        FileKind::EventFd { .. } => {
            steps.call(
                what,
                libc::SYS_eventfd2,
                vec![Arg::Value(0), int(flags & !3)],
                Want::Save(0),
            );
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
        FileKind::Pipe { .. } => {
            let Some(source) = pipe_source(file, from) else {
                placeholder(
                    steps,
                    file,
                    above,
                    "closed since, and its other end is outside",
                );
                return;
            };
            let args = vec![
                int(libc::AT_FDCWD),
                path(&source),
                int(flags),
                Arg::Value(0),
            ];
            steps.call(what, libc::SYS_openat, args, Want::Save(0));
        }
        FileKind::Socket { .. } | FileKind::Inotify { .. } | FileKind::Other => {
            placeholder(
                steps,
                file,
                above,
                "closed since; a placeholder reports hang-up",
            );
            return;
        }
    }
    place(steps, file, above);
    if is_seekable(file) {
        seek(steps, file);
    }
}

/// Moves saved descriptor 0 to its number. By way of a high one, since the number may be its own.
fn place(steps: &mut Steps, file: &File, above: i32) {
    move_up(steps, 0, 1, above);
    duplicate(steps, 1, file);
    close_saved(steps, 1);
}

/// Moves saved descriptor `saved` to a number that nobody wants, saved as `to`.
pub(super) fn move_up(steps: &mut Steps, saved: u8, to: u8, above: i32) {
    let args = vec![Arg::Saved(saved), int(F_DUPFD_CLOEXEC), int(above)];
    steps.call("make room", libc::SYS_fcntl, args, Want::Save(to));
    close_saved(steps, saved);
}

pub(super) fn close_saved(steps: &mut Steps, saved: u8) {
    let args = vec![Arg::Saved(saved)];
    steps.call("make room", libc::SYS_close, args, Want::Success);
}

/// Saved descriptor `saved` under the file's number as well.
pub(super) fn duplicate(steps: &mut Steps, saved: u8, file: &File) {
    let flags = Arg::Value(u64::from(file.flags & cloexec()));
    let args = vec![Arg::Saved(saved), int(file.fd), flags];
    let what = format!("place {}", file.fd);
    steps.call(what, libc::SYS_dup3, args, Want::Success);
}

/// Flags of the open description.
pub(super) fn set_flags(steps: &mut Steps, file: &File) {
    let flags = Arg::Value(u64::from(file.flags & STATUS));
    let args = vec![int(file.fd), int(libc::F_SETFL), flags];
    let what = format!("set the flags of {}", file.fd);
    steps.call(what, libc::SYS_fcntl, args, Want::Success);
}

fn placeholder(steps: &mut Steps, file: &File, above: i32, why: &str) {
    let name = match &file.kind {
        FileKind::Socket { description, .. } => format!("socket {} ({description})", file.fd),
        _ => format!("descriptor {} ({})", file.fd, file.target),
    };
    steps.not_restored.push(format!("{name}: {why}"));
    let args = vec![int(libc::AF_INET), int(libc::SOCK_STREAM), Arg::Value(0)];
    steps.call(
        format!("a placeholder for {}", file.fd),
        libc::SYS_socket,
        args,
        Want::Save(0),
    );
    place(steps, file, above);
}

/// Where a closed file can be opened from: another descriptor on it, or its path.
fn source(file: &File, from: &Process) -> String {
    let same = |f: &&File| (f.dev, f.inode) == (file.dev, file.inode) && f.inode != 0;
    match from.files.iter().find(same) {
        Some(other) => format!("/proc/self/fd/{}", other.fd),
        None => file.target.clone(),
    }
}

fn pipe_source(file: &File, from: &Process) -> Option<String> {
    let same = |f: &&File| f.target == file.target;
    from.files
        .iter()
        .find(same)
        .map(|f| format!("/proc/self/fd/{}", f.fd))
}

/// None: not there. Otherwise: with the content it had?
fn can_open(source: &str, file: &File) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    if source.starts_with("/proc/self/") || matches!(file.kind, FileKind::Device) {
        return Some(true);
    }
    let meta = std::fs::metadata(source).ok()?;
    let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    if (meta.dev(), meta.ino()) != (file.dev, file.inode) {
        return None;
    }
    match file.kind {
        FileKind::Regular { size, mtime_ns } => Some(meta.size() == size && mtime == mtime_ns),
        _ => Some(true),
    }
}

/// State of a descriptor that was just made anew.
fn fill(steps: &mut Steps, file: &File) {
    match &file.kind {
        FileKind::EventFd { count: is } => count(steps, file.fd, 0, *is),
        FileKind::TimerFd { .. } => timerfd(steps, file),
        _ => {}
    }
}

/// epoll sets: members as they were. A closed member has left its set by itself.
fn epolls(steps: &mut Steps, old: &BTreeMap<i32, File>, new: &BTreeMap<i32, File>) {
    let none: &[Epoll] = &[];
    for (&set, file) in new {
        let FileKind::Epoll { members: is } = &file.kind else {
            continue;
        };
        let was = match old.get(&set).filter(|f| is_same(f, file)).map(|f| &f.kind) {
            Some(FileKind::Epoll { members }) => &members[..],
            _ => none,
        };
        let kept = |m: &Epoll| match (old.get(&m.fd), new.get(&m.fd)) {
            (Some(a), Some(b)) => is_same(a, b),
            _ => false,
        };
        for member in was
            .iter()
            .filter(|m| kept(m) && !is.iter().any(|i| i.fd == m.fd))
        {
            control(steps, set, libc::EPOLL_CTL_DEL, member);
        }
        for member in is {
            match was.iter().find(|w| w.fd == member.fd && kept(w)) {
                Some(same) if same == member => {}
                Some(_) => control(steps, set, libc::EPOLL_CTL_MOD, member),
                None => control(steps, set, libc::EPOLL_CTL_ADD, member),
            }
        }
    }
}

fn control(steps: &mut Steps, set: i32, op: i32, member: &Epoll) {
    let mut event = member.events.to_le_bytes().to_vec();
    event.extend_from_slice(&member.data.to_le_bytes());
    let args = vec![int(set), int(op), int(member.fd), Arg::Bytes(event)];
    let want = Want::Or(vec![libc::ENOENT, libc::EEXIST]);
    steps.call("mend an epoll set", libc::SYS_epoll_ctl, args, want);
}
