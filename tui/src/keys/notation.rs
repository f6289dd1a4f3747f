//! How keys are written: `,` `gd` `<Enter>` `<C-p>`, in the table, in key map files and after `--keys`.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// One key with what is held down with it. Shift is part of the character, or of `S-Tab`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub code: KeyCode,
    pub control: bool,
    pub alt: bool,
}

impl Key {
    pub const fn plain(code: KeyCode) -> Self {
        Self {
            code,
            control: false,
            alt: false,
        }
    }
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        let tab = event.code == KeyCode::Tab && event.modifiers.contains(KeyModifiers::SHIFT);
        Self {
            code: if tab { KeyCode::BackTab } else { event.code },
            control: event.modifiers.contains(KeyModifiers::CONTROL),
            alt: event.modifiers.contains(KeyModifiers::ALT),
        }
    }
}

impl From<Key> for KeyEvent {
    fn from(key: Key) -> Self {
        let mut modifiers = KeyModifiers::NONE;
        modifiers.set(KeyModifiers::CONTROL, key.control);
        modifiers.set(KeyModifiers::ALT, key.alt);
        KeyEvent::new(key.code, modifiers)
    }
}

const NAMES: &[(&str, KeyCode)] = &[
    ("Enter", KeyCode::Enter),
    ("CR", KeyCode::Enter),
    ("Esc", KeyCode::Esc),
    ("Tab", KeyCode::Tab),
    ("S-Tab", KeyCode::BackTab),
    ("Left", KeyCode::Left),
    ("Right", KeyCode::Right),
    ("Up", KeyCode::Up),
    ("Down", KeyCode::Down),
    ("Home", KeyCode::Home),
    ("End", KeyCode::End),
    ("PgUp", KeyCode::PageUp),
    ("PgDn", KeyCode::PageDown),
    ("Del", KeyCode::Delete),
    ("Ins", KeyCode::Insert),
    ("BS", KeyCode::Backspace),
    ("Space", KeyCode::Char(' ')),
    ("lt", KeyCode::Char('<')),
    ("gt", KeyCode::Char('>')),
];

/// Keys one after the other: characters as they are, others by name. A `<` that begins no name is itself.
///
/// # Errors
/// The name that is none.
pub fn parse(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (key, after) = match name_at(rest)? {
            Some((name, after)) => {
                let key = named(name).ok_or_else(|| {
                    format!("no key is called <{name}>; such are <Enter> <Esc> <Left> <PgDn> <C-p>")
                })?;
                (key, after)
            }
            None => (Key::plain(KeyCode::Char(first)), &rest[first.len_utf8()..]),
        };
        keys.push(key);
        rest = after;
    }
    Ok(keys)
}

/// The name in angle brackets that a text begins with, and what follows it.
fn name_at(text: &str) -> Result<Option<(&str, &str)>, String> {
    let Some(inner) = text.strip_prefix('<') else {
        return Ok(None);
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let end = inner.find(|c| !letters(c)).unwrap_or(inner.len());
    match inner[end..].strip_prefix('>') {
        Some(after) if end > 1 => Ok(Some((&inner[..end], after))),
        _ if named(&inner[..end]).is_some() && end > 1 => Err(format!(
            "<{} lacks its `>`; write <lt> for the character",
            &inner[..end]
        )),
        _ => Ok(None),
    }
}

fn named(name: &str) -> Option<Key> {
    let by_name = |name: &str| {
        let known = NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, code)| *code)
    };
    if let Some(code) = by_name(name) {
        return Some(Key::plain(code));
    }
    let function = name.strip_prefix(['F', 'f']).and_then(|n| n.parse().ok());
    if let Some(number) = function.filter(|number| (1..=12).contains(number)) {
        return Some(Key::plain(KeyCode::F(number)));
    }
    let (held, rest) = name.split_once('-')?;
    let mut characters = rest.chars();
    let code = match (characters.next(), characters.next()) {
        (Some(one), None) => KeyCode::Char(one.to_ascii_lowercase()),
        _ => by_name(rest)?,
    };
    let (control, alt) = match held {
        "C" | "c" => (true, false),
        "M" | "m" | "A" | "a" => (false, true),
        _ => return None,
    };
    Some(Key { code, control, alt })
}

/// As [`parse`] reads it.
pub fn shown(keys: &[Key]) -> String {
    keys.iter().map(|key| one(*key)).collect()
}

fn one(key: Key) -> String {
    let held = match (key.control, key.alt) {
        (true, _) => "C-",
        (false, true) => "M-",
        _ => "",
    };
    match key.code {
        KeyCode::Char(' ') if held.is_empty() => "<Space>".to_owned(),
        KeyCode::Char(c) if held.is_empty() => c.to_string(),
        KeyCode::Char(c) => format!("<{held}{c}>"),
        KeyCode::F(number) => format!("<F{number}>"),
        code => {
            let name = NAMES.iter().find(|(_, known)| *known == code);
            format!("<{held}{}>", name.map_or("?", |(name, _)| name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys() {
        let keys = parse(",<Enter><lt>R<C-p><S-Tab><F3>").unwrap();
        assert_eq!(shown(&keys), ",<Enter><R<C-p><S-Tab><F3>");
        assert_eq!(keys[2].code, KeyCode::Char('<'));
        assert!(keys[4].control);
        assert!(parse("<Nope>").is_err() && parse("<Enter").is_err());
    }

    #[test]
    fn a_bracket_that_begins_no_name_is_itself() {
        assert_eq!(parse("<<>,<").unwrap().len(), 5);
        assert_eq!(parse("a<b").unwrap().len(), 3);
    }
}
