//! Two checkpoints compared.

use clap::Args;
use introspect::{Difference, Limits};
use libsls::EpochRef;
use libsls::compare::{Pair, differing_pages, pairs, touched, typed_difference};
use libsls::record::{File, Mapping, Process, Thread};
use libsls::view::CheckpointView;
use serde_json::{Value as Json, json};

use crate::arguments::ProcessArg;
use crate::diff_text::{self, Sides};
use crate::look::Histories;
use crate::memory::file_json;
use crate::progress::Shown;
use crate::session::{Outcome, Session};

/// Show what differs between two checkpoints: variables, threads, descriptors, mappings, pages
///
/// Variables are globals, locals of the frames that both have, and what their pointers and containers reach; each part
/// that differs is named by an expression. A part that one side lacks has null there.
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl diff @3 @7 --exit-code")]
pub struct Diff {
    /// The older checkpoint
    #[arg(value_name = "@A")]
    old: EpochRef,
    /// The newer one
    #[arg(value_name = "@B")]
    new: EpochRef,
    /// Variables by type (the default)
    #[arg(long, conflicts_with_all = ["pages", "all"])]
    types: bool,
    /// Pages instead of variables
    #[arg(long, conflicts_with = "all")]
    pages: bool,
    /// Variables and pages
    #[arg(long)]
    all: bool,
    /// Exit with 3 when something differs
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    which: ProcessArg,
    /// Show up to N elements of a container
    #[arg(long, value_name = "N", default_value_t = Limits::default().elements)]
    max: usize,
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
        let programs = Histories::default();
        let pages = differing_pages(&a, &b)?;
        let typed = if self.pages {
            Difference::default()
        } else {
            typed_difference(&programs, &a, &b, &touched(&a, &b, &pages))
        };
        let differences = Differences {
            typed,
            pages: if self.pages || self.all {
                pages
            } else {
                Vec::new()
            },
            threads: pairs(&a.process().threads, &b.process().threads, |t| t.tid),
            fds: files(a.process(), b.process()),
            maps: mappings(a.process(), b.process()),
        };
        drop(shown);
        session.answer(&differences.json(self.max), |paint| {
            diff_text::text(&differences, &Sides::new(&programs, &a, &b), paint)
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
    pub typed: Difference,
    pub pages: Vec<(u64, u64)>,
    pub threads: Vec<Pair<'a, Thread>>,
    pub fds: Vec<Json>,
    pub maps: Vec<Json>,
}

impl Differences<'_> {
    pub fn is_empty(&self) -> bool {
        self.typed.changes.is_empty()
            && self.pages.is_empty()
            && self.threads.is_empty()
            && self.fds.is_empty()
            && self.maps.is_empty()
    }

    fn json(&self, max: usize) -> Json {
        let page =
            |(start, count): &(u64, u64)| json!({"start": format!("{start:#x}"), "count": count});
        let changes = self.typed.changes.iter();
        json!({
            "changes": changes.map(|change| change.to_json(max)).collect::<Vec<_>>(),
            "pages": self.pages.iter().map(page).collect::<Vec<_>>(),
            "threads": self.threads.iter().filter_map(thread_json).collect::<Vec<_>>(),
            "fds": self.fds,
            "maps": self.maps,
            "cut": self.typed.cut,
        })
    }
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
    fn shape_of_the_contract() {
        let typed = Difference {
            changes: vec![introspect::Change {
                path: "x".into(),
                old: Some(introspect::Value::Signed(1)),
                new: None,
            }],
            cut: false,
        };
        let differences = Differences {
            typed,
            pages: vec![(0x1000, 2)],
            threads: vec![],
            fds: vec![],
            maps: vec![],
        };
        let expected = r#"{"changes":[{"path":"x","change":"removed","old":1,"new":null}],"pages":[{"start":"0x1000","count":2}],"threads":[],"fds":[],"maps":[],"cut":false}"#;
        assert_eq!(differences.json(9).to_string(), expected);
        assert!(!differences.is_empty());
    }
}
