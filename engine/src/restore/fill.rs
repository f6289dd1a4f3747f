//! The pages of a process that is made anew, from the log into its memory.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use slos::{Epoch, PageIndex, Partition, SpaceId};
use sls_record::{Backing, File, Mapping, Process};
use sls_sys::unnamed::write_to;
use sls_sys::{RemoteMemory, fault, procfs};

use super::later::Later;
use crate::ahead::Ahead;
use crate::plan::unnamed::is_sealed;
use crate::shared::{Taken, is_memory_only};

const PAGE: u64 = sls_sys::PAGE;
const PAGE_BYTES: usize = slos::PAGE;
/// Pages decoded and written at a time.
const BATCH: usize = 256;

/// Pages of a space that belong at an address of a process.
struct Piece {
    /// The process.
    pid: i32,
    memory: Arc<RemoteMemory>,
    space: SpaceId,
    /// Pages of the space.
    pages: Vec<PageIndex>,
    /// Address of page 0 of the space, which may lie before the first.
    shift: u64,
}

impl Piece {
    fn address(&self, page: PageIndex) -> u64 {
        self.shift.wrapping_add(page.0 * PAGE)
    }
}

/// Where pages come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub partition: &'a Partition,
    pub epoch: Epoch,
    /// What was decoded before.
    pub ahead: Option<&'a Ahead>,
}

impl Source<'_> {
    fn read(&self, space: SpaceId, pages: &[PageIndex], bytes: &mut [u8]) -> Result<(), String> {
        let known = |page: &PageIndex| self.ahead?.get(space.0, page.0);
        if pages.iter().all(|page| known(page).is_some()) {
            for (page, bytes) in pages.iter().zip(bytes.chunks_mut(PAGE_BYTES)) {
                bytes.copy_from_slice(known(page).map_or(&[0; PAGE_BYTES], |known| known));
            }
            return Ok(());
        }
        let read = self.partition.read_pages(self.epoch, space, pages, bytes);
        read.map(drop).map_err(|e| e.to_string())
    }
}

/// Writes all of them but those that are brought later, what several share once; their number.
pub fn pages(source: Source<'_>, all: &[Process], later: Option<&Later>) -> Result<u64, String> {
    let Source {
        partition, epoch, ..
    } = source;
    let mut pieces = Vec::new();
    let mut taken = Taken::default();
    let files_of_all = all.iter().flat_map(|p| &p.files);
    let sealed: Vec<u32> = files_of_all
        .filter(|f| is_sealed(f))
        .filter_map(File::content)
        .collect();
    for (place, to) in all.iter().enumerate() {
        let what = format!("open the memory of process {}", to.pid);
        let memory =
            fault::step(what, || RemoteMemory::open(to.outside())).map_err(|e| e.to_string())?;
        add(
            &mut pieces,
            partition,
            epoch,
            (to, &Arc::new(memory)),
            &mut taken,
            &sealed,
            |address| later.is_some_and(|later| later.has(place, address)),
        )?;
    }
    let of_files = files(partition, epoch, all, &taken)?;
    let batches: Vec<(&Piece, &[PageIndex])> = pieces
        .iter()
        .flat_map(|piece| piece.pages.chunks(BATCH).map(move |pages| (piece, pages)))
        .collect();
    // Asked once: it reads a dozen files of the control group.
    static WORKERS: OnceLock<usize> = OnceLock::new();
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = *WORKERS.get_or_init(cpus);
    let share = batches.len().div_ceil(workers).max(1);
    let of_memory: Result<u64, String> = std::thread::scope(|scope| {
        let writers: Vec<_> = batches
            .chunks(share)
            .map(|batches| scope.spawn(move || write_all(source, batches)))
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|_| Err("a bug".to_owned())))
            .sum()
    });
    Ok(of_files + of_memory?)
}

/// Writes what files without a name hold, but for what is written by way of mappings; their pages.
fn files(
    partition: &Partition,
    epoch: Epoch,
    all: &[Process],
    taken: &Taken,
) -> Result<u64, String> {
    let (mut done, mut written) = (BTreeSet::new(), 0);
    let files = all
        .iter()
        .flat_map(|p| p.files.iter().map(move |f| (p.outside(), f)));
    for (pid, file) in files {
        let (Some(space), Some(unnamed)) = (file.content(), &file.unnamed) else {
            continue;
        };
        let number = format!("fd/{}", file.fd);
        // Not where something else is in its place.
        if !procfs::link(pid, &number).starts_with('/') || !done.insert(space) {
            continue;
        }
        let failed = |e: io::Error| format!("write {}: {e}", file.target);
        let ours = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/{number}"));
        let ours = ours.map_err(failed)?;
        let map = partition.page_map(epoch, SpaceId(space));
        for page in map.map_err(|e| e.to_string())? {
            let at = page.0 * PAGE;
            if at >= unnamed.size || taken.has(space, (at, at + PAGE)) {
                continue;
            }
            let mut bytes = [0; PAGE_BYTES];
            let read = partition.read_page(epoch, SpaceId(space), page, &mut bytes);
            read.map_err(|e| e.to_string())?;
            write_to(ours.as_fd(), unnamed.size, at, &bytes).map_err(failed)?;
            written += 1;
        }
    }
    Ok(written)
}

fn write_all(source: Source<'_>, batches: &[(&Piece, &[PageIndex])]) -> Result<u64, String> {
    let mut bytes = vec![0; BATCH * PAGE_BYTES];
    let mut written = 0;
    for (piece, pages) in batches {
        let bytes = &mut bytes[..pages.len() * PAGE_BYTES];
        source.read(piece.space, pages, bytes)?;
        let neighbours = |a: &PageIndex, b: &PageIndex| a.0 + 1 == b.0;
        let mut rest: &[u8] = bytes;
        for run in pages.chunk_by(neighbours) {
            let (run_bytes, after) = rest.split_at(run.len() * PAGE_BYTES);
            rest = after;
            let address = piece.address(run[0]);
            let (pid, count) = (piece.pid, run.len());
            let what = format_args!("process {pid}: write {count} pages at {address:#x}");
            let written = fault::step(what, || write(&piece.memory, address, run_bytes));
            written.map_err(|e| e.to_string())?;
        }
        written += pages.len() as u64;
    }
    Ok(written)
}

/// As fast as can be, and where the program itself may not write, as a debugger does.
fn write(memory: &RemoteMemory, address: u64, bytes: &[u8]) -> io::Result<()> {
    let done = memory.write(address, &[bytes]).unwrap_or(0);
    if done < bytes.len() {
        memory.write_at(address + done as u64, &bytes[done..])?;
    }
    Ok(())
}

fn add(
    pieces: &mut Vec<Piece>,
    partition: &Partition,
    epoch: Epoch,
    (to, memory): (&Process, &Arc<RemoteMemory>),
    taken: &mut Taken,
    sealed: &[u32],
    is_brought_later: impl Fn(u64) -> bool,
) -> Result<(), String> {
    let map_of = |space| {
        let map = partition.page_map(epoch, SpaceId(space));
        map.map_err(|e| e.to_string())
    };
    let mut own = map_of(to.space)?;
    own.retain(|p| !is_brought_later(p.0 * PAGE));
    own.retain(|p| mapping_at(to, p.0 * PAGE).is_some_and(is_written));
    pieces.push(Piece {
        pid: to.pid,
        memory: memory.clone(),
        space: SpaceId(to.space),
        pages: own,
        shift: 0,
    });
    for map in &to.mappings {
        let Backing::Shared { space } = map.backing else {
            continue;
        };
        if !is_memory_only(&map.path) {
            continue; // A file's content is the file's.
        }
        if sealed.contains(&space) && !map.perms.write {
            continue; // Written by its descriptor.
        }
        let range = (map.offset, map.offset + map.len());
        if taken.has(space, range) {
            continue;
        }
        taken.take(space, range);
        let mut pages = map_of(space)?;
        let first = map.offset / PAGE;
        pages.retain(|p| (first..first + map.len() / PAGE).contains(&p.0));
        pieces.push(Piece {
            pid: to.pid,
            memory: memory.clone(),
            space: SpaceId(space),
            pages,
            shift: map.start.wrapping_sub(map.offset),
        });
    }
    Ok(())
}

/// The kernel's own pages are there already.
fn is_written(map: &Mapping) -> bool {
    map.backing != Backing::Kernel && map.path != "[vdso]"
}

fn mapping_at(process: &Process, address: u64) -> Option<&Mapping> {
    let at = process.mappings.partition_point(|m| m.end <= address);
    process.mappings.get(at).filter(|m| m.start <= address)
}

/// The program calls into the kernel's page of code by addresses that it has looked up: they must
/// still lead to the same.
pub fn check_vdso(partition: &Partition, epoch: Epoch, to: &Process) -> Result<(), String> {
    let vdso = |m: &&Mapping| m.path == "[vdso]";
    let Some(then) = to.mappings.iter().find(vdso) else {
        return Ok(());
    };
    let pages: Vec<PageIndex> = (then.start / PAGE..then.end / PAGE)
        .map(PageIndex)
        .collect();
    let mut bytes = vec![0; pages.len() * PAGE_BYTES];
    partition
        .read_pages(epoch, SpaceId(to.space), &pages, &mut bytes)
        .map_err(|e| e.to_string())?;
    let own = own_vdso(bytes.len()).map_err(|e| format!("read the kernel's vDSO: {e}"))?;
    if own != bytes {
        return Err("it ran on another kernel, whose vDSO was another".to_owned());
    }
    Ok(())
}

fn own_vdso(len: usize) -> io::Result<Vec<u8>> {
    let pid = std::process::id().cast_signed();
    let maps = procfs::maps(pid)?;
    let vdso = maps.iter().find(|m| m.path == "[vdso]");
    let start = vdso.ok_or(io::ErrorKind::NotFound)?.start;
    let mut bytes = vec![0; len];
    RemoteMemory::open(pid)?.read_at(start, &mut bytes)?;
    Ok(bytes)
}
