//! A line being typed.

use crossterm::event::KeyCode;

use crate::keys::Key;

/// As many as an expression may have.
const LENGTH_LIMIT: usize = 16_384;

/// What a key did to the line.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    Going,
    Abandoned,
    Quit,
    Done(String),
}

/// Applies a key to a line; `cursor` counts characters.
pub fn edit(text: &mut String, cursor: &mut usize, key: Key) -> Edit {
    let control = key.control;
    match key.code {
        KeyCode::Esc => return Edit::Abandoned,
        KeyCode::Enter => return Edit::Done(text.trim().to_owned()),
        KeyCode::Char('c') if control => return Edit::Quit,
        KeyCode::Char('u') if control => {
            text.clear();
            *cursor = 0;
        }
        KeyCode::Char('a') if control => *cursor = 0,
        KeyCode::Char('e') if control => *cursor = text.chars().count(),
        KeyCode::Char('w') if control => {
            let before: String = text.chars().take(*cursor).collect();
            let kept = before
                .trim_end()
                .rfind(char::is_whitespace)
                .map_or(0, |at| at + 1);
            text.replace_range(kept..before.len(), "");
            *cursor = before[..kept].chars().count();
        }
        KeyCode::Char(c) if !control && !c.is_control() && text.len() < LENGTH_LIMIT => {
            text.insert(byte(text, *cursor), c);
            *cursor += 1;
        }
        KeyCode::Backspace if *cursor > 0 => {
            *cursor -= 1;
            text.remove(byte(text, *cursor));
        }
        KeyCode::Delete if *cursor < text.chars().count() => drop(text.remove(byte(text, *cursor))),
        KeyCode::Left => *cursor = cursor.saturating_sub(1),
        KeyCode::Right => *cursor = (*cursor + 1).min(text.chars().count()),
        KeyCode::Home => *cursor = 0,
        KeyCode::End => *cursor = text.chars().count(),
        _ => {}
    }
    Edit::Going
}

/// Where the character of this number begins.
fn byte(text: &str, cursor: usize) -> usize {
    text.char_indices()
        .nth(cursor)
        .map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_several_bytes() {
        let (mut text, mut cursor) = (String::new(), 0);
        let mut press = |code| edit(&mut text, &mut cursor, Key::plain(code));
        for c in "aäb世".chars() {
            assert_eq!(press(KeyCode::Char(c)), Edit::Going);
        }
        press(KeyCode::Left);
        press(KeyCode::Left);
        press(KeyCode::Backspace);
        press(KeyCode::Delete);
        assert_eq!(press(KeyCode::Enter), Edit::Done("a世".to_owned()));
        assert_eq!(press(KeyCode::Esc), Edit::Abandoned);
    }
}
