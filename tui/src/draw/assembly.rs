//! Machine code of the selected frame's function, the current instruction marked; beside it the source where there is room.

use introspect::disassembly::Instruction;
use ratatui::layout::Rect;

use super::{Canvas, first_row, lines, source};
use crate::model::Model;
use crate::place::{Pane, Tab};
use crate::table::contains;
use crate::theme::Role;

/// From here on source and code stand side by side.
const BOTH: u16 = 100;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    if area.width < BOTH {
        return code(model, canvas, area);
    }
    let half = area.width / 2;
    let left = Rect {
        width: half - 1,
        ..area
    };
    let right = Rect {
        x: area.x + half,
        width: area.width - half,
        ..area
    };
    source::draw(model, canvas, left);
    code(model, canvas, right);
}

fn code(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let Some(look) = &model.look else { return };
    let code = match &look.assembly {
        Ok(code) if code.is_empty() => return canvas.line(area, &[(" loading", theme.dim())]),
        Ok(code) => code,
        Err(why) => return canvas.line(area, &[(" ", theme.dim()), (why, theme.dim())]),
    };
    let frame = look.selected_frame();
    let pc = frame.map(|frame| frame.pc);
    let line = frame.and_then(|frame| frame.line);
    let filter = model.filter(Tab::Assembly);
    let first = first_row(model, Tab::Assembly, code.len(), area.height);
    let cursor = model.cursors.row(Tab::Assembly);
    for ((at, one), area) in code.iter().enumerate().skip(first).zip(lines(area)) {
        let current = pc == Some(one.address);
        let of_line = one.line.is_some() && one.line == line;
        let found = !filter.is_empty() && contains(&one.text, filter);
        let text = match () {
            () if current => theme.current(),
            () if found => theme.changed(),
            () if of_line => theme.of(Role::Group),
            () => theme.plain(),
        };
        let mark = match (current, of_line) {
            (true, _) => "=>",
            (false, true) => " |",
            _ => "  ",
        };
        let place = place(one, code.get(at.wrapping_sub(1)));
        canvas.line(
            area,
            &[
                (mark, text),
                (
                    &format!("{:>6x} {place:>5} ", one.address & 0xff_ffff),
                    theme.dim(),
                ),
                (&one.text.replace('\t', " "), text),
            ],
        );
        if at == cursor && model.focus == Pane::Source {
            canvas.mark(Rect {
                width: 2.min(area.width),
                ..area
            });
        }
    }
}

/// The source line, where it is another than that of the instruction before.
fn place(one: &Instruction, before: Option<&Instruction>) -> String {
    match one.line {
        Some(line) if before.is_none_or(|before| before.line != one.line) => format!(":{line}"),
        _ => String::new(),
    }
}
