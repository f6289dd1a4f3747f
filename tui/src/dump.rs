//! A screen as text.

use std::io::Write;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use crate::cli::Screen;
use crate::draw::{Canvas, draw, draw_only, help};
use crate::model::Model;
use crate::theme::Theme;

const SIZE: (u16, u16) = (80, 24);
/// Cells of a screen, at most.
const LARGEST: u16 = 1000;

/// Prints a screen, as large as COLUMNS and LINES say.
///
/// # Errors
/// Standard output is gone.
pub fn print(model: &Model, screen: Screen) -> anyhow::Result<()> {
    let from = |name: &str, default: u16| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u16>().ok())
            .filter(|value| (8..=LARGEST).contains(value))
            .unwrap_or(default)
    };
    let size = (from("COLUMNS", SIZE.0), from("LINES", SIZE.1));
    let text = render(model, screen, size);
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads may have read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn render(model: &Model, screen: Screen, (width, height): (u16, u16)) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    let mut canvas = Canvas {
        buffer: &mut buffer,
        theme: Theme::new(false),
    };
    match (screen, screen.pane()) {
        (_, Some(pane)) => draw_only(model, &mut canvas, pane),
        (Screen::Help, None) => {
            let lines = help(model, &canvas);
            let lines: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
            return lines.join("\n") + "\n";
        }
        (_, None) => draw(model, &mut canvas),
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
