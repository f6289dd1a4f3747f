//! A history that has something of everything.

use proptest::prelude::*;
use slos::Keep;

use super::{Content, Op, PageOp};

/// A history with every encoding, forks, unmaps, drops and thinning.
pub fn script(rounds: u64) -> Vec<Op> {
    let index = |n: u64| prop::sample::Index::proptest_index(n);
    let mut ops = Vec::new();
    for n in 0..rounds {
        let write = |page, content| (0, PageOp::Write(page, content));
        ops.push(Op::Commit(vec![
            write(
                n % 7,
                Content::Edit(n % 7, (n * 97 % 4096) as u16, n as u8 | 1),
            ),
            write(7 + n % 3, Content::Rewrite(n % 2, n as u8)),
            write(10 + n % 5, Content::Text(n)),
            write(20, Content::Zero),
        ]));
        match n % 6 {
            1 => ops.push(Op::Commit(vec![
                (0, PageOp::Fork(0, 1)),
                (0, PageOp::Unmap(8, 4)),
            ])),
            2 => ops.push(Op::Name(index(n))),
            3 => ops.push(Op::Drop(index(n * 31))),
            4 => ops.push(Op::Branch(index(n * 17), vec![write(3, Content::Noise(n))])),
            5 if n % 12 == 5 => ops.push(Op::Settle(Keep::Last(6))),
            5 => ops.push(Op::Settle(Keep::All)),
            0 if n % 12 == 6 => ops.push(Op::Churn(5)),
            _ => {}
        }
    }
    ops
}

trait FixedIndex {
    fn proptest_index(n: u64) -> Self;
}

impl FixedIndex for prop::sample::Index {
    /// The index that a seed stands for, the same in every run.
    fn proptest_index(n: u64) -> Self {
        use proptest::strategy::{Strategy, ValueTree};
        use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        any::<prop::sample::Index>()
            .new_tree(&mut runner)
            .unwrap()
            .current()
    }
}
