//! The pages that differ: written, or given back where the other state has none.

use slos::{PageIndex, Presence, ReadError, SpaceId};
use sls_keeper::{Arg, Step, Want};
use sls_record::{Backing, Mapping, Process};

use super::common::Common;
use super::{Ends, NoPlan, Steps};
use crate::ranges::Range;
use crate::shared::is_memory_only;

const PAGE: u64 = sls_sys::PAGE;
const MADV_REMOVE: u64 = 9;
/// Linux 5.18: also where the program has locked its memory.
const MADV_DONTNEED_LOCKED: u64 = 24;

/// First page and count, and whether the destination has them.
type Run = ((u64, u64), bool);

/// Runs of pages whose bytes the journal carries: space, first page, count.
pub type Data = Vec<(u32, u64, u64)>;

/// Adds the steps; gives the data they refer to and the number of pages.
pub fn steps(
    steps: &mut Steps,
    ends: &Ends<'_>,
    from: &Process,
    to: &Process,
    fresh: &[Range],
    common: &mut Common,
) -> Result<(Data, u64), NoPlan> {
    let mut data = Data::new();
    let mut offset = 0;
    let mut pages = own_pages(ends, to, fresh)?;
    pages.retain(|p| mapping_at(to, p.0 * PAGE).is_some_and(|m| m.path != "[vdso]"));
    let mut count = pages.len() as u64;
    let space = to.space;
    for (run, present) in runs(ends, space, &pages)? {
        let address = run.0 * PAGE;
        let len = run.1 * PAGE;
        if present {
            steps.list.push(Step::Write {
                address,
                offset,
                len,
            });
            data.push((space, run.0, run.1));
            offset += len;
        } else if !inside(fresh, (address, address + len)) {
            give_back(steps, address, len, MADV_DONTNEED_LOCKED);
        }
    }
    for map in &to.mappings {
        if let Backing::Shared { space } = map.backing {
            let range = (map.offset, map.offset + map.len());
            if common.objects.has(space, range) {
                continue;
            }
            if map.perms.write && was_mapped(from, map) {
                common.objects.take(space, range);
            }
            count += shared(steps, ends, (from, to), map, space, &mut data, &mut offset)?;
        }
    }
    Ok((data, count))
}

/// Pages of the process's own that differ, and all that a newly mapped range must hold.
fn own_pages(ends: &Ends<'_>, to: &Process, fresh: &[Range]) -> Result<Vec<PageIndex>, ReadError> {
    let space = SpaceId(to.space);
    // By version, not by content: writing a page that is the same costs less than comparing it.
    let mut pages = ends.partition.touched_pages(ends.from, ends.to, space)?;
    if !fresh.is_empty() {
        let map = ends.partition.page_map(ends.to, space)?;
        for &(start, end) in fresh {
            let first = map.partition_point(|p| p.0 < start / PAGE);
            let inside = map[first..].iter().take_while(|p| p.0 < end / PAGE);
            pages.extend(inside.copied());
        }
        pages.sort_unstable();
        pages.dedup();
    }
    Ok(pages)
}

fn mapping_at(process: &Process, address: u64) -> Option<&Mapping> {
    let at = process.mappings.partition_point(|m| m.end <= address);
    process.mappings.get(at).filter(|m| m.start <= address)
}

fn inside(ranges: &[Range], range: Range) -> bool {
    ranges.iter().any(|r| r.0 <= range.0 && range.1 <= r.1)
}

/// Neighbouring pages of equal presence at the destination, as first page and count.
fn runs(ends: &Ends<'_>, space: u32, pages: &[PageIndex]) -> Result<Vec<Run>, ReadError> {
    let mut out: Vec<Run> = Vec::new();
    let presence = ends.partition.presence(ends.to, SpaceId(space), pages)?;
    for (page, presence) in pages.iter().zip(presence) {
        let present = presence == Presence::Present;
        match out.last_mut() {
            Some((run, same)) if *same == present && run.0 + run.1 == page.0 => run.1 += 1,
            _ => out.push(((page.0, 1), present)),
        }
    }
    Ok(out)
}

fn give_back(steps: &mut Steps, address: u64, len: u64, advice: u64) {
    let args = vec![address.into(), len.into(), Arg::Value(advice)];
    steps.call("give pages back", libc::SYS_madvise, args, Want::Success);
}

fn was_mapped(from: &Process, map: &Mapping) -> bool {
    let covers = |m: &Mapping| m.start <= map.start && map.end <= m.end;
    from.mappings.iter().any(covers)
}

/// One mapping of a shared object. Memory is put back; a file's content is named, never written.
fn shared(
    steps: &mut Steps,
    ends: &Ends<'_>,
    (from, to): (&Process, &Process),
    map: &Mapping,
    space: u32,
    data: &mut Data,
    offset: &mut u64,
) -> Result<u64, NoPlan> {
    let first = map.offset / PAGE;
    let last = first + map.len() / PAGE;
    let mut pages = match ends
        .partition
        .diff_pages(ends.from, ends.to, SpaceId(space))
    {
        Err(ReadError::NoSpace { .. }) => ends.partition.page_map(ends.to, SpaceId(space))?,
        other => other?,
    };
    pages.retain(|p| (first..last).contains(&p.0));
    if pages.is_empty() {
        return Ok(0);
    }
    if to.files.iter().any(|f| f.content() == Some(space)) && !is_memory_only(&map.path) {
        return Ok(0); // Written by its descriptor.
    }
    if !is_memory_only(&map.path) {
        let line = format!("content of {} (shared mapping)", map.path);
        if !steps.not_restored.contains(&line) {
            steps.not_restored.push(line);
        }
        return Ok(0);
    }
    if !map.perms.write {
        return Ok(0); // Another mapping of the object writes it, or nobody here may.
    }
    let was_mapped = was_mapped(from, map);
    for (run, present) in runs(ends, space, &pages)? {
        let address = map.start + (run.0 - first) * PAGE;
        let len = run.1 * PAGE;
        if present {
            steps.list.push(Step::Write {
                address,
                offset: *offset,
                len,
            });
            data.push((space, run.0, run.1));
            *offset += len;
        } else if was_mapped {
            give_back(steps, address, len, MADV_REMOVE);
        }
    }
    Ok(pages.len() as u64)
}
