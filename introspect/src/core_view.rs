//! An ELF core as a view: what the kernel, gdb, or our own `dump` writes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use object::LittleEndian as LE;
use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::registers::Registers;
use crate::view::{Mapping, Perms, ThreadView, Unavailable, View};

#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    #[error("cannot open core {path}")]
    Open {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not an ELF core")]
    Parse {
        path: PathBuf,
        source: object::Error,
    },
    #[error("{path} is not an x86-64 core; give a core written on x86-64 Linux")]
    NotACore { path: PathBuf },
}

/// A core file. Pages the core leaves out (file text, by default) come from the mapped files.
pub struct CoreView {
    file: File,
    segments: Vec<Segment>,
    mappings: Vec<Mapping>,
    threads: Vec<ThreadView>,
    auxv: Vec<(u64, u64)>,
    backing: HashMap<String, File>,
}

struct Segment {
    start: u64,
    end: u64,
    offset: u64,
    file_len: u64,
    perms: Perms,
}

struct FileRange {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

#[derive(Default)]
struct Notes {
    threads: Vec<ThreadView>,
    command: String,
    auxv: Vec<(u64, u64)>,
    files: Vec<FileRange>,
}

impl CoreView {
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CoreError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| CoreError::Open {
            path: path.into(),
            source,
        })?;
        let (segments, mut notes) = parse(&file)
            .map_err(|source| CoreError::Parse {
                path: path.into(),
                source,
            })?
            .ok_or_else(|| CoreError::NotACore { path: path.into() })?;
        for thread in &mut notes.threads {
            thread.name.clone_from(&notes.command);
        }
        let mappings = mappings_of(&segments, &notes);
        let backing = notes
            .files
            .iter()
            .filter_map(|range| {
                Some((
                    range.path.clone(),
                    crate::regular::open(range.path.as_ref()).ok()?,
                ))
            })
            .collect();
        Ok(Self {
            file,
            segments,
            mappings,
            threads: notes.threads,
            auxv: notes.auxv,
            backing,
        })
    }

    /// Fills a prefix of `buf` and says how much.
    fn read_some(&self, address: u64, buf: &mut [u8]) -> Option<usize> {
        let after = self
            .segments
            .partition_point(|segment| segment.start <= address);
        let segment = self.segments[..after].last()?;
        let into = address - segment.start;
        if into < segment.file_len {
            let len = within(buf, segment.file_len - into);
            self.file
                .read_exact_at(&mut buf[..len], segment.offset + into)
                .ok()?;
            return Some(len);
        }
        self.read_backing(address, buf)
    }

    fn read_backing(&self, address: u64, buf: &mut [u8]) -> Option<usize> {
        let mapping = self
            .mappings
            .iter()
            .find(|mapping| mapping.contains(address))?;
        let file = self.backing.get(mapping.file_path()?)?;
        let len = within(buf, mapping.end - address);
        let len = file
            .read_at(
                &mut buf[..len],
                mapping.offset.checked_add(address - mapping.start)?,
            )
            .ok()?;
        (len > 0).then_some(len)
    }
}

fn within(buf: &[u8], len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(buf.len())
}

impl View for CoreView {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let mut done = 0;
        while done < buf.len() {
            let at = address.wrapping_add(done as u64);
            done += self
                .read_some(at, &mut buf[done..])
                .ok_or_else(|| Unavailable::not_mapped(at))?;
        }
        Ok(())
    }

    fn threads(&self) -> Vec<ThreadView> {
        self.threads.clone()
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.mappings.clone()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.auxv.clone()
    }
}

fn parse(file: &File) -> object::Result<Option<(Vec<Segment>, Notes)>> {
    let cache = ReadCache::new(file);
    let header = elf::FileHeader64::<LE>::parse(&cache)?;
    if header.e_type(LE) != elf::ET_CORE || header.e_machine(LE) != elf::EM_X86_64 {
        return Ok(None);
    }
    let mut segments = Vec::new();
    let mut notes = Notes::default();
    for program in header.program_headers(LE, &cache)? {
        match program.p_type(LE) {
            elf::PT_LOAD => segments.extend(segment(program)),
            elf::PT_NOTE => read_notes(program, &cache, &mut notes)?,
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.start);
    // gdb writes the thread that was selected first; the kernel, the one that died. Ours is by id.
    let process = notes.threads.iter().map(|thread| thread.tid).min();
    notes
        .threads
        .sort_by_key(|thread| (Some(thread.tid) != process, thread.tid));
    Ok(Some((segments, notes)))
}

fn segment(program: &elf::ProgramHeader64<LE>) -> Option<Segment> {
    let flags = program.p_flags(LE);
    let start = program.p_vaddr(LE);
    Some(Segment {
        start,
        end: start.checked_add(program.p_memsz(LE))?,
        offset: program.p_offset(LE),
        file_len: program.p_filesz(LE).min(program.p_memsz(LE)),
        perms: Perms {
            read: flags & elf::PF_R != 0,
            write: flags & elf::PF_W != 0,
            execute: flags & elf::PF_X != 0,
            shared: false,
        },
    })
}

fn read_notes<'data, R: object::ReadRef<'data>>(
    program: &elf::ProgramHeader64<LE>,
    data: R,
    into: &mut Notes,
) -> object::Result<()> {
    let Some(mut notes) = program.notes(LE, data)? else {
        return Ok(());
    };
    while let Some(note) = notes.next()? {
        let desc = note.desc();
        match note.n_type(LE) {
            elf::NT_PRSTATUS => into.threads.extend(prstatus(desc)),
            elf::NT_PRPSINFO => into.command = desc.get(40..56).map(until_nul).unwrap_or_default(),
            elf::NT_FPREGSET => {
                if let Some(thread) = into.threads.last_mut() {
                    thread.registers = std::mem::take(&mut thread.registers).with_fxsave(desc);
                }
            }
            elf::NT_AUXV => {
                into.auxv = words(desc)
                    .collect::<Vec<_>>()
                    .chunks_exact(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect()
            }
            elf::NT_FILE => into.files = nt_file(desc).unwrap_or_default(),
            _ => {}
        }
    }
    Ok(())
}

/// `struct elf_prstatus`: the thread id at 32, `user_regs_struct` at 112.
fn prstatus(desc: &[u8]) -> Option<ThreadView> {
    let tid = u32::from_le_bytes(desc.get(32..36)?.try_into().ok()?);
    let words: Vec<u64> = words(desc.get(112..328)?).collect();
    let registers = Registers::from_user(words.as_slice().try_into().ok()?);
    Some(ThreadView {
        tid,
        name: String::new(),
        registers,
    })
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| {
        word.iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    })
}

fn until_nul(bytes: &[u8]) -> String {
    let len = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// `NT_FILE`: count, page size, then (start, end, offset in pages) each, then the names.
fn nt_file(desc: &[u8]) -> Option<Vec<FileRange>> {
    let mut header = words(desc.get(..16)?);
    let count = usize::try_from(header.next()?).ok()?;
    let page = header.next()?;
    let table_end = count.checked_mul(24)?.checked_add(16)?;
    let table: Vec<u64> = words(desc.get(16..table_end)?).collect();
    let names = desc.get(table_end..)?.split(|byte| *byte == 0);
    let ranges = table.chunks_exact(3).zip(names).filter_map(|(row, name)| {
        let path = String::from_utf8_lossy(name).into_owned();
        Some(FileRange {
            start: row[0],
            end: row[1],
            offset: row[2].checked_mul(page)?,
            path,
        })
    });
    Some(ranges.collect())
}

/// Memory map: the segments, named by `NT_FILE`; file ranges without a segment were left out of the core.
fn mappings_of(segments: &[Segment], notes: &Notes) -> Vec<Mapping> {
    let vdso = notes
        .auxv
        .iter()
        .find(|(key, _)| *key == AT_SYSINFO_EHDR)
        .map(|pair| pair.1);
    let mut mappings: Vec<Mapping> = segments
        .iter()
        .map(|segment| {
            let named = notes
                .files
                .iter()
                .find(|range| (range.start..range.end).contains(&segment.start));
            let (path, offset) = match named {
                Some(range) => (
                    range.path.clone(),
                    range.offset + (segment.start - range.start),
                ),
                None if vdso == Some(segment.start) => ("[vdso]".into(), 0),
                None => (String::new(), 0),
            };
            Mapping {
                start: segment.start,
                end: segment.end,
                offset,
                perms: segment.perms,
                path,
            }
        })
        .collect();
    for range in &notes.files {
        if !mappings
            .iter()
            .any(|mapping| mapping.start < range.end && range.start < mapping.end)
        {
            let perms = perms_in_file(range).unwrap_or_default();
            mappings.push(Mapping {
                start: range.start,
                end: range.end,
                offset: range.offset,
                perms,
                path: range.path.clone(),
            });
        }
    }
    mappings.sort_by_key(|mapping| mapping.start);
    mappings
}

/// What the file's own program header asks for at a range: the core does not say.
fn perms_in_file(range: &FileRange) -> Option<Perms> {
    let file = crate::regular::open(range.path.as_ref()).ok()?;
    let cache = ReadCache::new(&file);
    let header = elf::FileHeader64::<LE>::parse(&cache).ok()?;
    let segments = header
        .program_headers(LE, &cache)
        .ok()?
        .iter()
        .filter(|program| program.p_type(LE) == elf::PT_LOAD);
    segments
        .filter_map(segment)
        .find(|segment| {
            (segment.offset & !0xfff..segment.offset.saturating_add(segment.file_len))
                .contains(&range.offset)
        })
        .map(|segment| segment.perms)
}

const AT_SYSINFO_EHDR: u64 = 33;
