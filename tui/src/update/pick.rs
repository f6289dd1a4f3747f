//! Lists to choose from: the palette, bookmarks, branches, partitions.

use std::collections::BTreeMap;

use crossterm::event::KeyCode;

use super::{Effect, act, commands, note};
use crate::keys::{Key, TABLE};
use crate::model::Model;
use crate::overlay::{Choice, Item, Overlay, Picker};

fn show(model: &mut Model, title: &'static str, items: Vec<Item>, otherwise: &str) {
    if items.is_empty() {
        return note(model, otherwise);
    }
    model
        .overlays
        .push(Overlay::Picker(Picker::new(title, items)));
}

/// Everything that can be done, by name.
pub fn palette(model: &mut Model) {
    let actions = TABLE.iter().map(|entry| Item {
        text: entry.name.to_owned(),
        detail: format!(
            "{}  {}",
            entry.help,
            model.keymap.keys_of(entry.action).join(" ")
        ),
        letter: None,
        choice: Choice::Action(entry.action),
    });
    let typed = commands::listed().map(|[name, arguments, help]| Item {
        text: format!(":{name} {arguments}"),
        detail: help.to_owned(),
        letter: None,
        choice: Choice::Command(name),
    });
    let items = actions.chain(typed).collect();
    show(model, "Palette", items, "");
}

/// Bookmarks, then checkpoints with a name.
pub fn bookmarks(model: &mut Model) {
    let place = |epoch: u64| match model.checkpoint(epoch) {
        Some(row) => format!("branch {}", row.branch),
        None => "no longer kept".to_owned(),
    };
    let marks = model.bookmarks.iter().map(|mark| Item {
        text: format!("{}  @{}", mark.letter, mark.epoch),
        detail: place(mark.epoch),
        letter: Some(mark.letter),
        choice: Choice::Epoch(mark.epoch),
    });
    let named = model.checkpoints().iter().rev().filter_map(|row| {
        Some(Item {
            text: format!("@{}  {}", row.epoch, row.name.as_deref()?),
            detail: place(row.epoch),
            letter: None,
            choice: Choice::Epoch(row.epoch),
        })
    });
    let items = marks.chain(named).collect();
    show(
        model,
        "Jump",
        items,
        "there is no bookmark and no named checkpoint: `m` sets one",
    );
}

/// The newest checkpoint of each branch.
pub fn branches(model: &mut Model) {
    let mut ends: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for row in model.checkpoints() {
        let end = ends.entry(&row.branch).or_default();
        *end = (end.0.max(row.epoch), end.1 + 1);
    }
    let current = model.history.as_ref().map_or("", |history| &history.branch);
    let items: Vec<Item> = ends
        .iter()
        .map(|(branch, (end, count))| Item {
            text: format!("{branch}  @{end}"),
            detail: format!(
                "{count} checkpoints{}",
                if *branch == current {
                    ", the one that runs"
                } else {
                    ""
                }
            ),
            letter: None,
            choice: Choice::Epoch(*end),
        })
        .collect();
    if items.len() == 1 {
        return note(model, "there is one branch: a rewind begins another");
    }
    show(model, "Branches", items, "there is no checkpoint yet");
}

/// What can be looked at.
pub fn places(model: &mut Model, places: Result<Vec<Item>, String>) {
    match places {
        Ok(items) => show(model, "Partitions", items, "the daemon holds nothing"),
        Err(why) => model.say(why, true),
    }
}

/// A key while a list is open.
pub fn typed(model: &mut Model, key: Key, effects: &mut Vec<Effect>) {
    let Some(Overlay::Picker(picker)) = model.overlays.last_mut() else {
        return;
    };
    let last = picker.fitting().len().saturating_sub(1);
    match key.code {
        KeyCode::Esc => drop(model.overlays.pop()),
        KeyCode::Char('c') if key.control => model.quit = true,
        KeyCode::Enter => {
            let choice = picker
                .fitting()
                .get(picker.selected)
                .map(|item| item.choice.clone());
            choose(model, choice, effects);
        }
        KeyCode::Up => picker.selected = picker.selected.saturating_sub(1),
        KeyCode::Down | KeyCode::Tab => picker.selected = (picker.selected + 1).min(last),
        KeyCode::PageUp => picker.selected = picker.selected.saturating_sub(super::PAGE),
        KeyCode::PageDown => picker.selected = (picker.selected + super::PAGE).min(last),
        KeyCode::Backspace => {
            picker.typed.pop();
            picker.selected = 0;
        }
        KeyCode::Char('p') if key.control => picker.selected = picker.selected.saturating_sub(1),
        KeyCode::Char('n') if key.control => picker.selected = (picker.selected + 1).min(last),
        KeyCode::Char(c) if !key.control && !key.alt => {
            let by_letter = picker.items.iter().find(|item| item.letter == Some(c));
            if let Some(item) = by_letter.filter(|_| picker.typed.is_empty()) {
                let choice = item.choice.clone();
                return choose(model, Some(choice), effects);
            }
            picker.typed.push(c);
            picker.selected = 0;
        }
        _ => {}
    }
}

/// Does what was chosen.
pub fn choose(model: &mut Model, choice: Option<Choice>, effects: &mut Vec<Effect>) {
    let Some(choice) = choice else { return };
    model.overlays.pop();
    match choice {
        Choice::Action(action) => act::act(model, action, effects),
        Choice::Command(verb) => commands::begun(model, verb),
        Choice::Epoch(epoch) if model.position(epoch).is_none() => {
            note(model, format!("@{epoch} is no longer kept"));
        }
        Choice::Epoch(epoch) => act::go(model, Some(epoch), ""),
        Choice::Place(part, pid) => model.switch = Some((part, pid)),
    }
}
