//! Memory in hex, bytes that differ from the base marked.

use ratatui::layout::Rect;

use super::{Canvas, lines};
use crate::data::Memory;
use crate::model::Model;

const A_LINE: usize = 16;
const ADDRESS_COLUMNS: u16 = 13;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    match model.look.as_ref().map(|look| &look.memory) {
        Some(Ok(memory)) => draw_bytes(memory, canvas, area),
        Some(Err(why)) => canvas.line(
            area,
            &[(" ", canvas.theme.dim()), (why, canvas.theme.dim())],
        ),
        None => {}
    }
}

fn draw_bytes(memory: &Memory, canvas: &mut Canvas<'_>, area: Rect) {
    let count = memory.bytes.len().div_ceil(A_LINE);
    for (number, area) in (0..count).zip(lines(area)) {
        draw_line(memory, canvas, area, number * A_LINE);
    }
}

fn draw_line(memory: &Memory, canvas: &mut Canvas<'_>, area: Rect, from: usize) {
    let theme = canvas.theme;
    let address = memory.start.saturating_add(from as u64);
    canvas.line(area, &[(&format!("{address:012x} "), theme.dim())]);
    let put = |canvas: &mut Canvas<'_>, x: u16, text: &str, style| {
        let room = usize::from(area.right().saturating_sub(x));
        canvas.buffer.set_stringn(x, area.y, text, room, style);
    };
    let hex = area.x + ADDRESS_COLUMNS;
    let ascii = hex + 3 * 16 + 1;
    let here = memory.bytes.iter().enumerate().skip(from).take(A_LINE);
    for (column, (at, byte)) in (0u16..).zip(here) {
        let changed = memory
            .old
            .as_ref()
            .is_some_and(|old| old.get(at).is_some_and(|old| old != byte));
        let style = if changed {
            theme.changed()
        } else {
            theme.plain()
        };
        let sign = if changed { '*' } else { ' ' };
        let digits = match byte {
            Some(byte) => format!("{byte:02x}{sign}"),
            None => format!("--{sign}"),
        };
        put(canvas, hex + 3 * column, &digits, style);
        let shown = match byte {
            Some(byte @ 0x20..=0x7e) => char::from(*byte),
            Some(_) => '.',
            None => ' ',
        };
        put(
            canvas,
            ascii + column,
            shown.encode_utf8(&mut [0; 4]),
            style,
        );
    }
}
