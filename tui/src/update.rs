//! Events to changes of the model, and to what has to be done outside: the only place that changes it.

use crossterm::event::KeyEvent;
use libsls::protocol::{History, Rewound};

use crate::data::{Look, MemoryAt, Question};
use crate::keys::{Action, action};
use crate::model::{Base, Group, Model, Notice, Overlay, Pane};
use crate::panes;
use crate::prompt;
use crate::variables::Kind;

pub(crate) const PAGE: usize = 10;

/// What happened.
#[derive(Debug)]
pub enum Event {
    Key(KeyEvent),
    Resized,
    /// The history as it is now, and how the process is.
    Progress {
        history: History,
        state: String,
        comm: Option<String>,
        trouble: Option<String>,
    },
    /// The answer to a question.
    Looked {
        number: u64,
        look: Result<Box<Look>, String>,
    },
    Rewound(Result<Rewound, String>),
    /// The daemon cannot be asked.
    Lost(String),
    /// A thread of this program failed.
    Failed(String),
    /// The terminal went away, or somebody asks this program to end.
    Quit,
}

/// What has to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A newer question cancels the older ones.
    Ask {
        number: u64,
        question: Question,
    },
    Rewind {
        epoch: u64,
    },
}

/// Takes one event in.
pub fn update(model: &mut Model, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    match event {
        Event::Key(key) => pressed(model, key, &mut effects),
        Event::Resized => {}
        Event::Progress {
            history,
            state,
            comm,
            trouble,
        } => {
            model.target.state = state;
            if let Some(comm) = comm.filter(|comm| !comm.is_empty()) {
                model.target.comm = comm;
            }
            model.target.trouble = trouble;
            progress(model, history, &mut effects);
        }
        Event::Looked { number, look } => looked(model, number, look, &mut effects),
        Event::Rewound(result) => rewound(model, result, &mut effects),
        Event::Lost(why) => complain(model, why),
        Event::Failed(why) => {
            model.failure = Some(why);
            model.quit = true;
        }
        Event::Quit => model.quit = true,
    }
    effects
}

fn progress(model: &mut Model, history: History, effects: &mut Vec<Effect>) {
    model.history = Some(history);
    // What follows the newest waits for the answer under way: cancelled each time, none would come.
    if model.pending.is_none() && !is_answered(model) {
        ask(model, effects);
    }
}

fn is_answered(model: &Model) -> bool {
    let question = model.question();
    model
        .look
        .as_ref()
        .is_some_and(|look| look.question == question)
}

/// Asks for what the model shows now, whatever else is under way.
pub(crate) fn ask(model: &mut Model, effects: &mut Vec<Effect>) {
    let question = model.question();
    if question.epoch == 0 {
        return;
    }
    model.asked += 1;
    model.pending = Some((model.asked, question.clone()));
    effects.push(Effect::Ask {
        number: model.asked,
        question,
    });
}

fn looked(
    model: &mut Model,
    number: u64,
    look: Result<Box<Look>, String>,
    effects: &mut Vec<Effect>,
) {
    let Some((_, question)) = model.pending.take_if(|(pending, _)| *pending == number) else {
        return;
    };
    match look {
        Ok(look) => {
            let selected = model.selected_variable().map(|row| row.kind.clone());
            let watched = model.look.as_ref().map_or(0, |look| look.watches.len());
            let new = look.watches.get(watched..).and_then(<[_]>::last);
            let new = new.map(|root| Kind::Leaf {
                path: root.path.clone(),
            });
            if model.following {
                model.at = look.question.epoch;
            }
            if model.target.comm.is_empty() {
                model.target.comm = look
                    .threads
                    .first()
                    .map_or(String::new(), |t| t.name.clone());
            }
            model.look = Some(*look);
            model.refresh_rows();
            reselect(model, new.as_ref().or(selected.as_ref()));
            let last = model.thread_rows().len().saturating_sub(1);
            model.cursors.threads = model.cursors.threads.min(last);
        }
        Err(why) => complain(model, format!("@{}: {why}", question.epoch)),
    }
    if model.question() != question {
        ask(model, effects);
    }
}

/// Puts the cursor on a variable: the one it was on, or one just asked for.
fn reselect(model: &mut Model, selected: Option<&Kind>) {
    let same = |kind: &Kind| match (kind, selected) {
        (Kind::Group { group: a, .. }, Some(Kind::Group { group: b, .. })) => a == b,
        (a, Some(b)) => a.path().is_some() && a.path() == b.path(),
        _ => false,
    };
    if let Some(at) = model.rows.iter().position(|row| same(&row.kind)) {
        model.cursors.variables = at;
    }
}

fn rewound(model: &mut Model, result: Result<Rewound, String>, effects: &mut Vec<Effect>) {
    model.rewinding = None;
    match result {
        Ok(rewound) => {
            model.following = false;
            model.at = rewound.to;
            model.rewound = Some(rewound.clone());
            model.overlays.push(Overlay::Rewound(rewound));
            ask(model, effects);
        }
        Err(why) => complain(model, format!("not rewound: {why}")),
    }
}

fn complain(model: &mut Model, text: String) {
    model.notice = Some(Notice { text, bad: true });
}

pub(crate) fn note(model: &mut Model, text: impl Into<String>) {
    model.notice = Some(Notice {
        text: text.into(),
        bad: false,
    });
}

fn pressed(model: &mut Model, key: KeyEvent, effects: &mut Vec<Effect>) {
    model.notice = None;
    if let Some(Overlay::Prompt { text, cursor }) = model.overlays.last_mut() {
        return match prompt::edit(text, cursor, key) {
            prompt::Edit::Going => {}
            prompt::Edit::Abandoned => drop(model.overlays.pop()),
            prompt::Edit::Quit => model.quit = true,
            prompt::Edit::Done(expr) => {
                model.overlays.pop();
                watch(model, expr, effects);
            }
        };
    }
    let prefix = std::mem::take(&mut model.prefix);
    if !prefix && key.code == crossterm::event::KeyCode::Char('g') && model.overlays.is_empty() {
        model.prefix = true;
        return;
    }
    let Some(action) = action(key, prefix) else {
        return answer_with(model, key, effects);
    };
    match (action, model.overlays.last_mut()) {
        (Action::Quit, _) => model.quit = true,
        (Action::Enter, Some(Overlay::Confirm { .. })) => confirm(model, effects),
        (Action::Escape | Action::Enter | Action::Help, Some(_)) => drop(model.overlays.pop()),
        (movement, Some(Overlay::Help { scroll })) => *scroll = scrolled(*scroll, movement),
        (_, Some(_)) => {}
        (action, None) => act(model, action, effects),
    }
}

fn scrolled(at: usize, action: Action) -> usize {
    match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => at.saturating_add(1),
        Action::PageUp => at.saturating_sub(PAGE),
        Action::PageDown => at.saturating_add(PAGE),
        Action::First => 0,
        _ => at,
    }
    .min(crate::keys::TABLE.len())
}

/// `y` and `n` answer a question, and mean nothing elsewhere.
fn answer_with(model: &mut Model, key: KeyEvent, effects: &mut Vec<Effect>) {
    use crossterm::event::KeyCode::Char;
    if !matches!(model.overlays.last(), Some(Overlay::Confirm { .. })) {
        return;
    }
    match key.code {
        Char('y') => confirm(model, effects),
        Char('n') => drop(model.overlays.pop()),
        _ => {}
    }
}

fn confirm(model: &mut Model, effects: &mut Vec<Effect>) {
    if let Some(Overlay::Confirm { to }) = model.overlays.pop() {
        model.rewinding = Some(to);
        effects.push(Effect::Rewind { epoch: to });
    }
}

pub(crate) fn act(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    match action {
        Action::Previous => go(
            model,
            model.before(),
            "this is the first checkpoint",
            effects,
        ),
        Action::Next => go(
            model,
            model.after(),
            "this is the newest checkpoint",
            effects,
        ),
        Action::First => {
            let first = model.checkpoints().first().map(|row| row.epoch);
            go(model, first, "there is no checkpoint yet", effects);
        }
        Action::Newest => {
            model.following = true;
            ask(model, effects);
        }
        Action::NextPane => turn(model, 1),
        Action::PreviousPane => turn(model, Pane::ALL.len() - 1),
        Action::Pane(pane) => model.focus = pane,
        Action::Base => set_base(model, effects),
        Action::Memory => show_memory(model, effects),
        Action::Prompt => model.overlays.push(Overlay::Prompt {
            text: String::new(),
            cursor: 0,
        }),
        Action::Remove => unwatch(model, effects),
        Action::Rewind => offer_rewind(model),
        Action::Help => model.overlays.push(Overlay::Help { scroll: 0 }),
        Action::Escape | Action::Quit => {}
        _ => panes::in_pane(model, action, effects),
    }
}

pub(crate) fn go(
    model: &mut Model,
    epoch: Option<u64>,
    otherwise: &str,
    effects: &mut Vec<Effect>,
) {
    let Some(epoch) = epoch else {
        return note(model, otherwise);
    };
    model.following = false;
    model.at = epoch;
    ask(model, effects);
}

fn turn(model: &mut Model, by: usize) {
    let at = (model.focus.number() - 1 + by) % Pane::ALL.len();
    model.focus = Pane::ALL[at];
}

fn set_base(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.base == Base::At(model.at) {
        model.base = Base::Previous;
        note(model, "compared with the checkpoint before each");
    } else if model.at != 0 {
        model.base = Base::At(model.at);
        note(model, format!("compared with @{} from now on", model.at));
    }
    ask(model, effects);
}

fn show_memory(model: &mut Model, effects: &mut Vec<Effect>) {
    let Some(path) = model
        .selected_variable()
        .and_then(|row| row.kind.path())
        .map(str::to_owned)
    else {
        return note(model, "select a variable first: its memory is shown");
    };
    model.memory = MemoryAt::Variable(path);
    model.focus = Pane::Memory;
    ask(model, effects);
}

fn watch(model: &mut Model, expr: String, effects: &mut Vec<Effect>) {
    if expr.is_empty() {
        return;
    }
    if !model.watches.contains(&expr) {
        model.watches.push(expr);
    }
    model.closed_groups.remove(&Group::Watches);
    model.focus = Pane::Variables;
    ask(model, effects);
}

fn unwatch(model: &mut Model, effects: &mut Vec<Effect>) {
    let Some(look) = &model.look else { return };
    let path = model.selected_variable().and_then(|row| row.kind.path());
    let chosen = look
        .watches
        .iter()
        .position(|root| Some(root.path.as_str()) == path);
    match chosen {
        Some(at) if in_group(model, Group::Watches) && at < model.watches.len() => {
            model.watches.remove(at);
            ask(model, effects);
        }
        _ => note(model, "no watched expression is selected"),
    }
}

/// Whether the selected variable is in this group: one of another may have the same path.
fn in_group(model: &Model, wanted: Group) -> bool {
    let above = model.rows.iter().take(model.cursors.variables + 1).rev();
    let group = above.filter_map(|row| match row.kind {
        Kind::Group { group, .. } => Some(group),
        _ => None,
    });
    group.into_iter().next() == Some(wanted)
}

fn offer_rewind(model: &mut Model) {
    if model.target.is_gone() {
        note(
            model,
            "nobody is attached any more: there is nothing to rewind",
        );
    } else if model.rewinding.is_some() {
        note(model, "a rewind is under way");
    } else if model.following || model.at == 0 {
        note(model, "this is now: go back with `,` first, then rewind");
    } else {
        model.overlays.push(Overlay::Confirm { to: model.at });
    }
}
