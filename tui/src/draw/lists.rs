//! Tables, and the log.

use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::{Canvas, first_row, lines};
use crate::model::Model;
use crate::place::{Pane, Tab};
use crate::table::{Row, Table};
use crate::text::clean;

/// Columns that one cell makes all others lose, at most.
const WIDEST: usize = 44;
/// Rows looked at to find how wide the columns are.
const MEASURED: usize = 200;

pub fn table(model: &Model, canvas: &mut Canvas<'_>, area: Rect, tab: Tab) {
    let theme = canvas.theme;
    if let Some(Err(why)) = model.details.get(&tab).map(|detail| &detail.content) {
        canvas.line(area, &[(" ", theme.bad()), (why, theme.bad())]);
        return;
    }
    let Some((table, rows)) = model.table(tab) else {
        let why = if tab == Tab::Results {
            " nothing was asked yet: `t` on a variable, `gD`, or a command after `:`"
        } else {
            " loading"
        };
        canvas.line(area, &[(why, theme.dim())]);
        return;
    };
    let mut all = lines(area);
    if tab == Tab::Results
        && let Some(title) = all.next()
    {
        canvas.line(
            title,
            &[(" ", theme.group()), (&table.title, theme.group())],
        );
    }
    let skipped = model.cursors.across.get(&tab).copied().unwrap_or(0);
    let widths = widths(table, &rows);
    if let Some(head) = all.next() {
        let names = Row::new(table.columns.iter().map(|column| column.name.to_owned()));
        row(canvas, head, table, &names, &widths, skipped, theme.dim());
    }
    let mut rest: Vec<Rect> = all.collect();
    let note = said(table, rows.len());
    let below = note.as_ref().and_then(|_| rest.pop());
    let height = u16::try_from(rest.len()).unwrap_or(u16::MAX);
    let first = first_row(model, tab, rows.len(), height);
    let cursor = model.cursors.row(tab);
    let focused = model.focus == Pane::Memory;
    for ((at, number), area) in rows.iter().enumerate().skip(first).zip(rest) {
        let Some(one) = table.rows.get(*number) else {
            continue;
        };
        row(
            canvas,
            area,
            table,
            one,
            &widths,
            skipped,
            theme.sign(one.sign),
        );
        if at == cursor && focused {
            canvas.mark(area);
        }
    }
    if let (Some(area), Some(note)) = (below, note) {
        canvas.line(area, &[(" ", theme.dim()), (&note, theme.dim())]);
    }
}

/// What is said below the rows.
fn said(table: &Table, shown: usize) -> Option<String> {
    let hidden = table.rows.len() - shown;
    match (&table.note, hidden) {
        (Some(note), 0) => Some(note.clone()),
        (note, hidden) if hidden > 0 => {
            let note = note.as_deref().unwrap_or_default();
            Some(format!("{hidden} rows do not have the text; {note}"))
        }
        _ => None,
    }
}

fn widths(table: &Table, rows: &[usize]) -> Vec<usize> {
    let cell = |row: &Row, at: usize| row.cells.get(at).map_or(0, |cell| clean(cell).width());
    let of = |at: usize| {
        let measured = rows
            .iter()
            .take(MEASURED)
            .filter_map(|row| table.rows.get(*row));
        let widest = measured.map(|row| cell(row, at)).max().unwrap_or(0);
        widest.max(table.columns[at].name.len()).min(WIDEST)
    };
    (0..table.columns.len()).map(of).collect()
}

fn row(
    canvas: &mut Canvas<'_>,
    area: Rect,
    table: &Table,
    row: &Row,
    widths: &[usize],
    skipped: usize,
    style: Style,
) {
    let mut text = String::new();
    let last = table.columns.len().saturating_sub(1);
    for (at, (column, width)) in table.columns.iter().zip(widths).enumerate() {
        let cell = row.cells.get(at).map_or(String::new(), |cell| clean(cell));
        // The last one has all the room there is.
        let cell = if at == last { cell } else { cut(&cell, *width) };
        let gap = " ".repeat(width.saturating_sub(cell.width()));
        if column.right {
            text.push_str(&gap);
            text.push_str(&cell);
        } else {
            text.push_str(&cell);
            if at != last {
                text.push_str(&gap);
            }
        }
        text.push_str("  ");
    }
    let sign = row.sign.mark();
    let within = Rect {
        x: area.x + 1,
        width: area.width.saturating_sub(1),
        ..area
    };
    canvas.line(area, &[(sign, style)]);
    canvas.line_from(within, skipped, &[(text.trim_end(), style)]);
}

/// The beginning of a text, so many columns wide.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if format!("{short}{c}").width() >= columns {
            break;
        }
        short.push(c);
    }
    short + "…"
}

/// What was said at the bottom, oldest first.
pub fn log(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    if model.log.is_empty() {
        canvas.line(area, &[(" nothing was said yet", theme.dim())]);
    }
    let first = first_row(model, Tab::Log, model.log.len(), area.height);
    let cursor = model.cursors.row(Tab::Log);
    let skipped = model.cursors.across.get(&Tab::Log).copied().unwrap_or(0);
    for ((at, line), area) in model.log.iter().enumerate().skip(first).zip(lines(area)) {
        let style = if line.bad { theme.bad() } else { theme.plain() };
        let mark = if line.bad { "!" } else { " " };
        canvas.line_from(area, skipped, &[(mark, style), (&line.text, style)]);
        if at == cursor && model.focus == Pane::Memory {
            canvas.mark(area);
        }
    }
}
