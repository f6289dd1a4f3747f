//! Keys that mean something of their own in each pane.

use crate::data::{EXPANDED_ELEMENTS, MOST_ELEMENTS, MemoryAt};
use crate::keys::Action;
use crate::model::{Model, Pane, ThreadRow};
use crate::update::{Effect, PAGE, act, ask, go, note};
use crate::variables::Kind;

const MEMORY_LINE: u64 = 16;

/// Does what a key means in the focused pane.
pub fn in_pane(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    match model.focus {
        Pane::Timeline => in_timeline(model, action, effects),
        Pane::Threads => in_threads(model, action, effects),
        Pane::Source => {
            let by = match action {
                Action::Up => -1,
                Action::Down => 1,
                Action::PageUp => -10,
                Action::PageDown => 10,
                Action::Enter => -model.cursors.source,
                _ => 0,
            };
            model.cursors.source = model
                .cursors
                .source
                .saturating_add(by)
                .clamp(-1_000_000, 1_000_000);
        }
        Pane::Variables => in_variables(model, action, effects),
        Pane::Memory => in_memory(model, action, effects),
    }
}

fn in_timeline(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    match action {
        Action::Left => return act(model, Action::Previous, effects),
        Action::Right => return act(model, Action::Next, effects),
        _ => {}
    }
    let last = model.checkpoints().len().saturating_sub(1);
    let Some(at) = model.position(model.at) else {
        return;
    };
    let to = moved(at, action).min(last);
    if to != at {
        let epoch = model.checkpoints().get(to).map(|row| row.epoch);
        go(model, epoch, "", effects);
    }
}

fn in_threads(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    let rows = model.thread_rows();
    if action == Action::Enter {
        return select(model, rows.get(model.cursors.threads).copied(), effects);
    }
    let last = rows.len().saturating_sub(1);
    model.cursors.threads = moved(model.cursors.threads, action).min(last);
}

fn select(model: &mut Model, row: Option<ThreadRow>, effects: &mut Vec<Effect>) {
    let Some(look) = &model.look else { return };
    match row {
        Some(ThreadRow::Thread(number)) => {
            model.tid = look.threads.get(number).map(|thread| thread.tid);
            model.frame = None;
            // The frames of the one that was selected go away: the thread keeps its number.
            model.cursors.threads = number;
        }
        Some(ThreadRow::Frame(index)) => {
            model.tid = Some(look.tid);
            model.frame = look.frames.get(index).map(|frame| frame.key.clone());
        }
        None => return,
    }
    model.cursors.source = 0;
    ask(model, effects);
}

fn in_variables(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    let Some(row) = model.selected_variable().cloned() else {
        return;
    };
    let opens = match action {
        Action::Enter => None,
        Action::Right => Some(true),
        Action::Left => Some(false),
        _ => {
            let last = model.rows.len().saturating_sub(1);
            model.cursors.variables = moved(model.cursors.variables, action).min(last);
            return;
        }
    };
    match row.kind {
        Kind::Group { group, open } => {
            if opens.unwrap_or(!open) {
                model.closed_groups.remove(&group);
            } else {
                model.closed_groups.insert(group);
            }
        }
        Kind::Node { path, open } => {
            if opens.unwrap_or(!open) {
                model.open.entry(path).or_insert(EXPANDED_ELEMENTS);
            } else {
                model.open.remove(&path);
            }
        }
        Kind::Pointer { path, open } => {
            if opens.unwrap_or(!open) {
                model.follow.insert(path);
            } else {
                model.follow.remove(&path);
            }
        }
        Kind::More { root, shown } if opens != Some(false) => {
            if shown >= MOST_ELEMENTS {
                return note(
                    model,
                    "that many are shown at most; `/` with [i] shows any other",
                );
            }
            model.open.insert(root, shown * 4);
        }
        _ => return,
    }
    model.refresh_rows();
    ask(model, effects);
}

fn in_memory(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    let Some(Ok(memory)) = model.look.as_ref().map(|look| &look.memory) else {
        return;
    };
    // From where the last key went, not from where the last answer is.
    let start = match model.memory {
        MemoryAt::Address(address) => address,
        _ => memory.start,
    };
    let to = match action {
        Action::Up => start.saturating_sub(MEMORY_LINE),
        Action::Down => start.saturating_add(MEMORY_LINE),
        Action::PageUp => start.saturating_sub(MEMORY_LINE * PAGE as u64),
        Action::PageDown => start.saturating_add(MEMORY_LINE * PAGE as u64),
        _ => return,
    };
    model.memory = MemoryAt::Address(to.min(u64::MAX - 0xfff));
    ask(model, effects);
}

fn moved(at: usize, action: Action) -> usize {
    match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => at.saturating_add(1),
        Action::PageUp => at.saturating_sub(PAGE),
        Action::PageDown => at.saturating_add(PAGE),
        _ => at,
    }
}
