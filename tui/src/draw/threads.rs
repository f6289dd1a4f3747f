//! Threads, and under the selected one its stack.

use ratatui::layout::Rect;

use super::{Canvas, first_shown, lines};
use crate::data::Look;
use crate::model::{Model, Pane, ThreadRow};
use crate::text::file_name;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(look) = &model.look else { return };
    let rows = model.thread_rows();
    let focused = model.focus == Pane::Threads;
    let cursor = model.cursors.threads;
    // Elsewhere the selected frame is what counts.
    let chosen = look.frame.map(ThreadRow::Frame);
    let centre = rows
        .iter()
        .position(|row| !focused && Some(*row) == chosen)
        .unwrap_or(cursor);
    let first = first_shown(centre, rows.len(), area.height);
    for ((number, row), area) in rows.iter().enumerate().skip(first).zip(lines(area)) {
        match row {
            ThreadRow::Thread(at) => draw_thread(look, canvas, area, *at),
            ThreadRow::Frame(at) => draw_frame(look, canvas, area, *at),
        }
        if number == cursor && focused {
            canvas.mark(area);
        }
    }
}

fn draw_thread(look: &Look, canvas: &mut Canvas<'_>, area: Rect, at: usize) {
    let theme = canvas.theme;
    let thread = &look.threads[at];
    let selected = thread.tid == look.tid;
    let mark = if selected { "▾ " } else { "▸ " };
    let place = match &thread.place {
        Some(place) if !selected => format!("  {place}"),
        _ => String::new(),
    };
    let style = if selected {
        theme.group()
    } else {
        theme.plain()
    };
    let tid = format!("{} ", thread.tid);
    canvas.line(
        area,
        &[
            (mark, style),
            (&tid, style),
            (&thread.name, style),
            (&place, theme.dim()),
        ],
    );
}

fn draw_frame(look: &Look, canvas: &mut Canvas<'_>, area: Rect, at: usize) {
    let theme = canvas.theme;
    let frame = &look.frames[at];
    let selected = look.frame == Some(at);
    let style = if selected {
        theme.current()
    } else {
        theme.plain()
    };
    let number = format!(
        "{} #{:<2} ",
        if selected { " >" } else { "  " },
        frame.key.index
    );
    let function = match &frame.key.function {
        Some(function) => function.clone(),
        None => format!("{:#x}", frame.pc),
    };
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("  {}:{line}", file_name(file)),
        _ => String::new(),
    };
    let remark = match (frame.inlined, frame.guessed) {
        (_, true) => "  guessed",
        (true, false) => "  inlined",
        _ => "",
    };
    canvas.line(
        area,
        &[
            (&number, style),
            (&function, style),
            (&place, theme.dim()),
            (remark, theme.dim()),
        ],
    );
}
