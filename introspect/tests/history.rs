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
    Context, History, Limits, Mapping, ReadSet, ThreadView, Unavailable, View, diff, timeline,
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
        &fixture.program,
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
        &fixture.program,
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
    let (fixture, history) = history();
    let context = Context::default();
    let rows = timeline(
        &fixture.program,
        &history,
        &context,
        "frame(inner).ratio",
        5..=9,
        true,
    )
    .unwrap();
    assert_eq!(rows.rows.len(), 1);
    assert_eq!(rows.evaluations, 1);
    let error = timeline(&fixture.program, &history, &context, "countr", 1..=3, false).unwrap_err();
    assert!(error.near.contains(&"counter".to_owned()));
}

#[test]
fn differences_are_named_and_padding_is_none() {
    let (fixture, history) = history();
    let none = |_: &ReadSet| false;
    let changes = diff(
        &fixture.program,
        history.get(9),
        history.get(20),
        &none,
        Limits { elements: 1500 },
    );
    let named: Vec<_> = changes
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
    // What the pages say saves decoding and changes nothing.
    let by_pages = |set: &ReadSet| history.unchanged(9, 20, set).unwrap();
    assert_eq!(
        diff(
            &fixture.program,
            history.get(9),
            history.get(20),
            &by_pages,
            Limits { elements: 1500 }
        ),
        changes
    );
    assert!(
        diff(
            &fixture.program,
            history.get(9),
            history.get(9),
            &none,
            Limits::default()
        )
        .is_empty()
    );
}
