//! Two checkpoints compared.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use libsls::EpochRef;
use libsls::protocol::{Answer, Request};
use libsls::record::{Backing, File, Mapping, Process, Thread};
use libsls::view::CheckpointView;
use serde_json::{Value as Json, json};

use crate::arguments::ProcessArg;
use crate::diff_text::{self, Sides};
use crate::memory::file_json;
use crate::progress::Shown;
use crate::session::{Outcome, Session, out_of_turn};

const PAGE: u64 = 4096;

/// Show what differs between two checkpoints: pages, threads, descriptors, mappings
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl diff @3 @7 --pages")]
pub struct Diff {
    /// The older checkpoint
    #[arg(value_name = "@A")]
    old: EpochRef,
    /// The newer one
    #[arg(value_name = "@B")]
    new: EpochRef,
    /// By pages (the default)
    #[arg(long)]
    pages: bool,
    /// Exit with 3 when something differs
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    which: ProcessArg,
}

impl Diff {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let history = session.history(self.which.part.name().as_deref())?;
        let (old, new) = (self.old.resolve(&history)?, self.new.resolve(&history)?);
        let shown = Shown::waiting("diff");
        let open = |epoch| {
            CheckpointView::open(session.client()?, &history.partition, epoch, self.which.pid)
                .map_err(anyhow::Error::from)
        };
        let (a, b) = (open(old)?, open(new)?);
        let part = &history.partition;
        let differences = Differences {
            pages: page_runs(session, part, (old, new), (a.process(), b.process()))?,
            threads: pairs(&a.process().threads, &b.process().threads, |t| t.tid),
            fds: files(a.process(), b.process()),
            maps: mappings(a.process(), b.process()),
        };
        drop(shown);
        session.answer(&differences.json(), |paint| {
            diff_text::text(&differences, &Sides::new(&a, &b), paint)
        })?;
        Ok(if self.exit_code && !differences.is_empty() {
            Outcome::False
        } else {
            Outcome::Done
        })
    }
}

/// Everything that differs. Descriptors and mappings each as key, before and after.
pub struct Differences<'a> {
    pub pages: Vec<(u64, u64)>,
    pub threads: Vec<Pair<'a, Thread>>,
    pub fds: Vec<Json>,
    pub maps: Vec<Json>,
}

/// Something before and after; one of them may not be there.
pub type Pair<'a, T> = (Option<&'a T>, Option<&'a T>);

impl Differences<'_> {
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
            && self.threads.is_empty()
            && self.fds.is_empty()
            && self.maps.is_empty()
    }

    fn json(&self) -> Json {
        let page =
            |(start, count): &(u64, u64)| json!({"start": format!("{start:#x}"), "count": count});
        json!({
            "changes": [],
            "pages": self.pages.iter().map(page).collect::<Vec<_>>(),
            "threads": self.threads.iter().filter_map(thread_json).collect::<Vec<_>>(),
            "fds": self.fds,
            "maps": self.maps,
        })
    }
}

/// Where the pages of a space appear: first page in the space, pages, first address.
type Places = BTreeMap<u32, BTreeSet<(u64, u64, u64)>>;

/// Runs of differing pages by address. A page of a shared object appears wherever it is mapped.
fn page_runs(
    session: &Session,
    part: &str,
    (from, to): (u64, u64),
    (old, new): (&Process, &Process),
) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut places = Places::new();
    for process in [old, new] {
        for mapping in &process.mappings {
            if let Some((space, place)) = place(process, mapping) {
                places.entry(space).or_default().insert(place);
            }
        }
    }
    let mut addresses = BTreeSet::new();
    for (space, ranges) in places {
        let request = Request::DiffPages {
            part: Some(part.to_owned()),
            from,
            to,
            space,
        };
        match session.ask(&request)? {
            Answer::PageRuns(runs) => {
                for run in runs {
                    addresses.extend(ranges.iter().filter_map(|range| overlap(run, *range)));
                }
            }
            other => return Err(out_of_turn(&other)),
        }
    }
    Ok(merged(addresses))
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

fn change(key: Json, old: Option<Json>, new: Option<Json>) -> Json {
    let word = match (&old, &new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let mut json = key;
    json["change"] = json!(word);
    json["old"] = json!(old);
    json["new"] = json!(new);
    json
}

/// Pairs by key; equal ones are left out.
fn pairs<'a, T: PartialEq, K: Ord>(
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

/// The registers in which a thread differs from the other side, all where there is none.
fn differing(one: &Thread, other: Option<&Thread>) -> Vec<(&'static str, u64)> {
    let named = one.regs.named().into_iter();
    let Some(other) = other else {
        return named.collect();
    };
    let pairs = named.zip(other.regs.named());
    pairs.filter(|(a, b)| a != b).map(|(a, _)| a).collect()
}

fn thread_json(&(old, new): &Pair<Thread>) -> Option<Json> {
    let either = old.or(new)?;
    let key = json!({"tid": either.tid, "name": either.name});
    let side = |one: &Thread, other| {
        let regs: serde_json::Map<String, Json> = differing(one, other)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(format!("{value:#x}"))))
            .collect();
        json!({"name": one.name, "regs": regs, "blocked": one.blocked.map(|b| b.nr)})
    };
    Some(change(
        key,
        old.map(|one| side(one, new)),
        new.map(|one| side(one, old)),
    ))
}

fn files(old: &Process, new: &Process) -> Vec<Json> {
    pairs(&old.files, &new.files, |f: &File| f.fd)
        .into_iter()
        .filter_map(|(a, b)| {
            let key = json!({"fd": a.or(b)?.fd});
            Some(change(key, a.map(file_json), b.map(file_json)))
        })
        .collect()
}

fn mappings(old: &Process, new: &Process) -> Vec<Json> {
    pairs(&old.mappings, &new.mappings, |m: &Mapping| m.start)
        .into_iter()
        .filter_map(|(a, b)| {
            let key = json!({"start": format!("{:#x}", a.or(b)?.start)});
            let side = |m: &Mapping| json!({"end": format!("{:#x}", m.end), "perms": m.perms.to_string(), "offset": m.offset, "path": m.path});
            Some(change(key, a.map(side), b.map(side)))
        })
        .collect()
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

    #[test]
    fn shape_of_the_contract() {
        let differences = Differences {
            pages: vec![(0x1000, 2)],
            threads: vec![],
            fds: vec![],
            maps: vec![],
        };
        let expected = r#"{"changes":[],"pages":[{"start":"0x1000","count":2}],"threads":[],"fds":[],"maps":[]}"#;
        assert_eq!(differences.json().to_string(), expected);
        assert!(!differences.is_empty());
    }
}
