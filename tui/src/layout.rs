//! Which pane is where: for drawing, and to know what a mouse points at.

use ratatui::layout::{Constraint, Layout, Rect};

use crate::model::Model;
use crate::place::Pane;

/// From here on all panes are shown at once.
const WIDE: (u16, u16) = (120, 36);
const TIMELINE_ROWS: u16 = 6;
const MEMORY_COLUMNS: u16 = 80;
/// Fewer cannot be worked with.
pub const LEAST: (u16, u16) = (30, 8);

/// The lines above and below the panes, and what is between.
pub fn parts(area: Rect) -> [Rect; 3] {
    Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area)
}

/// The panes in sight on the terminal, as they are drawn.
pub fn areas(model: &Model) -> Vec<(Pane, Rect)> {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    panes(model, parts(area)[1])
}

/// Which panes are where in the middle of the screen.
pub fn panes(model: &Model, area: Rect) -> Vec<(Pane, Rect)> {
    let focus = model.focus;
    if model.zoomed {
        return vec![(focus, area)];
    }
    let [timeline, rest] =
        Layout::vertical([Constraint::Length(TIMELINE_ROWS), Constraint::Min(0)]).areas(area);
    let mut panes = vec![(Pane::Timeline, timeline)];
    if area.width >= WIDE.0 && area.height + 2 >= WIDE.1 {
        let right = MEMORY_COLUMNS.max(area.width / 2);
        let columns = Layout::horizontal([Constraint::Min(0), Constraint::Length(right)]);
        let [left, right] = columns.areas(rest);
        let halves = |area| {
            Layout::vertical([Constraint::Percentage(40), Constraint::Percentage(60)])
                .areas::<2>(area)
        };
        let [threads, variables] = halves(left);
        let [source, memory] = halves(right);
        panes.extend([
            (Pane::Threads, threads),
            (Pane::Variables, variables),
            (Pane::Source, source),
            (Pane::Memory, memory),
        ]);
        return panes;
    }
    // Variables and memory share a place: memory has it while it is used.
    let lower = if focus == Pane::Memory {
        Pane::Memory
    } else {
        Pane::Variables
    };
    let rows = Layout::vertical([Constraint::Percentage(45), Constraint::Percentage(55)]);
    let [upper_area, lower_area] = rows.areas(rest);
    let columns = Layout::horizontal([Constraint::Percentage(42), Constraint::Percentage(58)]);
    let [threads, source] = columns.areas(upper_area);
    panes.extend([
        (Pane::Threads, threads),
        (Pane::Source, source),
        (lower, lower_area),
    ]);
    panes
}

/// What is inside a pane's border.
pub fn inside(area: Rect) -> Rect {
    Rect {
        x: area.x.saturating_add(1),
        y: area.y.saturating_add(1),
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(2),
    }
}

/// The first row to show: as before where the selected one is in sight, else as little further as brings it there.
pub fn first_shown(before: usize, selected: usize, count: usize, height: u16) -> usize {
    let height = usize::from(height).max(1);
    let lowest = selected.saturating_sub(height - 1);
    before
        .clamp(lowest, selected.max(lowest))
        .min(count.saturating_sub(height).max(lowest))
}

/// So that the selected row stands in the middle where possible.
pub fn centred(selected: usize, count: usize, height: u16) -> usize {
    let height = usize::from(height);
    let last = count.saturating_sub(height);
    selected.saturating_sub(height / 2).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_in_sight_and_nothing_moves_without_need() {
        assert_eq!(first_shown(5, 7, 100, 10), 5);
        assert_eq!(first_shown(5, 3, 100, 10), 3);
        assert_eq!(first_shown(5, 20, 100, 10), 11);
        assert_eq!(first_shown(50, 3, 4, 10), 0);
        assert_eq!(first_shown(95, 99, 100, 10), 90);
        assert_eq!(first_shown(0, 0, 0, 0), 0);
    }
}
