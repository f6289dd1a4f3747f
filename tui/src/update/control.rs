//! Forward control: what the keys ask of the live process, and where it stopped then.

use libsls::control::{Act, Breakpoint, By, Reason, State, Stop, Wait, What};

use super::{Effect, note};
use crate::driver::{Drive, Points};
use crate::keys::Action;
use crate::model::{Driving, Model};
use crate::overlay::{Deed, Overlay};
use crate::place::Tab;
use crate::table::{Row, Table, left, right};
use crate::text::file_name;

/// What a key of the table asks of the process.
fn order(action: Action) -> Option<Act> {
    let step = |by, over| Act::Step {
        by,
        over,
        count: 1,
        tid: None,
        wait: Wait::Stop,
    };
    Some(match action {
        Action::Pause => Act::Pause,
        Action::Continue => Act::Continue { wait: Wait::Stop },
        Action::Step => step(By::Line, false),
        Action::StepOver => step(By::Line, true),
        Action::StepInstruction => step(By::Instruction, false),
        Action::StepOverInstruction => step(By::Instruction, true),
        Action::Finish => Act::Finish {
            count: 1,
            tid: None,
            wait: Wait::Stop,
        },
        _ => return None,
    })
}

/// Does what a key asks, once the user has agreed that the process is controlled.
pub fn act(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    let steps = |act: &Act| matches!(act, Act::Step { .. } | Act::Finish { .. });
    match order(action) {
        // One that runs stands first: that is the step.
        Some(act)
            if steps(&act)
                && model.control.driving.is_none()
                && model.target.word() == "running" =>
        {
            want(model, Drive::Run(Act::Pause), effects);
        }
        Some(act) => want(model, Drive::Run(act), effects),
        None => {}
    }
}

/// Asks first, the first time.
pub fn want(model: &mut Model, drive: Drive, effects: &mut Vec<Effect>) {
    let target = &model.target;
    let why = if target.is_core() {
        Some("this is a core: nobody runs who could be controlled".to_owned())
    } else if target.is_dead() {
        Some("it has ended; `slsctl restore` makes it anew".to_owned())
    } else if target.is_gone() {
        let (pid, part) = (target.pid, &target.part);
        Some(format!(
            "nobody is attached: `slsctl attach -p {pid} -o {part}` if it lives, else `slsctl restore -o {part}`"
        ))
    } else if model.rewinding.is_some() {
        Some("a rewind is under way".to_owned())
    } else {
        None
    };
    if let Some(why) = why {
        return note(model, why);
    }
    let goes_on = matches!(&drive, Drive::Run(act) if *act != Act::Pause);
    if let Some(driving) = model.control.driving.filter(|_| goes_on) {
        return note(model, format!("{}: `p` stops it where it is", driving.word));
    }
    if model.control.agreed {
        return begin(model, drive, effects);
    }
    model.overlays.push(Overlay::Confirm(Deed::Control(drive)));
}

/// The user agrees.
pub fn begin(model: &mut Model, drive: Drive, effects: &mut Vec<Effect>) {
    if !model.control.agreed {
        model.control.agreed = true;
        effects.push(Effect::Drive(Drive::List));
    }
    if let Drive::Run(act) = &drive {
        model.control.driving = Some(Driving {
            word: match act {
                Act::Pause => "stopping",
                Act::Step { .. } => "stepping",
                Act::Finish { .. } => "finishing the function",
                _ => "running until it stops",
            },
            is_short: matches!(act, Act::Pause | Act::Step { .. }),
        });
    }
    effects.push(Effect::Drive(drive));
}

/// Sets a breakpoint at the line of the source that is selected, or takes that away.
pub fn toggle(model: &mut Model, effects: &mut Vec<Effect>) {
    let source = model.look.as_ref().and_then(|look| look.source.as_ref());
    let Some(source) = source else {
        return note(model, "no source is shown: `:break FUNCTION` sets one too");
    };
    let line = i64::from(source.line) + model.cursors.source;
    let line = u32::try_from(line.max(1)).unwrap_or(1);
    let path = source.path.clone();
    let drive = match point_at(model, &path, line) {
        Some(point) => Drive::Delete(point.number),
        None => Drive::Set {
            what: What::Place(format!("{path}:{line}")),
            condition: None,
        },
    };
    want(model, drive, effects);
}

/// The breakpoint at a line.
pub fn point_at<'a>(model: &'a Model, path: &str, line: u32) -> Option<&'a Breakpoint> {
    let is_there = |point: &&Breakpoint| {
        let mut locations = point.locations.iter();
        locations.any(|at| at.file.as_deref() == Some(path) && at.line == Some(line))
    };
    model.control.points.iter().find(is_there)
}

/// `break LOCATION [if EXPR]`, `watchpoint EXPR [if EXPR]`.
///
/// # Errors
/// How it is written.
pub fn set(model: &mut Model, text: &str, watches: bool) -> Result<(), String> {
    let (what, condition) = match text.split_once(" if ") {
        Some((what, condition)) => (what.trim(), Some(condition.trim().to_owned())),
        None => (text.trim(), None),
    };
    if what.is_empty() {
        let form = if watches {
            "watchpoint EXPR"
        } else {
            "break LOCATION"
        };
        return Err(format!("write `:{form} [if EXPR]`"));
    }
    let what = what.to_owned();
    let what = if watches {
        What::Value {
            expr: what,
            reads: false,
        }
    } else {
        What::Place(what)
    };
    model.control.wanted = Some(Drive::Set { what, condition });
    Ok(())
}

/// `delete NUMBER`.
///
/// # Errors
/// How it is written.
pub fn delete(model: &mut Model, text: &str) -> Result<(), String> {
    let number = text.parse().map_err(|_| "write `:delete NUMBER`")?;
    model.control.wanted = Some(Drive::Delete(number));
    Ok(())
}

/// Where it stopped.
pub fn stopped(model: &mut Model, result: Result<Stop, String>) {
    model.control.driving = None;
    let stop = match result {
        Ok(stop) => stop,
        Err(why) => return model.say(why, true),
    };
    let said = said(&stop);
    match stop.state {
        State::Stopped => {
            model.following = true;
            model.refused = None;
            model.tid = u32::try_from(stop.tid).ok();
            model.frame = None;
            model.cursors.source = 0;
            "paused".clone_into(&mut model.target.state);
            note(model, said);
        }
        State::Running => note(model, said),
        State::Exited | State::Killed => model.say(said, false),
    }
}

fn said(stop: &Stop) -> String {
    let status = stop.status.unwrap_or(0);
    let by = match stop.state {
        State::Running => return "it runs".to_owned(),
        State::Exited => return format!("process {} has exited with status {status}", stop.pid),
        State::Killed => return format!("process {} was ended by signal {status}", stop.pid),
        State::Stopped => match (stop.reason, stop.number) {
            (Some(Reason::Signal), _) => format!("signal {status}"),
            (Some(reason), Some(number)) => format!("{} {number}", reason.name()),
            (Some(reason), None) => reason.name().to_owned(),
            (None, _) => "stopped".to_owned(),
        },
    };
    let place = place(
        (stop.function.as_deref(), stop.pc),
        (stop.file.as_deref(), stop.line),
    );
    let change = stop.old.as_ref().zip(stop.new.as_ref());
    let parts = [
        Some(format!("{by}: {place}")),
        change.map(|(old, new)| format!("{old} -> {new}")),
        stop.value.as_ref().map(|value| format!("returned {value}")),
        stop.note.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

/// A function, and its line where that is known, else the address.
fn place(
    (function, address): (Option<&str>, u64),
    (file, line): (Option<&str>, Option<u32>),
) -> String {
    let function = function.unwrap_or("??");
    match (file, line) {
        (Some(file), Some(line)) => format!("{function} at {}:{line}", file_name(file)),
        _ => format!("{function} at {address:#x}"),
    }
}

/// Which breakpoints there are now.
pub fn points(model: &mut Model, result: Result<Points, String>) {
    match result {
        Ok(points) => {
            model.control.points = points.all;
            if let Some(set) = points.set {
                let place = match set.locations.first() {
                    // Data lies in no function.
                    Some(at) if set.watches => format!("{} at {:#x}", set.expr, at.address),
                    Some(at) => {
                        let line = (at.file.as_deref(), at.line);
                        place((at.function.as_deref(), at.address), line)
                    }
                    None => set.expr.clone(),
                };
                let kind = if set.watches {
                    "watchpoint"
                } else {
                    "breakpoint"
                };
                note(model, format!("{kind} {}: {place}", set.number));
            }
            if model
                .results
                .as_ref()
                .is_some_and(|shown| shown.title == TITLE)
            {
                model.results = Some(table(model));
            }
        }
        Err(why) => model.say(why, true),
    }
}

const TITLE: &str = "breakpoints";

/// All of them, as a list.
pub fn list(model: &mut Model) {
    if model.control.points.is_empty() {
        return note(model, "no breakpoints; `b` at a source line sets one");
    }
    model.results = Some(table(model));
    model.shown.set(Tab::Results);
    model.focus = crate::place::Pane::Memory;
}

fn table(model: &Model) -> Table {
    let columns = vec![
        right("number"),
        left("what"),
        left("where"),
        left("if"),
        right("hits"),
        left("state"),
    ];
    let rows = model.control.points.iter().map(|point| {
        let place = point.locations.first().map_or(String::new(), |at| {
            let file = at.file.as_deref().map(file_name);
            match (file, at.line) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                _ => format!("{:#x}", at.address),
            }
        });
        let state = match &point.trouble {
            Some(trouble) => trouble.clone(),
            None if point.enabled => "set".to_owned(),
            None => "disabled".to_owned(),
        };
        Row::new([
            point.number.to_string(),
            point.expr.clone(),
            place,
            point.condition.clone().unwrap_or_default(),
            point.hits.to_string(),
            state,
        ])
    });
    Table {
        title: TITLE.to_owned(),
        columns,
        rows: rows.collect(),
        ..Table::default()
    }
}
