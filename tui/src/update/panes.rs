//! Keys that mean something of their own in each pane.

use super::{PAGE, act, note, select};
use crate::clerk::Content;
use crate::data::{EXPANDED_ELEMENTS, MOST_ELEMENTS, MemoryAt};
use crate::keys::Action;
use crate::model::Model;
use crate::place::{Pane, Tab};
use crate::table::Lead;
use crate::variables::Kind;

const MEMORY_LINE: u64 = 16;
/// Columns of one step to the side.
const ACROSS: usize = 8;
/// Lines that nobody scrolls further than.
const FAR: i64 = 1_000_000;

/// Does what a key means in the focused pane.
pub fn in_pane(model: &mut Model, action: Action) {
    match model.tab() {
        Tab::Timeline => in_timeline(model, action),
        Tab::Threads => in_threads(model, action),
        Tab::Source => in_source(model, action),
        Tab::Variables => in_variables(model, action),
        Tab::Memory => in_memory(model, action),
        tab => in_list(model, tab, action),
    }
}

/// Rows that a tab has.
pub fn count(model: &Model, tab: Tab) -> usize {
    match tab {
        Tab::Timeline => model.checkpoints().len(),
        Tab::Threads => model.thread_rows().len(),
        Tab::Source | Tab::Memory => 0,
        Tab::Variables => model.rows.len(),
        Tab::Assembly => {
            let look = model.look.as_ref();
            look.map_or(0, |look| look.assembly.as_ref().map_or(0, Vec::len))
        }
        Tab::Log => model.log.len(),
        Tab::Pages => match model.details.get(&tab).map(|detail| &detail.content) {
            Some(Ok(Content::Heat(heat))) => heat.rows.len(),
            _ => 0,
        },
        tab => model.table(tab).map_or(0, |(_, rows)| rows.len()),
    }
}

/// Lines above the rows of a tab: a head, of results a title too.
pub fn head_of(tab: Tab) -> u16 {
    match tab {
        Tab::Fds | Tab::Maps | Tab::Sockets | Tab::Signals | Tab::Heap | Tab::Pages => 1,
        Tab::Results => 2,
        _ => 0,
    }
}

/// How many rows stand in a pane so high: below tables something may be said.
pub fn rows_of(tab: Tab, height: u16) -> u16 {
    let below = u16::from(head_of(tab) > 0 && tab != Tab::Pages);
    height.saturating_sub(head_of(tab) + below)
}

fn in_timeline(model: &mut Model, action: Action) {
    let rows = model.checkpoints();
    let last = rows.len().saturating_sub(1);
    let to = match (action, model.position(model.at)) {
        (Action::Left, _) => return act::go(model, model.before(), "this is the first checkpoint"),
        (Action::Right, _) => {
            return act::go(model, model.after(), "this is the newest checkpoint");
        }
        (Action::Top, _) => 0,
        (Action::Bottom, _) => last,
        (_, Some(at)) => moved(at, action, last),
        (_, None) => return,
    };
    let epoch = rows.get(to).map(|row| row.epoch);
    if epoch.is_some_and(|epoch| epoch != model.at) {
        act::go(model, epoch, "");
    }
}

fn in_threads(model: &mut Model, action: Action) {
    let rows = model.thread_rows();
    let at = model.cursors.row(Tab::Threads);
    let row = rows.get(at).copied();
    match action {
        Action::Enter => select::row(model, row),
        Action::Left | Action::Right => select::open(model, row, action == Action::Right),
        _ => {
            let to = moved(at, action, rows.len().saturating_sub(1));
            model.cursors.put(Tab::Threads, to);
        }
    }
}

fn in_source(model: &mut Model, action: Action) {
    let source = model.look.as_ref().and_then(|look| look.source.as_ref());
    let line = source.map_or(0, |source| i64::from(source.line));
    let cursor = model.cursors.source;
    let to = match action {
        Action::Up => cursor - 1,
        Action::Down => cursor + 1,
        Action::PageUp => cursor - 10,
        Action::PageDown => cursor + 10,
        Action::Top => 1 - line,
        Action::Bottom => FAR,
        Action::Enter => 0,
        _ => return across(model, Tab::Source, action),
    };
    // Within the file, so that the way back is not longer than what is seen.
    let last = source.and_then(|source| source.text.as_ref().ok().map(|text| text.len()));
    let last = last
        .and_then(|last| i64::try_from(last).ok())
        .unwrap_or(FAR);
    model.cursors.source = to.clamp((1 - line).min(0), (last - line).max(0));
}

fn across(model: &mut Model, tab: Tab, action: Action) {
    let columns = model.cursors.across.entry(tab).or_default();
    *columns = match action {
        Action::Left => columns.saturating_sub(ACROSS),
        Action::Right => columns.saturating_add(ACROSS).min(4096),
        _ => *columns,
    };
}

fn in_variables(model: &mut Model, action: Action) {
    let Some(row) = model.selected_variable().cloned() else {
        return;
    };
    let opens = match action {
        Action::Enter => None,
        Action::Right => Some(true),
        Action::Left => Some(false),
        _ => {
            model.cursors.reveals = false;
            let last = model.rows.len().saturating_sub(1);
            let to = moved(model.cursors.row(Tab::Variables), action, last);
            return model.cursors.put(Tab::Variables, to);
        }
    };
    if !open(model, &row.kind, opens) && opens == Some(false) {
        // From something inside to what it is in.
        let at = model.cursors.row(Tab::Variables);
        let above = model.rows[..at]
            .iter()
            .rposition(|other| other.depth < row.depth);
        return model.cursors.put(Tab::Variables, above.unwrap_or(at));
    }
    model.cursors.reveals = opens != Some(false);
    model.refresh_rows();
}

/// Opens or closes a node, or turns it over; false where there is nothing to do.
fn open(model: &mut Model, kind: &Kind, opens: Option<bool>) -> bool {
    match kind {
        Kind::Group { group, open } => {
            if opens.unwrap_or(!open) {
                model.closed_groups.remove(group);
            } else {
                model.closed_groups.insert(*group);
            }
        }
        Kind::Node { open, .. } | Kind::Pointer { open, .. } | Kind::Stretch { open, .. }
            if opens == Some(false) && !open =>
        {
            return false;
        }
        Kind::Node { path, open } => {
            if opens.unwrap_or(!open) {
                model.open.entry(path.clone()).or_insert(EXPANDED_ELEMENTS);
            } else {
                model.open.remove(path);
            }
        }
        Kind::Pointer { path, open } => {
            if opens.unwrap_or(!open) {
                model.follow.insert(path.clone());
            } else {
                model.follow.remove(path);
            }
        }
        Kind::Stretch { stretch, open } => {
            if opens.unwrap_or(!open) {
                model.stretches.insert(stretch.clone());
            } else {
                model.stretches.remove(stretch);
            }
        }
        Kind::More { root, shown } if opens != Some(false) => {
            if *shown >= MOST_ELEMENTS {
                note(
                    model,
                    "that many are shown at most; `e` with [i] shows any other",
                );
                return false;
            }
            model.open.insert(root.clone(), shown * 4);
        }
        _ => return false,
    }
    true
}

fn in_memory(model: &mut Model, action: Action) {
    let Some(Ok(memory)) = model.look.as_ref().map(|look| &look.memory) else {
        return;
    };
    // From where the last key went, not from where the last answer is.
    let start = match model.memory {
        MemoryAt::Address(address) => address,
        _ => memory.start,
    };
    let page = MEMORY_LINE * PAGE as u64;
    let to = match action {
        Action::Up => start.saturating_sub(MEMORY_LINE),
        Action::Down => start.saturating_add(MEMORY_LINE),
        Action::PageUp => start.saturating_sub(page),
        Action::PageDown => start.saturating_add(page),
        Action::Left | Action::Right => return across(model, Tab::Memory, action),
        // Where the first word points.
        Action::Enter => {
            let points = memory
                .pointers
                .first()
                .is_some_and(|first| first.at == memory.start);
            let word = memory
                .bytes
                .iter()
                .take(8)
                .rev()
                .try_fold(0u64, |word, byte| Some(word << 8 | u64::from((*byte)?)));
            match word.filter(|_| points) {
                Some(word) => word,
                None => return note(model, "the first word points nowhere"),
            }
        }
        _ => return,
    };
    model.memory = MemoryAt::Address(to.min(u64::MAX - 0xfff));
}

fn in_list(model: &mut Model, tab: Tab, action: Action) {
    let last = count(model, tab).saturating_sub(1);
    let at = model.cursors.row(tab).min(last);
    match action {
        Action::Enter => lead(model, tab, at),
        Action::Left | Action::Right => across(model, tab, action),
        _ => model.cursors.put(tab, moved(at, action, last)),
    }
}

/// Goes where a row leads.
fn lead(model: &mut Model, tab: Tab, at: usize) {
    let content = model.details.get(&tab).map(|detail| &detail.content);
    let lead = if let (Tab::Pages, Some(Ok(Content::Heat(heat)))) = (tab, content) {
        heat.rows.get(at).map(|row| Lead::Address(row.start, None))
    } else {
        let row = model
            .table(tab)
            .and_then(|(table, rows)| table.rows.get(*rows.get(at)?));
        row.and_then(|row| row.lead)
    };
    match lead {
        Some(Lead::Epoch(epoch)) if model.position(epoch).is_none() => {
            note(model, format!("@{epoch} is no longer kept"));
        }
        Some(Lead::Epoch(epoch)) => act::go(model, Some(epoch), ""),
        Some(Lead::Address(address, epoch)) => {
            if let Some(epoch) = epoch.filter(|epoch| *epoch != model.at) {
                act::go(model, Some(epoch), "");
            }
            model.memory = MemoryAt::Address(address.min(u64::MAX - 0xfff));
            model.shown.set(Tab::Memory);
            model.focus = Pane::Memory;
        }
        None => note(model, "this row leads nowhere"),
    }
}

fn moved(at: usize, action: Action, last: usize) -> usize {
    match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => at.saturating_add(1),
        Action::PageUp => at.saturating_sub(PAGE),
        Action::PageDown => at.saturating_add(PAGE),
        Action::Top => 0,
        Action::Bottom => last,
        _ => at,
    }
    .min(last)
}
