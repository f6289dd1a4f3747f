//! Completion of what is being typed: commands, names, members, tabs and themes.

use super::{Effect, commands};
use crate::clerk::{Desk, Job};
use crate::model::Model;
use crate::overlay::{Ask, Offered, Overlay, Prompt};
use crate::place::Tab;
use crate::theme::THEMES;

/// Words offered at most.
const OFFERED: usize = 500;

/// Tab: writes what all have in common, then goes through them.
pub fn complete(model: &mut Model, backwards: bool, effects: &mut Vec<Effect>) {
    let Some(Overlay::Prompt(prompt)) = model.overlays.last() else {
        return;
    };
    if !prompt.ask.completes() {
        return;
    }
    if prompt.offered.is_some() {
        return with_prompt(model, |prompt| turn(prompt, backwards));
    }
    let before: String = prompt.text.chars().take(prompt.cursor).collect();
    let (ask, word) = (prompt.ask, last_word(&before).to_owned());
    let is_verb = ask == Ask::Command && !before.trim_start().contains(char::is_whitespace);
    if !is_verb
        && let Some((of, _)) = member(&word)
        && model.members.of != of
    {
        return ask_members(model, of.to_owned(), effects);
    }
    let words = if is_verb {
        fitting(commands::names().map(str::to_owned), &before)
    } else {
        of_argument(model, ask, &before, &word)
    };
    let from = before.chars().count()
        - if is_verb {
            before.chars().count()
        } else {
            tail(&word).chars().count()
        };
    with_prompt(model, |prompt| offer(prompt, from, words));
}

/// Members came that were asked for: Tab was pressed for them.
pub fn offer_members(model: &mut Model) {
    let Some(Overlay::Prompt(prompt)) = model.overlays.last() else {
        return;
    };
    let before: String = prompt.text.chars().take(prompt.cursor).collect();
    let word = last_word(&before).to_owned();
    let Some((of, begun)) = member(&word).filter(|(of, _)| *of == model.members.of) else {
        return;
    };
    let _ = of;
    let words = fitting(model.members.names.iter().cloned(), begun);
    let from = before.chars().count() - begun.chars().count();
    with_prompt(model, |prompt| offer(prompt, from, words));
}

fn with_prompt(model: &mut Model, act: impl FnOnce(&mut Prompt)) {
    if let Some(Overlay::Prompt(prompt)) = model.overlays.last_mut() {
        act(prompt);
    }
}

fn ask_members(model: &mut Model, expr: String, effects: &mut Vec<Effect>) {
    let number = model.next_number();
    model.naming = Some(number);
    effects.push(Effect::Hand {
        desk: Desk::Names,
        number,
        job: Job::Members {
            expr,
            from: model.standpoint(),
        },
    });
}

fn of_argument(model: &Model, ask: Ask, before: &str, word: &str) -> Vec<String> {
    let verb = before.split_whitespace().next().unwrap_or_default();
    match verb {
        "tab" if ask == Ask::Command => {
            return fitting(Tab::all().map(|tab| tab.title().to_lowercase()), word);
        }
        "theme" if ask == Ask::Command => {
            return fitting(THEMES.iter().map(|name| (*name).to_owned()), word);
        }
        "syntax" if ask == Ask::Command => {
            return fitting(["att", "intel"].map(str::to_owned).into_iter(), word);
        }
        _ => {}
    }
    if let Some((_, begun)) = member(word) {
        return fitting(model.members.names.iter().cloned(), begun);
    }
    if word.starts_with('@') {
        let newest = model.checkpoints().iter().rev();
        let names = newest.filter_map(|row| row.name.as_ref().map(|name| format!("@{name}")));
        return fitting(names, word);
    }
    let Some(look) = &model.look else {
        return Vec::new();
    };
    let locals = look.locals.iter().map(|root| root.path.clone());
    let frames = look
        .frames
        .iter()
        .filter_map(|frame| frame.key.function.as_ref());
    let frames = frames.map(|function| format!("frame({function})"));
    fitting(locals.chain(look.names.iter().cloned()).chain(frames), word)
}

/// The expression being typed at the end of a line.
fn last_word(text: &str) -> &str {
    let part = |c: char| c.is_alphanumeric() || "_.:[]@$".contains(c);
    let start = text
        .char_indices()
        .rev()
        .take_while(|(_, c)| part(*c))
        .last()
        .map_or(text.len(), |(at, _)| at);
    &text[start..]
}

/// What of a word is replaced: all of a name, of a path the member only.
fn tail(word: &str) -> &str {
    member(word).map_or(word, |(_, begun)| begun)
}

/// `a.b.c` as `a.b` and the beginning of a member.
fn member(word: &str) -> Option<(&str, &str)> {
    let (of, begun) = word.rsplit_once('.')?;
    let number = of.bytes().all(|byte| byte.is_ascii_digit());
    (!of.is_empty() && !of.ends_with('.') && !number).then_some((of, begun))
}

fn fitting(words: impl Iterator<Item = String>, begun: &str) -> Vec<String> {
    let mut all: Vec<String> = words
        .filter(|word| word.starts_with(begun))
        .take(OFFERED)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn offer(prompt: &mut Prompt, from: usize, words: Vec<String>) {
    let Some(first) = words.first() else { return };
    let common = words.iter().skip(1).fold(first.as_str(), |common, word| {
        let same = common.chars().zip(word.chars()).take_while(|(a, b)| a == b);
        let len: usize = same.map(|(c, _)| c.len_utf8()).sum();
        &common[..len]
    });
    replace(prompt, from, common);
    prompt.offered = (words.len() > 1).then_some(Offered {
        from,
        words,
        at: None,
    });
}

fn turn(prompt: &mut Prompt, backwards: bool) {
    let Some(mut offered) = prompt.offered.take() else {
        return;
    };
    let count = offered.words.len();
    let at = match offered.at {
        None if backwards => count - 1,
        None => 0,
        Some(at) if backwards => (at + count - 1) % count,
        Some(at) => (at + 1) % count,
    };
    offered.at = Some(at);
    replace(prompt, offered.from, &offered.words[at]);
    prompt.offered = Some(offered);
}

/// Puts a word in the place of what stands between `from` and the cursor.
fn replace(prompt: &mut Prompt, from: usize, word: &str) {
    let kept: String = prompt.text.chars().take(from).collect();
    let after: String = prompt.text.chars().skip(prompt.cursor).collect();
    prompt.cursor = from + word.chars().count();
    prompt.text = kept + word + &after;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_at_the_end() {
        assert_eq!(last_word("watch a + sta"), "sta");
        assert_eq!(last_word("len(state.in"), "state.in");
        assert_eq!(last_word("x "), "");
        assert_eq!(member("state.in"), Some(("state", "in")));
        assert_eq!(member("a[1].b."), Some(("a[1].b", "")));
        assert_eq!(member("3.1"), None);
    }

    #[test]
    fn what_is_common_first_then_one_after_the_other() {
        let mut prompt = Prompt::new(Ask::Watch, "a + co");
        offer(&mut prompt, 4, vec!["count".into(), "counter".into()]);
        assert_eq!(prompt.text, "a + count");
        turn(&mut prompt, false);
        turn(&mut prompt, false);
        assert_eq!((prompt.text.as_str(), prompt.cursor), ("a + counter", 11));
        turn(&mut prompt, true);
        assert_eq!(prompt.text, "a + count");
    }
}
