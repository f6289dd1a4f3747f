//! What the actions of the key table do.

use super::{Effect, commands, control, note, panes, pick, reconcile, select};
use crate::clerk::{Desk, Job};
use crate::keys::Action;
use crate::model::{Base, Bookmark, Group, Model, Pending};
use crate::overlay::{Ask, Deed, Overlay, Prompt};
use crate::place::{Pane, Tab};
use crate::query::Query;
use libsls::EpochRef;

pub fn act(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    match action {
        Action::Previous | Action::Back => {
            go(model, model.before(), "this is the first checkpoint");
        }
        Action::Next => go(model, model.after(), "this is the newest checkpoint"),
        Action::PreviousChange => change(model, false, effects),
        Action::NextChange => change(model, true, effects),
        Action::First => {
            let first = model.checkpoints().first().map(|row| row.epoch);
            go(model, first, "there is no checkpoint yet");
        }
        Action::Newest => {
            model.following = true;
            model.refused = None;
        }
        Action::Bookmark => bookmark(model),
        Action::Jump => pick::bookmarks(model),
        Action::Base => set_base(model),
        Action::Branch => pick::branches(model),
        Action::NextPane => turn(model, 1),
        Action::PreviousPane => turn(model, Pane::ALL.len() - 1),
        Action::Pane(pane) => model.focus = pane,
        Action::NextTab => turn_tab(model, 1),
        Action::PreviousTab => turn_tab(model, -1),
        Action::Filter => ask(model, Ask::Filter(model.tab())),
        Action::Zoom => model.zoomed = true,
        Action::Unzoom => model.zoomed = false,
        Action::FrameUp => select::frame(model, 1),
        Action::FrameDown => select::frame(model, -1),
        Action::Where => model.focus = Pane::Threads,
        Action::Locals => model.focus = Pane::Variables,
        Action::Watch => ask(model, Ask::Watch),
        Action::Unwatch => unwatch(model),
        Action::Memory => show_memory(model),
        Action::Address => ask(model, Ask::Address),
        Action::Copy => copy(model, effects),
        Action::Timeline => about(model, effects, |expr| Query::Timeline {
            expr,
            changes: false,
            range: None,
        }),
        Action::Blame => about(model, effects, |expr| Query::Blame { expr }),
        Action::Refs => about(model, effects, |expr| Query::Refs { expr, along: false }),
        Action::Diff => diff(model, effects),
        Action::Heap => {
            let query = Query::Heap {
                at: EpochRef::Number(model.at),
                base: model.standpoint().base.map(EpochRef::Number),
            };
            reconcile::query(model, query, effects);
        }
        Action::Bisect => ask(model, Ask::Bisect),
        Action::Scan => ask(model, Ask::Scan),
        Action::Continue
        | Action::Pause
        | Action::Step
        | Action::StepOver
        | Action::StepInstruction
        | Action::StepOverInstruction
        | Action::Finish => control::act(model, action, effects),
        Action::Break => control::toggle(model, effects),
        Action::Breakpoints => control::list(model),
        Action::Rewind => offer_rewind(model),
        Action::Partitions => effects.push(Effect::Places),
        Action::Command => ask(model, Ask::Command),
        Action::Palette => pick::palette(model),
        Action::Help => model.overlays.push(Overlay::Help { scroll: 0 }),
        Action::Escape => escape(model, effects),
        Action::Redraw => effects.push(Effect::Redraw),
        Action::Suspend => effects.push(Effect::Suspend),
        Action::Quit => model.quit = true,
        movement => panes::in_pane(model, movement),
    }
}

pub fn ask(model: &mut Model, what: Ask) {
    let text = match what {
        Ask::Filter(tab) => model.filter(tab).to_owned(),
        _ => String::new(),
    };
    model
        .overlays
        .push(Overlay::Prompt(Prompt::new(what, text)));
}

pub fn go(model: &mut Model, epoch: Option<u64>, otherwise: &str) {
    let Some(epoch) = epoch else {
        return note(model, otherwise);
    };
    model.following = false;
    model.refused = None;
    model.at = epoch;
}

fn turn(model: &mut Model, by: usize) {
    let at = (model.focus.number() - 1 + by) % Pane::ALL.len();
    model.focus = Pane::ALL[at];
}

fn turn_tab(model: &mut Model, by: isize) {
    let tabs = model.focus.tabs();
    let at = tabs.iter().position(|tab| *tab == model.tab()).unwrap_or(0);
    let at = at.cast_signed() + by;
    let at = at.rem_euclid(tabs.len().cast_signed()).unsigned_abs();
    if tabs.len() > 1 {
        model.shown.set(tabs[at]);
    } else {
        note(model, "this pane has one tab; `5` has most of them");
    }
}

fn set_base(model: &mut Model) {
    if model.base == Base::At(model.at) {
        model.base = Base::Previous;
        note(model, "compared with the checkpoint before each");
    } else if model.at != 0 {
        model.base = Base::At(model.at);
        note(model, format!("compared with @{} from now on", model.at));
    }
}

fn bookmark(model: &mut Model) {
    let Some(row) = model.checkpoint(model.at) else {
        return note(model, "there is no checkpoint here to bookmark");
    };
    let (epoch, time) = (row.epoch, row.time);
    if let Some(at) = model.bookmarks.iter().position(|mark| mark.epoch == epoch) {
        let gone = model.bookmarks.remove(at);
        return note(model, format!("bookmark {} taken away", gone.letter));
    }
    let free = |letter: &char| model.bookmarks.iter().all(|mark| mark.letter != *letter);
    let Some(letter) = ('a'..='z').find(free) else {
        return note(model, "all letters are in use: `'` lists the bookmarks");
    };
    model.bookmarks.push(Bookmark {
        letter,
        epoch,
        time,
    });
    note(
        model,
        format!("@{epoch} is bookmark {letter}: `'{letter}` comes back"),
    );
}

/// The expression of the selected variable.
fn selected(model: &Model) -> Option<String> {
    let row = model.selected_variable()?;
    row.kind.path().map(str::to_owned)
}

fn change(model: &mut Model, forward: bool, effects: &mut Vec<Effect>) {
    let Some(expr) = selected(model) else {
        return note(model, "select a variable first: its changes are gone along");
    };
    let number = model.next_number();
    note(model, format!("looking where {expr} changes"));
    model.changing = Some(Pending {
        number,
        what: expr.clone(),
        ticks: 0,
    });
    model.query = None;
    effects.push(Effect::Hand {
        desk: Desk::Query,
        number,
        job: Job::Change {
            expr,
            from: model.standpoint(),
            forward,
        },
    });
}

/// Asks something about the selected variable.
fn about(model: &mut Model, effects: &mut Vec<Effect>, query: impl FnOnce(String) -> Query) {
    match selected(model) {
        Some(expr) => reconcile::query(model, query(expr), effects),
        None => note(model, "select a variable first, or write it after `:`"),
    }
}

fn diff(model: &mut Model, effects: &mut Vec<Effect>) {
    let from = model.standpoint();
    match from.base {
        Some(base) => {
            let query = Query::Diff {
                old: EpochRef::Number(base),
                new: EpochRef::Number(from.epoch),
            };
            reconcile::query(model, query, effects);
        }
        None => note(
            model,
            "there is no base here: `gd` at another checkpoint makes it one",
        ),
    }
}

fn show_memory(model: &mut Model) {
    match selected(model) {
        Some(path) => commands::memory_at(model, &path),
        None => note(model, "select a variable first: its memory is shown"),
    }
}

fn unwatch(model: &mut Model) {
    let Some(look) = &model.look else { return };
    let path = model.selected_variable().and_then(|row| row.kind.path());
    let chosen = look
        .watches
        .iter()
        .position(|root| Some(root.path.as_str()) == path);
    match chosen {
        Some(at) if in_group(model, Group::Watches) && at < model.watches.len() => {
            model.watches.remove(at);
        }
        _ => note(model, "no watched expression is selected"),
    }
}

/// Whether the selected variable is in this group: one of another may have the same path.
fn in_group(model: &Model, wanted: Group) -> bool {
    let above = model
        .rows
        .iter()
        .take(model.cursors.row(Tab::Variables) + 1)
        .rev();
    let group = above.filter_map(|row| match row.kind {
        crate::variables::Kind::Group { group, .. } => Some(group),
        _ => None,
    });
    group.into_iter().next() == Some(wanted)
}

fn copy(model: &mut Model, effects: &mut Vec<Effect>) {
    match select::text(model) {
        Some(text) => {
            note(model, format!("copied: {text}"));
            effects.push(Effect::Copy(text));
        }
        None => note(model, "nothing is selected here that could be copied"),
    }
}

fn offer_rewind(model: &mut Model) {
    if model.target.is_core() {
        note(model, "this is a core: nobody runs who could be rewound");
    } else if model.target.is_gone() {
        note(
            model,
            "nobody is attached any more: there is nothing to rewind; `slsctl restore` makes it anew",
        );
    } else if model.rewinding.is_some() {
        note(model, "a rewind is under way");
    } else if model.following || model.at == 0 {
        note(model, "this is now: go back with `,` first, then rewind");
    } else if model.position(model.at).is_none() {
        note(model, format!("@{} is no longer kept", model.at));
    } else {
        model
            .overlays
            .push(Overlay::Confirm(Deed::Rewind(model.at)));
    }
}

/// With nothing on top: the query under way, then a filter, then the zoom.
fn escape(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.query.take().is_some() || model.changing.take().is_some() {
        effects.push(Effect::Cancel(Desk::Query));
        return note(model, "given up");
    }
    let tab = model.tab();
    if model.filters.remove(&tab).is_some() {
        if tab == Tab::Variables {
            model.refresh_rows();
        }
        return;
    }
    model.zoomed = false;
}
