//! What the model shows and does not know yet is asked for: after every event, whatever the event was.

use std::sync::Arc;

use super::Effect;
use crate::clerk::{Desk, Job};
use crate::data::Question;
use crate::model::{Model, Pending, Running};
use crate::place::Tab;
use crate::query::Query;

/// Checkpoints whose place is looked up at once.
const HITS: usize = 32;
/// Newest checkpoints whose place is shown.
const HIT_SPAN: usize = 256;

pub fn reconcile(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.quit {
        return;
    }
    keep_in_sight(model);
    look(model, effects);
    detail(model, effects);
    paint(model, effects);
    hits(model, effects);
    sparks(model, effects);
}

/// Rows that were scrolled stay where they are as long as the selected one is in sight.
fn keep_in_sight(model: &mut Model) {
    let areas = crate::layout::areas(model);
    for (pane, area) in areas {
        let tab = model.shown.of(pane);
        let height = crate::layout::inside(area).height;
        let count = super::panes::count(model, tab);
        let cursor = model.cursors.row(tab).min(count.saturating_sub(1));
        let before = model.cursors.first.get(&tab).copied().unwrap_or(0);
        let height = super::panes::rows_of(tab, height);
        let mut first = crate::layout::first_shown(before, cursor, count, height);
        if tab == Tab::Variables && model.cursors.reveals {
            first = first.max(revealing(model, usize::from(height)));
        }
        model.cursors.first.insert(tab, first);
    }
}

/// The first row with which the selected node and as much as can be of what is in it are in sight.
fn revealing(model: &Model, height: usize) -> usize {
    let at = model.cursors.row(Tab::Variables);
    let Some(node) = model.rows.get(at) else {
        return 0;
    };
    let inside = model.rows[at + 1..].iter();
    let inside = inside.take_while(|row| row.depth > node.depth).count();
    (at + 1 + inside.min(height.saturating_sub(1))).saturating_sub(height)
}

fn look(model: &mut Model, effects: &mut Vec<Effect>) {
    let question = model.question();
    if question.epoch == 0 || model.lost.is_some() {
        return;
    }
    match &model.pending {
        // What follows the newest waits for the answer under way: cancelled each time, none would come.
        Some(pending) if model.following && same_but_time(&pending.what, &question) => return,
        Some(pending) if pending.what == question => return,
        None if model
            .look
            .as_ref()
            .is_some_and(|look| look.question == question) =>
        {
            return;
        }
        None if model.refused.as_ref() == Some(&question) => return,
        Some(_) | None => {}
    }
    let number = model.next_number();
    model.pending = Some(Pending {
        number,
        what: question.clone(),
        ticks: 0,
    });
    effects.push(Effect::Ask { number, question });
}

fn same_but_time(a: &Question, b: &Question) -> bool {
    let timeless = |question: &Question| Question {
        epoch: 0,
        base: None,
        ..question.clone()
    };
    a.epoch <= b.epoch && timeless(a) == timeless(b)
}

fn detail(model: &mut Model, effects: &mut Vec<Effect>) {
    let tab = model.shown.of(crate::place::Pane::Memory);
    let Some(look) = &model.look else { return };
    if !tab.is_detail() || !model.shows(tab) || model.lost.is_some() {
        return;
    }
    let of = (look.question.epoch, look.question.base);
    let known = model
        .details
        .get(&tab)
        .is_some_and(|detail| detail.of == of);
    let asked = model.detailing.as_ref().map(|pending| pending.what);
    // One that is under way for an older checkpoint is waited for while the newest is followed.
    let waits = asked.is_some_and(|(asked, at)| asked == tab && (at == of || model.following));
    if known || waits {
        return;
    }
    let number = model.next_number();
    model.detailing = Some(Pending {
        number,
        what: (tab, of),
        ticks: 0,
    });
    effects.push(Effect::Hand {
        desk: Desk::Detail,
        number,
        job: Job::Detail {
            tab,
            epoch: of.0,
            base: of.1,
        },
    });
}

fn paint(model: &mut Model, effects: &mut Vec<Effect>) {
    let source = model.look.as_ref().and_then(|look| look.source.as_ref());
    let Some(source) = source.filter(|source| !model.paint.knows(&source.path)) else {
        return;
    };
    let (path, text) = (source.path.clone(), source.text.clone());
    model.paint.begin(&path);
    if let Ok(text) = text {
        effects.push(Effect::Paint {
            path,
            text: Arc::clone(&text),
        });
    }
}

fn hits(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.hitting.is_some() || model.lost.is_some() || model.target.is_core() {
        return;
    }
    if model.look.is_none() || !model.shows(Tab::Source) {
        return;
    }
    let rows = model.checkpoints();
    let newest = rows.iter().rev().take(HIT_SPAN);
    let unknown = newest
        .map(|row| row.epoch)
        .filter(|epoch| !model.hits.contains_key(epoch));
    let epochs: Vec<u64> = unknown.take(HITS).collect();
    if epochs.is_empty() {
        return;
    }
    let number = model.next_number();
    model.hitting = Some(number);
    effects.push(Effect::Hand {
        desk: Desk::Hits,
        number,
        job: Job::Hits { epochs },
    });
}

fn sparks(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.watches.is_empty() || model.sparking.is_some() || model.target.is_core() {
        return;
    }
    let Some(look) = model.look.as_ref().filter(|_| model.lost.is_none()) else {
        return;
    };
    let of = (look.question.epoch, model.watches.clone());
    if model.sparked.as_ref() == Some(&of) {
        return;
    }
    let mut from = model.standpoint();
    from.epoch = of.0;
    let number = model.next_number();
    model.sparking = Some(number);
    let exprs = of.1.clone();
    model.sparked = Some(of);
    effects.push(Effect::Hand {
        desk: Desk::Sparks,
        number,
        job: Job::Sparks { exprs, from },
    });
}

/// Asks a query of the user's; the one under way is given up.
pub fn query(model: &mut Model, query: Query, effects: &mut Vec<Effect>) {
    if model.at == 0 {
        return super::note(model, "there is no checkpoint yet");
    }
    let number = model.next_number();
    model.query = Some(Pending {
        number,
        what: Running {
            word: query.word(),
            done: 0,
            total: 0,
        },
        ticks: 0,
    });
    let from = model.standpoint();
    effects.push(Effect::Hand {
        desk: Desk::Query,
        number,
        job: Job::Query { query, from },
    });
}
