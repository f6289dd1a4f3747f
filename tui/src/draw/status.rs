//! The top and the bottom line.

use ratatui::layout::Rect;

use super::Canvas;
use crate::model::{Base, Model, Overlay, Standing};

const HINTS: &str = " , . step  R rewind  d base  Enter open  m memory  / watch  ? help  q quit";

/// Program, pid, partition, how it is, what is looked at.
pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let target = &model.target;
    let word = match model.standing() {
        Standing::Live => "LIVE",
        Standing::Past => "PAST",
        Standing::Rewound => "REWOUND",
        Standing::Dead => "DEAD",
    };
    let at = match model.at {
        0 => "no checkpoint yet".to_owned(),
        at => format!("@{at}"),
    };
    let of = match model.newest() {
        Some(newest) if newest != model.at => format!(" of @{newest}"),
        _ => String::new(),
    };
    let base = match (model.base, model.base_epoch()) {
        (Base::At(epoch), _) => format!("  base @{epoch}"),
        (Base::Previous, Some(epoch)) => format!("  against @{epoch}"),
        (Base::Previous, None) => String::new(),
    };
    let who = format!(
        " {} {}  {}  {}  ",
        target.comm, target.pid, target.part, target.state
    );
    let standing = format!(" {word} {at} ");
    canvas.line(
        area,
        &[
            (&who, theme.group()),
            (&standing, theme.standing(model.standing())),
            (&of, theme.plain()),
            (&base, theme.plain()),
            (busy(model), theme.changed()),
        ],
    );
}

fn busy(model: &Model) -> &'static str {
    if model.rewinding.is_some() {
        "  rewinding"
    } else if model.pending.is_some() && !model.following {
        "  loading"
    } else {
        ""
    }
}

/// What was just said, or the keys most used.
pub fn footer(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    if let Some(Overlay::Prompt { .. }) = model.overlays.last() {
        return;
    }
    let trouble = model.target.trouble.as_deref().filter(|_| model.following);
    match (&model.notice, trouble) {
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
        _ if model.prefix => canvas.line(
            area,
            &[(" g-  d: compare with this checkpoint", theme.plain())],
        ),
        _ => canvas.line(area, &[(HINTS, theme.dim())]),
    }
}
