//! A checkpoint's memory beside a core that gdb took at the same stop.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use introspect::View;
use libsls::Client;
use libsls::view::CheckpointView;
use object::read::elf::{FileHeader, ProgramHeader};

/// Compares every byte that the core has with the checkpoint; bytes compared.
///
/// # Panics
/// They differ, or either cannot be read.
#[must_use]
pub fn compare_with_core(socket: &Path, part: &str, epoch: u64, core: &Path) -> u64 {
    let client = Client::connect(socket).expect("a daemon");
    let client = Rc::new(RefCell::new(client));
    let view = CheckpointView::open(&client, part, epoch, None).expect("the checkpoint");
    let bytes = std::fs::read(core).expect("the core");
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes).expect("ELF");
    let endian = header.endian().expect("little endian");
    let mut compared = 0;
    for segment in header.program_headers(endian, &*bytes).expect("segments") {
        if segment.p_type(endian) != object::elf::PT_LOAD || segment.p_filesz(endian) == 0 {
            continue;
        }
        let start = segment.p_vaddr(endian);
        let wanted = segment.data(endian, &*bytes).expect("the segment");
        if is_kernels(&view, start) {
            continue;
        }
        compared += compare(&view, start, wanted, epoch);
    }
    compared
}

fn is_kernels(view: &CheckpointView, address: u64) -> bool {
    let maps = view.mappings();
    let map = maps.iter().find(|m| m.contains(address));
    map.is_some_and(|m| m.path.starts_with("[vvar") || m.path == "[vsyscall]")
}

fn compare(view: &CheckpointView, start: u64, wanted: &[u8], epoch: u64) -> u64 {
    let mut page = [0; 4096];
    for (i, want) in wanted.chunks(4096).enumerate() {
        let address = start + i as u64 * 4096;
        let got = &mut page[..want.len()];
        if let Err(why) = view.read(address, got) {
            panic!("@{epoch} {address:#x}: {why}; the core has it");
        }
        forget_rseq(view, address, got, want);
        if got != want {
            let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(0);
            let map = view.mappings().into_iter().find(|m| m.contains(address));
            let mut live = vec![0; want.len()];
            let memory = std::fs::File::open(format!("/proc/{}/mem", view.process().pid));
            let read = memory
                .and_then(|m| std::os::unix::fs::FileExt::read_exact_at(&m, &mut live, address));
            let live_is = match (&live[..] == want, &live[..] == got) {
                (true, _) => "as in the core",
                (_, true) => "as in the checkpoint",
                _ => "neither",
            };
            panic!(
                "@{epoch} differs from the core at {:#x}: {:x?} there, {:x?} in the core; the memory now is {live_is} ({read:?}); {map:x?}",
                address + at as u64,
                &got[at..(at + 32).min(got.len())],
                &want[at..(at + 32).min(want.len())],
            );
        }
    }
    wanted.len() as u64
}

/// The kernel writes a thread's rseq area (the CPU it is on) whenever the thread comes back from a
/// stop, gdb's included: it is not the program's own state.
fn forget_rseq(view: &CheckpointView, address: u64, got: &mut [u8], want: &[u8]) {
    for rseq in view.process().threads.iter().filter_map(|t| t.rseq) {
        for at in rseq.addr..rseq.addr + u64::from(rseq.size) {
            let offset = usize::try_from(at.wrapping_sub(address)).unwrap_or(usize::MAX);
            if let (Some(got), Some(want)) = (got.get_mut(offset), want.get(offset)) {
                *got = *want;
            }
        }
    }
}
