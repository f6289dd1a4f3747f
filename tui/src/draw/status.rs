//! The top and the bottom line.

use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::{Canvas, SPINNER};
use crate::keys::Action;
use crate::model::{Base, Model, Standing};
use crate::overlay::Overlay;

/// Actions whose keys stand at the bottom while nothing else does.
const HINTS: [(Action, &str); 9] = [
    (Action::Previous, ""),
    (Action::Next, "look"),
    (Action::Rewind, "rewind"),
    (Action::Base, "base"),
    (Action::Timeline, "timeline"),
    (Action::Watch, "watch"),
    (Action::Palette, "palette"),
    (Action::Help, "help"),
    (Action::Quit, "quit"),
];

/// Program, pid, partition, how it is, what is looked at.
pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let target = &model.target;
    let word = match model.standing() {
        Standing::Live => "LIVE",
        Standing::Past => "PAST",
        Standing::Rewound => "REWOUND",
        Standing::Dead => "DEAD",
        Standing::Core => "CORE",
    };
    let at = match model.at {
        0 => "no checkpoint yet".to_owned(),
        _ if target.is_core() => String::new(),
        at => format!("@{at}"),
    };
    let of = match model.newest() {
        Some(newest) if newest != model.at => format!(" of @{newest}"),
        _ => String::new(),
    };
    let thinned = model.at != 0 && model.history.is_some() && model.position(model.at).is_none();
    let kept = if thinned { "  no longer kept" } else { "" };
    let base = match (model.base, model.base_epoch()) {
        (Base::At(epoch), _) => format!("  base @{epoch}"),
        (Base::Previous, Some(epoch)) => format!("  against @{epoch}"),
        (Base::Previous, None) => String::new(),
    };
    let who = format!(" {} {}  {}  ", target.comm, target.pid, target.part);
    let state = format!("{}  ", target.word());
    let standing = format!(" {} ", format!("{word} {at}").trim_end());
    let lost = if model.lost.is_some() {
        "  slsd is gone, connecting"
    } else {
        ""
    };
    canvas.line(
        area,
        &[
            (&who, theme.group()),
            (&state, theme.group()),
            (&standing, theme.standing(model.standing())),
            (&of, theme.plain()),
            (&base, theme.plain()),
            (kept, theme.bad()),
            (lost, theme.bad()),
            (&busy(model), theme.changed()),
        ],
    );
}

fn busy(model: &Model) -> String {
    let turn = usize::try_from(model.ticks).unwrap_or(0) % SPINNER.len();
    if let Some(to) = model.rewinding {
        return format!("  {} rewinding to @{to}", SPINNER[turn]);
    }
    if let Some(driving) = &model.control.driving {
        return format!("  {} {}, p stops it", SPINNER[turn], driving.word);
    }
    if let Some(query) = &model.query {
        let running = &query.what;
        let come = match (running.done, running.total) {
            (0, _) => String::new(),
            (done, 0) => format!(" {done}"),
            (done, total) => format!(" {done}/{total}"),
        };
        return format!("  {} {}{come}, Esc stops", SPINNER[turn], running.word);
    }
    if model.changing.is_some() {
        return format!("  {} looking for a change, Esc stops", SPINNER[turn]);
    }
    match &model.pending {
        Some(_) if !model.following => "  loading".to_owned(),
        _ => String::new(),
    }
}

/// What was just said, or the keys most used.
pub fn footer(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    if let Some(Overlay::Prompt(_)) = model.overlays.last() {
        return;
    }
    let trouble = model.target.trouble.as_deref().filter(|_| model.following);
    match (&model.notice, trouble) {
        _ if !model.typed.is_empty() => {
            let text = continuations(model, usize::from(area.width));
            canvas.line(area, &[(&text, theme.plain())]);
        }
        (Some(notice), _) => {
            let style = if notice.bad {
                theme.bad()
            } else {
                theme.plain()
            };
            canvas.line(area, &[(" ", style), (&notice.text, style)]);
        }
        (None, Some(trouble)) => {
            canvas.line(
                area,
                &[(" checkpoints fail: ", theme.bad()), (trouble, theme.bad())],
            );
        }
        _ => canvas.line(area, &[(&hints(model), theme.dim())]),
    }
}

/// What may follow the keys typed so far.
fn continuations(model: &Model, width: usize) -> String {
    let typed = crate::keys::notation::shown(&model.typed);
    let after = model.keymap.after(&model.typed);
    let named = after.iter().filter_map(|(keys, action)| {
        let entry = action.entry()?;
        Some(format!("{keys} {}", entry.name))
    });
    let mut text = format!(" {typed}- ");
    for one in named {
        if text.width() + one.width() + 2 > width {
            text.push('…');
            break;
        }
        text.extend([" ", &one, " "]);
    }
    text
}

fn hints(model: &Model) -> String {
    let mut text = String::new();
    for (action, word) in HINTS {
        if let Some(key) = model.keymap.keys_of(action).first() {
            text.extend([" ", key]);
            if !word.is_empty() {
                text.extend([" ", word, " "]);
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}
