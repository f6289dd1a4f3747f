//! Pages: a row a mapping, a cell a stretch of it, as bright as pages in it differ from the base.

use ratatui::layout::Rect;

use super::{Canvas, first_row, lines};
use crate::clerk::Content;
use crate::data::{Heat, HeatRow};
use crate::model::Model;
use crate::place::{Pane, Tab};
use crate::text::{file_name, size};

/// From no page to all of them; the first two are of pages that are not kept and that are.
const SHADES: [&str; 6] = [" ", "·", "░", "▒", "▓", "█"];
const LABEL: u16 = 34;
const PAGE: u64 = 4096;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let heat = match model.details.get(&Tab::Pages).map(|detail| &detail.content) {
        Some(Ok(Content::Heat(heat))) => heat,
        Some(Err(why)) => return canvas.line(area, &[(" ", theme.bad()), (why, theme.bad())]),
        _ => return canvas.line(area, &[(" loading", theme.dim())]),
    };
    let mut all = lines(area);
    if let Some(head) = all.next() {
        let text = head_of(heat);
        canvas.line(head, &[(&text, theme.dim())]);
    }
    let rest: Vec<Rect> = all.collect();
    let height = u16::try_from(rest.len()).unwrap_or(u16::MAX);
    let first = first_row(model, Tab::Pages, heat.rows.len(), height);
    let cursor = model.cursors.row(Tab::Pages);
    for ((at, row), area) in heat.rows.iter().enumerate().skip(first).zip(rest) {
        draw_row(row, canvas, area);
        if at == cursor && model.focus == Pane::Memory {
            canvas.mark(Rect {
                width: LABEL.min(area.width),
                ..area
            });
        }
    }
}

fn head_of(heat: &Heat) -> String {
    format!(
        " {} pages differ from the base; · kept, ░▒▓█ a part to all of a stretch differs",
        heat.touched
    )
}

fn draw_row(row: &HeatRow, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let label = if row.label.is_empty() {
        "anonymous"
    } else {
        file_name(&row.label)
    };
    let hot = !row.touched.is_empty();
    let text = format!(
        "{}{:x} {:>5} {label}",
        if hot { '*' } else { ' ' },
        row.start,
        size(row.pages.saturating_mul(PAGE)),
    );
    let style = if hot { theme.changed() } else { theme.plain() };
    canvas.line(
        Rect {
            width: LABEL.min(area.width),
            ..area
        },
        &[(&text, style)],
    );
    let room = area.width.saturating_sub(LABEL + 1);
    if room == 0 {
        return;
    }
    let cells = u64::from(room).min(row.pages.max(1));
    for cell in 0..cells {
        let (from, to) = (cell * row.pages / cells, ((cell + 1) * row.pages / cells));
        let all = (to - from).max(1);
        let touched = overlap(&row.touched, from, to);
        let shade = match touched {
            0 if overlap(&row.kept, from, to) == 0 => 0,
            0 => 1,
            some => usize::try_from(2 + some * 3 / all).unwrap_or(5).min(5),
        };
        let style = if touched > 0 {
            theme.changed()
        } else {
            theme.dim()
        };
        let x = area.x + LABEL + 1 + u16::try_from(cell).unwrap_or(0);
        canvas.buffer.set_string(x, area.y, SHADES[shade], style);
    }
}

/// Pages of the runs between two.
fn overlap(runs: &[(u64, u64)], from: u64, to: u64) -> u64 {
    let within = |(first, count): &(u64, u64)| {
        let end = first.saturating_add(*count).min(to);
        end.saturating_sub((*first).max(from))
    };
    let start = runs.partition_point(|run| run.0.saturating_add(run.1) <= from);
    let near = runs[start..].iter().take_while(|run| run.0 < to);
    near.map(within).sum()
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn pages_within() {
        let runs = [(0, 2), (5, 5), (20, 1)];
        assert_eq!(overlap(&runs, 0, 100), 8);
        assert_eq!(overlap(&runs, 1, 6), 2);
        assert_eq!(overlap(&runs, 10, 20), 0);
    }
}
