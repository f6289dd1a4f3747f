//! A screen as text.

use std::io::Write;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use crate::cli::Dump;
use crate::draw::{Canvas, draw, draw_only, help};
use crate::model::Model;
use crate::theme::Theme;

const SIZE: (u16, u16) = (80, 24);
/// Cells of a screen, at most.
const LARGEST: u16 = 1000;

/// As large as COLUMNS and LINES say.
pub fn size() -> (u16, u16) {
    let from = |name: &str, default: u16| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u16>().ok())
            .filter(|value| (8..=LARGEST).contains(value))
            .unwrap_or(default)
    };
    (from("COLUMNS", SIZE.0), from("LINES", SIZE.1))
}

/// Prints a screen.
///
/// # Errors
/// Standard output is gone.
pub fn print(model: &Model, dump: Dump) -> anyhow::Result<()> {
    let text = render(model, dump);
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads may have read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A screen as text.
pub fn render(model: &Model, dump: Dump) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
    let mut canvas = Canvas {
        buffer: &mut buffer,
        theme: Theme::none(),
    };
    match dump {
        Dump::Tab(tab) => draw_only(model, &mut canvas, tab.pane()),
        Dump::Help => {
            let lines = help(model, &canvas);
            let lines: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
            return lines.join("\n") + "\n";
        }
        Dump::All => draw(model, &mut canvas),
    }
    text(&buffer)
}

/// The cells row by row; the second cell of a wide character holds nothing.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content.chunks(usize::from(buffer.area.width).max(1)) {
        let mut line = String::new();
        let mut covered = 0;
        for cell in row {
            if covered > 0 {
                covered -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            covered = cell.symbol().width().saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
