//! What is kept between runs, in `$XDG_STATE_HOME/sls`: layout, watches and bookmarks of each program, and the lines
//! typed after `:`. Nothing of it is needed: what cannot be read or written is done without.

use std::path::{Path, PathBuf};

use introspect::disassembly::Syntax;
use serde::{Deserialize, Serialize};

use crate::config::folder;
use crate::model::{Bookmark, Model};
use crate::place::{Pane, Tab};

/// Lines of the history that are kept.
const LINES: usize = 500;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Program {
    watches: Vec<String>,
    tabs: Vec<String>,
    zoomed: bool,
    intel: bool,
    bookmarks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mark {
    letter: char,
    epoch: u64,
    time: u64,
}

/// Where it is kept.
pub struct Kept {
    folder: Option<PathBuf>,
}

impl Kept {
    pub fn of_user() -> Self {
        Self {
            folder: folder("XDG_STATE_HOME", ".local/state"),
        }
    }

    fn program(&self, comm: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_alphanumeric() || "-_+".contains(c);
        let name: String = comm
            .chars()
            .map(|c| if plain(c) { c } else { '_' })
            .collect();
        let folder = self.folder.as_deref().filter(|_| !name.is_empty())?;
        Some(folder.join("programs").join(format!("{name}.toml")))
    }

    fn lines(&self) -> Option<PathBuf> {
        Some(self.folder.as_deref()?.join("commands"))
    }

    /// Puts into the model what is kept for its program.
    pub fn restore(&self, model: &mut Model) {
        if let Some(text) = self
            .lines()
            .and_then(|path| std::fs::read_to_string(path).ok())
        {
            model.commands = text.lines().map(str::to_owned).collect();
        }
        let path = self.program(&model.target.comm);
        let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) else {
            return;
        };
        let Ok(kept) = toml::from_str::<Program>(&text) else {
            return;
        };
        model.watches = kept.watches;
        for tab in kept.tabs.iter().filter_map(|name| Tab::named(name)) {
            model.shown.set(tab);
        }
        model.zoomed = kept.zoomed;
        if kept.intel {
            model.syntax = Syntax::Intel;
        }
        let bookmark = |mark: Mark| Bookmark {
            letter: mark.letter,
            epoch: mark.epoch,
            time: mark.time,
        };
        model.bookmarks = kept.bookmarks.into_iter().map(bookmark).collect();
    }

    /// Keeps it.
    pub fn save(&self, model: &Model) {
        let kept = Program {
            watches: model.watches.clone(),
            tabs: Pane::ALL
                .map(|pane| model.shown.of(pane).title().to_owned())
                .into(),
            zoomed: model.zoomed,
            intel: model.syntax == Syntax::Intel,
            bookmarks: model
                .bookmarks
                .iter()
                .map(|mark| Mark {
                    letter: mark.letter,
                    epoch: mark.epoch,
                    time: mark.time,
                })
                .collect(),
        };
        if let (Some(path), Ok(text)) = (self.program(&model.target.comm), toml::to_string(&kept)) {
            write(&path, &text);
        }
        if let Some(path) = self.lines().filter(|_| !model.commands.is_empty()) {
            let first = model.commands.len().saturating_sub(LINES);
            write(&path, &(model.commands[first..].join("\n") + "\n"));
        }
    }
}

/// Whole or not at all, for a second program that reads it meanwhile.
fn write(path: &Path, text: &str) {
    let Some(folder) = path.parent() else { return };
    let new = path.with_extension(format!("new{}", std::process::id()));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&new, text))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // It was not needed; the half that is there perhaps is no use to anybody.
        let _ = std::fs::remove_file(&new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Target;

    #[test]
    fn what_was_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept {
            folder: Some(folder.path().into()),
        };
        let target = Target {
            comm: "a/../b".into(),
            ..Target::default()
        };
        let mut model = Model::new(target.clone());
        model.watches = vec!["a \"b\" + 'c'".into()];
        model.shown.set(crate::place::Tab::Heap);
        model.syntax = Syntax::Intel;
        model.commands = vec!["diff".into(), "blame x".into()];
        model.bookmarks = vec![Bookmark {
            letter: 'a',
            epoch: 7,
            time: 99,
        }];
        kept.save(&model);
        let mut other = Model::new(target);
        kept.restore(&mut other);
        assert_eq!((&other.watches, other.shown), (&model.watches, model.shown));
        assert_eq!(other.syntax, model.syntax);
        assert_eq!(
            (other.bookmarks, other.commands),
            (model.bookmarks, model.commands)
        );
    }

    #[test]
    fn damage_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("programs")).unwrap();
        std::fs::write(folder.path().join("programs/x.toml"), "watches = 3").unwrap();
        let kept = Kept {
            folder: Some(folder.path().into()),
        };
        let mut model = Model::new(Target {
            comm: "x".into(),
            ..Target::default()
        });
        kept.restore(&mut model);
        assert!(model.watches.is_empty());
    }
}
