//! The address space of a process made anew: what the skeleton has goes, the kernel's own pages move
//! to where they were, and every mapping is made again.

use std::os::unix::fs::MetadataExt;

use sls_keeper::{Arg, Want};
use sls_record::{Backing, File, Mapping, Process};

use super::kin::Kin;
use super::mappings::{is_fixed, mprotect};
use super::unnamed::is_sealed;
use super::{Steps, int, path};
use crate::shared::is_memory_only;

const PAGE: u64 = sls_sys::PAGE;
const MFD_CLOEXEC: u64 = 1;
const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;

/// The kernel's own pages in every process, which can only be moved.
pub fn is_kernels(map: &Mapping) -> bool {
    matches!(&*map.path, "[vdso]" | "[vvar]" | "[vvar_vclock]")
}

fn kernels(process: &Process) -> Vec<&Mapping> {
    process.mappings.iter().filter(|m| is_kernels(m)).collect()
}

/// Bytes of all the kernel's pages with room between.
pub fn kernels_len(process: &Process) -> u64 {
    kernels(process).iter().map(|m| m.len() + PAGE).sum()
}

/// Empties the skeleton and moves the kernel's pages; `aside` is free in both.
pub fn clear(
    steps: &mut Steps,
    skeleton: &Process,
    to: &Process,
    aside: u64,
) -> Result<(), String> {
    let goes = |m: &&Mapping| !is_kernels(m) && m.path != "[vsyscall]";
    for map in skeleton.mappings.iter().filter(goes) {
        let args = vec![map.start.into(), map.len().into()];
        steps.call(
            "empty the new process",
            libc::SYS_munmap,
            args,
            Want::Success,
        );
    }
    let (are, shall) = (kernels(skeleton), kernels(to));
    let pairs = pairs(&are, &shall)?;
    if pairs.iter().all(|(is, shall)| is.start == shall.start) {
        return Ok(());
    }
    // By way of another place: where one is to be the other may still lie.
    let mut at = aside;
    for (is, _) in &pairs {
        remap(steps, &is.path, is.start, at, is.len());
        at += is.len() + PAGE;
    }
    let mut at = aside;
    for (is, shall) in &pairs {
        remap(steps, &is.path, at, shall.start, is.len());
        at += is.len() + PAGE;
    }
    Ok(())
}

/// Each of the kernel's mappings with where it was.
fn pairs<'a>(
    are: &[&'a Mapping],
    shall: &[&'a Mapping],
) -> Result<Vec<(&'a Mapping, &'a Mapping)>, String> {
    let describe = |maps: &[&Mapping]| {
        let one = |m: &&Mapping| format!("{} {} KiB", m.path, m.len() >> 10);
        maps.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let same = are.len() == shall.len()
        && are
            .iter()
            .zip(shall)
            .all(|(a, b)| (&a.path, a.len()) == (&b.path, b.len()));
    if !same {
        return Err(format!(
            "the kernel's own pages were {} then and are {} now: it ran on another kernel",
            describe(shall),
            describe(are)
        ));
    }
    Ok(are.iter().copied().zip(shall.iter().copied()).collect())
}

fn remap(steps: &mut Steps, name: &str, from: u64, to: u64, len: u64) {
    let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    let args = [from, len, len, flags, to].map(Arg::Value).to_vec();
    let what = format!("move {name}");
    steps.call(what, libc::SYS_mremap, args, Want::Exactly(to));
}

/// Makes every mapping; the steps that come back give shared memory its rights once it is filled.
pub fn mappings(steps: &mut Steps, kin: &Kin<'_>, to: &Process) -> Steps {
    let mut after = Steps::default();
    for map in to
        .mappings
        .iter()
        .filter(|m| !is_fixed(m) && !is_kernels(m))
    {
        let range = (map.start, map.end);
        if map.inode == 0 && !map.perms.shared {
            anonymous(steps, map);
        } else if map.perms.shared && is_memory_only(&map.path) {
            if !map.perms.write {
                mprotect(&mut after, range, map);
            }
            object(steps, kin, to, map);
        } else if map.backing == Backing::Kernel {
            steps.object(format!(
                "{} was mapped at {:#x}, which cannot be made again",
                map.path, map.start
            ));
        } else {
            file(steps, to, map);
        }
    }
    after
}

fn flag(f: i32) -> u64 {
    u64::from(f.cast_unsigned())
}

/// A descriptor that was saved, or none.
fn mmap(steps: &mut Steps, map: &Mapping, prot: u64, flags: u64, file: Option<u8>) {
    let (fd, offset) = match file {
        Some(saved) => (Arg::Saved(saved), map.offset),
        None => (u64::MAX.into(), 0),
    };
    let args = vec![
        map.start.into(),
        map.len().into(),
        prot.into(),
        (flags | flag(libc::MAP_FIXED)).into(),
        fd,
        offset.into(),
    ];
    let what = format!("map {:#x}-{:#x} {}", map.start, map.end, map.path);
    steps.call(what, libc::SYS_mmap, args, Want::Exactly(map.start));
}

fn anonymous(steps: &mut Steps, map: &Mapping) {
    let mut flags = flag(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    if map.grows_down {
        // Not MAP_STACK, which is advice against huge pages.
        flags |= flag(libc::MAP_GROWSDOWN);
    }
    mmap(steps, map, map.perms.prot(), flags, None);
}

/// Opens a path, maps what is there and closes it.
fn open_and_map(steps: &mut Steps, map: &Mapping, source: &str, mode: i32, prot: u64) {
    let args = vec![
        int(libc::AT_FDCWD),
        path(source),
        int(mode | libc::O_CLOEXEC),
    ];
    steps.call(
        format!("open {source}"),
        libc::SYS_openat,
        args,
        Want::Save(0),
    );
    let kind = if map.perms.shared {
        libc::MAP_SHARED
    } else {
        libc::MAP_PRIVATE
    };
    mmap(steps, map, prot, flag(kind), Some(0));
    close(steps);
}

fn close(steps: &mut Steps) {
    let args = vec![Arg::Saved(0)];
    steps.call(
        "close the mapped file",
        libc::SYS_close,
        args,
        Want::Success,
    );
}

/// Rights with which shared memory can be filled.
fn fillable(map: &Mapping) -> u64 {
    map.perms.prot() | flag(libc::PROT_READ | libc::PROT_WRITE)
}

/// A mapping of shared memory.
fn object(steps: &mut Steps, kin: &Kin<'_>, to: &Process, map: &Mapping) {
    if let Some(id) = kin.attaches(to, map) {
        return attach(steps, map, id);
    }
    if let Some(Err(why)) = kin.segment(map) {
        steps.object(why.clone());
    }
    if let Some(source) = kin.memory(to, map).or_else(|| Some(descriptor(to, map)?.0)) {
        if map.path.starts_with("/SYSV") {
            steps.not_restored.push(format!(
                "System V shared memory at {:#x}: its content is back, but its key and number are not",
                map.start
            ));
        }
        // What is sealed can be sealed again only if nobody may write it by a mapping.
        let is_sealed = kin.descriptor(map).is_some_and(is_sealed) && !map.perms.write;
        let (mode, prot) = if is_sealed {
            (libc::O_RDONLY, map.perms.prot())
        } else {
            (libc::O_RDWR, fillable(map))
        };
        return open_and_map(steps, map, &source, mode, prot);
    }
    match std::fs::metadata(&map.path) {
        Ok(meta) if (meta.dev(), meta.ino()) == (map.dev, map.inode) => {}
        Ok(_) => steps.object(format!(
            "{} was mapped at {:#x}, and another object has its name now",
            map.path, map.start
        )),
        Err(error) => steps.object(format!("{} was mapped: {error}", map.path)),
    }
    open_and_map(steps, map, &map.path, libc::O_RDWR, fillable(map));
}

/// System V shared memory by its number.
fn attach(steps: &mut Steps, map: &Mapping, id: i32) {
    let exec = if map.perms.exec { libc::SHM_EXEC } else { 0 };
    let args = vec![int(id), map.start.into(), int(exec)];
    let what = format!("attach System V shared memory {id}");
    steps.call(what, libc::SYS_shmat, args, Want::Exactly(map.start));
}

/// Shared memory without a name (anonymous, or a file in memory whose last descriptor is closed),
/// saved as 0.
pub fn make_memory(steps: &mut Steps, map: &Mapping, size: u64) {
    let name = map.path.rsplit('/').next().unwrap_or_default();
    let name = name.trim_end_matches(" (deleted)");
    let name = name.strip_prefix("memfd:").unwrap_or(name);
    let args = vec![path(name), MFD_CLOEXEC.into()];
    let what = "make shared memory";
    steps.call(what, libc::SYS_memfd_create, args, Want::Save(0));
    let args = vec![Arg::Saved(0), size.into()];
    let what = "size shared memory";
    steps.call(what, libc::SYS_ftruncate, args, Want::Success);
}

/// One of the process's own descriptors on what is mapped, which are opened before; and is what it
/// holds kept?
fn descriptor(to: &Process, map: &Mapping) -> Option<(String, bool)> {
    let same = |f: &&File| (f.dev, f.inode) == (map.dev, map.inode) && f.inode != 0;
    let found = to.files.iter().find(same);
    found.map(|f| (format!("/proc/self/fd/{}", f.fd), f.content().is_some()))
}

fn file(steps: &mut Steps, to: &Process, map: &Mapping) {
    let mode = if map.perms.shared && map.perms.write {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let prot = map.perms.prot();
    if map.path.ends_with(" (deleted)") || map.path.starts_with("/memfd:") {
        match descriptor(to, map) {
            Some((source, kept)) if map.perms.shared || kept => {
                open_and_map(steps, map, &source, mode, prot);
            }
            _ => steps.object(format!(
                "{} was mapped at {:#x}, and what was never written of it is nowhere any more",
                map.path, map.start
            )),
        }
        return;
    }
    check(steps, map);
    open_and_map(steps, map, &map.path, mode, prot);
}

/// Is the file what it was?
fn check(steps: &mut Steps, map: &Mapping) {
    let meta = match std::fs::metadata(&map.path) {
        Ok(meta) => meta,
        Err(error) => return steps.object(format!("{} was mapped: {error}", map.path)),
    };
    let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    if map.file_mtime_ns == mtime {
        return;
    }
    if map.perms.shared {
        let line = format!("content of {} (shared mapping)", map.path);
        super::files::name_once(steps, line);
    } else {
        steps.object(format!(
            "{} was mapped and has been changed since",
            map.path
        ));
    }
}
