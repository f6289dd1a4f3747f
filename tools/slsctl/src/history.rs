//! The tree of checkpoints.

use std::collections::BTreeSet;

use clap::Args;
use libsls::protocol::{History as Tree, HistoryRow};
use serde_json::{Value as Json, json};

use crate::arguments::PartArg;
use crate::output::{Paint, Table, bytes, duration_ns, left, micros, now_ns, right};
use crate::session::{Outcome, Session};

/// List the checkpoints of a partition
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl history -o web")]
pub struct History {
    #[command(flatten)]
    part: PartArg,
}

impl History {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let tree = session.history(self.part.name().as_deref())?;
        session.answer(&tree_json(&tree), |paint| tree_text(&tree, now_ns(), paint))?;
        Ok(Outcome::Done)
    }
}

fn tree_json(tree: &Tree) -> Json {
    let row = |row: &HistoryRow| {
        json!({
            "epoch": row.epoch,
            "parent": row.parent,
            "branch": row.branch,
            "name": row.name,
            "time": row.time,
            "stop_us": row.stop_us,
            "pages": row.pages,
            "bytes": row.bytes,
            "pids": row.pids,
        })
    };
    json!({
        "partition": tree.partition,
        "head": tree.head,
        "branch": tree.branch,
        "checkpoints": tree.checkpoints.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The first column draws the tree: `>` the head, `*` what led to it, `.` futures left behind. A
/// parent is named where it is not the line above.
fn tree_text(tree: &Tree, now: u64, paint: Paint) -> String {
    if tree.checkpoints.is_empty() {
        return format!(
            "partition {} has no checkpoints yet; take one: slsctl checkpoint\n",
            tree.partition
        );
    }
    let line: BTreeSet<u64> = tree.line_to_head().iter().map(|row| row.epoch).collect();
    let mut table = Table::new([
        left(""),
        left("EPOCH").coloured(Paint::name),
        left("FROM").coloured(Paint::faint),
        left("BRANCH"),
        left("NAME").coloured(Paint::heading),
        right("AGE"),
        right("STOP"),
        right("PAGES"),
        right("BYTES"),
    ]);
    let mut above = None;
    for row in &tree.checkpoints {
        let mark = match row.epoch {
            epoch if epoch == tree.head => ">",
            epoch if line.contains(&epoch) => "*",
            _ => ".",
        };
        let fork = row.parent.filter(|parent| Some(*parent) != above);
        above = Some(row.epoch);
        table.row([
            mark.to_owned(),
            format!("@{}", row.epoch),
            fork.map_or(String::new(), |parent| format!("@{parent}")),
            row.branch.clone(),
            row.name.clone().unwrap_or_default(),
            duration_ns(now.saturating_sub(row.time)),
            micros(row.stop_us),
            row.pages.to_string(),
            bytes(row.bytes),
        ]);
    }
    table.text(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64, parent: Option<u64>, branch: &str) -> HistoryRow {
        HistoryRow {
            epoch,
            parent,
            branch: branch.into(),
            name: (epoch == 2).then(|| "before".into()),
            time: 1_000_000_000 * epoch,
            stop_us: 800,
            pages: 3,
            bytes: 12_288,
            pids: vec![7],
        }
    }

    fn tree() -> Tree {
        Tree {
            partition: "mem".into(),
            head: 4,
            branch: "b1".into(),
            checkpoints: vec![
                row(1, None, "main"),
                row(2, Some(1), "main"),
                row(3, Some(2), "main"),
                row(4, Some(2), "b1"),
            ],
        }
    }

    #[test]
    fn the_tree_is_drawn() {
        let expected = [
            "   EPOCH  FROM  BRANCH  NAME     AGE    STOP  PAGES  BYTES",
            "*  @1           main            9.0s  800 us      3  12.0K",
            "*  @2           main    before  8.0s  800 us      3  12.0K",
            ".  @3           main            7.0s  800 us      3  12.0K",
            ">  @4     @2    b1              6.0s  800 us      3  12.0K",
        ];
        let text = tree_text(&tree(), 10_000_000_000, Paint::PLAIN);
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn keys_of_the_contract() {
        let json = tree_json(&tree());
        assert_eq!(json["head"], 4);
        let keys: Vec<&String> = json["checkpoints"][0].as_object().unwrap().keys().collect();
        let contract = "epoch parent branch name time stop_us pages bytes pids";
        assert_eq!(keys, contract.split(' ').collect::<Vec<_>>());
    }
}
