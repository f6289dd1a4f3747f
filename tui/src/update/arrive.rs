//! Answers that come in.

use libsls::protocol::{History, Rewound};

use super::note;
use crate::clerk::{Desk, Finding};
use crate::data::Look;
use crate::model::{Bookmark, Detail, Model};
use crate::overlay::Overlay;
use crate::place::{Pane, Tab};
use crate::variables::Kind;

/// Checkpoints whose places are remembered.
const HITS: usize = 4096;

pub fn tick(model: &mut Model) {
    model.ticks += 1;
    if let Some(pending) = &mut model.pending {
        pending.ticks += 1;
    }
    if let Some(pending) = &mut model.query {
        pending.ticks += 1;
    }
    if let Some(pending) = &mut model.detailing {
        pending.ticks += 1;
    }
}

pub fn progress(model: &mut Model, history: History) {
    if model.lost.take().is_some() {
        model.refused = None;
        note(model, "slsd is there again");
    }
    if model.target.is_gone() {
        // They were in a process that somebody was attached to.
        model.control.points.clear();
    }
    let first = model.history.is_none();
    model.history = Some(history);
    if first {
        // Those of another history, whatever the numbers say, lead nowhere here.
        let marks = std::mem::take(&mut model.bookmarks);
        let there = |mark: &Bookmark| {
            model
                .checkpoint(mark.epoch)
                .is_some_and(|row| row.time == mark.time)
        };
        model.bookmarks = marks.iter().filter(|mark| there(mark)).cloned().collect();
    }
}

pub fn looked(model: &mut Model, number: u64, look: Result<Box<Look>, String>) {
    let Some(pending) = model.pending.take_if(|pending| pending.number == number) else {
        return;
    };
    match look {
        Ok(mut look) => {
            for note in std::mem::take(&mut look.notes) {
                // Once: each look brings all that are known.
                if model.noted.insert(note.clone()) {
                    model.say(note, false);
                }
            }
            show(model, *look);
        }
        Err(why) => {
            model.say(format!("@{}: {why}", pending.what.epoch), true);
            model.refused = Some(pending.what);
        }
    }
}

fn show(model: &mut Model, look: Look) {
    let selected = model.selected_variable().map(|row| row.kind.clone());
    let watched = model.look.as_ref().map_or(0, |look| look.watches.len());
    let new = look.watches.get(watched..).and_then(<[_]>::last);
    let new = new.filter(|_| model.look.is_some()).map(|root| Kind::Leaf {
        path: root.path.clone(),
    });
    if model.following {
        model.at = look.question.epoch;
    }
    if model.target.comm.is_empty() {
        let main = look.threads.first();
        model.target.comm = main.map_or(String::new(), |thread| thread.name.clone());
    }
    model.refused = None;
    model.look = Some(look);
    model.refresh_rows();
    reselect(model, new.as_ref().or(selected.as_ref()));
    let last = model.thread_rows().len().saturating_sub(1);
    let row = model.cursors.row(Tab::Threads).min(last);
    model.cursors.put(Tab::Threads, row);
    show_current(model);
}

/// The current instruction is in sight when it is another one.
fn show_current(model: &mut Model) {
    let Some(look) = &model.look else { return };
    let pc = look.selected_frame().map(|frame| frame.pc);
    if let (Ok(code), Some(pc)) = (&look.assembly, pc)
        && let Some(at) = code.iter().position(|one| one.address == pc)
        && model.current_pc != Some(pc)
    {
        model.cursors.put(Tab::Assembly, at);
        model.current_pc = Some(pc);
    }
}

/// Puts the cursor on a variable: the one it was on, or one just asked for.
fn reselect(model: &mut Model, selected: Option<&Kind>) {
    let same = |kind: &Kind| match (kind, selected) {
        (Kind::Group { group: a, .. }, Some(Kind::Group { group: b, .. })) => a == b,
        (Kind::Stretch { stretch: a, .. }, Some(Kind::Stretch { stretch: b, .. })) => a == b,
        (a, Some(b)) => a.path().is_some() && a.path() == b.path(),
        _ => false,
    };
    if let Some(at) = model.rows.iter().position(|row| same(&row.kind)) {
        model.cursors.put(Tab::Variables, at);
    }
}

pub fn found(model: &mut Model, desk: Desk, number: u64, found: Result<Finding, String>) {
    match desk {
        Desk::Detail => detailed(model, number, found),
        Desk::Query => queried(model, number, found),
        Desk::Hits => {
            if model.hitting.take_if(|asked| *asked == number).is_some()
                && let Ok(Finding::Hits(hits)) = found
            {
                if model.hits.len() > HITS {
                    model.hits.clear();
                }
                model.hits.extend(hits);
            }
        }
        Desk::Sparks => {
            if model.sparking.take_if(|asked| *asked == number).is_some()
                && let Ok(Finding::Sparks(sparks)) = found
            {
                model.sparks = sparks.into_iter().collect();
            }
        }
        Desk::Names => {
            if model.naming.take_if(|asked| *asked == number).is_some()
                && let Ok(Finding::Members(members)) = found
            {
                model.members = members;
                super::complete::offer_members(model);
            }
        }
    }
}

fn detailed(model: &mut Model, number: u64, found: Result<Finding, String>) {
    let Some(pending) = model.detailing.take_if(|pending| pending.number == number) else {
        return;
    };
    let (tab, of) = pending.what;
    let content = match found {
        Ok(Finding::Detail(content)) => Ok(content),
        Ok(_) => return,
        Err(why) => Err(why),
    };
    model.details.insert(tab, Detail { of, content });
}

fn queried(model: &mut Model, number: u64, found: Result<Finding, String>) {
    if model
        .changing
        .as_ref()
        .is_some_and(|pending| pending.number == number)
    {
        return changed(model, found);
    }
    let Some(pending) = model.query.take_if(|pending| pending.number == number) else {
        return;
    };
    match found {
        Ok(Finding::Table(table)) => {
            let said = match table.rows.len() {
                0 => format!("{}: nothing found", table.title),
                count => format!("{}: {count} rows", table.title),
            };
            note(model, said);
            let here = format!("@{}", model.at);
            let at = table
                .rows
                .iter()
                .position(|row| row.cells.first() == Some(&here));
            model.cursors.put(Tab::Results, at.unwrap_or(0));
            model.filters.remove(&Tab::Results);
            model.results = Some(table);
            model.shown.set(Tab::Results);
            model.focus = Pane::Memory;
        }
        Ok(_) => {}
        Err(why) => model.say(format!("{}: {why}", pending.what.word), true),
    }
}

fn changed(model: &mut Model, found: Result<Finding, String>) {
    let expr = model
        .changing
        .take()
        .map_or(String::new(), |pending| pending.what);
    match found {
        Ok(Finding::Change(Some(epoch))) => {
            model.following = false;
            model.at = epoch;
            note(model, format!("{expr} changed at @{epoch}"));
        }
        Ok(_) => note(
            model,
            format!("{expr} does not change any more on this way"),
        ),
        Err(why) => model.say(format!("{expr}: {why}"), true),
    }
}

pub fn came(model: &mut Model, number: u64, done: u64, total: u64) {
    if let Some(pending) = model
        .query
        .as_mut()
        .filter(|pending| pending.number == number)
    {
        (pending.what.done, pending.what.total) = (done, total);
    }
}

pub fn rewound(model: &mut Model, result: Result<Rewound, String>) {
    model.rewinding = None;
    match result {
        Ok(rewound) => {
            model.following = false;
            model.at = rewound.to;
            model.rewound = Some(rewound.clone());
            let said = format!(
                "rewound to @{}; the present is kept as @{}",
                rewound.to, rewound.from
            );
            note(model, said);
            model.overlays.push(Overlay::Rewound(rewound));
        }
        Err(why) => model.say(format!("not rewound: {why}"), true),
    }
}
