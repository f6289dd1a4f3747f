//! The source around the selected frame's line: words by what they are, values of locals beside the line, marks where
//! checkpoints stopped.

use std::collections::HashMap;

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Canvas, lines};
use crate::data::{Look, Source};
use crate::model::Model;
use crate::place::Tab;
use crate::table::contains;
use crate::text::file_name;
use crate::theme::Role;
use crate::update::control::point_at;

/// Characters of one value beside its line.
const VALUE: usize = 40;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(look) = &model.look else { return };
    let Some(source) = &look.source else {
        canvas.line(
            area,
            &[(" this frame has no line information", canvas.theme.dim())],
        );
        return;
    };
    match &source.text {
        Ok(text) => draw_text(model, canvas, area, look, source, text),
        Err(why) => {
            let place = format!(" {}:{}", file_name(&source.path), source.line);
            let mut rows = lines(area);
            for text in [place.as_str(), why] {
                if let Some(row) = rows.next() {
                    canvas.line(row, &[(text, canvas.theme.dim())]);
                }
            }
        }
    }
}

/// How many checkpoints stopped at each line of a file.
fn hits(model: &Model, path: &str) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    let here = model.hits.values().flatten().filter(|hit| hit.file == path);
    for hit in here {
        *counts.entry(hit.line).or_default() += 1;
    }
    counts
}

fn draw_text(
    model: &Model,
    canvas: &mut Canvas<'_>,
    area: Rect,
    look: &Look,
    source: &Source,
    text: &[String],
) {
    let theme = canvas.theme;
    let current = usize::try_from(source.line).unwrap_or(usize::MAX);
    let by = isize::try_from(model.cursors.source).unwrap_or(0);
    let middle = current
        .saturating_add_signed(by)
        .clamp(1, text.len().max(1));
    let mut rows = lines(area);
    if area.height > 3
        && let Some(row) = rows.next()
    {
        let place = format!(" {}:{}", file_name(&source.path), source.line);
        canvas.line(row, &[(&place, theme.dim())]);
    }
    let height = usize::from(area.height.saturating_sub(1).max(1));
    let first = middle
        .saturating_sub(1 + height / 2)
        .min(text.len().saturating_sub(height));
    let hits = hits(model, &source.path);
    let filter = model.filter(Tab::Source);
    let skipped = model.cursors.across.get(&Tab::Source).copied().unwrap_or(0);
    for ((at, line), area) in text.iter().enumerate().skip(first).zip(rows) {
        let here = at + 1 == current;
        let hit = u32::try_from(at + 1).ok().and_then(|line| hits.get(&line));
        let point = u32::try_from(at + 1)
            .ok()
            .and_then(|line| point_at(model, &source.path, line));
        let mark = match (point, here, hit) {
            (Some(point), ..) if point.enabled && point.trouble.is_none() => "●",
            (Some(_), ..) => "○",
            (None, true, _) => ">",
            (None, false, Some(_)) => "•",
            _ => " ",
        };
        let number = format!("{:>5} ", at + 1);
        let (marks, numbers) = match (here, hit) {
            (true, _) => (theme.current(), theme.current()),
            (false, Some(_)) => (theme.of(Role::Hit), theme.dim()),
            _ => (theme.plain(), theme.dim()),
        };
        let marks = if point.is_some() { theme.bad() } else { marks };
        canvas.line(area, &[(mark, marks), (&number, numbers)]);
        let rest = Rect {
            x: area.x + 7.min(area.width),
            width: area.width.saturating_sub(7),
            ..area
        };
        let found = !filter.is_empty() && contains(line, filter);
        let mut pieces = words(
            model,
            source,
            at,
            line,
            (here, found),
            theme.plain(),
            canvas,
        );
        let inline = if here {
            values(look, line)
        } else {
            String::new()
        };
        pieces.push((&inline, theme.of(Role::Inline)));
        canvas.line_from(rest, skipped, &pieces);
    }
}

/// A line as pieces, each as its kind looks.
fn words<'a>(
    model: &Model,
    source: &Source,
    at: usize,
    line: &'a str,
    (here, found): (bool, bool),
    plain: Style,
    canvas: &Canvas<'_>,
) -> Vec<(&'a str, Style)> {
    let theme = canvas.theme;
    if found {
        return vec![(line, theme.changed())];
    }
    let bold = |style: Style| {
        if here {
            style.add_modifier(ratatui::style::Modifier::BOLD)
        } else {
            style
        }
    };
    let Some(spans) = model.paint.line(&source.path, at) else {
        return vec![(line, if here { theme.current() } else { plain })];
    };
    let mut pieces = Vec::with_capacity(spans.len() + 1);
    let mut rest = line;
    for (len, role) in spans {
        let Some((piece, after)) = rest.split_at_checked(*len) else {
            break;
        };
        pieces.push((piece, bold(theme.of(*role))));
        rest = after;
    }
    pieces.push((rest, bold(plain)));
    pieces
}

/// `  a = 1, b = "x"`: the locals that a line names, in the order in which it does.
fn values(look: &Look, line: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut seen: Vec<&str> = Vec::new();
    let mut text = String::new();
    for name in line.split(|c| !word(c)).filter(|name| !name.is_empty()) {
        let Some(root) = look.locals.iter().find(|root| root.path == name) else {
            continue;
        };
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let mut value = root.value.to_text();
        if let Some((end, _)) = value.char_indices().nth(VALUE) {
            value.truncate(end);
            value.push('…');
        }
        let changed = root
            .old
            .as_ref()
            .is_some_and(|old| old.to_text() != root.value.to_text());
        let sign = if changed { "*" } else { "" };
        let before = if text.is_empty() { "   ◂ " } else { ", " };
        for part in [before, name, " = ", &value, sign] {
            text.push_str(part);
        }
    }
    text
}
