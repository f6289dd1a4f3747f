//! A checkpoint of a process as an ELF core (core(5)), laid out without reading any memory: its bytes
//! can be written in sequence or made where somebody reads.
//!
//! What is in it follows the kernel's default (core(5), coredump_filter 0x33): all memory of the
//! process's own and what it shares, and of files that nobody wrote to only the first page, by which a
//! debugger knows them. Memory that was never touched is a hole.

mod notes;

use object::elf::{self, FileHeader64, Ident, ProgramHeader64, SectionHeader64};
use object::endian::{LittleEndian as LE, U16, U32, U64};
use object::pod::bytes_of;
use sls_record::{Backing, Event, Mapping, Process};

use introspect::View;

use crate::client::ClientError;
use crate::kept::Kept;
use crate::view::CheckpointView;

const PAGE: u64 = 4096;
/// Longest command line that is asked for: a core has room for the beginning of one.
const ARGUMENTS: u64 = 256;
/// More program headers than this are counted in the first section header (PN_XNUM).
const COUNTED: usize = 0xffff;

/// A core: its head, and where in the file which memory lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    head: Vec<u8>,
    loads: Vec<Load>,
    len: u64,
}

/// Memory in a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Offset in the file.
    pub offset: u64,
    /// Address.
    pub start: u64,
    /// Bytes in the file, whole pages.
    pub len: u64,
}

impl Core {
    /// The core of a checkpoint's process, with the pages that the checkpoint has of it.
    ///
    /// # Errors
    /// slsd does not answer, or no longer has the checkpoint.
    pub fn of_view(view: &CheckpointView) -> Result<(Self, Kept), ClientError> {
        let kept = view.kept()?;
        let core = Self::of(view.process(), view.event(), &arguments(view), &kept);
        Ok((core, kept))
    }

    /// The core of `process`, which has the pages `kept`; `arguments` are its command line, and `event`
    /// is what it was about to meet.
    #[must_use]
    pub fn of(process: &Process, event: Option<&Event>, arguments: &[u8], kept: &Kept) -> Self {
        let notes = notes::all(process, event, arguments);
        let maps = &process.mappings;
        let count = maps.len() + 1;
        let table = size_of::<FileHeader64<LE>>() + count * size_of::<ProgramHeader64<LE>>();
        let extended = count >= COUNTED;
        let section = if extended {
            size_of::<SectionHeader64<LE>>()
        } else {
            0
        };
        let notes_at = (table + section) as u64;
        let mut at = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
        let mut loads = Vec::new();
        let mut head = Vec::new();
        head.extend_from_slice(bytes_of(&file_header(count, table as u64)));
        head.extend_from_slice(bytes_of(&notes_header(notes_at, notes.len() as u64)));
        for map in maps {
            let len = bytes_in_file(process, map, kept);
            head.extend_from_slice(bytes_of(&load_header(map, at, len)));
            if len > 0 {
                let (offset, start) = (at, map.start);
                loads.push(Load { offset, start, len });
            }
            at += len;
        }
        if extended {
            head.extend_from_slice(bytes_of(&counting_section(count)));
        }
        head.extend_from_slice(&notes);
        Self {
            head,
            loads,
            len: at,
        }
    }

    /// What comes before the memory.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The memory in it, by offset and by address.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Bytes, holes included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a core has a head.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes from `offset` on, as far as they are there; `memory` reads what lies in memory.
    ///
    /// # Errors
    /// Those of `memory`.
    pub fn read_at<E>(
        &self,
        offset: u64,
        buf: &mut [u8],
        mut memory: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let wanted = self.len.saturating_sub(offset).min(buf.len() as u64);
        let buf = &mut buf[..usize::try_from(wanted).unwrap_or(0)];
        let mut done = 0;
        while done < buf.len() {
            let (here, rest) = (offset + done as u64, &mut buf[done..]);
            done += match self.head.get(usize::try_from(here).unwrap_or(usize::MAX)..) {
                Some(head) if !head.is_empty() => {
                    let len = head.len().min(rest.len());
                    rest[..len].copy_from_slice(&head[..len]);
                    len
                }
                _ => self.read_load(here, rest, &mut memory)?,
            };
        }
        Ok(buf.len())
    }

    /// As much as one load, or the gap before the first, has.
    fn read_load<E>(
        &self,
        offset: u64,
        buf: &mut [u8],
        memory: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let after = self.loads.partition_point(|l| l.offset + l.len <= offset);
        let fits = |len: u64| usize::try_from(len).unwrap_or(usize::MAX).min(buf.len());
        let Some(load) = self.loads.get(after) else {
            buf.fill(0);
            return Ok(buf.len());
        };
        if offset < load.offset {
            let len = fits(load.offset - offset);
            buf[..len].fill(0);
            return Ok(len);
        }
        let within = offset - load.offset;
        let len = fits(load.len - within);
        memory(load.start + within, &mut buf[..len])?;
        Ok(len)
    }
}

/// The command line as it lies in memory, empty where it cannot be read.
fn arguments(view: &CheckpointView) -> Vec<u8> {
    let layout = view.process().layout;
    let len = layout.arg_end.saturating_sub(layout.arg_start);
    let mut line = vec![0; usize::try_from(len.min(ARGUMENTS)).unwrap_or(0)];
    match view.read(layout.arg_start, &mut line) {
        Ok(()) => line,
        Err(_) => Vec::new(),
    }
}

/// How much of a mapping is in the core.
fn bytes_in_file(process: &Process, map: &Mapping, kept: &Kept) -> u64 {
    let whole = if kept.any_of(process, map) {
        true
    } else {
        match map.backing {
            Backing::Kernel | Backing::File => false,
            Backing::Anonymous | Backing::Shared { .. } => map.perms.read,
        }
    };
    match map.backing {
        _ if whole => map.len(),
        Backing::File if map.offset == 0 && map.perms.read => PAGE.min(map.len()),
        _ => 0,
    }
}

fn file_header(count: usize, after_table: u64) -> FileHeader64<LE> {
    let counted = u16::try_from(count).unwrap_or(elf::PN_XNUM);
    let extended = counted == elf::PN_XNUM;
    FileHeader64 {
        e_ident: Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, elf::ET_CORE),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, elf::EV_CURRENT.into()),
        e_entry: U64::default(),
        e_phoff: U64::new(LE, size_of::<FileHeader64<LE>>() as u64),
        e_shoff: U64::new(LE, if extended { after_table } else { 0 }),
        e_flags: U32::default(),
        e_ehsize: half(size_of::<FileHeader64<LE>>()),
        e_phentsize: half(size_of::<ProgramHeader64<LE>>()),
        e_phnum: U16::new(LE, counted),
        e_shentsize: half(if extended {
            size_of::<SectionHeader64<LE>>()
        } else {
            0
        }),
        e_shnum: U16::new(LE, extended.into()),
        e_shstrndx: U16::default(),
    }
}

/// Sizes of headers, all below 100.
fn half(size: usize) -> U16<LE> {
    U16::new(LE, u16::try_from(size).unwrap_or(0))
}

fn counting_section(count: usize) -> SectionHeader64<LE> {
    SectionHeader64 {
        sh_name: U32::default(),
        sh_type: U32::new(LE, elf::SHT_NULL),
        sh_flags: U64::default(),
        sh_addr: U64::default(),
        sh_offset: U64::default(),
        sh_size: U64::new(LE, 1),
        sh_link: U32::default(),
        sh_info: U32::new(LE, u32::try_from(count).unwrap_or(u32::MAX)),
        sh_addralign: U64::default(),
        sh_entsize: U64::default(),
    }
}

fn notes_header(offset: u64, len: u64) -> ProgramHeader64<LE> {
    ProgramHeader64 {
        p_type: U32::new(LE, elf::PT_NOTE),
        p_flags: U32::default(),
        p_offset: U64::new(LE, offset),
        p_vaddr: U64::default(),
        p_paddr: U64::default(),
        p_filesz: U64::new(LE, len),
        p_memsz: U64::default(),
        p_align: U64::new(LE, 4),
    }
}

fn load_header(map: &Mapping, offset: u64, len: u64) -> ProgramHeader64<LE> {
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let flags = flag(map.perms.read, elf::PF_R)
        | flag(map.perms.write, elf::PF_W)
        | flag(map.perms.exec, elf::PF_X);
    ProgramHeader64 {
        p_type: U32::new(LE, elf::PT_LOAD),
        p_flags: U32::new(LE, flags),
        p_offset: U64::new(LE, offset),
        p_vaddr: U64::new(LE, map.start),
        p_paddr: U64::default(),
        p_filesz: U64::new(LE, len),
        p_memsz: U64::new(LE, map.len()),
        p_align: U64::new(LE, PAGE),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    use sls_record::Perms;

    use super::*;

    fn map(start: u64, pages: u64, backing: Backing) -> Mapping {
        Mapping {
            start,
            end: start + pages * PAGE,
            perms: Perms {
                read: true,
                write: true,
                ..Perms::default()
            },
            offset: 0,
            dev: 0,
            inode: 0,
            path: String::new(),
            backing,
            file_mtime_ns: 0,
            grows_down: false,
            locked: false,
            advice: Vec::new(),
            key: 0,
        }
    }

    fn process() -> Process {
        let mut guard = map(0x5000, 1, Backing::Anonymous);
        guard.perms = Perms::default();
        let mappings = vec![
            map(0x1000, 2, Backing::File),
            map(0x3000, 2, Backing::Anonymous),
            guard,
            map(0x6000, 3, Backing::File),
        ];
        Process {
            space: 1,
            mappings,
            threads: vec![sls_record::Thread::default()],
            ..Process::default()
        }
    }

    #[test]
    fn readers_find_what_is_where() {
        let kept = Kept::from_iter([(1, vec![(7, 1)])]);
        let core = Core::of(&process(), None, b"a\0b\0", &kept);
        let header = FileHeader64::<LE>::parse(core.head()).unwrap();
        let loads: Vec<_> = header.program_headers(LE, core.head()).unwrap()[1..]
            .iter()
            .map(|p| (p.p_vaddr(LE), p.p_filesz(LE), p.p_memsz(LE)))
            .collect();
        let expected = [
            (0x1000, PAGE, 2 * PAGE),
            (0x3000, 2 * PAGE, 2 * PAGE),
            (0x5000, 0, PAGE),
            (0x6000, 3 * PAGE, 3 * PAGE),
        ];
        assert_eq!(loads, expected);
        let note = &header.program_headers(LE, core.head()).unwrap()[0];
        assert!(note.notes(LE, core.head()).unwrap().is_some());
    }

    #[test]
    fn any_part_reads_as_the_whole_does() {
        let core = Core::of(&process(), None, b"", &Kept::default());
        let memory = |address: u64, buf: &mut [u8]| {
            for (at, byte) in (address..).zip(buf) {
                *byte = (at >> 12).to_le_bytes()[0] | (at.to_le_bytes()[0] & 0xf0);
            }
            Ok::<(), Infallible>(())
        };
        let whole = |offset: u64, len: usize| {
            let mut buf = vec![0xee; len];
            let Ok(read) = core.read_at(offset, &mut buf, memory);
            buf.truncate(read);
            buf
        };
        let all = whole(0, 1 << 20);
        assert_eq!(all.len() as u64, core.len());
        assert_eq!(all[..core.head().len()], *core.head());
        let load = core.loads()[1];
        assert_eq!(all[usize::try_from(load.offset).unwrap() + 0x10], 0x13);
        for offset in (0..all.len() + 64).step_by(77) {
            let expected = all.get(offset..).unwrap_or_default();
            let part = whole(offset as u64, 5000);
            assert_eq!(part, expected[..expected.len().min(5000)], "{offset}");
        }
    }

    #[test]
    fn more_mappings_than_a_header_counts() {
        let mut process = process();
        let one = process.mappings[2].clone();
        process.mappings = vec![one; 70_000];
        let core = Core::of(&process, None, b"", &Kept::default());
        let header = FileHeader64::<LE>::parse(core.head()).unwrap();
        let count = header.program_headers(LE, core.head()).unwrap().len();
        assert_eq!(count, 70_001);
    }
}
