//! Pipes: drained and filled again, or made anew where both ends have been closed since.

use std::collections::BTreeSet;

use sls_keeper::{Arg, Want};
use sls_record::{File, FileKind, Process, Queued};

use super::anew_files::keep;
use super::common::Common;
use super::files::{ACCESS_MODE, close_saved, duplicate, move_up, set_flags};
use super::kin::Kin;
use super::{Steps, int, path};

/// What fits one injected call's argument area.
const CHUNK: usize = 4096;
/// Bytes a new pipe holds.
const USUAL_CAPACITY: usize = 65536;
const F_SETPIPE_SZ: i32 = 1031;

fn ends<'a>(process: &'a Process, target: &str) -> impl Iterator<Item = &'a File> {
    let is_end = move |f: &&File| matches!(f.kind, FileKind::Pipe { .. }) && f.target == target;
    process.files.iter().filter(is_end)
}

pub fn is_writer(file: &File) -> bool {
    file.flags & ACCESS_MODE != 0
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
        let Some(is) = content(file) else { continue };
        if !done.insert(&file.target) {
            continue;
        }
        let was = ends(from, &file.target).find_map(content).unwrap_or(&[]);
        if was == is {
            continue;
        }
        if !remade.contains(&file.target) && !common.has_both_ends(&file.target) {
            steps.not_restored.push(format!(
                "{} ({}): its other end is outside, what went through it stays so",
                file.target, file.fd
            ));
            continue;
        }
        if common.sees_to(&file.target) {
            refill(steps, file.fd, was.len().max(is.len()), is);
        }
    }
}

/// Whatever is in it, up to `most` bytes, goes, and these bytes come. By a descriptor of its own,
/// which has both ends and never waits.
fn refill(steps: &mut Steps, fd: i32, most: usize, is: &[u8]) {
    let own = 2;
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let args = vec![
        int(libc::AT_FDCWD),
        path(&format!("/proc/self/fd/{fd}")),
        int(flags),
    ];
    let what = "open both ends of a pipe";
    steps.call(what, libc::SYS_openat, args, Want::Save(own));
    for _ in 0..=most / CHUNK {
        let args = vec![
            Arg::Saved(own),
            Arg::Bytes(vec![0; CHUNK]),
            Arg::Value(CHUNK as u64),
        ];
        let want = Want::Or(vec![libc::EAGAIN]);
        steps.call("drain a pipe", libc::SYS_read, args, want);
    }
    for chunk in is.chunks(CHUNK) {
        let len = chunk.len() as u64;
        let args = vec![Arg::Saved(own), Arg::Bytes(chunk.to_vec()), Arg::Value(len)];
        steps.call("fill a pipe", libc::SYS_write, args, Want::Exactly(len));
    }
    close_saved(steps, own);
}

fn content(file: &File) -> Option<&[u8]> {
    match &file.kind {
        FileKind::Pipe {
            content: Queued::Bytes(bytes),
        } => Some(bytes),
        _ => None,
    }
}

/// A new pipe, kept under two numbers for all that have it.
pub fn make_kept(steps: &mut Steps, kin: &Kin<'_>, target: &str, fd: i32) {
    let (read, write) = (2, 3);
    let args = vec![Arg::Bytes(vec![0; 8]), Arg::Value(0)];
    let what = format!("make {target} again");
    steps.call(what, libc::SYS_pipe2, args, Want::SavePair(read));
    keep(steps, read, fd);
    keep(steps, write, fd + 1);
    let is = kin.ends(target).find_map(content).unwrap_or_default();
    widen(steps, int(fd), is.len());
    if !is.is_empty() {
        refill(steps, fd, 0, is);
    }
}

fn widen(steps: &mut Steps, fd: Arg, held: usize) {
    if held > USUAL_CAPACITY {
        let args = vec![fd, int(F_SETPIPE_SZ), (held as u64).into()];
        steps.call("widen a pipe", libc::SYS_fcntl, args, Want::Success);
    }
}

/// A new pipe under all the numbers the old one had.
fn make(steps: &mut Steps, to: &Process, target: &str, above: i32) {
    let (read, write, read_up, write_up) = (2, 3, 4, 5);
    let args = vec![Arg::Bytes(vec![0; 8]), Arg::Value(0)];
    let what = format!("make {target} again");
    steps.call(what, libc::SYS_pipe2, args, Want::SavePair(read));
    move_up(steps, read, read_up, above);
    move_up(steps, write, write_up, above);
    for file in ends(to, target) {
        let end = if is_writer(file) { write_up } else { read_up };
        duplicate(steps, end, file);
        set_flags(steps, file);
    }
    let held = ends(to, target).find_map(content).map_or(0, <[u8]>::len);
    widen(steps, Arg::Saved(write_up), held);
    close_saved(steps, read_up);
    close_saved(steps, write_up);
}
