//! What lies over the panes: help, questions, results, the prompt.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Clear, Widget};
use unicode_width::UnicodeWidthStr;

use super::{Canvas, lines};
use crate::keys::TABLE;
use crate::layout::centred;
use crate::model::Model;
use crate::overlay::{Deed, Overlay, Picker, Prompt};
use crate::text::clean;
use crate::update::listed;

/// A line of an overlay.
type Line = (String, Style);

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, overlay: &Overlay, area: Rect, bottom: Rect) {
    match overlay {
        Overlay::Help { scroll } => {
            let text = help(model, canvas);
            let scroll = (*scroll).min(text.len().saturating_sub(1));
            draw_box(
                canvas,
                area,
                " Help: Esc closes, Up and Down scroll ",
                &text,
                scroll,
            );
        }
        Overlay::Prompt(prompt) => {
            draw_prompt(canvas, bottom, prompt);
            offered(canvas, area, prompt);
        }
        Overlay::Picker(picker) => draw_picker(canvas, area, picker),
        Overlay::Confirm(Deed::Rewind(to)) => {
            draw_box(canvas, area, " Rewind ", &question(model, canvas, *to), 0);
        }
        Overlay::Confirm(Deed::Control(_)) => {
            draw_box(canvas, area, " Control ", &agreement(model, canvas), 0);
        }
        Overlay::Rewound(_) => draw_box(canvas, area, " Rewound ", &report(canvas, overlay), 0),
    }
}

/// The help as text, from the key table.
pub fn help(model: &Model, canvas: &Canvas<'_>) -> Vec<Line> {
    let theme = canvas.theme;
    let mut text = Vec::new();
    let mut section = None;
    for entry in TABLE {
        if section != Some(entry.section) {
            section = Some(entry.section);
            text.push((entry.section.title().to_owned(), theme.group()));
        }
        let keys = model.keymap.keys_of(entry.action).join(" ");
        text.push((format!("  {keys:<10} {}", entry.help), theme.plain()));
    }
    text.push((
        "After :, besides the names of the palette".to_owned(),
        theme.group(),
    ));
    for [name, arguments, help] in listed() {
        text.push((format!("  {name} {arguments}"), theme.plain()));
        text.push((format!("  {:<10} {help}", ""), theme.dim()));
    }
    let end = if model.target.ours {
        [
            "This program attached the process: on quitting it lets go of it;",
            "the history stays.",
        ]
    } else {
        [
            "The process was attached already: on quitting it stays so,",
            "and the history goes on.",
        ]
    };
    text.push((String::new(), theme.plain()));
    for line in [
        "* marks what differs from the base, + what is new, - what is gone.",
        "In the timeline d is the base, n a checkpoint with a name, a letter a",
        "bookmark, ├ the start of a branch; in the source • is a line at which",
        "checkpoints stopped, ● one with a breakpoint, ○ with one that has no",
        "effect. LIVE follows the newest, PAST looks back: looking",
        "changes nothing, R and running do.",
        end[0],
        end[1],
    ] {
        text.push((line.to_owned(), theme.plain()));
    }
    text
}

fn question(model: &Model, canvas: &Canvas<'_>, to: u64) -> Vec<Line> {
    let theme = canvas.theme;
    let target = &model.target;
    let newest = model.newest().unwrap_or(0);
    let lines = [
        format!(
            "Rewind {} (pid {}) from now (after @{newest}) to @{to}?",
            target.comm, target.pid
        ),
        String::new(),
        "A checkpoint of now is taken first, so the present is not lost.".to_owned(),
        "Then memory, registers, threads and descriptors go back, in place,".to_owned(),
        "and the process runs on from there, on a new branch.".to_owned(),
        "What cannot be put back is named after it.".to_owned(),
    ];
    let mut text: Vec<Line> = lines.map(|line| (line, theme.plain())).into();
    text.push((String::new(), theme.plain()));
    text.push((
        "Enter or y: rewind    Esc or n: leave it".to_owned(),
        theme.group(),
    ));
    text
}

fn agreement(model: &Model, canvas: &Canvas<'_>) -> Vec<Line> {
    let theme = canvas.theme;
    let target = &model.target;
    let lines = [
        format!(
            "Control {} (pid {}) while it lives?",
            target.comm, target.pid
        ),
        String::new(),
        format!(
            "All processes of partition {} will stand still at each stop,",
            target.part
        ),
        "until they are let go on: nobody is served meanwhile. A checkpoint".to_owned(),
        "is taken at each stop. On quitting they go on, and breakpoints of".to_owned(),
        "this program are taken away. This is asked once.".to_owned(),
    ];
    let mut text: Vec<Line> = lines.map(|line| (line, theme.plain())).into();
    text.push((String::new(), theme.plain()));
    text.push((
        "Enter or y: control it    Esc or n: leave it".to_owned(),
        theme.group(),
    ));
    text
}

fn report(canvas: &Canvas<'_>, overlay: &Overlay) -> Vec<Line> {
    let theme = canvas.theme;
    let Overlay::Rewound(rewound) = overlay else {
        return Vec::new();
    };
    let mut text = vec![
        (
            format!(
                "From @{} (the present, kept) to @{}, now on branch {}.",
                rewound.from, rewound.to, rewound.branch
            ),
            theme.plain(),
        ),
        (
            format!(
                "{} pages written, stopped for {} us.",
                rewound.pages, rewound.stop_us
            ),
            theme.plain(),
        ),
        (String::new(), theme.plain()),
    ];
    if rewound.not_restored.is_empty() {
        text.push(("Everything was put back.".to_owned(), theme.current()));
    } else {
        text.push(("Not put back:".to_owned(), theme.bad()));
        text.extend(
            rewound
                .not_restored
                .iter()
                .map(|what| (format!("  {what}"), theme.plain())),
        );
    }
    text.push((String::new(), theme.plain()));
    text.push((
        "Esc: close    End: follow the process".to_owned(),
        theme.group(),
    ));
    text
}

fn draw_box(canvas: &mut Canvas<'_>, area: Rect, title: &str, text: &[Line], scroll: usize) {
    let widest = text
        .iter()
        .map(|(line, _)| clean(line).width())
        .max()
        .unwrap_or(0);
    let wanted = u16::try_from(widest.max(title.len()) + 4).unwrap_or(u16::MAX);
    let width = wanted.min(area.width);
    let height = u16::try_from(text.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let inner = open_box(canvas, area, title);
    // The last lines stay in sight when there is nothing to scroll to.
    let first = scroll.min(text.len().saturating_sub(usize::from(inner.height)));
    for ((line, style), area) in text.iter().skip(first).zip(lines(inner)) {
        canvas.line(area, &[(" ", *style), (line, *style)]);
    }
}

/// An empty box; what is inside its border.
fn open_box(canvas: &mut Canvas<'_>, area: Rect, title: &str) -> Rect {
    Clear.render(area, canvas.buffer);
    let block = Block::bordered()
        .border_type(BorderType::Double)
        .border_style(canvas.theme.border(true))
        .title(title.to_owned())
        .title_style(canvas.theme.group());
    let inner = block.inner(area);
    block.render(area, canvas.buffer);
    inner
}

fn draw_prompt(canvas: &mut Canvas<'_>, area: Rect, prompt: &Prompt) {
    let theme = canvas.theme;
    Clear.render(area, canvas.buffer);
    let (text, cursor) = (&prompt.text, prompt.cursor);
    let before: String = text.chars().take(cursor).collect();
    let at: String = text.chars().skip(cursor).take(1).collect();
    let after: String = text.chars().skip(cursor + 1).collect();
    let at = if at.is_empty() { " ".to_owned() } else { at };
    // Of a long line the part before the cursor is shown.
    let title = prompt.ask.title();
    let room = usize::from(area.width).saturating_sub(title.len() + 12);
    let skip = before.chars().count().saturating_sub(room);
    let before: String = before.chars().skip(skip).collect();
    canvas.line(
        area,
        &[
            (" ", theme.group()),
            (title, theme.group()),
            (&before, theme.plain()),
            (&at, theme.cursor()),
            (&after, theme.plain()),
        ],
    );
}

/// Completions, just above the line being typed.
fn offered(canvas: &mut Canvas<'_>, area: Rect, prompt: &Prompt) {
    const MOST: u16 = 8;
    let Some(offered) = &prompt.offered else {
        return;
    };
    let count = u16::try_from(offered.words.len()).unwrap_or(u16::MAX);
    let height = count.min(MOST).min(area.height);
    let widest = offered
        .words
        .iter()
        .map(|word| clean(word).width())
        .max()
        .unwrap_or(0);
    let width = u16::try_from(widest + 2)
        .unwrap_or(u16::MAX)
        .min(area.width);
    let before: String = prompt.text.chars().take(offered.from).collect();
    let column = 1 + prompt.ask.title().len() + clean(&before).width();
    let x = u16::try_from(column)
        .unwrap_or(u16::MAX)
        .min(area.width - width);
    let area = Rect {
        x: area.x + x,
        y: area.bottom() - height,
        width,
        height,
    };
    Clear.render(area, canvas.buffer);
    let selected = offered.at.unwrap_or(0);
    let first = centred(selected, offered.words.len(), height);
    for ((at, word), row) in offered
        .words
        .iter()
        .enumerate()
        .skip(first)
        .zip(lines(area))
    {
        let style = canvas.theme.name();
        canvas.line(row, &[(" ", style), (word, style)]);
        if offered.at == Some(at) {
            canvas.mark(row);
        }
    }
}

fn draw_picker(canvas: &mut Canvas<'_>, area: Rect, picker: &Picker) {
    let theme = canvas.theme;
    let fitting = picker.fitting();
    let widest = picker
        .items
        .iter()
        .map(|item| clean(&item.text).width() + clean(&item.detail).width() + 4)
        .max()
        .unwrap_or(0);
    let width = u16::try_from(widest.max(40) + 2)
        .unwrap_or(u16::MAX)
        .min(area.width);
    let count = u16::try_from(picker.items.len()).unwrap_or(u16::MAX);
    let height = count.saturating_add(3).min(area.height);
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let inner = open_box(
        canvas,
        area,
        &format!(" {}: type some letters, Enter chooses ", picker.title),
    );
    let mut rows = lines(inner);
    if let Some(row) = rows.next() {
        canvas.line(
            row,
            &[
                (" > ", theme.group()),
                (&picker.typed, theme.plain()),
                (" ", theme.cursor()),
            ],
        );
    }
    let name = fitting
        .iter()
        .map(|item| clean(&item.text).width())
        .max()
        .unwrap_or(0)
        .min(36);
    let room = inner.height.saturating_sub(1);
    let first = centred(picker.selected, fitting.len(), room);
    for ((at, item), row) in fitting.iter().enumerate().skip(first).zip(rows) {
        let gap = " ".repeat(name.saturating_sub(clean(&item.text).width()));
        canvas.line(
            row,
            &[
                (" ", theme.plain()),
                (&item.text, theme.name()),
                (&gap, theme.plain()),
                ("  ", theme.plain()),
                (&item.detail, theme.dim()),
            ],
        );
        if at == picker.selected {
            canvas.mark(row);
        }
    }
}
