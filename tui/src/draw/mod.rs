//! The screen, from the model alone. Nothing here can change it.

mod memory;
mod overlay;
pub use overlay::help;
mod source;
mod status;
mod threads;
mod timeline;
mod variables;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Widget};
use unicode_width::UnicodeWidthStr;

use crate::model::{Model, Pane};
use crate::text::clean;
use crate::theme::Theme;

/// From here on all panes are shown at once.
const WIDE: (u16, u16) = (120, 36);
const TIMELINE_ROWS: u16 = 6;
const MEMORY_COLUMNS: u16 = 80;

/// What is drawn onto, and how.
pub struct Canvas<'a> {
    pub buffer: &'a mut Buffer,
    pub theme: Theme,
}

/// Draws the whole workbench.
pub fn draw(model: &Model, canvas: &mut Canvas<'_>) {
    let area = canvas.buffer.area;
    if area.height < 8 || area.width < 30 {
        canvas.line(area, &[("this terminal is too small", canvas.theme.bad())]);
        return;
    }
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    status::draw(model, canvas, top);
    for (pane, area) in layout(model.focus, middle) {
        draw_pane(model, canvas, pane, area);
    }
    status::footer(model, canvas, bottom);
    for overlay in &model.overlays {
        overlay::draw(model, canvas, overlay, middle, bottom);
    }
}

/// Draws one pane as large as the canvas.
pub fn draw_only(model: &Model, canvas: &mut Canvas<'_>, pane: Pane) {
    let [top, rest] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(canvas.buffer.area);
    status::draw(model, canvas, top);
    draw_pane(model, canvas, pane, rest);
}

/// Which panes are where.
fn layout(focus: Pane, area: Rect) -> Vec<(Pane, Rect)> {
    let [timeline, rest] =
        Layout::vertical([Constraint::Length(TIMELINE_ROWS), Constraint::Min(0)]).areas(area);
    let mut panes = vec![(Pane::Timeline, timeline)];
    if area.width >= WIDE.0 && area.height + 2 >= WIDE.1 {
        let right = MEMORY_COLUMNS.max(area.width / 2);
        let columns = Layout::horizontal([Constraint::Min(0), Constraint::Length(right)]);
        let [left, right] = columns.areas(rest);
        let halves = |area| {
            Layout::vertical([Constraint::Percentage(40), Constraint::Percentage(60)])
                .areas::<2>(area)
        };
        let [threads, variables] = halves(left);
        let [source, memory] = halves(right);
        panes.extend([
            (Pane::Threads, threads),
            (Pane::Variables, variables),
            (Pane::Source, source),
            (Pane::Memory, memory),
        ]);
        return panes;
    }
    // Variables and memory share a place: memory has it while it is used.
    let lower = if focus == Pane::Memory {
        Pane::Memory
    } else {
        Pane::Variables
    };
    let rows = Layout::vertical([Constraint::Percentage(45), Constraint::Percentage(55)]);
    let [upper_area, lower_area] = rows.areas(rest);
    let columns = Layout::horizontal([Constraint::Percentage(42), Constraint::Percentage(58)]);
    let [threads, source] = columns.areas(upper_area);
    panes.extend([
        (Pane::Threads, threads),
        (Pane::Source, source),
        (lower, lower_area),
    ]);
    panes
}

fn draw_pane(model: &Model, canvas: &mut Canvas<'_>, pane: Pane, area: Rect) {
    let inner = frame(model, canvas, pane, area);
    if inner.is_empty() {
        return;
    }
    match pane {
        Pane::Timeline => timeline::draw(model, canvas, inner),
        Pane::Threads => threads::draw(model, canvas, inner),
        Pane::Source => source::draw(model, canvas, inner),
        Pane::Variables => variables::draw(model, canvas, inner),
        Pane::Memory => memory::draw(model, canvas, inner),
    }
}

fn frame(model: &Model, canvas: &mut Canvas<'_>, pane: Pane, area: Rect) -> Rect {
    let focused = model.focus == pane;
    let lag = match &model.look {
        Some(look) if pane != Pane::Timeline && look.question.epoch != model.at => {
            format!("still @{}, loading ", look.question.epoch)
        }
        None if pane != Pane::Timeline && model.at != 0 => "loading ".to_owned(),
        _ => String::new(),
    };
    let title = format!(" {} {} {lag}", pane.number(), pane.title());
    let border = if focused {
        BorderType::Thick
    } else {
        BorderType::Plain
    };
    let block = Block::bordered()
        .border_type(border)
        .border_style(canvas.theme.border(focused))
        .title(title)
        .title_style(if focused {
            canvas.theme.group()
        } else {
            canvas.theme.plain()
        });
    let inner = block.inner(area);
    block.render(area, canvas.buffer);
    inner
}

impl Canvas<'_> {
    /// Writes pieces side by side into the first row of `area`; text is made safe, what does not fit is cut.
    pub fn line(&mut self, area: Rect, pieces: &[(&str, Style)]) {
        if area.is_empty() {
            return;
        }
        let mut x = area.x;
        let mut cut = false;
        for (text, style) in pieces {
            let left = area.right().saturating_sub(x);
            let text = clean(text);
            cut |= text.width() > usize::from(left);
            (x, _) = self
                .buffer
                .set_stringn(x, area.y, &text, usize::from(left), *style);
        }
        if cut && area.width > 3 {
            let last = area.right() - 1;
            self.buffer[(last, area.y)].set_char('…');
        }
    }

    /// Marks a row as the selected one.
    pub fn mark(&mut self, area: Rect) {
        self.buffer.set_style(area, self.theme.cursor());
    }
}

/// The rows of an area, top to bottom.
pub fn lines(area: Rect) -> impl Iterator<Item = Rect> {
    (area.y..area.bottom()).map(move |y| Rect {
        y,
        height: 1,
        ..area
    })
}

/// The first row to show so that the selected one is in sight, in the middle where possible.
pub fn first_shown(selected: usize, count: usize, height: u16) -> usize {
    let height = usize::from(height);
    let last = count.saturating_sub(height);
    selected.saturating_sub(height / 2).min(last)
}
