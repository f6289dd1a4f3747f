//! The mouse: a click selects, a second one on the same row opens, the wheel scrolls, a drag in the timeline scrubs.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::{Effect, act, panes, pick};
use crate::keys::Action;
use crate::layout::{areas, inside};
use crate::model::Model;
use crate::overlay::Overlay;
use crate::place::{Pane, Tab};

/// Rows of one step of the wheel.
const WHEEL: usize = 3;

pub fn moused(model: &mut Model, mouse: MouseEvent, effects: &mut Vec<Effect>) {
    let wheel = match mouse.kind {
        MouseEventKind::ScrollUp => Some(Action::Up),
        MouseEventKind::ScrollDown => Some(Action::Down),
        _ => None,
    };
    match model.overlays.last_mut() {
        Some(Overlay::Help { scroll }) => {
            match wheel {
                Some(Action::Up) => *scroll = scroll.saturating_sub(WHEEL),
                Some(_) => *scroll = (*scroll + WHEEL).min(super::press::HELP_LINES),
                None => {}
            }
            return;
        }
        Some(Overlay::Picker(picker)) => {
            let last = picker.fitting().len().saturating_sub(1);
            match wheel {
                Some(Action::Up) => picker.selected = picker.selected.saturating_sub(1),
                Some(_) => picker.selected = (picker.selected + 1).min(last),
                None => {}
            }
            if matches!(mouse.kind, MouseEventKind::Down(MouseButton::Right)) {
                pick::typed(
                    model,
                    crate::keys::Key::plain(crossterm::event::KeyCode::Esc),
                    effects,
                );
            }
            return;
        }
        // A question is answered by keys alone: a click that missed must not rewind anything.
        Some(_) => return,
        None => {}
    }
    let at = Position::new(mouse.column, mouse.row);
    let Some((pane, area)) = areas(model).into_iter().find(|(_, area)| area.contains(at)) else {
        return;
    };
    match (mouse.kind, wheel) {
        (_, Some(action)) => scroll(model, pane, action),
        (MouseEventKind::Down(MouseButton::Left), _) => click(model, pane, area, at),
        (MouseEventKind::Drag(MouseButton::Left), _) if pane == Pane::Timeline => {
            scrub(model, inside(area), at);
        }
        _ => {}
    }
}

fn scroll(model: &mut Model, pane: Pane, action: Action) {
    let focus = std::mem::replace(&mut model.focus, pane);
    // One step of the wheel is one checkpoint.
    let steps = if pane == Pane::Timeline { 1 } else { WHEEL };
    for _ in 0..steps {
        panes::in_pane(model, action);
    }
    model.focus = focus;
}

fn click(model: &mut Model, pane: Pane, area: Rect, at: Position) {
    let was_focused = std::mem::replace(&mut model.focus, pane) == pane;
    if at.y == area.y {
        return tab_at(model, pane, area, at.x);
    }
    let inner = inside(area);
    if !inner.contains(at) {
        return;
    }
    let tab = model.shown.of(pane);
    match tab {
        Tab::Timeline => scrub(model, inner, at),
        Tab::Source | Tab::Memory => {}
        tab => {
            let head = panes::head_of(tab);
            let Some(row) = (at.y - inner.y).checked_sub(head) else {
                return;
            };
            let first = model.cursors.first.get(&tab).copied().unwrap_or(0);
            let row = first + usize::from(row);
            if row >= panes::count(model, tab) {
                return;
            }
            let again = was_focused && model.cursors.row(tab) == row;
            model.cursors.put(tab, row);
            if again {
                panes::in_pane(model, Action::Enter);
            }
        }
    }
}

/// The title of a tab that was clicked on.
fn tab_at(model: &mut Model, pane: Pane, area: Rect, x: u16) {
    let titles = crate::draw::tab_columns(pane, area.width);
    let column = usize::from(x - area.x);
    if let Some((tab, _)) = titles
        .into_iter()
        .find(|(_, columns)| columns.contains(&column))
    {
        model.shown.set(tab);
    }
}

/// Goes to the checkpoint under the pointer.
fn scrub(model: &mut Model, inner: Rect, at: Position) {
    let column = usize::from(at.x.saturating_sub(inner.x));
    let first = crate::draw::timeline_first(model, inner.width);
    let epoch = model.checkpoints().get(first + column).map(|row| row.epoch);
    if epoch.is_some_and(|epoch| epoch != model.at) {
        act::go(model, epoch, "");
    }
}
