//! Memory in hex and as text, bytes that differ from the base marked, with the variables that lie there and what words
//! point at beside it.

use ratatui::layout::Rect;

use super::{Canvas, lines};
use crate::data::Memory;
use crate::model::Model;

const A_LINE: usize = 16;
const ADDRESS_COLUMNS: u16 = 13;
/// Columns of address, bytes and text.
const DUMP_COLUMNS: u16 = ADDRESS_COLUMNS + 3 * 16 + 1 + 16;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    match model.look.as_ref().map(|look| &look.memory) {
        Some(Ok(memory)) => draw_bytes(memory, canvas, area),
        Some(Err(why)) => canvas.line(area, &[(" ", theme.dim()), (why, theme.dim())]),
        None => {}
    }
}

fn draw_bytes(memory: &Memory, canvas: &mut Canvas<'_>, area: Rect) {
    let beside = area.width > DUMP_COLUMNS + 12;
    // Without room beside them, what is known of a line stands under it.
    let mut rows = lines(area);
    for number in 0..memory.bytes.len().div_ceil(A_LINE) {
        let Some(row) = rows.next() else { return };
        draw_line(memory, canvas, row, number * A_LINE);
        let from = memory.start.saturating_add((number * A_LINE) as u64);
        let known = known_of(memory, from);
        if known.is_empty() {
            continue;
        }
        let (place, indent) = if beside {
            (Some(row), DUMP_COLUMNS + 1)
        } else {
            (rows.next(), ADDRESS_COLUMNS)
        };
        if let Some(row) = place {
            let within = Rect {
                x: row.x + indent.min(row.width),
                width: row.width.saturating_sub(indent),
                ..row
            };
            let style = canvas.theme.name();
            canvas.line(within, &[(&known, style)]);
        }
    }
}

/// Variables that begin in a line or go on into it from before the first, and where its words point.
fn known_of(memory: &Memory, from: u64) -> String {
    let end = from.saturating_add(A_LINE as u64);
    let within = |at: u64| (from..end).contains(&at);
    let begins = |start: u64| within(start) || (start < memory.start && from == memory.start);
    let mut known: Vec<String> = memory
        .objects
        .iter()
        .filter(|object| begins(object.start))
        .map(|object| {
            let at = match object.start.checked_sub(from) {
                Some(0) => String::new(),
                Some(into) => format!("+{into} "),
                None => format!("-{} ", from - object.start),
            };
            format!("{at}{}: {}", object.name, object.type_name)
        })
        .collect();
    for pointed in memory.pointers.iter().filter(|pointed| within(pointed.at)) {
        let at = match pointed.at - from {
            0 => String::new(),
            into => format!("+{into} "),
        };
        known.push(format!("{at}→ {}", pointed.chain.join(" → ")));
    }
    known.join("; ")
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
