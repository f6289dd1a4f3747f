//! Keys: what is on top has the first word.

use crossterm::event::KeyCode;

use super::{Effect, PAGE, act, commands, complete, control, pick};
use crate::keys::{Action, Key, Meaning, TABLE};
use crate::model::Model;
use crate::overlay::{Ask, Deed, Overlay};
use crate::prompt::{Edit, edit};
use crate::query::FORMS;

/// No help is longer: a line an action, two a command, and what is said around them.
pub const HELP_LINES: usize = TABLE.len() + 2 * (commands::VERBS.len() + FORMS.len()) + 32;

pub fn pressed(model: &mut Model, key: Key, effects: &mut Vec<Effect>) {
    model.notice = None;
    match model.overlays.last() {
        Some(Overlay::Prompt(_)) => return typed(model, key, effects),
        Some(Overlay::Picker(_)) => return pick::typed(model, key, effects),
        Some(Overlay::Confirm(_)) if model.typed.is_empty() => match key.code {
            KeyCode::Char('y') if !key.control => return confirm(model, effects),
            KeyCode::Char('n') if !key.control => return drop(model.overlays.pop()),
            _ => {}
        },
        _ => {}
    }
    let mut keys = std::mem::take(&mut model.typed);
    if key.code == KeyCode::Esc && !keys.is_empty() {
        return;
    }
    keys.push(key);
    match model.keymap.meaning(&keys) {
        Meaning::Prefix => model.typed = keys,
        Meaning::Action(action) => meant(model, action, effects),
        // What began something that is none is forgotten; the key may mean something by itself.
        Meaning::Nothing if keys.len() > 1 => {
            if let Meaning::Action(action) = model.keymap.meaning(&[key]) {
                meant(model, action, effects);
            }
        }
        Meaning::Nothing => {}
    }
}

fn meant(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    match (action, model.overlays.last_mut()) {
        (Action::Quit, _) => model.quit = true,
        (Action::Suspend | Action::Redraw, _) => act::act(model, action, effects),
        (Action::Enter, Some(Overlay::Confirm(_))) => confirm(model, effects),
        (Action::Escape | Action::Enter | Action::Help, Some(_)) => drop(model.overlays.pop()),
        (movement, Some(Overlay::Help { scroll })) => *scroll = scrolled(*scroll, movement),
        (_, Some(_)) => {}
        (action, None) => act::act(model, action, effects),
    }
}

fn scrolled(at: usize, action: Action) -> usize {
    match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => at.saturating_add(1),
        Action::PageUp => at.saturating_sub(PAGE),
        Action::PageDown => at.saturating_add(PAGE),
        Action::First | Action::Top => 0,
        _ => at,
    }
    .min(HELP_LINES)
}

fn confirm(model: &mut Model, effects: &mut Vec<Effect>) {
    match model.overlays.pop() {
        Some(Overlay::Confirm(Deed::Rewind(to))) => {
            model.rewinding = Some(to);
            effects.push(Effect::Rewind { epoch: to });
        }
        Some(Overlay::Confirm(Deed::Control(drive))) => control::begin(model, drive, effects),
        _ => {}
    }
}

/// A key of a line being typed.
fn typed(model: &mut Model, key: Key, effects: &mut Vec<Effect>) {
    if matches!(key.code, KeyCode::Tab | KeyCode::BackTab) {
        return complete::complete(model, key.code == KeyCode::BackTab, effects);
    }
    if matches!(key.code, KeyCode::Up | KeyCode::Down) {
        return recall(model, key.code == KeyCode::Up);
    }
    let Some(Overlay::Prompt(prompt)) = model.overlays.last_mut() else {
        return;
    };
    prompt.offered = None;
    let ask = prompt.ask;
    match edit(&mut prompt.text, &mut prompt.cursor, key) {
        Edit::Going => {
            // A filter is seen at work while it is typed.
            if let Ask::Filter(tab) = ask {
                let text = prompt.text.clone();
                commands::filter(model, tab, &text);
            }
        }
        Edit::Abandoned => {
            model.overlays.pop();
            if let Ask::Filter(tab) = ask {
                commands::filter(model, tab, "");
            }
        }
        Edit::Quit => model.quit = true,
        Edit::Done(text) => {
            model.overlays.pop();
            commands::answered(model, ask, &text, effects);
        }
    }
}

/// Lines typed before.
fn recall(model: &mut Model, older: bool) {
    let Some(Overlay::Prompt(prompt)) = model.overlays.last_mut() else {
        return;
    };
    if prompt.ask != Ask::Command {
        return;
    }
    let back = if older {
        (prompt.back + 1).min(model.commands.len())
    } else {
        prompt.back.saturating_sub(1)
    };
    let line = model.commands.len().checked_sub(back);
    let line = line.and_then(|at| model.commands.get(at)).cloned();
    prompt.back = back;
    prompt.text = line.unwrap_or_default();
    prompt.cursor = prompt.text.chars().count();
    prompt.offered = None;
}
