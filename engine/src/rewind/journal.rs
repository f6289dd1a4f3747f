//! The journal of a rewind: both plans and all bytes they need, in one file that outlives slsd.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use slos::{Epoch, PageIndex, SpaceId};
use sls_keeper::{Agreement, Journal, Step};
use sls_record::{Backing, Process};
use sls_sys::RemoteMemory;

use crate::ahead::Ahead;
use crate::leftover;
use crate::plan::{Built, Ends};

const PAGE: u64 = sls_sys::PAGE;
const PAGE_BYTES: usize = slos::PAGE;

/// Where the bytes of each way come from.
pub struct Sources<'a> {
    pub ends: Ends<'a>,
    pub ahead: &'a Ahead,
    /// The stopped target: its memory is the present.
    pub memory: &'a RemoteMemory,
    pub present: &'a Process,
}

/// Both ways of one process.
pub struct Plans<'a> {
    /// Process and its start time in ticks.
    pub who: (i32, u64),
    pub forward: &'a Built,
    pub back: &'a Built,
    pub agreement: Option<Agreement>,
}

/// Writes the journal and opens it for the keeper.
pub fn write(path: &Path, sources: &Sources<'_>, plans: &Plans<'_>) -> io::Result<OwnedFd> {
    let Plans { forward, back, .. } = plans;
    let (pid, start_ticks) = plans.who;
    let ahead: u64 = forward.data.iter().map(|run| run.2 * PAGE).sum();
    let mut back_plan = back.plan.clone();
    for step in &mut back_plan.steps {
        if let Step::Write { offset, .. } | Step::Fill { offset, .. } = step {
            *offset += ahead;
        }
    }
    let journal = Journal {
        pid,
        start_ticks,
        forward: forward.plan.clone(),
        back: Some(back_plan),
        agreement: plans.agreement.clone(),
    };
    leftover::remove(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&sls_keeper::journal::head(&journal)?)?;
    for &run in &forward.data {
        sources.write_past(&mut out, run)?;
    }
    for &run in &back.data {
        sources.write_present(&mut out, run)?;
    }
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

impl Sources<'_> {
    fn write_past(
        &self,
        out: &mut impl Write,
        (space, first, count): (u32, u64, u64),
    ) -> io::Result<()> {
        for index in first..first + count {
            if let Some(bytes) = self.ahead.get(space, index) {
                out.write_all(&bytes[..])?;
                continue;
            }
            self.write_kept(out, self.ends.to, (space, index, 1))?;
        }
        Ok(())
    }

    /// From the target itself, which stands still: much cheaper than decoding what was just kept.
    fn write_present(
        &self,
        out: &mut impl Write,
        (space, first, count): (u32, u64, u64),
    ) -> io::Result<()> {
        let Some(address) = self.address(space, first, count) else {
            // Of a file that is not mapped.
            return self.write_kept(out, self.ends.from, (space, first, count));
        };
        let mut buffer = vec![0; sls_sys::size(count * PAGE)];
        self.memory.read_at(address, &mut buffer)?;
        out.write_all(&buffer)
    }

    fn write_kept(
        &self,
        out: &mut impl Write,
        epoch: Epoch,
        (space, first, count): (u32, u64, u64),
    ) -> io::Result<()> {
        let mut page = [0; PAGE_BYTES];
        for index in first..first + count {
            self.ends
                .partition
                .read_page(epoch, SpaceId(space), PageIndex(index), &mut page)
                .map_err(io::Error::other)?;
            out.write_all(&page)?;
        }
        Ok(())
    }

    fn address(&self, space: u32, first: u64, count: u64) -> Option<u64> {
        if space == self.present.space {
            return Some(first * PAGE);
        }
        let whole = |m: &&sls_record::Mapping| {
            m.backing == Backing::Shared { space }
                && m.offset <= first * PAGE
                && (first + count) * PAGE <= m.offset + m.len()
        };
        let map = self.present.mappings.iter().find(whole)?;
        Some(map.start + first * PAGE - map.offset)
    }
}
