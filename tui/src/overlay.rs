//! What lies over the panes; Escape closes the last.

use libsls::protocol::Rewound;

use crate::driver::Drive;
use crate::keys::Action;
use crate::place::Tab;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    Help { scroll: usize },
    Prompt(Prompt),
    Picker(Picker),
    Confirm(Deed),
    Rewound(Rewound),
}

/// What touches the process, and is asked about first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// To this checkpoint.
    Rewind(u64),
    /// Forward control, and what it begins with.
    Control(Drive),
}

/// What is to be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Command,
    Watch,
    Filter(Tab),
    Address,
    Scan,
    Bisect,
}

impl Ask {
    pub fn title(self) -> &'static str {
        match self {
            Self::Command => ":",
            Self::Watch => "watch: ",
            Self::Filter(Tab::Source | Tab::Assembly) => "find: ",
            Self::Filter(_) => "filter: ",
            Self::Address => "memory at: ",
            Self::Scan => "scan for: ",
            Self::Bisect => "bisect, from the base to here: ",
        }
    }

    /// Whether expressions are typed, so that names are completed.
    pub fn completes(self) -> bool {
        !matches!(self, Self::Filter(_) | Self::Scan)
    }
}

/// A line being typed; the cursor counts characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub ask: Ask,
    pub text: String,
    pub cursor: usize,
    /// What Tab goes through, and where it is.
    pub offered: Option<Offered>,
    /// How many lines back in the history.
    pub back: usize,
}

/// Completions of the text up to `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Characters that stay.
    pub from: usize,
    pub words: Vec<String>,
    /// None: what they have in common is written so far.
    pub at: Option<usize>,
}

impl Prompt {
    pub fn new(ask: Ask, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            ask,
            cursor: text.chars().count(),
            text,
            offered: None,
            back: 0,
        }
    }
}

/// A list of things to choose from by typing some of their letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picker {
    pub title: &'static str,
    pub items: Vec<Item>,
    pub typed: String,
    /// Among those that fit.
    pub selected: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub text: String,
    pub detail: String,
    /// A key that chooses it while nothing is typed.
    pub letter: Option<char>,
    pub choice: Choice,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Action(Action),
    /// A command that wants arguments.
    Command(&'static str),
    Epoch(u64),
    /// A partition, and the process in it.
    Place(String, Option<i32>),
}

impl Picker {
    pub fn new(title: &'static str, items: Vec<Item>) -> Self {
        Self {
            title,
            items,
            typed: String::new(),
            selected: 0,
        }
    }

    /// Those that fit what is typed, best first.
    pub fn fitting(&self) -> Vec<&Item> {
        use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
        use nucleo_matcher::{Config, Matcher, Utf32Str};
        if self.typed.trim().is_empty() {
            return self.items.iter().collect();
        }
        let mut matcher = Matcher::new(Config::DEFAULT);
        let pattern = Pattern::parse(&self.typed, CaseMatching::Smart, Normalization::Smart);
        let mut buffer = Vec::new();
        let mut fitting: Vec<(u32, &Item)> = self
            .items
            .iter()
            .filter_map(|item| {
                let text = format!("{} {}", item.text, item.detail);
                let score = pattern.score(Utf32Str::new(&text, &mut buffer), &mut matcher)?;
                Some((score, item))
            })
            .collect();
        fitting.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        fitting.into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_letters_find_it() {
        let item = |text: &str| Item {
            text: text.into(),
            detail: String::new(),
            letter: None,
            choice: Choice::Epoch(1),
        };
        let mut picker = Picker::new(
            "x",
            vec![item("rewind"), item("previous-change"), item("blame")],
        );
        picker.typed = "prch".into();
        let found: Vec<_> = picker
            .fitting()
            .iter()
            .map(|item| item.text.clone())
            .collect();
        assert_eq!(found, ["previous-change"]);
        picker.typed = "zz".into();
        assert!(picker.fitting().is_empty());
    }
}
