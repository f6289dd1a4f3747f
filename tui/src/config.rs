//! The user's key map and theme: `keys.toml` and `theme.toml` in `$XDG_CONFIG_HOME/sls`. What is wrong in them is said
//! with its line, and the rest holds.

use std::path::{Path, PathBuf};

use ratatui::style::{Color, Modifier, Style};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::keys::{Action, Keymap};
use crate::theme::{ROLES, THEMES, Theme};

/// `$NAME/sls`, or the folder below home where that is unset.
pub fn folder(name: &str, below_home: &str) -> Option<PathBuf> {
    let set = std::env::var_os(name).filter(|value| !value.is_empty());
    let base = match set {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(below_home),
    };
    base.is_absolute().then(|| base.join("sls"))
}

/// Key map and theme, and what was wrong in the files.
pub struct Config {
    pub keymap: Keymap,
    pub theme: Theme,
    pub complaints: Vec<String>,
}

impl Config {
    /// Those of the user; the environment chooses the theme where no file does.
    pub fn load() -> Self {
        let folder = folder("XDG_CONFIG_HOME", ".config");
        let mut config = Self {
            keymap: Keymap::default(),
            theme: Theme::of_environment(),
            complaints: Vec::new(),
        };
        let Some(folder) = folder else { return config };
        for (name, take) in [
            ("keys.toml", Self::take_keys as fn(&mut Self, &Text<'_>)),
            ("theme.toml", Self::take_theme),
        ] {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => take(
                    &mut config,
                    &Text {
                        path: &path,
                        text: &text,
                    },
                ),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => config
                    .complaints
                    .push(format!("{}: {error}", path.display())),
            }
        }
        config
    }

    /// `"gx" = "quit"`; an empty action takes the keys' meaning away.
    fn take_keys(&mut self, file: &Text<'_>) {
        let Some(table) = file.parse(&mut self.complaints) else {
            return;
        };
        for (keys, value) in &table {
            let line = file.line(value.span().start);
            let bound = match value.get_ref().as_str() {
                Some("") => self.keymap.bind(keys.get_ref(), None),
                Some(name) => match Action::named(name) {
                    Some(action) => self.keymap.bind(keys.get_ref(), Some(action)),
                    None => Err(format!("there is no action {name:?}; `?` lists them")),
                },
                None => Err("an action is a text, such as \"rewind\"".to_owned()),
            };
            if let Err(why) = bound {
                self.complaints.push(file.complaint(line, &why));
            }
        }
    }

    /// `base = "light"`, then a table a role: `changed = { fg = "#ffcc00", bold = true }`.
    fn take_theme(&mut self, file: &Text<'_>) {
        let Some(table) = file.parse(&mut self.complaints) else {
            return;
        };
        let bare = self.theme == Theme::none();
        if let Some(base) = table.get("base") {
            let line = file.line(base.span().start);
            match base.get_ref().as_str().and_then(Theme::named) {
                // Who asks for no colours has the last word.
                Some(theme) if !bare => self.theme = theme,
                Some(_) => {}
                None => {
                    let why = format!("base is one of {}", THEMES.join(", "));
                    self.complaints.push(file.complaint(line, &why));
                }
            }
        }
        for (name, value) in table.iter().filter(|(name, _)| name.get_ref() != "base") {
            let line = file.line(value.span().start);
            let role = ROLES.iter().find(|(known, _)| name.get_ref() == known);
            let Some((_, role)) = role else {
                let why = format!("nothing is called {:?}", name.get_ref());
                self.complaints.push(file.complaint(line, &why));
                continue;
            };
            match style(value) {
                Ok(style) if bare => self.theme.set(
                    *role,
                    Style {
                        fg: None,
                        bg: None,
                        ..style
                    },
                ),
                Ok(style) => self.theme.set(*role, style),
                Err(why) => self.complaints.push(file.complaint(line, &why)),
            }
        }
    }
}

struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Text<'a> {
    fn parse(&self, complaints: &mut Vec<String>) -> Option<DeTable<'a>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table.into_inner()),
            Err(error) => {
                let line = self.line(error.span().map_or(0, |span| span.start));
                complaints.push(self.complaint(line, error.message()));
                None
            }
        }
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    fn complaint(&self, line: usize, why: &str) -> String {
        format!("{}:{line}: {why}", self.path.display())
    }
}

fn style(value: &Spanned<DeValue<'_>>) -> Result<Style, String> {
    const WRONG: &str =
        "a look is a colour, or { fg, bg, bold, dim, italic, underlined, reversed }";
    let value = value.get_ref();
    if let Some(colour) = value.as_str() {
        return Ok(Style::new().fg(parsed(colour)?));
    }
    let table = value.as_table().ok_or(WRONG)?;
    let mut style = Style::new();
    for (name, value) in table {
        let value = value.get_ref();
        style = match (&**name.get_ref(), value.as_str(), value.as_bool()) {
            ("fg", Some(colour), _) => style.fg(parsed(colour)?),
            ("bg", Some(colour), _) => style.bg(parsed(colour)?),
            (name, _, Some(on)) => {
                let modifier = match name {
                    "bold" => Modifier::BOLD,
                    "dim" => Modifier::DIM,
                    "italic" => Modifier::ITALIC,
                    "underlined" => Modifier::UNDERLINED,
                    "reversed" => Modifier::REVERSED,
                    _ => return Err(WRONG.to_owned()),
                };
                if on {
                    style.add_modifier(modifier)
                } else {
                    style.remove_modifier(modifier)
                }
            }
            _ => return Err(WRONG.to_owned()),
        };
    }
    Ok(style)
}

fn parsed(colour: &str) -> Result<Color, String> {
    colour
        .parse()
        .map_err(|_| format!("{colour:?} is no colour: write red, light-blue, 0 to 255 or #rrggbb"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Meaning, notation};
    use crate::theme::Role;

    fn config(take: fn(&mut Config, &Text<'_>), text: &str) -> Config {
        let mut config = Config {
            keymap: Keymap::default(),
            theme: Theme::dark(),
            complaints: Vec::new(),
        };
        let path = Path::new("x.toml");
        take(&mut config, &Text { path, text });
        config
    }

    #[test]
    fn keys_are_bound_and_what_is_wrong_has_a_line() {
        let config = config(
            Config::take_keys,
            "\"gx\" = \"quit\"\nx = \"nothing\"\n\"<Oops>\" = \"quit\"\nz = 3\n",
        );
        let keys = notation::parse("gx").unwrap();
        assert_eq!(config.keymap.meaning(&keys), Meaning::Action(Action::Quit));
        let lines: Vec<&str> = config.complaints.iter().map(|c| &c[..8]).collect();
        assert_eq!(lines.len(), 3, "{:?}", config.complaints);
        assert!(
            lines.contains(&"x.toml:2")
                && lines.contains(&"x.toml:3")
                && lines.contains(&"x.toml:4")
        );
    }

    #[test]
    fn damage_is_no_end() {
        let config = config(Config::take_keys, "a = \"quit\"\nb = = 3\n");
        assert!(
            config.complaints[0].starts_with("x.toml:2:"),
            "{:?}",
            config.complaints
        );
        assert_eq!(config.keymap, Keymap::default());
    }

    #[test]
    fn looks_are_changed() {
        let config = config(
            Config::take_theme,
            "base = \"light\"\nchanged = { fg = \"#102030\", bold = true }\nname = \"red\"\nbad = \"nocolour\"\nnobody = \"red\"\n",
        );
        assert_eq!(
            config.theme.of(Role::Changed).fg,
            Some(Color::Rgb(16, 32, 48))
        );
        assert_eq!(config.theme.of(Role::Name).fg, Some(Color::Red));
        assert_eq!(config.theme.of(Role::Live), Theme::light().of(Role::Live));
        assert_eq!(config.complaints.len(), 2, "{:?}", config.complaints);
    }
}
