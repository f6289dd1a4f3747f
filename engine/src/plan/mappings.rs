//! The mappings of one state made those of another.

use sls_keeper::{Arg, Want};
use sls_record::{Backing, File, Mapping, Process};

use super::{Steps, int, path};
use crate::ranges::{Range, normalise};
use crate::shared::is_memory_only;

const PAGE: u64 = sls_sys::PAGE;
const SCRATCH_FLOOR: u64 = 0x10_0000_0000;
const USER_END: u64 = 0x7fff_0000_0000;

/// A range that no mapping of any of these touches.
pub fn free_range<'a>(all: impl IntoIterator<Item = &'a Process>, len: u64) -> Option<Range> {
    let maps = all.into_iter().flat_map(|process| &process.mappings);
    let mut taken: Vec<Range> = maps.map(|m| (m.start, m.end)).collect();
    normalise(&mut taken);
    let mut at = SCRATCH_FLOOR;
    for (start, end) in taken {
        // A page between: nothing may merge with or grow into the scratch area.
        if start > at && start - at >= len + 2 * PAGE {
            break;
        }
        at = at.max(end.saturating_add(PAGE));
    }
    let end = at.checked_add(len)?;
    (end < USER_END).then_some((at, end))
}

/// A part of an address space with what is mapped there.
#[derive(Debug, Clone)]
struct Piece<'a> {
    start: u64,
    end: u64,
    map: &'a Mapping,
}

pub(super) fn is_fixed(map: &Mapping) -> bool {
    map.backing == Backing::Kernel && !map.perms.shared || map.path == "[vdso]"
}

fn pieces(process: &Process) -> Vec<Piece<'_>> {
    process
        .mappings
        .iter()
        .filter(|m| !is_fixed(m))
        .map(|map| Piece {
            start: map.start,
            end: map.end,
            map,
        })
        .collect()
}

/// Is what lies at `address` the same thing in both, rights aside?
fn same_thing(a: &Mapping, b: &Mapping, address: u64) -> bool {
    let place = |m: &Mapping| address - m.start + m.offset;
    a.perms.shared == b.perms.shared
        && (a.dev, a.inode) == (b.dev, b.inode)
        && (a.inode == 0 || place(a) == place(b))
}

/// Adds the steps; the ranges that are mapped anew hold nothing of their own after them.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) -> Result<Vec<Range>, String> {
    let mut fresh = Vec::new();
    let brk_moved = brk(steps, from, to, &mut fresh);
    let (old, new) = (pieces(from), pieces(to));
    unmap(steps, &old, &new, brk_moved);
    let (mut protect, mut grow) = (Steps::default(), Steps::default());
    let stacks = || from.mappings.iter().filter(|m| m.grows_down);
    for piece in &new {
        for (part, was) in cut(piece, &old) {
            let (start, end) = part;
            let heap = brk_moved.is_some_and(|(a, b)| a <= start && end <= b);
            match was {
                Some(was) if same_thing(was, piece.map, start) => {
                    if was.perms != piece.map.perms {
                        mprotect(&mut protect, part, piece.map);
                    }
                }
                _ if heap && piece.map.inode == 0 && !piece.map.perms.shared => {
                    mprotect(&mut protect, part, piece.map);
                }
                _ if piece.map.grows_down
                    && stacks().any(|s| s.end == piece.map.end && end <= s.start) =>
                {
                    grow_stack(steps, &mut grow, part);
                    fresh.push(part);
                }
                _ => {
                    map(steps, part, piece.map, (from, to))?;
                    fresh.push(part);
                }
            }
        }
    }
    steps.list.append(&mut grow.list);
    steps.list.append(&mut protect.list);
    normalise(&mut fresh);
    Ok(fresh)
}

/// Moves the end of the heap; the range that came into being, if it grew.
fn brk(steps: &mut Steps, from: &Process, to: &Process, fresh: &mut Vec<Range>) -> Option<Range> {
    if from.brk == to.brk || to.brk == 0 || from.brk == 0 {
        return None;
    }
    steps.call(
        "move the end of the heap",
        libc::SYS_brk,
        vec![to.brk.into()],
        Want::Exactly(to.brk),
    );
    let (old, new) = (
        from.brk.next_multiple_of(PAGE),
        to.brk.next_multiple_of(PAGE),
    );
    if new > old {
        fresh.push((old, new));
        return Some((old, new));
    }
    None
}

fn unmap(steps: &mut Steps, old: &[Piece<'_>], new: &[Piece<'_>], heap: Option<Range>) {
    for piece in old {
        for (part, is) in cut(piece, new) {
            if is.is_none() && heap.is_none_or(|h| part.1 <= h.0 || h.1 <= part.0) {
                let args = vec![part.0.into(), (part.1 - part.0).into()];
                steps.call(
                    "unmap what was mapped since",
                    libc::SYS_munmap,
                    args,
                    Want::Success,
                );
            }
        }
    }
}

/// Cuts a piece at the borders of others: each part with the mapping that covers it.
fn cut<'a>(piece: &Piece<'_>, others: &[Piece<'a>]) -> Vec<(Range, Option<&'a Mapping>)> {
    let mut parts = Vec::new();
    let mut at = piece.start;
    let first = others.partition_point(|o| o.end <= piece.start);
    for other in others[first..].iter().take_while(|o| o.start < piece.end) {
        if at < other.start {
            parts.push(((at, other.start), None));
        }
        let start = at.max(other.start);
        let end = piece.end.min(other.end);
        parts.push(((start, end), Some(other.map)));
        at = end;
    }
    if at < piece.end {
        parts.push(((at, piece.end), None));
    }
    parts
}

/// The main stack goes down to `start`, once nothing else is there: the kernel does it for who
/// touches it. Mapped beside it, it would be a mapping of its own, at whose end growth ends.
fn grow_stack(steps: &mut Steps, grow: &mut Steps, (start, end): Range) {
    const CLOCK_MONOTONIC: u64 = 1;
    let range = || vec![start.into(), (end - start).into()];
    let what = "make way for the stack";
    steps.call(what, libc::SYS_munmap, range(), Want::Success);
    let touch = vec![CLOCK_MONOTONIC.into(), start.into()];
    grow.call(
        "grow the stack",
        libc::SYS_clock_gettime,
        touch,
        Want::Success,
    );
    let mut empty = range();
    empty.push(u64::from(libc::MADV_DONTNEED.cast_unsigned()).into());
    grow.call("empty the stack", libc::SYS_madvise, empty, Want::Success);
}

pub(super) fn mprotect(steps: &mut Steps, (start, end): Range, map: &Mapping) {
    let args = vec![start.into(), (end - start).into(), map.perms.prot().into()];
    steps.call(
        "set the rights of a mapping",
        libc::SYS_mprotect,
        args,
        Want::Success,
    );
}

fn map(
    steps: &mut Steps,
    (start, end): Range,
    map: &Mapping,
    (from, to): (&Process, &Process),
) -> Result<(), String> {
    let len = end - start;
    let prot = map.perms.prot();
    let flag = |f: i32| u64::from(f.cast_unsigned());
    let fixed = flag(libc::MAP_FIXED);
    let what = format!("map {start:#x}-{end:#x} {}", map.path);
    let anonymous = |kind: i32, extra: u64| {
        let flags = fixed | flag(libc::MAP_ANONYMOUS) | flag(kind) | extra;
        vec![
            start.into(),
            len.into(),
            prot.into(),
            flags.into(),
            u64::MAX.into(),
            0.into(),
        ]
    };
    if map.inode == 0 && !map.perms.shared {
        let mut extra = flag(libc::MAP_NORESERVE);
        if map.grows_down {
            extra |= flag(libc::MAP_GROWSDOWN);
        }
        let args = anonymous(libc::MAP_PRIVATE, extra);
        steps.call(what, libc::SYS_mmap, args, Want::Exactly(start));
        return Ok(());
    }
    let offset = map.offset + (start - map.start);
    let kind = if map.perms.shared {
        libc::MAP_SHARED
    } else {
        libc::MAP_PRIVATE
    };
    let Some(source) = source(map, from, to)? else {
        steps.not_restored.push(format!(
            "shared memory {} at {start:#x}: its content is back, but nobody shares it any more",
            map.path
        ));
        let args = anonymous(libc::MAP_SHARED, 0);
        steps.call(what, libc::SYS_mmap, args, Want::Exactly(start));
        return Ok(());
    };
    let mode = if map.perms.shared && map.perms.write {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let args = vec![
        int(libc::AT_FDCWD),
        path(&source),
        int(mode | libc::O_CLOEXEC),
    ];
    steps.call(
        format!("open {source}"),
        libc::SYS_openat,
        args,
        Want::Save(0),
    );
    let args = vec![
        start.into(),
        len.into(),
        prot.into(),
        (fixed | flag(kind)).into(),
        Arg::Saved(0),
        offset.into(),
    ];
    steps.call(what, libc::SYS_mmap, args, Want::Exactly(start));
    steps.call(
        "close the mapped file",
        libc::SYS_close,
        vec![Arg::Saved(0)],
        Want::Success,
    );
    Ok(())
}

/// Where the mapped object can be opened from within the process. None: it was memory and is gone.
fn source(map: &Mapping, from: &Process, to: &Process) -> Result<Option<String>, String> {
    let same = |f: &&File| (f.dev, f.inode) == (map.dev, map.inode) && f.inode != 0;
    if let Some(file) = from.files.iter().find(same) {
        return Ok(Some(format!("/proc/self/fd/{}", file.fd)));
    }
    let same = |m: &&Mapping| (m.dev, m.inode) == (map.dev, map.inode) && m.perms.shared;
    if let Some(other) = from.mappings.iter().find(same) {
        return Ok(Some(format!(
            "/proc/self/map_files/{:x}-{:x}",
            other.start, other.end
        )));
    }
    // Made again by now.
    let made = |f: &&File| (f.dev, f.inode) == (map.dev, map.inode) && f.content().is_some();
    if let Some(file) = to.files.iter().find(made) {
        return Ok(Some(format!("/proc/self/fd/{}", file.fd)));
    }
    if map.path.ends_with(" (deleted)") || map.path.starts_with("/memfd:") {
        if map.perms.shared && is_memory_only(&map.path) {
            return Ok(None);
        }
        return Err(format!(
            "{} was mapped then, is not now, and can no longer be opened",
            map.path
        ));
    }
    check_file(map)?;
    Ok(Some(map.path.clone()))
}

fn check_file(map: &Mapping) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(&map.path)
        .map_err(|e| format!("{} was mapped then and must be again: {e}", map.path))?;
    let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let other = meta.ino() != map.inode || map.file_mtime_ns != 0 && mtime != map.file_mtime_ns;
    if other && !map.perms.shared {
        return Err(format!(
            "{} was mapped then and has been changed since",
            map.path
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sls_record::Perms;

    fn anon(start: u64, end: u64) -> Mapping {
        Mapping {
            start,
            end,
            perms: Perms {
                read: true,
                write: true,
                exec: false,
                shared: false,
            },
            offset: 0,
            dev: 0,
            inode: 0,
            path: String::new(),
            backing: Backing::Anonymous,
            file_mtime_ns: 0,
            grows_down: false,
            locked: false,
            advice: Vec::new(),
            key: 0,
        }
    }

    #[test]
    fn a_piece_is_cut_at_the_borders_of_others() {
        let (a, b, c) = (
            anon(0x2000, 0x4000),
            anon(0x6000, 0x7000),
            anon(0x1000, 0x9000),
        );
        let others = [
            Piece {
                start: a.start,
                end: a.end,
                map: &a,
            },
            Piece {
                start: b.start,
                end: b.end,
                map: &b,
            },
        ];
        let parts: Vec<(Range, bool)> = cut(
            &Piece {
                start: c.start,
                end: c.end,
                map: &c,
            },
            &others,
        )
        .into_iter()
        .map(|(r, m)| (r, m.is_some()))
        .collect();
        assert_eq!(
            parts,
            [
                ((0x1000, 0x2000), false),
                ((0x2000, 0x4000), true),
                ((0x4000, 0x6000), false),
                ((0x6000, 0x7000), true),
                ((0x7000, 0x9000), false),
            ]
        );
    }
}
