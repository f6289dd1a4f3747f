//! The screen, from the model alone. Nothing here can change it.

mod assembly;
mod lists;
mod memory;
mod overlay;
mod pages;
mod source;
mod status;
mod threads;
mod timeline;
mod tree;
mod variables;

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Block, BorderType, Widget};
use unicode_width::UnicodeWidthStr;

pub use overlay::help;
pub use timeline::first as timeline_first;

use crate::layout::{LEAST, inside, panes, parts};
use crate::model::Model;
use crate::place::{Pane, Tab};
use crate::text::clean;
use crate::theme::Theme;

/// Shown one after the other while something takes long.
const SPINNER: [&str; 8] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧"];

/// What is drawn onto, and how.
pub struct Canvas<'a> {
    pub buffer: &'a mut Buffer,
    pub theme: Theme,
}

/// Draws the whole workbench.
pub fn draw(model: &Model, canvas: &mut Canvas<'_>) {
    let area = canvas.buffer.area;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        canvas.line(area, &[("this terminal is too small", canvas.theme.bad())]);
        return;
    }
    let [top, middle, bottom] = parts(area);
    status::draw(model, canvas, top);
    for (pane, area) in panes(model, middle) {
        draw_pane(model, canvas, pane, area);
    }
    status::footer(model, canvas, bottom);
    for overlay in &model.overlays {
        overlay::draw(model, canvas, overlay, middle, bottom);
    }
}

/// Draws one pane as large as the canvas.
pub fn draw_only(model: &Model, canvas: &mut Canvas<'_>, pane: Pane) {
    let area = canvas.buffer.area;
    let top = Rect {
        height: 1.min(area.height),
        ..area
    };
    let rest = Rect {
        y: area.y + top.height,
        height: area.height - top.height,
        ..area
    };
    status::draw(model, canvas, top);
    draw_pane(model, canvas, pane, rest);
}

fn draw_pane(model: &Model, canvas: &mut Canvas<'_>, pane: Pane, area: Rect) {
    frame(model, canvas, pane, area);
    let area = inside(area);
    if area.is_empty() {
        return;
    }
    match model.shown.of(pane) {
        Tab::Timeline => timeline::draw(model, canvas, area),
        Tab::Threads => threads::draw(model, canvas, area),
        Tab::Source => source::draw(model, canvas, area),
        Tab::Assembly => assembly::draw(model, canvas, area),
        Tab::Variables => variables::draw(model, canvas, area),
        Tab::Memory => memory::draw(model, canvas, area),
        Tab::Pages => pages::draw(model, canvas, area),
        Tab::Log => lists::log(model, canvas, area),
        tab => lists::table(model, canvas, area, tab),
    }
    // What is on its way is not there yet: what was there before is, and looks like it.
    if pane != Pane::Timeline && (model.is_slow() || model.lost.is_some()) {
        canvas
            .buffer
            .set_style(area, Style::new().add_modifier(Modifier::DIM));
    }
}

/// The tabs of a pane with the columns that their titles take in its border, as far as it is wide.
pub fn tab_columns(pane: Pane, width: u16) -> Vec<(Tab, Range<usize>)> {
    let mut column = 4;
    let tabs = pane.tabs().iter().map(|tab| {
        let from = column;
        column += tab.title().len() + 1;
        (*tab, from..column - 1)
    });
    tabs.filter(|(_, columns)| columns.end < usize::from(width))
        .collect()
}

fn frame(model: &Model, canvas: &mut Canvas<'_>, pane: Pane, area: Rect) {
    let theme = canvas.theme;
    let focused = model.focus == pane;
    let border = if focused {
        BorderType::Thick
    } else {
        BorderType::Plain
    };
    Block::bordered()
        .border_type(border)
        .border_style(theme.border(focused))
        .render(area, canvas.buffer);
    let shown = model.shown.of(pane);
    let title = if focused {
        theme.group()
    } else {
        theme.plain()
    };
    let number = format!(" {} ", pane.number());
    let mut pieces: Vec<(String, Style)> = vec![(number, title)];
    let all = tab_columns(pane, area.width);
    // Where not all fit there is room for the one that is shown.
    let fits = all.len() == pane.tabs().len();
    for (tab, _) in all.into_iter().filter(|(tab, _)| fits || *tab == shown) {
        let style = match tab == shown {
            true if pane.tabs().len() > 1 => title.add_modifier(Modifier::UNDERLINED),
            true => title,
            false => theme.dim(),
        };
        pieces.push((tab.title().to_owned(), style));
        pieces.push((" ".to_owned(), title));
    }
    if !fits && pieces.len() == 1 {
        pieces.push((format!("{} ", shown.title()), title));
    }
    if let Some(filter) = model.filters.get(&shown) {
        pieces.push((format!("/{filter} "), theme.changed()));
    }
    pieces.push((lag(model, pane), theme.changed()));
    let line = Rect {
        x: area.x + 1,
        width: area.width.saturating_sub(2),
        height: 1.min(area.height),
        ..area
    };
    let pieces: Vec<(&str, Style)> = pieces
        .iter()
        .map(|(text, style)| (text.as_str(), *style))
        .collect();
    canvas.line(line, &pieces);
}

/// How what is shown lags behind what is looked at.
fn lag(model: &Model, pane: Pane) -> String {
    let spinner = if model.is_slow() {
        let turn = usize::try_from(model.ticks).unwrap_or(0) % SPINNER.len();
        format!("{} ", SPINNER[turn])
    } else {
        String::new()
    };
    match &model.look {
        _ if pane == Pane::Timeline => String::new(),
        // Most answers are here before anybody could read this.
        Some(look) if look.question.epoch != model.at && model.is_slow() => {
            format!("{spinner}still @{}, loading ", look.question.epoch)
        }
        None if model.at != 0 => format!("{spinner}loading "),
        _ => spinner,
    }
}

impl Canvas<'_> {
    /// Writes pieces side by side into the first row of `area`; text is made safe, what does not fit is cut.
    pub fn line(&mut self, area: Rect, pieces: &[(&str, Style)]) {
        self.line_from(area, 0, pieces);
    }

    /// The same, without so many columns at the left.
    pub fn line_from(&mut self, area: Rect, skipped: usize, pieces: &[(&str, Style)]) {
        if area.is_empty() {
            return;
        }
        let mut x = area.x;
        let mut cut = false;
        let mut skip = skipped;
        for (text, style) in pieces {
            let left = area.right().saturating_sub(x);
            let text = clean(text);
            let text = without(&text, &mut skip);
            cut |= text.width() > usize::from(left);
            (x, _) = self
                .buffer
                .set_stringn(x, area.y, text, usize::from(left), *style);
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

/// A text without its first columns; what is taken away is counted down.
fn without<'a>(text: &'a str, columns: &mut usize) -> &'a str {
    use unicode_width::UnicodeWidthChar;
    let mut at = 0;
    for c in text.chars() {
        if *columns == 0 {
            break;
        }
        *columns = columns.saturating_sub(c.width().unwrap_or(0));
        at += c.len_utf8();
    }
    &text[at..]
}

/// The rows of an area, top to bottom.
pub fn lines(area: Rect) -> impl Iterator<Item = Rect> {
    (area.y..area.bottom()).map(move |y| Rect {
        y,
        height: 1,
        ..area
    })
}

/// The first row to show of a list in a pane so high.
fn first_row(model: &Model, tab: Tab, count: usize, height: u16) -> usize {
    let before = model.cursors.first.get(&tab).copied().unwrap_or(0);
    let selected = model.cursors.row(tab).min(count.saturating_sub(1));
    crate::layout::first_shown(before, selected, count, height)
}
