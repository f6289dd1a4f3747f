//! Hashes of a process's memory, taken by the test itself and not by slsd.

use std::cell::RefCell;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use introspect::View;
use libsls::view::CheckpointView;
use libsls::{Client, ClientError};

const PAGE: usize = 4096;

/// One hash a readable page.
#[derive(Debug)]
pub struct Prints {
    epoch: u64,
    pages: Vec<(u64, u64)>,
}

impl Prints {
    /// Of a process that stands still; `epoch` is the checkpoint that was taken of it there.
    ///
    /// # Errors
    /// The checkpoint's record, which says what of the memory is the kernel's, cannot be had.
    pub fn of_process(
        pid: i32,
        socket: &Path,
        part: &str,
        epoch: u64,
    ) -> Result<Self, ClientError> {
        let view = open(socket, part, epoch)?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let memory = File::open(format!("/proc/{pid}/mem")).expect("the process is there");
        let mut pages = Vec::new();
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap_or_default();
            if rest.contains("[v") {
                continue; // The kernel's own.
            }
            let (start, end) = range.split_once('-').unwrap_or_default();
            let bound = |text| u64::from_str_radix(text, 16).unwrap_or(0);
            for address in (bound(start)..bound(end)).step_by(PAGE) {
                let mut page = [0; PAGE];
                // What cannot be read, such as a guard page, has nothing to compare.
                if memory.read_exact_at(&mut page, address).is_ok() {
                    pages.push((address, print(&view, address, &mut page)));
                }
            }
        }
        Ok(Self { epoch, pages })
    }

    /// Its checkpoint.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Pages that were hashed.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The first page that the checkpoint has otherwise.
    ///
    /// # Errors
    /// The checkpoint is not there any more, or nobody answers.
    pub fn differ(&self, socket: &Path, part: &str) -> Result<Option<String>, ClientError> {
        let view = open(socket, part, self.epoch)?;
        for &(address, known) in &self.pages {
            let mut page = [0; PAGE];
            if let Err(why) = view.read(address, &mut page) {
                return Ok(Some(format!("@{} {address:#x}: {why}", self.epoch)));
            }
            if print(&view, address, &mut page) != known {
                let map = view.mappings().into_iter().find(|m| m.contains(address));
                return Ok(Some(format!(
                    "@{} {address:#x} differs: {map:x?}",
                    self.epoch
                )));
            }
        }
        Ok(None)
    }
}

fn open(socket: &Path, part: &str, epoch: u64) -> Result<CheckpointView, ClientError> {
    let client = Rc::new(RefCell::new(Client::connect(socket)?));
    CheckpointView::open(&client, part, epoch, None)
}

/// The kernel writes a thread's rseq area whenever the thread comes back from a stop.
fn print(view: &CheckpointView, address: u64, page: &mut [u8; PAGE]) -> u64 {
    for rseq in view.process().threads.iter().filter_map(|t| t.rseq) {
        for at in rseq.addr..rseq.addr + u64::from(rseq.size) {
            let offset = usize::try_from(at.wrapping_sub(address)).unwrap_or(PAGE);
            if let Some(byte) = page.get_mut(offset) {
                *byte = 0;
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(page);
    hasher.finish()
}
