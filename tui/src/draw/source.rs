//! The source around the selected frame's line.

use ratatui::layout::Rect;

use super::{Canvas, lines};
use crate::data::Source;
use crate::model::Model;
use crate::text::file_name;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(look) = &model.look else { return };
    let Some(source) = &look.source else {
        canvas.line(
            area,
            &[(" this frame has no line information", canvas.theme.dim())],
        );
        return;
    };
    match &source.text {
        Ok(text) => draw_text(model, canvas, area, source, text),
        Err(why) => {
            let place = format!(" {}:{}", file_name(&source.path), source.line);
            let mut rows = lines(area);
            for text in [place.as_str(), why] {
                if let Some(row) = rows.next() {
                    canvas.line(row, &[(text, canvas.theme.dim())]);
                }
            }
        }
    }
}

fn draw_text(model: &Model, canvas: &mut Canvas<'_>, area: Rect, source: &Source, text: &[String]) {
    let theme = canvas.theme;
    let current = usize::try_from(source.line).unwrap_or(usize::MAX);
    let by = isize::try_from(model.cursors.source).unwrap_or(0);
    let middle = current
        .saturating_add_signed(by)
        .clamp(1, text.len().max(1));
    let mut rows = lines(area);
    if area.height > 3
        && let Some(row) = rows.next()
    {
        let place = format!(" {}:{}", file_name(&source.path), source.line);
        canvas.line(row, &[(&place, theme.dim())]);
    }
    let height = usize::from(area.height.saturating_sub(1).max(1));
    let first = middle
        .saturating_sub(1 + height / 2)
        .min(text.len().saturating_sub(height));
    for ((at, line), area) in text.iter().enumerate().skip(first).zip(rows) {
        let here = at + 1 == current;
        let number = format!("{}{:>5} ", if here { '>' } else { ' ' }, at + 1);
        let (numbers, style) = if here {
            (theme.current(), theme.current())
        } else {
            (theme.dim(), theme.plain())
        };
        canvas.line(area, &[(&number, numbers), (line, style)]);
    }
}
