//! What lies over the panes: help, questions, results, the prompt.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Clear, Widget};
use unicode_width::UnicodeWidthStr;

use super::{Canvas, lines};
use crate::keys::TABLE;
use crate::model::{Model, Overlay};
use crate::text::clean;

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
        Overlay::Prompt { text, cursor } => prompt(canvas, bottom, text, *cursor),
        Overlay::Confirm { to } => {
            draw_box(canvas, area, " Rewind ", &question(model, canvas, *to), 0);
        }
        Overlay::Rewound(_) => draw_box(canvas, area, " Rewound ", &report(canvas, overlay), 0),
    }
}

/// The help as text, from the key table.
pub fn help(model: &Model, canvas: &Canvas<'_>) -> Vec<Line> {
    let theme = canvas.theme;
    let mut text = Vec::new();
    let mut section = "";
    for binding in TABLE.iter().filter(|binding| !binding.help.is_empty()) {
        if binding.section != section {
            section = binding.section;
            text.push((section.to_owned(), theme.group()));
        }
        text.push((
            format!("  {:<8} {}", binding.shown, binding.help),
            theme.plain(),
        ));
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
        "* marks what differs from the base (d in the timeline), n a named checkpoint,",
        "├ the start of a branch. LIVE follows the newest, PAST looks back: looking",
        "changes nothing, only R does.",
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
    Clear.render(area, canvas.buffer);
    let block = Block::bordered()
        .border_type(BorderType::Double)
        .border_style(canvas.theme.border(true))
        .title(title)
        .title_style(canvas.theme.group());
    let inner = block.inner(area);
    block.render(area, canvas.buffer);
    // The last lines stay in sight when there is nothing to scroll to.
    let first = scroll.min(text.len().saturating_sub(usize::from(inner.height)));
    for ((line, style), area) in text.iter().skip(first).zip(lines(inner)) {
        canvas.line(area, &[(" ", *style), (line, *style)]);
    }
}

fn prompt(canvas: &mut Canvas<'_>, area: Rect, text: &str, cursor: usize) {
    let theme = canvas.theme;
    Clear.render(area, canvas.buffer);
    let before: String = text.chars().take(cursor).collect();
    let at: String = text.chars().skip(cursor).take(1).collect();
    let after: String = text.chars().skip(cursor + 1).collect();
    let at = if at.is_empty() { " ".to_owned() } else { at };
    // Of a long line the part before the cursor is shown.
    let room = usize::from(area.width).saturating_sub(20);
    let skip = before.chars().count().saturating_sub(room);
    let before: String = before.chars().skip(skip).collect();
    canvas.line(
        area,
        &[
            (" watch: ", theme.group()),
            (&before, theme.plain()),
            (&at, theme.cursor()),
            (&after, theme.plain()),
        ],
    );
}
