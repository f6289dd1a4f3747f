//! Timelines over a history of cores of one process: skipping must never change an answer.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use introspect::{
    BisectError, Bisection, Checker, Context, History, Mapping, PredicateError, Programs, ReadSet,
    ThreadView, Touched, Unavailable, View, bisect, blame, check, diff, timeline,
};
use serde_json::json;
use support::Fixture;

/// A core with some bytes changed on top.
#[derive(Clone)]
struct Patched {
    base: Rc<Fixture>,
    patches: BTreeMap<u64, u8>,
    gone: Option<u64>,
}

impl View for Patched {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        self.base.view.read(address, buf)?;
        for (index, byte) in buf.iter_mut().enumerate() {
            let at = address + index as u64;
            if self.gone == Some(at & !0xfff) {
                return Err(Unavailable::not_mapped(at));
            }
            if let Some(patch) = self.patches.get(&at) {
                *byte = *patch;
            }
        }
        Ok(())
    }
    fn threads(&self) -> Vec<ThreadView> {
        self.base.view.threads()
    }
    fn mappings(&self) -> Vec<Mapping> {
        self.base.view.mappings()
    }
}

struct Changes {
    epochs: Vec<Patched>,
    views: Cell<usize>,
}

impl Changes {
    fn get(&self, epoch: u64) -> &Patched {
        &self.epochs[epoch as usize - 1]
    }
}

impl History for Changes {
    fn epochs(&self) -> Vec<(u64, u64)> {
        (1..=self.epochs.len() as u64)
            .map(|epoch| (epoch, epoch * 1000))
            .collect()
    }
    fn view(&self, epoch: u64) -> Result<Box<dyn View>, Unavailable> {
        self.views.set(self.views.get() + 1);
        Ok(Box::new(self.get(epoch).clone()))
    }
    fn unchanged(&self, from: u64, to: u64, pages: &ReadSet) -> Result<bool, Unavailable> {
        let page = |view: &Patched, address: u64| {
            let mut bytes = vec![0; 4096];
            view.read(address, &mut bytes).map(|()| bytes).ok()
        };
        Ok(pages
            .pages()
            .all(|address| page(self.get(from), address) == page(self.get(to), address)))
    }
}

fn history() -> (Rc<Fixture>, Changes) {
    let fixture = Rc::new(Fixture::c("plain.c", &["-g", "-O0"], &[]));
    let counter = fixture.ask("&counter").value.to_json(1)["ptr"]
        .as_str()
        .map(|text| u64::from_str_radix(&text[2..], 16).unwrap())
        .unwrap();
    let elsewhere = fixture.ask("many[1200]").address.unwrap();
    let mut now = Patched {
        base: Rc::clone(&fixture),
        patches: BTreeMap::new(),
        gone: None,
    };
    let mut epochs = Vec::new();
    for epoch in 1..=40u64 {
        now.patches.insert(elsewhere, epoch as u8);
        if epoch % 10 == 0 {
            now.patches.insert(counter, epoch as u8);
        }
        let gone = (epoch == 35).then_some(counter & !0xfff);
        epochs.push(Patched {
            gone,
            ..now.clone()
        });
    }
    (
        fixture,
        Changes {
            epochs,
            views: Cell::new(0),
        },
    )
}

#[test]
fn only_changes_are_evaluated_and_none_is_missed() {
    let (fixture, history) = history();
    let context = Context::default();
    let rows = timeline(
        &Programs::default(),
        &history,
        &context,
        "counter * 2",
        1..=40,
        false,
    )
    .unwrap();
    assert_eq!(rows.rows.len(), 40);
    for row in &rows.rows {
        let straight = fixture
            .program
            .evaluate(history.get(row.epoch), &context, "counter * 2")
            .unwrap();
        assert_eq!(
            (&row.value, &row.text),
            (&straight.value, &straight.text),
            "epoch {}",
            row.epoch
        );
    }
    assert_eq!(
        rows.rows[34].value.to_json(1),
        json!({"unavailable": "not mapped"})
    );
    assert_eq!(rows.rows[39].value.to_json(1), json!(80));
    // One to start, four changes, one page that goes and comes back: 5 + 2 - 0.
    assert_eq!(rows.evaluations, 7);
    let changed = timeline(
        &Programs::default(),
        &history,
        &context,
        "counter",
        1..=40,
        true,
    )
    .unwrap();
    let epochs: Vec<u64> = changed.rows.iter().map(|row| row.epoch).collect();
    assert_eq!(epochs, [1, 10, 20, 30, 35, 36, 40]);
    assert_eq!(changed.rows[1].time, 10_000);
    assert_eq!(changed.type_name, "int");
}

#[test]
fn locals_follow_registers_and_names_without_meaning_are_errors() {
    let (_fixture, history) = history();
    let context = Context::default();
    let rows = timeline(
        &Programs::default(),
        &history,
        &context,
        "frame(inner).ratio",
        5..=9,
        true,
    )
    .unwrap();
    assert_eq!(rows.rows.len(), 1);
    assert_eq!(rows.evaluations, 1);
    let error = timeline(
        &Programs::default(),
        &history,
        &context,
        "countr",
        1..=3,
        false,
    )
    .unwrap_err();
    assert!(error.near.contains(&"counter".to_owned()));
}

#[test]
fn differences_are_named_and_padding_is_none() {
    let (fixture, history) = history();
    let (a, b) = (history.get(9), history.get(20));
    let found = diff(&fixture.program, a, b, &Touched::everything());
    let named: Vec<_> = found
        .changes
        .iter()
        .map(|change| {
            (
                change.path.as_str(),
                change.old.as_ref().map(introspect::Value::to_text),
                change.new.as_ref().map(introspect::Value::to_text),
            )
        })
        .collect();
    // Byte 0 of many[1200] = 1200 holds the epoch's number.
    let many = |epoch: i32| Some((1200 & !0xff | epoch).to_string());
    assert_eq!(
        named,
        [
            ("counter", Some("42".into()), Some("20".into())),
            ("many[1200]", many(9), many(20))
        ]
    );
    // What is known to be the same is not read, and changes nothing.
    let pages = [fixture.ask("&counter"), fixture.ask("&many[1200]")].map(|answer| {
        let text = answer.value.to_json(1)["ptr"].as_str().unwrap()[2..].to_owned();
        u64::from_str_radix(&text, 16).unwrap() & !0xfff
    });
    let touched = Touched::new(pages.map(|page| (page, page + 4096)));
    assert_eq!(diff(&fixture.program, a, b, &touched), found);
    assert_eq!(
        diff(&fixture.program, a, a, &Touched::everything()).changes,
        []
    );
}

fn turn(history: &Changes, expr: &str, path: &[u64]) -> Result<Bisection, BisectError> {
    bisect(
        &Programs::default(),
        history,
        &Context::default(),
        expr,
        path,
    )
}

#[test]
fn bisection_finds_where_a_predicate_turns_either_way() {
    let (_, history) = history();
    let path: Vec<u64> = (1..=34).collect();
    // 42 until @9, then 10, 20 and 30.
    let found = turn(&history, "counter == 42", &path).unwrap();
    assert_eq!((found.last_good, found.first_bad), (9, 10));
    assert_eq!(
        (found.good.text, found.bad.text),
        ("true".into(), "false".into())
    );
    assert!(found.evaluations <= 6, "{}", found.evaluations);
    let found = turn(&history, "counter == 30", &path).unwrap();
    assert_eq!((found.last_good, found.first_bad), (29, 30));
    let back: Vec<u64> = path.iter().rev().copied().collect();
    let found = turn(&history, "counter == 30", &back).unwrap();
    assert_eq!((found.last_good, found.first_bad), (30, 29));
    // What has not changed since an end answers as that end does.
    let found = turn(&history, "counter != 42", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).unwrap();
    assert_eq!((found.first_bad, found.evaluations), (10, 0));
}

#[test]
fn nine_hundred_checkpoints_take_ten_evaluations() {
    let (fixture, short) = history();
    let counter = fixture.ask("counter").address.unwrap();
    for first_bad in [2, 3, 451, 899, 900] {
        // It changes every time: nothing can be skipped.
        let epochs = (1..=900u64).map(|epoch| {
            let mut view = short.epochs[0].clone();
            let value = epoch + if epoch >= first_bad { 10_000 } else { 0 };
            for (at, byte) in (counter..).zip((value as u32).to_le_bytes()) {
                view.patches.insert(at, byte);
            }
            view
        });
        let long = Changes {
            epochs: epochs.collect(),
            views: Cell::new(0),
        };
        let path: Vec<u64> = (1..=900).collect();
        let found = turn(&long, "counter < 10000", &path).unwrap();
        assert_eq!(found.first_bad, first_bad);
        assert!(found.evaluations <= 10, "{}", found.evaluations);
    }
}

#[test]
fn bisection_says_what_cannot_be_searched() {
    let (_, history) = history();
    let path: Vec<u64> = (1..=40).collect();
    let same = turn(&history, "counter", &path).unwrap_err();
    assert!(matches!(
        same,
        BisectError::Same {
            truth: true,
            good: 1,
            bad: 40,
            ..
        }
    ));
    assert!(matches!(
        turn(&history, "first", &path),
        Err(BisectError::Predicate(PredicateError::Untold { .. }))
    ));
    assert!(matches!(
        turn(&history, "countr", &path),
        Err(BisectError::Predicate(PredicateError::Expr {
            epoch: 1,
            ..
        }))
    ));
    assert!(matches!(
        turn(&history, "counter", &[3]),
        Err(BisectError::NoPath)
    ));
    // @35 has no such page: the turn lies between @34 and @36, and that is said.
    let around = turn(&history, "counter == 30", &[34, 35, 40]).unwrap();
    assert_eq!(
        (around.last_good, around.first_bad, around.untold),
        (34, 40, vec![35])
    );
}

#[test]
fn blame_says_since_when_each_part_is_as_it_is() {
    let (_, history) = history();
    let asked = |expr: &str| {
        let programs = Programs::default();
        blame(&programs, &history, &Context::default(), expr, 1..=34).unwrap()
    };
    let found = asked("many[1199..1202]");
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| (row.path.as_str(), row.epoch))
        .collect();
    assert_eq!(
        rows,
        [
            ("many[1199..1202][0]", None),
            ("many[1199..1202][1]", Some(34)),
            ("many[1199..1202][2]", None)
        ]
    );
    let found = asked("counter");
    assert_eq!(
        (found.rows[0].epoch, found.rows[0].time),
        (Some(30), Some(30_000))
    );
    assert_eq!(found.rows[0].text, "30");
    let found = asked("first");
    let paths: Vec<_> = found.rows.iter().map(|row| row.path.as_str()).collect();
    assert_eq!(paths, ["first.value", "first.next", "first.label"]);
    assert!(found.rows.iter().all(|row| row.epoch.is_none()));
}

#[test]
fn assertions_name_the_first_breach() {
    let (_, history) = history();
    let asked = |expr: &str| {
        let mut checker = Checker::new(Programs::default(), Context::default(), expr);
        check(&mut checker, &history, 1..=40)
    };
    let broken = asked("counter >= 20").unwrap();
    assert_eq!((broken.checked, broken.evaluations), (10, 2));
    assert_eq!(broken.breach.unwrap().epoch, 10);
    // @35 cannot be read: neither kept nor broken.
    let kept = asked("counter > 5").unwrap();
    assert!(kept.breach.is_none());
    assert_eq!((kept.checked, kept.untold), (40, vec![35]));
    assert!(asked("countr").is_err() && asked("first").is_err());
}
