//! Descriptors made those of another state: kept, opened anew or shared, then closed.

use std::collections::BTreeMap;

use sls_keeper::{Arg, Want};
use sls_record::{Epoll, File, FileKind, Process};

use super::common::Common;
use super::opening::Openings;
use super::{Steps, int};
use super::{faults, locks, pipes, queues, talks, terminals};

pub(super) const ACCESS_MODE: u32 = 3;
pub(super) const F_DUPFD_CLOEXEC: i32 = 1030;
/// Flags that can be changed on an open description.
const STATUS: u32 = 0o2000 | 0o4000 | 0o20000 | 0o40000 | 0o1000000;

/// Files by descriptor.
pub(super) type Table<'a> = BTreeMap<i32, &'a File>;

/// Adds the steps and names what cannot be put back.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process, common: &mut Common<'_>) {
    let (old, new) = (table(from), table(to));
    let kept = kept(&old, &new);
    let remade = pipes::remade(from, to);
    let stays = |fd: &i32| kept.contains_key(fd) || !new.contains_key(fd);
    let stay = old.keys().copied().filter(stays).collect();
    let mut openings = Openings::new(from, stay, above(&old, &new), common.untouched());
    close_sockets(steps, &old, &new, &kept);
    // Of each description one descriptor is there, or is opened; the others are its duplicates.
    let mut there: BTreeMap<i32, i32> = BTreeMap::new();
    for (&fd, file) in new.iter().filter(|(fd, _)| kept.contains_key(fd)) {
        there.entry(description(file)).or_insert(fd);
    }
    for (&fd, &file) in &new {
        if kept.contains_key(&fd) {
            adjust(steps, old[&fd], file);
            continue;
        }
        if remade.contains(&file.target) {
            continue; // All its ends at once, below.
        }
        if let Some(&other) = there.get(&description(file)) {
            share(steps, other, file);
            continue;
        }
        match common.other_half(file) {
            Some(other) if common.sees_to(&format!("half of {}", file.target)) => {
                openings.make_half(steps, file, other);
            }
            _ => {
                openings.open(steps, file);
                fill(steps, file);
            }
        }
        there.insert(description(file), fd);
    }
    close(steps, &old, &new);
    pipes::steps(steps, from, to, &remade, common, above(&old, &new));
    let open: Vec<&File> = kept.keys().map(|fd| new[fd]).collect();
    talks::steps(steps, &open, common);
    queues::kept(steps, &open, &from.files);
    epolls(steps, &old, &new, &kept);
    locks::steps(steps, from, to, |fd| kept.contains_key(&fd));
    terminals::steps(steps, (from, to), (&old, &new), |fd| kept.contains_key(&fd));
}

pub(super) fn table(process: &Process) -> Table<'_> {
    process.files.iter().map(|f| (f.fd, f)).collect()
}

/// A number above all that either state uses.
pub(super) fn above(old: &Table<'_>, new: &Table<'_>) -> i32 {
    old.keys().chain(new.keys()).max().map_or(3, |fd| fd + 1)
}

/// The open file description, by the lowest descriptor that has it.
pub(super) fn description(file: &File) -> i32 {
    file.shares.unwrap_or(file.fd)
}

/// Descriptors that stay as they are but for what can be changed on an open one, each with the
/// description it had. What was one description may have become two, or two one: each of those that
/// are to be keeps one of those that were, whose offset and flags then are its own.
fn kept(old: &Table<'_>, new: &Table<'_>) -> BTreeMap<i32, i32> {
    let (mut keeps, mut taken) = (BTreeMap::new(), BTreeMap::new());
    let mut kept = BTreeMap::new();
    for (&fd, is) in new {
        let Some(was) = old.get(&fd).filter(|was| is_same(was, is)) else {
            continue;
        };
        let (was, is) = (description(was), description(is));
        if *keeps.entry(is).or_insert(was) == was && *taken.entry(was).or_insert(is) == is {
            kept.insert(fd, was);
        }
    }
    kept
}

/// `file` as a duplicate of another descriptor.
pub(super) fn share(steps: &mut Steps, other: i32, file: &File) {
    let flags = Arg::Value(u64::from(file.flags & cloexec()));
    let args = vec![int(other), int(file.fd), flags];
    let what = format!("{} as a duplicate of {other}", file.fd);
    steps.call(what, libc::SYS_dup3, args, Want::Success);
}

/// Closes sockets that do not stay. First: another may be to have the address.
fn close_sockets(steps: &mut Steps, old: &Table<'_>, new: &Table<'_>, kept: &BTreeMap<i32, i32>) {
    for (&fd, file) in old.iter().filter(|(fd, _)| !kept.contains_key(fd)) {
        let FileKind::Socket { description, .. } = &file.kind else {
            continue;
        };
        if !new.contains_key(&fd) {
            steps
                .not_restored
                .push(format!("socket {fd} ({description}): opened since, closed"));
        }
        close_one(steps, fd);
    }
}

/// Closes all else that was opened since. Last: until here others could be opened by way of it.
fn close(steps: &mut Steps, old: &Table<'_>, new: &Table<'_>) {
    let is_socket = |file: &File| matches!(file.kind, FileKind::Socket { .. });
    let since = old.iter().filter(|(fd, _)| !new.contains_key(fd));
    for (&fd, _) in since.filter(|(_, file)| !is_socket(file)) {
        close_one(steps, fd);
    }
}

pub(super) fn close_one(steps: &mut Steps, fd: i32) {
    let args = vec![int(fd)];
    let want = Want::Or(vec![libc::EBADF]);
    steps.call("close", libc::SYS_close, args, want);
}

/// Open on the same thing, in the same way?
fn is_same(a: &File, b: &File) -> bool {
    a.target == b.target
        && (a.dev, a.inode) == (b.dev, b.inode)
        && a.flags & ACCESS_MODE == b.flags & ACCESS_MODE
        && std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind)
        && watch_the_same(&a.kind, &b.kind)
}

/// The number of an inotify watch cannot be had again but from a new instance.
fn watch_the_same(a: &FileKind, b: &FileKind) -> bool {
    let (FileKind::Inotify { watches: a, .. }, FileKind::Inotify { watches: b, .. }) = (a, b)
    else {
        return true;
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
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
        (FileKind::Regular { .. }, FileKind::Regular { .. })
            if was.kind != is.kind && is.unnamed.is_none() =>
        {
            name_once(steps, format!("content of {}", is.target));
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
        (FileKind::Inotify { waiting: was, .. }, FileKind::Inotify { waiting: is, .. })
            if was != is =>
        {
            let line = format!("inotify {fd}: the events that wait to be read");
            steps.not_restored.push(line);
        }
        _ => {}
    }
}

pub(super) fn cloexec() -> u32 {
    libc::O_CLOEXEC.cast_unsigned()
}

pub(super) fn is_seekable(file: &File) -> bool {
    matches!(
        file.kind,
        FileKind::Regular { .. } | FileKind::Directory | FileKind::Memory { .. }
    )
}

pub(super) fn seek(steps: &mut Steps, file: &File) {
    let args = vec![int(file.fd), file.offset.into(), int(libc::SEEK_SET)];
    let want = Want::Exactly(file.offset);
    steps.call(format!("seek {}", file.fd), libc::SYS_lseek, args, want);
}

pub(super) fn name_once(steps: &mut Steps, line: String) {
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

/// Moves saved descriptor 0 to its number. By way of a high one, since the number may be its own.
pub(super) fn place(steps: &mut Steps, file: &File, above: i32) {
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

/// State of a descriptor that was just made anew.
pub(super) fn fill(steps: &mut Steps, file: &File) {
    match &file.kind {
        FileKind::EventFd { count: is } => count(steps, file.fd, 0, *is),
        FileKind::TimerFd { .. } => timerfd(steps, file),
        _ => {}
    }
}

/// epoll sets: members as they were. A closed member has left its set by itself.
pub(super) fn epolls(
    steps: &mut Steps,
    old: &Table<'_>,
    new: &Table<'_>,
    kept: &BTreeMap<i32, i32>,
) {
    let none: &[Epoll] = &[];
    for (&set, file) in new {
        let FileKind::Epoll { members: is } = &file.kind else {
            continue;
        };
        let was = old.get(&set).filter(|_| kept.contains_key(&set));
        let was = match was.map(|f| &f.kind) {
            Some(FileKind::Epoll { members }) => &members[..],
            _ => none,
        };
        let kept = |m: &Epoll| kept.contains_key(&m.fd);
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
