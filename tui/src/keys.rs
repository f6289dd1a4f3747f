//! Which key does what. The help is made from this table, so it cannot tell anything else.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model::Pane;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Previous,
    Next,
    First,
    Newest,
    NextPane,
    PreviousPane,
    Pane(Pane),
    Up,
    Down,
    PageUp,
    PageDown,
    Left,
    Right,
    Enter,
    Base,
    Memory,
    Prompt,
    Remove,
    Rewind,
    Help,
    Escape,
    Quit,
}

/// Keys of one action, after `g` where `prefix` is set.
pub struct Binding {
    pub keys: &'static [KeyCode],
    pub prefix: bool,
    pub action: Action,
    /// As help writes them.
    pub shown: &'static str,
    pub help: &'static str,
    pub section: &'static str,
}

const TIME: &str = "Time";
const MOVE: &str = "Moving";
const LOOK: &str = "Looking";
const DO: &str = "Doing";

const fn bind(
    section: &'static str,
    shown: &'static str,
    keys: &'static [KeyCode],
    action: Action,
    help: &'static str,
) -> Binding {
    Binding {
        keys,
        prefix: false,
        action,
        shown,
        help,
        section,
    }
}

/// All of them, in the order of the help. An empty help is one more key of the line before it.
pub const TABLE: &[Binding] = &[
    bind(
        TIME,
        ",",
        &[KeyCode::Char(',')],
        Action::Previous,
        "the checkpoint before (Left in the timeline)",
    ),
    bind(
        TIME,
        ".",
        &[KeyCode::Char('.')],
        Action::Next,
        "the checkpoint after (Right in the timeline)",
    ),
    bind(
        TIME,
        "Home",
        &[KeyCode::Home],
        Action::First,
        "the first checkpoint",
    ),
    bind(
        TIME,
        "End",
        &[KeyCode::End],
        Action::Newest,
        "the newest, and follow what comes",
    ),
    bind(
        TIME,
        "d",
        &[KeyCode::Char('d')],
        Action::Base,
        "compare with this checkpoint; again: with the one before each",
    ),
    Binding {
        keys: &[KeyCode::Char('d')],
        prefix: true,
        action: Action::Base,
        shown: "gd",
        help: "the same",
        section: TIME,
    },
    bind(
        MOVE,
        "Tab ]",
        &[KeyCode::Tab, KeyCode::Char(']')],
        Action::NextPane,
        "the next pane",
    ),
    bind(
        MOVE,
        "S-Tab [",
        &[KeyCode::BackTab, KeyCode::Char('[')],
        Action::PreviousPane,
        "the pane before",
    ),
    bind(
        MOVE,
        "1-5",
        &[KeyCode::Char('1')],
        Action::Pane(Pane::Timeline),
        "timeline, threads, source, variables, memory",
    ),
    bind(
        MOVE,
        "",
        &[KeyCode::Char('2')],
        Action::Pane(Pane::Threads),
        "",
    ),
    bind(
        MOVE,
        "",
        &[KeyCode::Char('3')],
        Action::Pane(Pane::Source),
        "",
    ),
    bind(
        MOVE,
        "",
        &[KeyCode::Char('4')],
        Action::Pane(Pane::Variables),
        "",
    ),
    bind(
        MOVE,
        "",
        &[KeyCode::Char('5')],
        Action::Pane(Pane::Memory),
        "",
    ),
    bind(
        MOVE,
        "Up k",
        &[KeyCode::Up, KeyCode::Char('k')],
        Action::Up,
        "up in the pane; timeline: the number before",
    ),
    bind(
        MOVE,
        "Down j",
        &[KeyCode::Down, KeyCode::Char('j')],
        Action::Down,
        "down in the pane; timeline: the number after",
    ),
    bind(MOVE, "PgUp", &[KeyCode::PageUp], Action::PageUp, "ten up"),
    bind(
        MOVE,
        "PgDn",
        &[KeyCode::PageDown],
        Action::PageDown,
        "ten down",
    ),
    bind(
        MOVE,
        "Left",
        &[KeyCode::Left],
        Action::Left,
        "close a variable",
    ),
    bind(
        MOVE,
        "Right",
        &[KeyCode::Right],
        Action::Right,
        "open a variable",
    ),
    bind(
        LOOK,
        "Enter",
        &[KeyCode::Enter],
        Action::Enter,
        "open a variable, follow a pointer; select a thread or frame",
    ),
    bind(
        LOOK,
        "m",
        &[KeyCode::Char('m')],
        Action::Memory,
        "memory where the selected variable lies",
    ),
    bind(
        LOOK,
        "/",
        &[KeyCode::Char('/')],
        Action::Prompt,
        "watch an expression",
    ),
    bind(
        LOOK,
        "Del",
        &[KeyCode::Delete],
        Action::Remove,
        "stop watching the selected expression",
    ),
    bind(
        DO,
        "R",
        &[KeyCode::Char('R')],
        Action::Rewind,
        "rewind the process to the checkpoint looked at (asks first)",
    ),
    bind(DO, "?", &[KeyCode::Char('?')], Action::Help, "this help"),
    bind(
        DO,
        "Esc",
        &[KeyCode::Esc],
        Action::Escape,
        "close what is on top",
    ),
    bind(DO, "q", &[KeyCode::Char('q')], Action::Quit, "quit"),
];

/// What a key does.
pub fn action(key: KeyEvent, prefix: bool) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    let fits = |binding: &&Binding| binding.prefix == prefix && binding.keys.contains(&key.code);
    TABLE.iter().find(fits).map(|binding| binding.action)
}

/// The keys of `--keys`: characters as they are, others by name: `<Enter>`, `<Esc>`, `<Left>`, `<lt>` for `<`.
///
/// # Errors
/// The name that is none.
pub fn parse(text: &str) -> Result<Vec<KeyEvent>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let code = if first == '<' {
            let (name, after) = rest[1..].split_once('>').ok_or(
                "a `<` begins a key's name, such as <Enter>; write <lt> for the character",
            )?;
            rest = after;
            named(name).ok_or_else(|| format!("no key is called <{name}>"))?
        } else {
            rest = &rest[first.len_utf8()..];
            KeyCode::Char(first)
        };
        keys.push(KeyEvent::new(code, KeyModifiers::NONE));
    }
    Ok(keys)
}

fn named(name: &str) -> Option<KeyCode> {
    Some(match name.to_ascii_lowercase().as_str() {
        "enter" | "cr" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "s-tab" => KeyCode::BackTab,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "pgup" => KeyCode::PageUp,
        "pgdn" => KeyCode::PageDown,
        "del" => KeyCode::Delete,
        "bs" => KeyCode::Backspace,
        "space" => KeyCode::Char(' '),
        "lt" => KeyCode::Char('<'),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        for (at, binding) in TABLE.iter().enumerate() {
            for other in &TABLE[at + 1..] {
                let clash = binding.prefix == other.prefix
                    && binding.keys.iter().any(|key| other.keys.contains(key));
                assert!(!clash, "{:?} and {:?}", binding.action, other.action);
            }
        }
    }

    #[test]
    fn names_of_keys() {
        let keys = parse(",<Enter><lt>R").unwrap();
        let codes: Vec<KeyCode> = keys.iter().map(|key| key.code).collect();
        assert_eq!(
            codes,
            [
                KeyCode::Char(','),
                KeyCode::Enter,
                KeyCode::Char('<'),
                KeyCode::Char('R')
            ]
        );
        assert!(parse("<Nope>").is_err() && parse("<Enter").is_err());
    }
}
