//! Lines that were typed: commands, expressions, filters.

use introspect::disassembly::Syntax;
use libsls::EpochRef;

use super::{Effect, act, control, note, reconcile};
use crate::data::MemoryAt;
use crate::keys::{Action, TABLE};
use crate::model::{Base, Group, Model};
use crate::overlay::{Ask, Overlay, Prompt};
use crate::place::{Pane, Tab};
use crate::query::{FORMS, Query};
use crate::theme::{THEMES, Theme};

/// Lines of the history.
const LINES: usize = 500;

/// A command that takes arguments and is no query.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    pub arguments: &'static str,
    pub help: &'static str,
    run: fn(&mut Model, &str) -> Result<(), String>,
}

#[rustfmt::skip] // One line each.
pub const VERBS: &[Verb] = &[
    Verb { name: "go", arguments: "@N", help: "look at a checkpoint; `:@N` does it too", run: go },
    Verb { name: "watch", arguments: "EXPR", help: "watch an expression", run: watch },
    Verb { name: "memory", arguments: "EXPR|0xADDRESS", help: "memory there", run: memory },
    Verb { name: "break", arguments: "LOCATION [if EXPR]", help: "a breakpoint at FUNCTION, FILE:LINE or *ADDRESS", run: |model, text| control::set(model, text, false) },
    Verb { name: "watchpoint", arguments: "EXPR [if EXPR]", help: "stop where a value changes", run: |model, text| control::set(model, text, true) },
    Verb { name: "delete", arguments: "NUMBER", help: "take a breakpoint or watchpoint away", run: control::delete },
    Verb { name: "base", arguments: "[@N]", help: "compare with @N; without: with the one before", run: base },
    Verb { name: "filter", arguments: "[TEXT]", help: "only rows of the pane with this text", run: |model, text| { filter(model, model.tab(), text); Ok(()) } },
    Verb { name: "tab", arguments: "NAME", help: "show a tab: memory, pages, fds, maps, heap, log ...", run: tab },
    Verb { name: "open", arguments: "PART", help: "look at another partition", run: open },
    Verb { name: "theme", arguments: "dark|light|16|none", help: "another theme", run: theme },
    Verb { name: "syntax", arguments: "att|intel", help: "how machine code is written", run: syntax },
];

/// Every command with its arguments and what it does, those of the queries last.
pub fn listed() -> impl Iterator<Item = [&'static str; 3]> {
    let verbs = VERBS.iter().map(|v| [v.name, v.arguments, v.help]);
    verbs.chain(FORMS.iter().map(|f| [f.name, f.arguments, f.help]))
}

/// What was typed at a prompt.
pub fn answered(model: &mut Model, ask: Ask, text: &str, effects: &mut Vec<Effect>) {
    match ask {
        Ask::Filter(Tab::Source | Tab::Assembly) => find(model, text),
        Ask::Filter(tab) => filter(model, tab, text),
        _ if text.is_empty() => {}
        Ask::Command => command(model, text, effects),
        Ask::Watch => complain(model, |model| watch(model, text)),
        Ask::Address => complain(model, |model| memory(model, text)),
        Ask::Scan => asked(model, "scan", text, effects),
        Ask::Bisect => asked(model, "bisect", text, effects),
    }
}

/// A line after `:`.
fn command(model: &mut Model, line: &str, effects: &mut Vec<Effect>) {
    if model.commands.last().is_none_or(|last| last != line) {
        model.commands.push(line.to_owned());
        let over = model.commands.len().saturating_sub(LINES);
        model.commands.drain(..over);
    }
    let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if line.starts_with('@') || line.bytes().all(|byte| byte.is_ascii_digit()) {
        let at = format!("@{}", line.trim_start_matches('@'));
        return complain(model, |model| go(model, &at));
    }
    // Bare, the words of the table mean what its keys do, at what is selected.
    let action = Action::named(verb).filter(|_| rest.is_empty());
    if let Some(action) = action {
        return act::act(model, action, effects);
    }
    if let Some(verb) = VERBS.iter().find(|known| known.name == verb) {
        return complain(model, |model| (verb.run)(model, rest));
    }
    asked(model, verb, rest, effects);
}

fn asked(model: &mut Model, verb: &str, rest: &str, effects: &mut Vec<Effect>) {
    match Query::parse(verb, rest, &model.standpoint()) {
        Some(Ok(query)) => reconcile::query(model, query, effects),
        Some(Err(why)) => model.say(why, true),
        None => {
            let near = names().find(|name| name.starts_with(verb.get(..2).unwrap_or(verb)));
            let hint = near.map_or("`?` lists them".to_owned(), |name| {
                format!("`:{name}` perhaps")
            });
            model.say(format!("there is no command {verb:?}; {hint}"), true);
        }
    }
}

/// Every word that may begin a line.
pub fn names() -> impl Iterator<Item = &'static str> {
    let actions = TABLE.iter().map(|entry| entry.name);
    let verbs = VERBS.iter().map(|verb| verb.name);
    actions
        .chain(verbs)
        .chain(FORMS.iter().map(|form| form.name))
}

fn complain(model: &mut Model, act: impl FnOnce(&mut Model) -> Result<(), String>) {
    if let Err(why) = act(model) {
        model.say(why, true);
    }
}

/// The prompt of a command, begun.
pub fn begun(model: &mut Model, verb: &str) {
    let prompt = Prompt::new(Ask::Command, format!("{verb} "));
    model.overlays.push(Overlay::Prompt(prompt));
}

fn epoch(model: &Model, text: &str) -> Result<u64, String> {
    let reference: EpochRef = text.parse().map_err(|why| format!("{why}"))?;
    let history = model.history.as_ref().ok_or("there is no checkpoint yet")?;
    reference.resolve(history).map_err(|why| why.to_string())
}

fn go(model: &mut Model, text: &str) -> Result<(), String> {
    let epoch = epoch(model, text)?;
    act::go(model, Some(epoch), "");
    Ok(())
}

fn watch(model: &mut Model, expr: &str) -> Result<(), String> {
    if expr.is_empty() {
        return Err("write `:watch EXPR`".to_owned());
    }
    if !model.watches.iter().any(|known| known == expr) {
        model.watches.push(expr.to_owned());
    }
    model.closed_groups.remove(&Group::Watches);
    model.focus = Pane::Variables;
    Ok(())
}

fn memory(model: &mut Model, place: &str) -> Result<(), String> {
    if place.is_empty() {
        return Err("write `:memory EXPR` or `:memory 0xADDRESS`".to_owned());
    }
    memory_at(model, place);
    Ok(())
}

/// Shows memory at an address or where an expression lies.
pub fn memory_at(model: &mut Model, place: &str) {
    let address = place
        .strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    model.memory = match address {
        Some(address) => MemoryAt::Address(address.min(u64::MAX - 0xfff)),
        None => MemoryAt::Variable(place.to_owned()),
    };
    model.shown.set(Tab::Memory);
    model.focus = Pane::Memory;
}

fn base(model: &mut Model, text: &str) -> Result<(), String> {
    model.base = match text {
        "" => Base::Previous,
        text => Base::At(epoch(model, text)?),
    };
    Ok(())
}

fn tab(model: &mut Model, name: &str) -> Result<(), String> {
    let Some(tab) = Tab::named(name) else {
        let all: Vec<String> = Tab::all().map(|tab| tab.title().to_lowercase()).collect();
        return Err(format!("no tab {name:?}; there are {}", all.join(", ")));
    };
    model.shown.set(tab);
    model.focus = tab.pane();
    Ok(())
}

fn open(model: &mut Model, part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err("write `:open PART`, or choose with gp".to_owned());
    }
    model.switch = Some((libsls::partition_name(part), None));
    Ok(())
}

fn theme(model: &mut Model, name: &str) -> Result<(), String> {
    let theme = Theme::named(name);
    model.theme =
        theme.ok_or_else(|| format!("no theme {name:?}; there are {}", THEMES.join(", ")))?;
    Ok(())
}

fn syntax(model: &mut Model, name: &str) -> Result<(), String> {
    model.syntax = match name {
        "att" => Syntax::Att,
        "intel" => Syntax::Intel,
        _ => return Err(format!("no syntax {name:?}; there are att, intel")),
    };
    Ok(())
}

/// Lets through only rows with this text.
pub fn filter(model: &mut Model, tab: Tab, text: &str) {
    if text.is_empty() {
        model.filters.remove(&tab);
    } else {
        model.filters.insert(tab, text.to_owned());
    }
    if tab == Tab::Variables {
        model.refresh_rows();
    }
}

/// Goes to the next line of the source or code that has the text.
fn find(model: &mut Model, text: &str) {
    let tab = model.tab();
    filter(model, tab, text);
    if text.is_empty() {
        return;
    }
    let Some(look) = &model.look else { return };
    let has = |line: &str| crate::table::contains(line, text);
    let (here, count, found): (usize, usize, Box<dyn Fn(usize) -> bool>) = if tab == Tab::Source {
        let Some(source) = &look.source else { return };
        let Ok(lines) = &source.text else { return };
        let current = i64::from(source.line) - 1 + model.cursors.source;
        let lines = std::sync::Arc::clone(lines);
        let here = usize::try_from(current).unwrap_or(0);
        (here, lines.len(), Box::new(move |at| has(&lines[at])))
    } else {
        let Ok(code) = &look.assembly else { return };
        let texts: Vec<String> = code.iter().map(|one| one.text.clone()).collect();
        let here = model.cursors.row(Tab::Assembly);
        (here, texts.len(), Box::new(move |at| has(&texts[at])))
    };
    let next = (1..=count)
        .map(|by| (here + by) % count.max(1))
        .find(|at| found(*at));
    let line = look
        .source
        .as_ref()
        .map_or(1, |source| i64::from(source.line));
    match next {
        Some(at) if tab == Tab::Source => {
            model.cursors.source = i64::try_from(at).unwrap_or(0) + 1 - line;
        }
        Some(at) => model.cursors.put(Tab::Assembly, at),
        None => note(model, format!("{text:?} is not in here")),
    }
}
