//! Where the log ends on a medium of slots, whose last writes may have come to it in any order.
//!
//! Everything before the newest note of a flush lasts, and is damaged where it is not there. Of what
//! was written after it, the records up to the first that is missing count; nobody was told of the
//! others. They are wiped out, since their numbers are given again.

use std::collections::BTreeSet;

use crate::error::OpenError;
use crate::format::{RECORD_HEADER, RecordType, SEGMENT_HEADER};
use crate::medium::Medium;
use crate::scan::{Found, Identity, Scanned, scan};

/// What was found at the end.
pub(crate) struct Settled {
    pub found: Vec<Found>,
    pub torn_bytes: u64,
    /// The lsn that comes next.
    pub next_lsn: u64,
}

/// One segment that may hold records of after the flush.
struct Late {
    found: Found,
    first_lsn: u64,
    /// Every record's lsn, and where it ends.
    records: Vec<(u64, u64)>,
    scanned: Scanned,
}

pub(crate) fn settle(
    medium: &dyn Medium,
    mut found: Vec<Found>,
    identity: &Identity,
) -> Result<Settled, OpenError> {
    let headers = || found.iter().filter_map(|f| f.header.as_ref().ok());
    let mut flushed = headers().map(|h| h.durable).max().unwrap_or(0).max(1);
    let early = headers().take_while(|h| h.first_lsn <= flushed).count();
    let late = found.split_off(early.saturating_sub(1));
    let mut lsns = BTreeSet::new();
    let mut segments = Vec::new();
    for found in late {
        segments.push(look(found, identity, &mut lsns, &mut flushed)?);
    }
    let mut next_lsn = flushed;
    while lsns.contains(&next_lsn) {
        next_lsn += 1;
    }
    let mut torn_bytes = 0;
    for late in segments {
        let (gone, kept) = wipe(medium, late, next_lsn)?;
        torn_bytes += gone;
        found.extend(kept);
    }
    if torn_bytes > 0 {
        medium
            .sync()
            .map_err(|e| OpenError::Write(crate::WriteError::Flush(e)))?;
    }
    Ok(Settled {
        found,
        torn_bytes,
        next_lsn,
    })
}

fn look(
    found: Found,
    identity: &Identity,
    lsns: &mut BTreeSet<u64>,
    flushed: &mut u64,
) -> Result<Late, OpenError> {
    let mut records = Vec::new();
    let scanned = scan(&found, identity, &mut Vec::new(), |record| {
        let lsn = record.header.lsn;
        records.push((lsn, u64::from(record.loc.offset + record.loc.length)));
        lsns.insert(lsn);
        if record.header.kind == RecordType::Flushed {
            *flushed = lsn.max(*flushed);
        }
    });
    let scanned = scanned.map_err(|source| OpenError::Segment {
        segment: found.id,
        source,
    })?;
    Ok(Late {
        first_lsn: found.header.as_ref().map_or(0, |h| h.first_lsn),
        found,
        records,
        scanned,
    })
}

/// Takes the records from `next_lsn` on out of a segment, or all of it; how many bytes went.
fn wipe(medium: &dyn Medium, late: Late, next_lsn: u64) -> Result<(u64, Option<Found>), OpenError> {
    let id = late.found.id;
    let failed = |source| OpenError::Segment {
        segment: id,
        source,
    };
    let kept = late.records.iter().filter(|(lsn, _)| *lsn < next_lsn);
    let end = kept.map(|(_, end)| *end).max();
    let end = end.unwrap_or(SEGMENT_HEADER as u64);
    let last = late.records.last().map_or(end, |(_, end)| *end);
    if late.first_lsn >= next_lsn {
        drop(late.found);
        medium.remove(id).map_err(failed)?;
        return Ok((last.max(1), None));
    }
    // A header whose payload did not come could be taken for damage later.
    let half = late.scanned.damaged_tail.is_some() && late.scanned.last_lsn + 1 == next_lsn;
    if last == end && !half {
        return Ok((0, Some(late.found)));
    }
    late.found.file.truncate(end).map_err(failed)?;
    Ok(((last - end).max(RECORD_HEADER as u64), Some(late.found)))
}
