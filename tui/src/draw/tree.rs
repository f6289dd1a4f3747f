//! The history as a tree, a line a checkpoint: each branch has a lane, and begins beside the checkpoint it came from.

use std::collections::HashMap;

use libsls::protocol::HistoryRow;

/// Lanes drawn at most; further branches share the last.
const LANES: usize = 12;

/// The lanes beside each checkpoint.
pub fn tree(rows: &[HistoryRow]) -> Vec<String> {
    let ends = ends(rows);
    let branch_of: HashMap<u64, &str> = rows.iter().map(|row| (row.epoch, &*row.branch)).collect();
    let mut lanes: Vec<Option<&str>> = Vec::new();
    let mut drawn = Vec::with_capacity(rows.len());
    for row in rows {
        let lane_of = |branch: &str| lanes.iter().position(|lane| *lane == Some(branch));
        let known = lane_of(&row.branch);
        let parent = row
            .parent
            .and_then(|parent| branch_of.get(&parent).copied());
        let from = parent.filter(|_| known.is_none()).and_then(lane_of);
        let free = lanes.iter().position(Option::is_none);
        let own = known.or(free).unwrap_or(lanes.len()).min(LANES - 1);
        if own == lanes.len() {
            lanes.push(None);
        }
        lanes[own] = Some(&row.branch);
        let goes_on = |lane: Option<&str>| {
            lane.is_some_and(|branch| ends.get(branch).is_some_and(|end| *end > row.epoch))
        };
        let alive: Vec<bool> = lanes.iter().copied().map(goes_on).collect();
        drawn.push(line(&alive, own, from.filter(|from| *from != own)));
        for (lane, alive) in lanes.iter_mut().zip(alive) {
            if !alive {
                *lane = None;
            }
        }
    }
    drawn
}

/// The last checkpoint of each branch, or that of another one which begins at it.
fn ends(rows: &[HistoryRow]) -> HashMap<&str, u64> {
    let mut branch_of: HashMap<u64, &str> = HashMap::new();
    let mut ends: HashMap<&str, u64> = HashMap::new();
    for row in rows {
        branch_of.insert(row.epoch, &row.branch);
        ends.insert(&row.branch, row.epoch);
        if let Some(branch) = row.parent.and_then(|parent| branch_of.get(&parent)) {
            ends.insert(branch, row.epoch);
        }
    }
    ends
}

fn line(alive: &[bool], own: usize, from: Option<usize>) -> String {
    let other = from.unwrap_or(own);
    let between = other.min(own)..other.max(own);
    let mut text = String::new();
    for (at, alive) in alive.iter().enumerate() {
        text.push(match (alive, own > other) {
            _ if at == own => '●',
            (true, true) if at == other => '├',
            (true, false) if at == other => '┤',
            (false, true) if at == other => '╰',
            (false, false) if at == other => '╯',
            _ if between.contains(&at) => '─',
            (true, _) => '│',
            (false, _) => ' ',
        });
        text.push(if between.contains(&at) { '─' } else { ' ' });
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_lanes() {
        let row = |(epoch, parent, branch): (u64, u64, &str)| HistoryRow {
            epoch,
            parent: Some(parent).filter(|parent| *parent > 0),
            branch: branch.into(),
            ..HistoryRow::default()
        };
        let rows = [
            (1, 0, "main"),
            (2, 1, "main"),
            (3, 2, "main"),
            (4, 2, "a"),
            (5, 4, "a"),
            (6, 1, "b"),
            (7, 6, "b"),
        ];
        let expected = ["●", "●", "●", "├─●", "│ ●", "╰─●", "  ●"];
        assert_eq!(tree(&rows.map(row)), expected);
    }
}
