//! The notes of a core, in the order in which the kernel writes them (fs/binfmt_elf.c,
//! fill_note_info): those of the thread that is shown first, of the process, and of the other threads.

use object::elf::{
    NT_AUXV, NT_FILE, NT_FPREGSET, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO, NoteHeader64,
};
use object::endian::{LittleEndian as LE, U32};
use object::pod::bytes_of;
use sls_record::{Event, Process, SigInfo, Thread};

/// XSAVE image; in include/uapi/linux/elf.h.
const NT_X86_XSTATE: u32 = 0x202;
/// The legacy part of an XSAVE image.
const FXSAVE: usize = 512;
const PAGE: u64 = 4096;
/// Bytes of a command line in struct elf_prpsinfo.
const ARGUMENTS: usize = 80;

pub fn all(process: &Process, event: Option<&Event>, arguments: &[u8]) -> Vec<u8> {
    let fatal = match event {
        Some(Event::Fatal { tid, info }) => Some((*tid, info)),
        _ => None,
    };
    let died = |t: &&Thread| fatal.is_some_and(|(tid, _)| tid == t.tid);
    let first = process.threads.iter().find(died);
    let first = first.or(process.threads.first());
    let mut notes = Notes(Vec::new());
    if let Some(thread) = first {
        let info = fatal.map(|(_, info)| info);
        notes.add(NT_PRSTATUS, &status(process, thread, info));
        notes.add(NT_PRPSINFO, &process_info(process, arguments));
        if let Some(SigInfo(info)) = info {
            notes.add(NT_SIGINFO, info);
        }
        notes.add(NT_AUXV, &auxv(process));
        notes.add(NT_FILE, &files(process));
        notes.add_vectors(thread);
    }
    let is_first = |t: &Thread| first.is_some_and(|first| first.tid == t.tid);
    for thread in process.threads.iter().filter(|t| !is_first(t)) {
        notes.add(NT_PRSTATUS, &status(process, thread, None));
        notes.add_vectors(thread);
    }
    notes.0
}

struct Notes(Vec<u8>);

impl Notes {
    fn add(&mut self, kind: u32, content: &[u8]) {
        self.add_as(b"CORE\0", kind, content);
    }

    /// Floating point and vector registers.
    fn add_vectors(&mut self, thread: &Thread) {
        if let Some(legacy) = thread.xstate.get(..FXSAVE) {
            self.add(NT_FPREGSET, legacy);
            self.add_as(b"LINUX\0", NT_X86_XSTATE, &thread.xstate);
        }
    }

    fn add_as(&mut self, owner: &[u8], kind: u32, content: &[u8]) {
        let word = |len: usize| U32::new(LE, u32::try_from(len).unwrap_or(u32::MAX));
        let header: NoteHeader64<LE> = NoteHeader64 {
            n_namesz: word(owner.len()),
            n_descsz: word(content.len()),
            n_type: U32::new(LE, kind),
        };
        self.0.extend_from_slice(bytes_of(&header));
        for part in [owner, content] {
            self.0.extend_from_slice(part);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
    }
}

/// struct elf_prstatus, 336 bytes; times are zero, a checkpoint has none.
fn status(process: &Process, thread: &Thread, info: Option<&SigInfo>) -> Vec<u8> {
    let signal = info.map_or(0, SigInfo::signo);
    let mut bytes = Vec::with_capacity(336);
    for word in [signal, 0, 0, signal & 0xffff] {
        bytes.extend(word.to_le_bytes());
    }
    let pending = thread.pending.iter().fold(0, |all, s| all | s.bit());
    bytes.extend(pending.to_le_bytes());
    bytes.extend(thread.sigmask.to_le_bytes());
    for id in [thread.tid, process.ppid, process.pgid, process.sid] {
        bytes.extend(id.to_le_bytes());
    }
    bytes.resize(bytes.len() + 4 * 16, 0);
    for word in thread.regs.words() {
        bytes.extend(word.to_le_bytes());
    }
    let floats = i32::from(thread.xstate.len() >= FXSAVE);
    bytes.extend(floats.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// struct elf_prpsinfo, 136 bytes.
fn process_info(process: &Process, arguments: &[u8]) -> Vec<u8> {
    let nice = process.threads.first().map_or(0, |t| t.scheduling.nice);
    let state = if process.stopped {
        (3, b'T')
    } else {
        (0, b'R')
    };
    let mut bytes = vec![state.0, state.1, 0, nice.to_le_bytes()[0], 0, 0, 0, 0];
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(process.attributes.uids[0].to_le_bytes());
    bytes.extend(process.attributes.gids[0].to_le_bytes());
    for id in [process.pid, process.ppid, process.pgid, process.sid] {
        bytes.extend(id.to_le_bytes());
    }
    bytes.extend(padded::<16>(process.comm.as_bytes()));
    let spaced = |byte: &u8| if *byte == 0 { b' ' } else { *byte };
    let line = arguments.strip_suffix(&[0]).unwrap_or(arguments);
    let line: Vec<u8> = line.iter().map(spaced).collect();
    bytes.extend(padded::<ARGUMENTS>(&line));
    bytes
}

/// Text that ends with a NUL within `N` bytes.
fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N - 1);
    field[..len].copy_from_slice(&text[..len]);
    field
}

fn auxv(process: &Process) -> Vec<u8> {
    let pairs = process.auxv.iter().flat_map(|&(key, value)| [key, value]);
    let ended = process.auxv.last().is_some_and(|&(key, _)| key == 0);
    let end = if ended { [].as_slice() } else { &[0, 0] };
    pairs
        .chain(end.iter().copied())
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Count, page size, (start, end, offset in pages) of each mapping of a file, and their names.
fn files(process: &Process) -> Vec<u8> {
    let named = |m: &&sls_record::Mapping| m.path.starts_with('/') && m.inode != 0;
    let maps: Vec<_> = process.mappings.iter().filter(named).collect();
    let rows = maps.iter().flat_map(|m| [m.start, m.end, m.offset / PAGE]);
    let words = [maps.len() as u64, PAGE].into_iter().chain(rows);
    let names = maps.iter().flat_map(|m| m.path.bytes().chain([0]));
    words.flat_map(u64::to_le_bytes).chain(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        let (process, thread) = (Process::default(), Thread::default());
        assert_eq!(status(&process, &thread, None).len(), 336);
        assert_eq!(process_info(&process, &[b'x'; 200]).len(), 136);
        assert_eq!(auxv(&process).len(), 16);
    }

    #[test]
    fn who_died_is_shown_first() {
        let thread = |tid| Thread {
            tid,
            ..Thread::default()
        };
        let process = Process {
            threads: vec![thread(5), thread(6)],
            ..Process::default()
        };
        let mut info = vec![0; 128];
        info[0] = 11;
        let event = Event::Fatal {
            tid: 6,
            info: SigInfo(info),
        };
        let notes = all(&process, Some(&event), b"");
        // Behind a header of 12 bytes and the owner's name, which takes 8.
        assert_eq!((notes[20], notes[20 + 12], notes[20 + 32]), (11, 11, 6));
    }
}
