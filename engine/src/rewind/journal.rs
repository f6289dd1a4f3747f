//! The journal of a rewind: both plans and all bytes they need, in one file that outlives slsd.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use slos::{PageIndex, SpaceId};
use sls_keeper::{Journal, Step};

use super::plan::{Built, Ends};

const BATCH: u64 = 256;

/// Writes the journal and opens it for the keeper: length of the plans, the plans, page bytes.
pub fn write(
    path: &Path,
    ends: &Ends<'_>,
    (pid, start_ticks): (i32, u64),
    forward: &Built,
    back: &Built,
) -> io::Result<OwnedFd> {
    let ahead: u64 = forward.data.iter().map(|run| run.2 * sls_sys::PAGE).sum();
    let mut back_plan = back.plan.clone();
    for step in &mut back_plan.steps {
        if let Step::Write { offset, .. } = step {
            *offset += ahead;
        }
    }
    let journal = Journal {
        pid,
        start_ticks,
        forward: forward.plan.clone(),
        back: back_plan,
    };
    let bytes = postcard::to_stdvec(&journal).map_err(io::Error::other)?;
    remove(path);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&(bytes.len() as u64).to_le_bytes())?;
    file.write_all(&bytes)?;
    write_pages(&mut file, ends, forward)?;
    write_pages(&mut file, &ends.reversed(), back)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

fn write_pages(file: &mut File, ends: &Ends<'_>, built: &Built) -> io::Result<()> {
    let mut buffer = vec![0; sls_sys::size(BATCH * sls_sys::PAGE)];
    for &(space, first, count) in &built.data {
        let mut done = 0;
        while done < count {
            let n = BATCH.min(count - done);
            let pages: Vec<PageIndex> = (first + done..first + done + n).map(PageIndex).collect();
            let out = &mut buffer[..sls_sys::size(n * sls_sys::PAGE)];
            ends.partition
                .read_pages(ends.to, SpaceId(space), &pages, out)
                .map_err(io::Error::other)?;
            file.write_all(out)?;
            done += n;
        }
    }
    Ok(())
}

/// The rewind is over, one way or the other.
pub fn remove(path: &Path) {
    // Not there is as wanted; anything else is met again by the next rewind, by name.
    let _ = std::fs::remove_file(path);
}
