//! Source text by what each word is, found out beside the drawing, a stretch of lines at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxReference, SyntaxSet};

use crate::theme::Role;
use crate::update::Event;
use crate::worker::guarded;

/// Lines sent at once.
const STRETCH: usize = 500;
/// Longer lines were not written by people; what follows them in the file is left plain.
const LONGEST: usize = 4096;
/// Files whose words are kept.
const KEPT: usize = 16;

/// So many bytes of one kind.
pub type Span = (usize, Role);

/// What is known of each file, from its first line on.
#[derive(Debug, Clone, Default)]
pub struct Paint {
    files: HashMap<String, Vec<Vec<Span>>>,
}

impl Paint {
    /// The words of a line, counted from 0.
    pub fn line(&self, path: &str, line: usize) -> Option<&[Span]> {
        self.files.get(path)?.get(line).map(Vec::as_slice)
    }

    pub fn knows(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// That a file was asked for.
    pub fn begin(&mut self, path: &str) {
        if self.files.len() >= KEPT {
            self.files.clear();
        }
        self.files.insert(path.to_owned(), Vec::new());
    }

    pub fn take(&mut self, path: &str, lines: Vec<Vec<Span>>) {
        if let Some(known) = self.files.get_mut(path) {
            known.extend(lines);
        }
    }
}

/// The thread that reads; the syntaxes are loaded when the first file comes.
pub struct Painter {
    files: Sender<(String, Arc<Vec<String>>)>,
}

impl Painter {
    pub fn start(events: Sender<Event>) -> Self {
        let (files, incoming) = channel();
        // Not joined at the end: it holds nothing that outlives the program.
        guarded(events.clone(), move || serve(&incoming, &events));
        Self { files }
    }

    pub fn paint(&self, path: String, text: Arc<Vec<String>>) {
        // A thread that is gone leaves the text plain.
        let _ = self.files.send((path, text));
    }
}

fn serve(incoming: &Receiver<(String, Arc<Vec<String>>)>, events: &Sender<Event>) {
    let mut syntaxes: Option<SyntaxSet> = None;
    while let Ok((path, text)) = incoming.recv() {
        let set = syntaxes.get_or_insert_with(SyntaxSet::load_defaults_newlines);
        let Some(syntax) = syntax_of(set, &path) else {
            continue;
        };
        let mut reader = Reader::new(set, syntax);
        for stretch in text.chunks(STRETCH) {
            let lines: Option<Vec<_>> = stretch.iter().map(|line| reader.line(line)).collect();
            let whole = lines.is_some();
            let event = Event::Painted {
                path: path.clone(),
                lines: lines.unwrap_or_default(),
            };
            if events.send(event).is_err() {
                return;
            }
            if !whole {
                break;
            }
        }
    }
}

fn syntax_of<'a>(set: &'a SyntaxSet, path: &str) -> Option<&'a SyntaxReference> {
    let name = crate::text::file_name(path);
    let (_, extension) = name.rsplit_once('.')?;
    // Headers are read as C++, which knows all that C has.
    let extension = if extension == "h" { "hpp" } else { extension };
    set.find_syntax_by_extension(extension)
}

struct Reader<'a> {
    set: &'a SyntaxSet,
    state: ParseState,
    stack: ScopeStack,
    kinds: Vec<(Scope, Role)>,
}

/// Scopes of Sublime's grammars, the more special ones first.
const KINDS: [(&str, Role); 17] = [
    ("comment", Role::Comment),
    ("string", Role::Text),
    ("constant.numeric", Role::Number),
    ("constant", Role::Number),
    ("entity.name.function", Role::Function),
    ("variable.function", Role::Function),
    ("support.function", Role::Function),
    ("support.macro", Role::Macro),
    ("meta.preprocessor", Role::Macro),
    ("keyword.control.import", Role::Macro),
    ("meta.annotation", Role::Macro),
    ("storage.type", Role::Type),
    ("support.type", Role::Type),
    ("entity.name", Role::Type),
    ("storage", Role::Keyword),
    ("keyword.operator", Role::Plain),
    ("keyword", Role::Keyword),
];

impl<'a> Reader<'a> {
    fn new(set: &'a SyntaxSet, syntax: &SyntaxReference) -> Self {
        let kinds = KINDS
            .iter()
            .filter_map(|(name, role)| Some((Scope::new(name).ok()?, *role)));
        Self {
            set,
            state: ParseState::new(syntax),
            stack: ScopeStack::new(),
            kinds: kinds.collect(),
        }
    }

    /// None where reading on makes no sense.
    fn line(&mut self, line: &str) -> Option<Vec<Span>> {
        if line.len() > LONGEST {
            return None;
        }
        let ended = format!("{line}\n");
        let operations = self.state.parse_line(&ended, self.set).ok()?;
        let mut spans = Vec::new();
        let mut from = 0;
        for (at, operation) in &operations {
            let at = (*at).min(line.len());
            self.push(&mut spans, at - from.min(at));
            from = at;
            self.stack.apply(operation).ok()?;
        }
        self.push(&mut spans, line.len() - from);
        Some(spans)
    }

    fn push(&self, spans: &mut Vec<Span>, len: usize) {
        if len == 0 {
            return;
        }
        let role = self.role();
        match spans.last_mut() {
            Some((before, same)) if *same == role => *before += len,
            _ => spans.push((len, role)),
        }
    }

    /// The innermost scope that says something.
    fn role(&self) -> Role {
        let of = |scope: &Scope| {
            let kind = self
                .kinds
                .iter()
                .find(|(kind, _)| kind.is_prefix_of(*scope));
            kind.map(|(_, role)| *role)
        };
        self.stack
            .as_slice()
            .iter()
            .rev()
            .find_map(of)
            .unwrap_or(Role::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str, lines: &[&str]) -> Vec<Vec<(String, Role)>> {
        let set = SyntaxSet::load_defaults_newlines();
        let mut reader = Reader::new(&set, syntax_of(&set, path).unwrap());
        let each = lines.iter().map(|line| {
            let spans = reader.line(line).unwrap();
            assert_eq!(spans.iter().map(|span| span.0).sum::<usize>(), line.len());
            let mut at = 0;
            let words = spans.iter().map(|(len, role)| {
                at += len;
                (line[at - len..at].to_owned(), *role)
            });
            words.collect()
        });
        each.collect()
    }

    #[test]
    fn words_are_told_apart() {
        let lines = words(
            "/a/x.c",
            &["return f(\"é\", 42); // why", "/* on", "and on */ int x;"],
        );
        let role = |line: usize, text: &str| {
            let word = lines[line].iter().find(|(word, _)| word.contains(text));
            word.unwrap_or_else(|| panic!("{text} in {:?}", lines[line]))
                .1
        };
        assert_eq!(role(0, "return"), Role::Keyword);
        assert_eq!(role(0, "é"), Role::Text);
        assert_eq!(role(0, "42"), Role::Number);
        assert_eq!(role(0, "why"), Role::Comment);
        // What goes over lines is remembered.
        assert_eq!(role(2, "and on"), Role::Comment);
        assert_eq!(role(2, "int"), Role::Type);
        let rust = words("x.rs", &["let x: u32 = 1; fn main() {}"]);
        assert!(
            rust[0]
                .iter()
                .any(|(word, role)| word == "main" && *role == Role::Function)
        );
    }

    #[test]
    fn what_nobody_knows_is_plain() {
        let set = SyntaxSet::load_defaults_newlines();
        assert!(
            syntax_of(&set, "/a/x.unknown").is_none() && syntax_of(&set, "/a/Makefile").is_none()
        );
    }
}
