//! Questions that only the history answers.

use std::time::{Duration, Instant};

use libsls::protocol::{Answer, History, HistoryRow, MAX_PAGES};
use libsls::record::Mapping;
use slos::{CheckpointInfo, Epoch, PageIndex, Partition, Presence, SpaceId};

use crate::part::Part;
use crate::registry::Refusal;
use libsls::protocol::Failure;

/// Most pages one question may compare.
const MOST_COMPARED: u64 = 1 << 20;
/// Between so many a checkpoint that waits to be entered into the history gets its turn.
const COMPARED_AT_ONCE: usize = 4096;
/// A walk along checkpoints ends after this, wherever it is then.
const WALK: Duration = Duration::from_millis(50);

fn read(error: slos::ReadError) -> Refusal {
    let kind = match error {
        slos::ReadError::NoEpoch(_) | slos::ReadError::NoSpace { .. } => Failure::NotFound,
        _ => Failure::Other,
    };
    Refusal::new(kind, error.to_string())
}

/// All checkpoints, by epoch. A parent that thinning took is replaced by the nearest kept one.
pub fn history(part: &Part) -> Result<History, Refusal> {
    let (branch, begins) = {
        let figures = part.figures();
        (figures.branch.clone(), figures.begins)
    };
    let infos = part.history.history().map_err(read)?;
    // Of this very list: a checkpoint that was taken since is not in it.
    let newest = infos.iter().rev().find(|info| *info.branch == *branch);
    let head = newest.map(|info| info.epoch).or(begins);
    let head = head.map_or(0, |epoch| epoch.0);
    Ok(History {
        partition: part.name.clone(),
        head,
        branch,
        checkpoints: rows(&part.history, infos),
    })
}

/// The history of a partition that only lies in a store.
pub fn stored(part: &Partition) -> Result<History, Refusal> {
    let infos = part.history().map_err(read)?;
    let newest = infos.last();
    Ok(History {
        partition: part.name().to_owned(),
        head: newest.map_or(0, |info| info.epoch.0),
        branch: newest.map_or("main", |info| &info.branch).to_owned(),
        checkpoints: rows(part, infos),
    })
}

fn rows(part: &Partition, infos: Vec<CheckpointInfo>) -> Vec<HistoryRow> {
    let mut checkpoints = Vec::with_capacity(infos.len());
    for info in infos {
        // It may be thinned between the two looks: then its own parent's number must do.
        let parent = part.ancestor(info.epoch).unwrap_or(info.parent);
        checkpoints.push(HistoryRow {
            epoch: info.epoch.0,
            parent: parent.map(|e| e.0),
            branch: info.branch.to_string(),
            name: info.name,
            time: info.time_ns,
            stop_us: info.stop_us,
            pages: info.pages,
            bytes: info.bytes,
            pids: info
                .meta
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        });
    }
    checkpoints
}

pub fn record(part: &Part, epoch: u64) -> Result<Answer, Refusal> {
    part.history
        .record(Epoch(epoch))
        .map(Answer::Record)
        .map_err(read)
}

/// Pages of one space, by runs.
pub fn pages(part: &Part, epoch: u64, space: u32, runs: &[(u64, u32)]) -> Result<Answer, Refusal> {
    let total: u64 = runs.iter().map(|r| u64::from(r.1)).sum();
    if total > u64::from(MAX_PAGES) {
        return Err(Refusal::new(
            Failure::Usage,
            format!("{total} pages asked for, {MAX_PAGES} are allowed at once"),
        ));
    }
    let indexes: Vec<PageIndex> = runs
        .iter()
        .flat_map(|&(first, count)| (0..u64::from(count)).map(move |i| first.saturating_add(i)))
        .map(PageIndex)
        .collect();
    let mut bytes = vec![0; indexes.len() * slos::PAGE];
    let presence = match part
        .history
        .read_pages(Epoch(epoch), SpaceId(space), &indexes, &mut bytes)
    {
        Err(slos::ReadError::NoSpace { .. }) => vec![Presence::Absent; indexes.len()],
        other => other.map_err(read)?,
    };
    let present: Vec<bool> = presence.iter().map(|p| *p == Presence::Present).collect();
    let mut at = 0;
    for (index, &here) in present.iter().enumerate() {
        if here {
            bytes.copy_within(index * slos::PAGE..(index + 1) * slos::PAGE, at);
            at += slos::PAGE;
        }
    }
    bytes.truncate(at);
    Ok(Answer::Pages { present, bytes })
}

/// How far along a line of checkpoints pages and mappings stay what they are at `from`.
///
/// Walking here spares the client a round trip and a record an epoch.
pub fn steady(
    part: &Part,
    pid: Option<i32>,
    (from, epochs): (u64, &[u64]),
    pages: &[(u32, u64, u64)],
) -> Result<Answer, Refusal> {
    let started = Instant::now();
    let mut before = from;
    let first = mappings(part, pid, from)?;
    let mut same = 0;
    for &epoch in epochs {
        if same > 0 && started.elapsed() > WALK {
            break;
        }
        if mappings(part, pid, epoch)? != first {
            let remapped = true;
            return Ok(Answer::Steady { same, remapped });
        }
        if any_changed(part, (before, epoch), pages)? {
            break;
        }
        before = epoch;
        same += 1;
    }
    let remapped = false;
    Ok(Answer::Steady { same, remapped })
}

/// Mappings of a process, None where it is not there.
fn mappings(
    part: &Part,
    pid: Option<i32>,
    epoch: u64,
) -> Result<Option<(u32, Vec<Mapping>)>, Refusal> {
    let bytes = part.history.record(Epoch(epoch)).map_err(read)?;
    let record = libsls::record::decode(&bytes)
        .map_err(|e| Refusal::other(format!("the record of @{epoch}: {e}")))?;
    Ok(record.process(pid).map(|p| (p.space, p.mappings)))
}

/// Has any of the pages another content at `to` than at `from`?
pub fn changed(
    part: &Part,
    range: (u64, u64),
    pages: &[(u32, u64, u64)],
) -> Result<Answer, Refusal> {
    any_changed(part, range, pages).map(Answer::Changed)
}

fn any_changed(
    part: &Part,
    (from, to): (u64, u64),
    pages: &[(u32, u64, u64)],
) -> Result<bool, Refusal> {
    let total = pages.iter().fold(0, |n: u64, p| n.saturating_add(p.2));
    if total > MOST_COMPARED {
        return Err(Refusal::new(
            Failure::Usage,
            format!("{total} pages to compare, {MOST_COMPARED} are allowed at once"),
        ));
    }
    for &(space, first, count) in pages {
        let end = first.saturating_add(count);
        for from_page in (first..end).step_by(COMPARED_AT_ONCE) {
            let until = end.min(from_page.saturating_add(COMPARED_AT_ONCE as u64));
            let some: Vec<PageIndex> = (from_page..until).map(PageIndex).collect();
            match (part.history).changed(Epoch(from), Epoch(to), SpaceId(space), &some) {
                Ok(false) => {}
                Ok(true) | Err(slos::ReadError::NoSpace { .. }) => return Ok(true),
                Err(error) => return Err(read(error)),
            }
        }
    }
    Ok(false)
}

/// Pages whose content differs, as runs.
pub fn diff_pages(part: &Part, (from, to): (u64, u64), space: u32) -> Result<Answer, Refusal> {
    let pages = part
        .history
        .diff_pages(Epoch(from), Epoch(to), SpaceId(space))
        .map_err(read)?;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.0 + run.1 == page.0 => run.1 += 1,
            _ => runs.push((page.0, 1)),
        }
    }
    Ok(Answer::PageRuns(runs))
}

/// The pages that a space has, as runs; none where there is no such space.
pub fn kept(part: &Part, epoch: u64, space: u32) -> Result<Answer, Refusal> {
    match part.history.page_ranges(Epoch(epoch), SpaceId(space)) {
        Err(slos::ReadError::NoSpace { .. }) => Ok(Answer::PageRuns(Vec::new())),
        Err(error) => Err(read(error)),
        Ok(ranges) => {
            let run = |r: std::ops::Range<PageIndex>| (r.start.0, r.end.0 - r.start.0);
            Ok(Answer::PageRuns(ranges.into_iter().map(run).collect()))
        }
    }
}
