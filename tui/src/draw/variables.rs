//! The variables tree.

use ratatui::layout::Rect;

use super::{Canvas, first_shown, lines};
use crate::model::{Model, Pane};
use crate::variables::{Kind, Row};

/// Types are shown where there is room.
const TYPE_COLUMNS: u16 = 60;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let cursor = model.cursors.variables;
    let first = first_shown(cursor, model.rows.len(), area.height);
    for ((number, row), area) in model.rows.iter().enumerate().skip(first).zip(lines(area)) {
        draw_row(row, canvas, area);
        if number == cursor && model.focus == Pane::Variables {
            canvas.mark(area);
        }
    }
}

fn draw_row(row: &Row, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let indent = " ".repeat(row.depth * 2);
    let open = |open: bool| if open { "▾ " } else { "▸ " };
    let (marker, group) = match &row.kind {
        Kind::Group { open: is_open, .. } => (open(*is_open), true),
        Kind::Node { open: is_open, .. } | Kind::Pointer { open: is_open, .. } => {
            (open(*is_open), false)
        }
        _ => ("  ", false),
    };
    if group {
        canvas.line(
            area,
            &[
                (" ", theme.plain()),
                (marker, theme.group()),
                (&row.name, theme.group()),
            ],
        );
        return;
    }
    let (sign, value) = match row.changed {
        Some(_) => ("*", theme.changed()),
        None => (" ", theme.plain()),
    };
    let of_type = if row.type_name.is_empty() || area.width < TYPE_COLUMNS {
        String::new()
    } else {
        format!(": {}", cut(&row.type_name, usize::from(area.width / 4)))
    };
    let equals = if row.name.is_empty() { "" } else { " = " };
    let was = match (&row.changed, &row.kind) {
        (Some(was), Kind::Leaf { .. } | Kind::Pointer { .. }) => format!("  was {was}"),
        _ => String::new(),
    };
    canvas.line(
        area,
        &[
            (sign, value),
            (&indent[1..], theme.plain()),
            (marker, theme.plain()),
            (&row.name, theme.name()),
            (&of_type, theme.dim()),
            (equals, theme.plain()),
            (&row.text, value),
            (&was, theme.dim()),
        ],
    );
}

/// The beginning of a name: those of generic types are longer than any screen.
fn cut(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
