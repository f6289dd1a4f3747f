//! Threads, and under the selected one its stack.

use ratatui::layout::Rect;

use super::{Canvas, first_row, lines};
use crate::data::{FrameRow, Look};
use crate::layout::centred;
use crate::model::{Model, ThreadRow};
use crate::place::{Pane, Tab};
use crate::text::file_name;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(look) = &model.look else { return };
    let rows = model.thread_rows();
    let focused = model.focus == Pane::Threads;
    let cursor = model.cursors.row(Tab::Threads);
    // Elsewhere the selected frame is what counts.
    let selected = look
        .threads
        .iter()
        .position(|thread| thread.tid == look.tid);
    let chosen = selected
        .zip(look.frame)
        .map(|(thread, at)| ThreadRow::Frame(thread, at));
    let first = match rows.iter().position(|row| Some(*row) == chosen) {
        Some(at) if !focused => centred(at, rows.len(), area.height),
        _ => first_row(model, Tab::Threads, rows.len(), area.height),
    };
    for ((number, row), area) in rows.iter().enumerate().skip(first).zip(lines(area)) {
        match *row {
            ThreadRow::Thread(at) => draw_thread(look, canvas, area, at),
            ThreadRow::Frame(thread, at) => {
                let tid = look.threads.get(thread).map_or(0, |thread| thread.tid);
                if let Some(frame) = look.stack(tid).get(at) {
                    let selected = tid == look.tid && look.frame == Some(at);
                    draw_frame(frame, selected, canvas, area);
                }
            }
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
    let open = !look.stack(thread.tid).is_empty();
    let mark = if open { "▾ " } else { "▸ " };
    let place = match &thread.place {
        Some(place) if !open => format!("  {place}"),
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

fn draw_frame(frame: &FrameRow, selected: bool, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
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
