//! At which addresses two checkpoints differ.

use std::collections::{BTreeMap, BTreeSet};

use introspect::{Difference, Programs, Touched};
use sls_record::{Backing, Mapping, Process};

use crate::client::ClientError;
use crate::protocol::{Answer, Request};
use crate::view::{CheckpointView, mapping_at, same_backing};

const PAGE: u64 = 4096;

/// Where the pages of a space appear: first page in the space, pages, first address.
type Places = BTreeMap<u32, BTreeSet<(u64, u64, u64)>>;

/// Runs of differing pages, first address and count, ascending. A page of a shared object appears wherever it is mapped.
///
/// # Errors
/// The daemon does not answer.
pub fn differing_pages(
    old: &CheckpointView,
    new: &CheckpointView,
) -> Result<Vec<(u64, u64)>, ClientError> {
    let mut places = Places::new();
    for process in [old.process(), new.process()] {
        for mapping in &process.mappings {
            if let Some((space, place)) = place(process, mapping) {
                places.entry(space).or_default().insert(place);
            }
        }
    }
    let mut addresses = BTreeSet::new();
    for (space, ranges) in places {
        let request = Request::DiffPages {
            part: Some(new.partition().to_owned()),
            from: old.epoch(),
            to: new.epoch(),
            space,
        };
        match new.client().borrow_mut().ask(&request)? {
            Answer::PageRuns(runs) => {
                for run in runs {
                    addresses.extend(ranges.iter().filter_map(|range| overlap(run, *range)));
                }
            }
            other => return Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }
    Ok(merged(addresses))
}

/// The addresses at which two checkpoints may differ: pages of other content, and other things mapped.
#[must_use]
pub fn touched(old: &CheckpointView, new: &CheckpointView, pages: &[(u64, u64)]) -> Touched {
    let pages = pages
        .iter()
        .map(|(start, count)| (*start, start.saturating_add(count.saturating_mul(PAGE))));
    Touched::new(pages.chain(remapped(old.process(), new.process())))
}

/// By the program of both; of two programs (an exec between them) no variable is the other's.
#[must_use]
pub fn typed_difference(
    programs: &Programs,
    old: &CheckpointView,
    new: &CheckpointView,
    touched: &Touched,
) -> Difference {
    if old.epoch() == new.epoch() {
        return Difference::default();
    }
    let (before, after) = (programs.of(old), programs.of(new));
    // A library that came or went leaves the rest where it was.
    let common = [&after, &before]
        .into_iter()
        .find(|program| program.covers(old) && program.covers(new));
    common.map_or_else(Difference::default, |program| {
        introspect::diff(program, old, new, touched)
    })
}

/// Something before and after; one of them may not be there.
pub type Pair<'a, T> = (Option<&'a T>, Option<&'a T>);

/// Pairs by key; equal ones are left out.
#[must_use]
pub fn pairs<'a, T: PartialEq, K: Ord>(
    old: &'a [T],
    new: &'a [T],
    key: impl Fn(&T) -> K,
) -> Vec<Pair<'a, T>> {
    let mut all: BTreeMap<K, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for one in old {
        all.entry(key(one)).or_default().0 = Some(one);
    }
    for one in new {
        all.entry(key(one)).or_default().1 = Some(one);
    }
    all.into_values().filter(|(a, b)| a != b).collect()
}

/// Addresses where one has a mapping that the other has not, or not the same.
fn remapped(old: &Process, new: &Process) -> Vec<(u64, u64)> {
    let edges = |process: &Process| {
        let both = |m: &Mapping| [m.start, m.end];
        process.mappings.iter().flat_map(both).collect::<Vec<_>>()
    };
    let mut cuts = edges(old);
    cuts.extend(edges(new));
    cuts.sort_unstable();
    cuts.dedup();
    let differs = |start: u64| match (mapping_at(old, start), mapping_at(new, start)) {
        (None, None) => false,
        (Some(a), Some(b)) => !same_backing((old, a), (new, b), start),
        _ => true,
    };
    cuts.windows(2)
        .filter(|pair| differs(pair[0]))
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

fn place(process: &Process, mapping: &Mapping) -> Option<(u32, (u64, u64, u64))> {
    let pages = mapping.len() / PAGE;
    match mapping.backing {
        Backing::Kernel => None,
        Backing::Shared { space } => Some((space, (mapping.offset / PAGE, pages, mapping.start))),
        Backing::Anonymous | Backing::File => {
            Some((process.space, (mapping.start / PAGE, pages, mapping.start)))
        }
    }
}

/// The part of a run that a mapping shows, as address and pages.
fn overlap(run: (u64, u64), (first, pages, address): (u64, u64, u64)) -> Option<(u64, u64)> {
    let start = run.0.max(first);
    let end = run.0.saturating_add(run.1).min(first.saturating_add(pages));
    (start < end).then(|| (address + (start - first) * PAGE, end - start))
}

/// Neighbours joined; what two mappings told twice is told once.
fn merged(runs: BTreeSet<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (start, count) in runs {
        let end = start + count * PAGE;
        match out.last_mut() {
            Some(last) if start <= last.0 + last.1 * PAGE => {
                last.1 = last.1.max((end - last.0) / PAGE);
            }
            _ => out.push((start, count)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_to_mappings_and_joined() {
        assert_eq!(overlap((10, 5), (0, 12, 0x10_0000)), Some((0x10_a000, 2)));
        assert_eq!(overlap((10, 5), (20, 4, 0)), None);
        let runs = BTreeSet::from([(0x1000, 2), (0x2000, 1), (0x3000, 1), (0x9000, 1)]);
        assert_eq!(merged(runs), [(0x1000, 3), (0x9000, 1)]);
    }

    #[test]
    fn what_is_mapped_otherwise_is_touched() {
        let mapping = |start, end, inode| Mapping {
            start,
            end,
            perms: Default::default(),
            offset: 0,
            dev: 0,
            inode,
            path: String::new(),
            backing: if inode == 0 {
                Backing::Anonymous
            } else {
                Backing::File
            },
            file_mtime_ns: 0,
            grows_down: false,
            locked: Default::default(),
            advice: Default::default(),
            key: 0,
        };
        let process = |mappings| Process {
            mappings,
            ..Process::default()
        };
        let old = process(vec![mapping(0x1000, 0x4000, 0), mapping(0x8000, 0x9000, 7)]);
        let new = process(vec![mapping(0x1000, 0x3000, 0), mapping(0x8000, 0x9000, 8)]);
        assert_eq!(remapped(&old, &new), [(0x3000, 0x4000), (0x8000, 0x9000)]);
        assert_eq!(remapped(&old, &old), []);
    }

    #[test]
    fn pairs_leave_out_what_is_equal() {
        let (old, new) = (
            [(1, 'a'), (2, 'b'), (3, 'c')],
            [(2, 'b'), (3, 'x'), (4, 'd')],
        );
        let differing = pairs(&old, &new, |one| one.0);
        let expected = vec![
            (Some(&old[0]), None),
            (Some(&old[2]), Some(&new[1])),
            (None, Some(&new[2])),
        ];
        assert_eq!(differing, expected);
    }
}
