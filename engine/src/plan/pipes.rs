//! Pipes: drained and filled again, or made anew where both ends have been closed since; what one may
//! hold, and that it holds packets.

use std::collections::BTreeSet;

use sls_keeper::{Arg, Want};
use sls_record::{File, FileKind, Process, Queued};

use super::anew_files::keep;
use super::common::Common;
use super::files::{ACCESS_MODE, close_saved, duplicate, move_up, set_flags};
use super::kin::Kin;
use super::{Steps, int, path};

/// What fits one injected call's argument area, and is the longest packet (PIPE_BUF).
const CHUNK: usize = 4096;
/// Of that, what a write takes at least.
const SMALLEST: u32 = 4096;
/// Bytes a new pipe may hold.
const USUAL_CAPACITY: u32 = 65536;

/// What a pipe holds and may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held<'a> {
    bytes: &'a [u8],
    packets: &'a [u32],
    capacity: u32,
}

/// Nothing is known of it.
const NOTHING: Held<'_> = Held {
    bytes: &[],
    packets: &[],
    capacity: USUAL_CAPACITY,
};

impl<'a> Held<'a> {
    /// As the read ends tell.
    fn of(file: &'a File) -> Option<Self> {
        match &file.kind {
            FileKind::Pipe {
                content: Queued::Bytes(bytes),
                capacity,
                packets,
            } => Some(Self {
                bytes,
                packets,
                capacity: *capacity,
            }),
            _ => None,
        }
    }

    /// The writes that make it. A record may be wrong about lengths: no byte is left out.
    fn writes(&self) -> Vec<&'a [u8]> {
        let (mut writes, mut rest) = (Vec::new(), self.bytes);
        for &len in self.packets {
            let (packet, after) = rest.split_at(rest.len().min(sls_sys::size(u64::from(len))));
            writes.extend(packet.chunks(CHUNK));
            rest = after;
        }
        writes.extend(rest.chunks(CHUNK));
        writes
    }
}

fn ends<'a>(process: &'a Process, target: &str) -> impl Iterator<Item = &'a File> {
    let is_end = move |f: &&File| matches!(f.kind, FileKind::Pipe { .. }) && f.target == target;
    process.files.iter().filter(is_end)
}

pub fn is_writer(file: &File) -> bool {
    file.flags & ACCESS_MODE != 0
}

/// Each write to it is a packet of its own.
pub fn writes_packets(file: &File) -> bool {
    is_writer(file) && file.flags & libc::O_DIRECT.cast_unsigned() != 0
}

pub fn is_unnamed_pipe(file: &File) -> bool {
    matches!(file.kind, FileKind::Pipe { .. }) && !file.target.starts_with('/')
}

fn has_both_ends(process: &Process, target: &str) -> bool {
    ends(process, target).any(is_writer) && !ends(process, target).all(is_writer)
}

/// Pipes of which the process held both ends then and holds none now, by target.
pub fn remade(from: &Process, to: &Process) -> BTreeSet<String> {
    let is_pipe = |f: &&File| matches!(f.kind, FileKind::Pipe { .. });
    let targets = to.files.iter().filter(is_pipe).map(|f| f.target.clone());
    targets
        .filter(|t| ends(from, t).next().is_none() && has_both_ends(to, t))
        .collect()
}

/// Makes anew what is `remade`; drains and fills pipes with both ends here; names what differs of
/// others.
pub fn steps(
    steps: &mut Steps,
    from: &Process,
    to: &Process,
    remade: &BTreeSet<String>,
    common: &mut Common<'_>,
    above: i32,
) {
    for target in remade {
        make(steps, to, target, above);
    }
    let mut done = BTreeSet::new();
    for file in &to.files {
        let Some(is) = Held::of(file) else { continue };
        if !done.insert(&file.target) {
            continue;
        }
        let was = ends(from, &file.target).find_map(Held::of);
        let was = was.unwrap_or(NOTHING);
        if was == is {
            continue;
        }
        let fills = remade.contains(&file.target) || common.has_both_ends(&file.target);
        if !fills {
            if was.bytes != is.bytes || was.packets != is.packets {
                steps.not_restored.push(format!(
                    "{} ({}): its other end is outside, what went through it stays so",
                    file.target, file.fd
                ));
            }
            resize(steps, int(file.fd), is, &file.target);
        } else if common.sees_to(&file.target) {
            let reads = reads(was).max(reads(is));
            let packets = common.writes_packets(&file.target);
            refill(steps, file, reads, (is, packets));
        }
    }
    for file in to.files.iter().filter(|f| !done.contains(&f.target)) {
        for_readers(steps, from, file, common);
    }
}

/// What those read from it that are made anew is drained and filled by who has its other end.
fn for_readers(steps: &mut Steps, from: &Process, file: &File, common: &mut Common<'_>) {
    let target = &file.target;
    let is_kept = is_unnamed_pipe(file) && ends(from, target).next().is_some();
    let reader = common.anew_end(target, false).filter(|_| is_kept);
    if let Some(is) = reader.and_then(Held::of)
        && common.has_both_ends(target)
        && common.sees_to(target)
    {
        // Nobody has looked: it may be full of the smallest packets.
        let most = is.capacity.max(USUAL_CAPACITY) / SMALLEST;
        let reads = sls_sys::size(u64::from(most)) + 1;
        let packets = common.writes_packets(target);
        refill(steps, file, reads, (is, packets));
    }
}

/// Reads that empty it.
fn reads(held: Held<'_>) -> usize {
    held.writes().len() + 1
}

/// Whatever is in it goes by so many reads, and this comes. By a descriptor of its own, which has
/// both ends and never waits.
fn refill(steps: &mut Steps, file: &File, reads: usize, (is, packets): (Held<'_>, bool)) {
    let own = 2;
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let args = vec![
        int(libc::AT_FDCWD),
        path(&format!("/proc/self/fd/{}", file.fd)),
        int(flags),
    ];
    let what = "open both ends of a pipe";
    steps.call(what, libc::SYS_openat, args, Want::Save(own));
    for _ in 0..reads {
        let args = vec![
            Arg::Saved(own),
            Arg::Bytes(vec![0; CHUNK]),
            Arg::Value(CHUNK as u64),
        ];
        let want = Want::Or(vec![libc::EAGAIN]);
        steps.call("drain a pipe", libc::SYS_read, args, want);
    }
    resize(steps, Arg::Saved(own), is, &file.target);
    fill(steps, own, is, packets);
    close_saved(steps, own);
}

/// Writes what it held, packet by packet where it held such.
fn fill(steps: &mut Steps, saved: u8, is: Held<'_>, packets: bool) {
    if packets || !is.packets.is_empty() {
        // Not when it is opened: there that is about files.
        let flags = int(libc::O_NONBLOCK | libc::O_DIRECT);
        let args = vec![Arg::Saved(saved), int(libc::F_SETFL), flags];
        steps.call("write packets", libc::SYS_fcntl, args, Want::Success);
    }
    for chunk in is.writes() {
        let len = chunk.len() as u64;
        let args = vec![Arg::Saved(saved), Arg::Bytes(chunk.to_vec()), len.into()];
        steps.call("fill a pipe", libc::SYS_write, args, Want::Exactly(len));
    }
}

/// What it may hold. Less than it holds cannot be, nor more than a plain user may have.
fn resize(steps: &mut Steps, fd: Arg, is: Held<'_>, target: &str) {
    if is.capacity != 0 {
        let args = vec![
            fd,
            int(libc::F_SETPIPE_SZ),
            Arg::Value(u64::from(is.capacity)),
        ];
        let name = Want::Report(format!("the capacity of {target}"));
        steps.call("set what a pipe may hold", libc::SYS_fcntl, args, name);
    }
}

/// A new pipe, kept under two numbers for all that have it.
pub fn make_kept(steps: &mut Steps, kin: &Kin<'_>, target: &str, fd: i32) {
    let (read, write) = (2, 3);
    pair(steps, target, read);
    if let Some(is) = kin.ends(target).find_map(Held::of) {
        resize(steps, Arg::Saved(write), is, target);
        fill(steps, write, is, kin.ends(target).any(writes_packets));
    }
    keep(steps, read, fd);
    keep(steps, write, fd + 1);
}

/// Both ends of a new pipe, saved; neither waits.
fn pair(steps: &mut Steps, target: &str, read: u8) {
    let args = vec![Arg::Bytes(vec![0; 8]), int(libc::O_NONBLOCK)];
    let what = format!("make {target} again");
    steps.call(what, libc::SYS_pipe2, args, Want::SavePair(read));
}

/// A pipe without its other end: what it would be had that end been closed, or whoever is to have that
/// opens it by way of this one.
pub fn make_half(steps: &mut Steps, (file, other): (&File, Option<&File>), above: i32) {
    let (read, write) = (2, 3);
    pair(steps, &file.target, read);
    if let Some(is) = Held::of(file).or_else(|| Held::of(other?)) {
        resize(steps, Arg::Saved(write), is, &file.target);
        fill(steps, write, is, false);
    }
    let (kept, other) = if is_writer(file) {
        (write, read)
    } else {
        (read, write)
    };
    close_saved(steps, other);
    move_up(steps, kept, 1, above);
    duplicate(steps, 1, file);
    close_saved(steps, 1);
    set_flags(steps, file);
}

/// A new pipe under all the numbers the old one had.
fn make(steps: &mut Steps, to: &Process, target: &str, above: i32) {
    let (read, write, read_up, write_up) = (2, 3, 4, 5);
    pair(steps, target, read);
    move_up(steps, read, read_up, above);
    move_up(steps, write, write_up, above);
    for file in ends(to, target) {
        let end = if is_writer(file) { write_up } else { read_up };
        duplicate(steps, end, file);
        set_flags(steps, file);
    }
    close_saved(steps, read_up);
    close_saved(steps, write_up);
}
