//! The history: a bar of dirty pages a checkpoint, where one is, and its figures.

use std::collections::HashSet;

use libsls::protocol::HistoryRow;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::tree::tree;
use super::{Canvas, lines};
use crate::layout::centred;
use crate::model::Model;
use crate::place::Tab;
use crate::table::contains;
use crate::text::{seconds, size};

const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// Rows under the bars: marks, and the figures of the one looked at.
const TEXT_ROWS: u16 = 2;
/// Bars are no higher where a list fits below.
const BARS_BEFORE_LIST: u16 = 6;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = model.checkpoints();
    if rows.is_empty() {
        canvas.line(
            area,
            &[(
                " no checkpoint yet: the first is on its way",
                canvas.theme.dim(),
            )],
        );
        return;
    }
    let listed = area.height > BARS_BEFORE_LIST + TEXT_ROWS + 3;
    let bars = if listed {
        BARS_BEFORE_LIST
    } else {
        area.height.saturating_sub(TEXT_ROWS).max(1)
    };
    let selected = nearest(model);
    let first = first(model, area.width);
    let end = rows.len().min(first + usize::from(area.width));
    let shown = Shown {
        rows: &rows[first..end],
        line: own_line(model),
        most: rows.iter().map(|row| row.pages).max().unwrap_or(0),
    };
    shown.bars(
        canvas,
        Rect {
            height: bars,
            ..area
        },
    );
    let mut below = lines(area).skip(usize::from(bars));
    if let Some(marks) = below.next() {
        shown.marks(model, canvas, marks);
    }
    if let Some(figures) = below.next() {
        describe(model, canvas, figures, selected);
    }
    let list: Vec<Rect> = below.collect();
    if listed {
        draw_list(model, canvas, &list, selected);
    }
}

/// The first checkpoint that a timeline so wide shows.
pub fn first(model: &Model, width: u16) -> usize {
    centred(nearest(model), model.checkpoints().len(), width)
}

fn nearest(model: &Model) -> usize {
    let rows = model.checkpoints();
    model.position(model.at).unwrap_or_else(|| {
        rows.partition_point(|row| row.epoch < model.at)
            .min(rows.len().saturating_sub(1))
    })
}

/// The checkpoints from which the present came.
fn own_line(model: &Model) -> HashSet<u64> {
    let line = model.history.as_ref().map(|history| history.line_to_head());
    line.into_iter().flatten().map(|row| row.epoch).collect()
}

struct Shown<'a> {
    rows: &'a [HistoryRow],
    line: HashSet<u64>,
    most: u64,
}

impl Shown<'_> {
    fn bars(&self, canvas: &mut Canvas<'_>, area: Rect) {
        for (x, row) in (area.x..area.right()).zip(self.rows) {
            let eighths = height(row.pages, self.most, area.height);
            for (up, y) in (area.y..area.bottom()).rev().enumerate() {
                let here = eighths.saturating_sub(up * 8).min(8);
                canvas
                    .buffer
                    .set_string(x, y, EIGHTHS[here], self.style(canvas, row));
            }
        }
    }

    /// Other futures are dim.
    fn style(&self, canvas: &Canvas<'_>, row: &HistoryRow) -> Style {
        if self.line.contains(&row.epoch) {
            canvas.theme.bar()
        } else {
            canvas.theme.dim()
        }
    }

    fn marks(&self, model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
        let base = model.base_epoch();
        let theme = canvas.theme;
        for (at, (x, row)) in (area.x..area.right()).zip(self.rows).enumerate() {
            let forks = at > 0 && row.parent != Some(self.rows[at - 1].epoch);
            let letter = model
                .bookmark_at(row.epoch)
                .map(|mark| mark.letter.to_string());
            let (mark, style) = match (&letter, &row.name) {
                _ if row.epoch == model.at => ("▲", theme.current()),
                _ if Some(row.epoch) == base => ("d", theme.changed()),
                (Some(letter), _) => (letter.as_str(), theme.current()),
                (None, Some(_)) => ("n", theme.name()),
                _ if forks => ("├", theme.name()),
                _ if self.line.contains(&row.epoch) => ("─", theme.dim()),
                _ => ("╌", theme.dim()),
            };
            canvas.buffer.set_string(x, area.y, mark, style);
        }
    }
}

/// In eighths of a row; logarithmic, since a burst is a thousand times a trickle.
fn height(pages: u64, most: u64, rows: u16) -> usize {
    let bits = |pages: u64| {
        let pages = pages.min(1 << 50) + 1;
        u64::from(pages.ilog2()) * 8 + ((pages * 8) >> pages.ilog2()) - 8
    };
    let full = u64::from(rows) * 8;
    let share = bits(pages) * full / bits(most).max(1);
    usize::try_from(share.min(full)).unwrap_or(0).max(1)
}

fn describe(model: &Model, canvas: &mut Canvas<'_>, area: Rect, selected: usize) {
    let rows = model.checkpoints();
    let (Some(row), Some(first)) = (rows.get(selected), rows.first()) else {
        return;
    };
    let theme = canvas.theme;
    let kept = if row.epoch == model.at {
        format!(" @{}", row.epoch)
    } else {
        format!(" @{} is no longer kept; @{}", model.at, row.epoch)
    };
    let name = row
        .name
        .as_deref()
        .map(|name| format!(" \"{name}\""))
        .unwrap_or_default();
    let figures = format!(
        "  +{}  {} pages  {}  stop {} us  branch {}  {} checkpoints",
        seconds(row.time.saturating_sub(first.time)),
        row.pages,
        size(row.bytes),
        row.stop_us,
        row.branch,
        rows.len(),
    );
    canvas.line(
        area,
        &[
            (&kept, theme.group()),
            (&name, theme.name()),
            (&figures, theme.plain()),
        ],
    );
}

fn draw_list(model: &Model, canvas: &mut Canvas<'_>, area: &[Rect], selected: usize) {
    let Some((head, area)) = area.split_first() else {
        return;
    };
    let theme = canvas.theme;
    let rows = model.checkpoints();
    let tree = tree(rows);
    let lanes = tree
        .iter()
        .map(|lanes| lanes.chars().count())
        .max()
        .unwrap_or(1);
    let columns = format!(
        "   {:lanes$}   epoch   parent  branch          time    pages    bytes  stop us  name",
        ""
    );
    canvas.line(*head, &[(&columns, theme.group())]);
    let start = rows.first().map_or(0, |row| row.time);
    let filter = model.filter(Tab::Timeline);
    let fits = |row: &HistoryRow| {
        let text = format!(
            "@{} {} {}",
            row.epoch,
            row.branch,
            row.name.as_deref().unwrap_or_default()
        );
        filter.is_empty() || contains(&text, filter)
    };
    let fitting: Vec<usize> = (0..rows.len()).filter(|at| fits(&rows[*at])).collect();
    let place = fitting.partition_point(|at| *at < selected);
    let height = u16::try_from(area.len()).unwrap_or(u16::MAX);
    let first = centred(
        place.min(fitting.len().saturating_sub(1)),
        fitting.len(),
        height,
    );
    for (number, area) in fitting.iter().skip(first).zip(area) {
        let row = &rows[*number];
        let parent = row
            .parent
            .map(|parent| format!("@{parent}"))
            .unwrap_or_default();
        let mark = match model.bookmark_at(row.epoch) {
            _ if row.epoch == model.at => '>',
            Some(mark) => mark.letter,
            None => ' ',
        };
        let graph = format!(" {mark} {:lanes$} ", tree[*number]);
        let line = format!(
            "{:>7} {parent:>8}  {:<8} {:>11} {:>8} {:>8} {:>8}  {}",
            format!("@{}", row.epoch),
            row.branch,
            seconds(row.time.saturating_sub(start)),
            row.pages,
            size(row.bytes),
            row.stop_us,
            row.name.as_deref().unwrap_or_default(),
        );
        let style = if *number == selected {
            theme.current()
        } else {
            theme.plain()
        };
        canvas.line(*area, &[(&graph, theme.bar()), (&line, style)]);
    }
}

#[cfg(test)]
mod tests {
    use super::height;

    #[test]
    fn more_pages_are_never_lower_and_the_most_is_full() {
        for rows in [1, 2, 6] {
            for most in [0u64, 1, 7, 1000, 1 << 40] {
                let mut last = 0;
                for pages in [0, 1, 2, 3, 5, 7, 8, 100, 999, 1000, 1 << 39, 1 << 40] {
                    if pages <= most {
                        let now = height(pages, most, rows);
                        assert!(now >= last.max(1) && now <= usize::from(rows) * 8);
                        last = now;
                    }
                }
                assert!(
                    most == 0 || last == usize::from(rows) * 8,
                    "{most} in {rows}"
                );
            }
        }
    }
}
