//! The store beside a naive model: a map of pages for every checkpoint.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic

mod workbench;

use std::collections::BTreeMap;

use proptest::prelude::*;
use slos::{Keep, Settings};
use workbench::{Bench, Content, Op, PageOp};

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        2 => Just(Content::Zero),
        3 => (0u64..4).prop_map(Content::Noise),
        3 => (0u64..4).prop_map(Content::Text),
        6 => (0u64..4, 0u16..4096, any::<u8>()).prop_map(|(s, at, b)| Content::Edit(s, at, b)),
        2 => (0u64..3, any::<u8>()).prop_map(|(s, b)| Content::Rewrite(s, b)),
    ]
}

fn page_op() -> impl Strategy<Value = PageOp> {
    prop_oneof![
        8 => (0u64..24, content()).prop_map(|(p, c)| PageOp::Write(p, c)),
        1 => (0u64..24, 1u64..8).prop_map(|(p, n)| PageOp::Unmap(p, n)),
        1 => (0u32..3, 0u32..3).prop_map(|(of, to)| PageOp::Fork(of, to)),
        1 => (0u32..3).prop_map(PageOp::Exec),
        1 => (0u32..3).prop_map(PageOp::Exit),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let ops = || proptest::collection::vec((0u32..3, page_op()), 0..12);
    prop_oneof![
        12 => ops().prop_map(Op::Commit),
        3 => (any::<prop::sample::Index>(), ops()).prop_map(|(at, ops)| Op::Branch(at, ops)),
        6 => any::<prop::sample::Index>().prop_map(Op::Drop),
        2 => any::<prop::sample::Index>().prop_map(Op::Name),
        1 => any::<prop::sample::Index>().prop_map(Op::Pin),
        1 => (1u64..6).prop_map(|n| Op::Settle(Keep::Last(n))),
        2 => Just(Op::Settle(Keep::All)),
        2 => (1u64..8).prop_map(Op::Churn),
        3 => Just(Op::Reopen),
    ]
}

const CASES: u32 = if cfg!(debug_assertions) { 12 } else { 400 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_checkpoint_reads_as_it_was_made(ops in proptest::collection::vec(op(), 1..60)) {
        let mut bench = Bench::new(None);
        for op in ops {
            bench.apply(&op);
        }
        bench.check_all();
        bench.reopen();
        bench.check_all();
    }

    #[test]
    fn a_page_without_readers_is_gone(ops in proptest::collection::vec(op(), 1..40)) {
        let mut bench = Bench::new(None);
        for op in ops {
            bench.apply(&op);
        }
        let report = bench.store().verify().unwrap();
        prop_assert!(report.is_clean(), "{:?}", report);
        bench.drop_all();
        let stats = bench.store().stats().unwrap();
        prop_assert_eq!(stats.versions, 0);
        prop_assert_eq!(stats.checkpoints, 0);
        prop_assert_eq!(stats.records, 0);
    }
}

#[test]
fn numbers_are_never_used_again() {
    let mut bench = Bench::new(None);
    let a = bench.commit_noise(1);
    let b = bench.commit_noise(2);
    bench.partition().drop_epoch(b).unwrap();
    bench.forget(b);
    bench.reopen();
    let c = bench.commit_noise(3);
    assert!(c > b && b > a);
}

#[test]
fn dropping_the_middle_keeps_the_original_parent_number() {
    let mut bench = Bench::new(None);
    let a = bench.commit_noise(1);
    let b = bench.commit_noise(2);
    let c = bench.commit_noise(3);
    bench.partition().drop_epoch(b).unwrap();
    bench.forget(b);
    let info = bench.partition().info(c).unwrap();
    assert_eq!(info.parent, Some(b));
    assert_eq!(bench.partition().ancestor(c).unwrap(), Some(a));
    bench.reopen();
    assert_eq!(bench.partition().info(c).unwrap(), info);
    bench.check_all();
}

/// A page that both children of a dropped checkpoint override was once kept when the one above
/// was dropped after it.
#[test]
fn what_a_joint_does_not_pass_on_is_let_go() {
    let mut bench = Bench::new(None);
    let write = |seed| (0, PageOp::Write(11, Content::Noise(seed)));
    let top = bench.commit(None, &[write(1)]);
    let joint = bench.commit(Some(top), &[]);
    bench.commit(Some(joint), &[write(2)]);
    bench.commit(Some(joint), &[write(3)]);
    for epoch in [joint, top] {
        bench.partition().drop_epoch(epoch).unwrap();
        bench.forget(epoch);
    }
    assert_eq!(bench.store().stats().unwrap().versions, 2);
    bench.check_all();
}

/// Catalogues grow rare as they grow large; until the next one, a segment may hold the only copy
/// of a mark, however dead the rest of it is.
#[test]
fn marks_outlive_the_pages_around_them() {
    let mut bench = Bench::new(None);
    for n in 0..120 {
        let epoch = bench.commit_noise(n % 4);
        let name = Some(format!("{n} {}", "long ".repeat(60)));
        bench.partition().set_name(epoch, name.clone()).unwrap();
        bench.model.get_mut(&epoch).unwrap().name = name;
    }
    bench.reopen();
    for round in 0..12 {
        bench.apply(&Op::Churn(1));
        let named = *bench.model.keys().nth(round * 5).unwrap();
        let name = Some(format!("renamed in round {round}"));
        bench.partition().set_name(named, name.clone()).unwrap();
        bench.model.get_mut(&named).unwrap().name = name;
        bench.apply(&Op::Churn(3));
        bench.reopen();
        bench.check_history();
    }
}

#[test]
fn partitions_of_one_store_do_not_mix() {
    let mut bench = Bench::new(None);
    let a = bench.commit_noise(1);
    let other = bench
        .store()
        .add_partition("other", Settings::default())
        .unwrap();
    assert!(other.history().unwrap().is_empty());
    bench.store().remove_partition("other").unwrap();
    assert!(other.history().is_err());
    // A handle keeps the store open.
    drop(other);
    bench.reopen();
    let names: BTreeMap<_, _> = bench
        .store()
        .partitions()
        .unwrap()
        .into_iter()
        .map(|p| (p.name, p.checkpoints))
        .collect();
    assert_eq!(names, BTreeMap::from([("p".to_owned(), 1)]));
    assert_eq!(bench.partition().newest().unwrap(), Some(a));
}
