//! What things look like. Every meaning that has a colour has a sign or a modifier too.

use ratatui::style::{Color, Modifier, Style};

use crate::model::Standing;
use crate::table::Sign;

/// What has a look of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Plain,
    Dim,
    Group,
    Name,
    Changed,
    Added,
    Removed,
    Current,
    Bad,
    Bar,
    Cursor,
    Border,
    Focus,
    Live,
    Past,
    Rewound,
    Dead,
    Inline,
    Hit,
    Keyword,
    Type,
    Function,
    Text,
    Number,
    Comment,
    Macro,
}

/// Each role with the name that theme files use.
pub const ROLES: &[(&str, Role)] = &[
    ("plain", Role::Plain),
    ("dim", Role::Dim),
    ("group", Role::Group),
    ("name", Role::Name),
    ("changed", Role::Changed),
    ("added", Role::Added),
    ("removed", Role::Removed),
    ("current", Role::Current),
    ("bad", Role::Bad),
    ("bar", Role::Bar),
    ("cursor", Role::Cursor),
    ("border", Role::Border),
    ("focus", Role::Focus),
    ("live", Role::Live),
    ("past", Role::Past),
    ("rewound", Role::Rewound),
    ("dead", Role::Dead),
    ("inline", Role::Inline),
    ("hit", Role::Hit),
    ("keyword", Role::Keyword),
    ("type", Role::Type),
    ("function", Role::Function),
    ("string", Role::Text),
    ("number", Role::Number),
    ("comment", Role::Comment),
    ("macro", Role::Macro),
];

/// Names of the themes there are.
pub const THEMES: [&str; 4] = ["dark", "light", "16", "none"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    styles: [Style; ROLES.len()],
}

impl Theme {
    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "dark" => Some(Self::dark()),
            "light" => Some(Self::light()),
            "16" | "sixteen" => Some(Self::sixteen()),
            "none" => Some(Self::none()),
            _ => None,
        }
    }

    /// For a terminal of 256 colours with a dark ground.
    pub fn dark() -> Self {
        let mut theme = Self::sixteen();
        for (role, colour) in [
            (Role::Keyword, 176),
            (Role::Type, 80),
            (Role::Function, 111),
            (Role::Text, 114),
            (Role::Number, 215),
            (Role::Comment, 245),
            (Role::Macro, 180),
            (Role::Inline, 109),
        ] {
            theme.colour(role, Color::Indexed(colour));
        }
        theme
    }

    /// For one with a light ground: what is bright on dark cannot be read there.
    pub fn light() -> Self {
        let mut theme = Self::sixteen();
        for (role, colour) in [
            (Role::Changed, 130),
            (Role::Past, 130),
            (Role::Name, 25),
            (Role::Focus, 25),
            (Role::Current, 28),
            (Role::Live, 28),
            (Role::Added, 28),
            (Role::Bar, 25),
            (Role::Hit, 90),
            (Role::Rewound, 90),
            (Role::Keyword, 90),
            (Role::Type, 30),
            (Role::Function, 25),
            (Role::Text, 28),
            (Role::Number, 130),
            (Role::Comment, 244),
            (Role::Macro, 94),
            (Role::Inline, 66),
        ] {
            theme.colour(role, Color::Indexed(colour));
        }
        theme
    }

    /// The sixteen colours that every terminal has and its user has chosen.
    pub fn sixteen() -> Self {
        let mut theme = Self::none();
        for (role, colour) in [
            (Role::Name, Color::Cyan),
            (Role::Changed, Color::Yellow),
            (Role::Added, Color::Green),
            (Role::Removed, Color::Red),
            (Role::Current, Color::Green),
            (Role::Bad, Color::Red),
            (Role::Bar, Color::Blue),
            (Role::Focus, Color::Cyan),
            (Role::Live, Color::Green),
            (Role::Past, Color::Yellow),
            (Role::Rewound, Color::Magenta),
            (Role::Dead, Color::Red),
            (Role::Inline, Color::Cyan),
            (Role::Hit, Color::Magenta),
            (Role::Keyword, Color::Magenta),
            (Role::Type, Color::Cyan),
            (Role::Function, Color::Blue),
            (Role::Text, Color::Green),
            (Role::Number, Color::Yellow),
            (Role::Comment, Color::DarkGray),
            (Role::Macro, Color::Yellow),
        ] {
            theme.colour(role, colour);
        }
        theme
    }

    /// Without colours: signs and modifiers say it all.
    pub fn none() -> Self {
        let mut theme = Self {
            styles: [Style::new(); ROLES.len()],
        };
        let standing = Modifier::BOLD | Modifier::REVERSED;
        for (role, modifier) in [
            (Role::Dim, Modifier::DIM),
            (Role::Group, Modifier::BOLD),
            (Role::Changed, Modifier::BOLD),
            (Role::Added, Modifier::BOLD),
            (Role::Removed, Modifier::BOLD),
            (Role::Current, Modifier::BOLD),
            (Role::Bad, Modifier::BOLD),
            (Role::Cursor, Modifier::REVERSED),
            (Role::Border, Modifier::DIM),
            (Role::Live, standing),
            (Role::Past, standing),
            (Role::Rewound, standing),
            (Role::Dead, standing),
            (Role::Inline, Modifier::ITALIC),
        ] {
            theme.styles[role as usize] = Style::new().add_modifier(modifier);
        }
        theme
    }

    /// What the environment speaks for: no-color.org, the ground in COLORFGBG, the colours of TERM.
    pub fn of_environment() -> Self {
        let text = |name: &str| std::env::var(name).unwrap_or_default();
        if !text("NO_COLOR").is_empty() {
            return Self::none();
        }
        let ground = text("COLORFGBG");
        let many = text("TERM").contains("256color") || !text("COLORTERM").is_empty();
        match ground.rsplit(';').next() {
            _ if !many => Self::sixteen(),
            Some("7" | "15") => Self::light(),
            _ => Self::dark(),
        }
    }

    fn colour(&mut self, role: Role, colour: Color) {
        let style = &mut self.styles[role as usize];
        *style = style.fg(colour);
    }

    pub fn set(&mut self, role: Role, style: Style) {
        self.styles[role as usize] = style;
    }

    pub fn of(self, role: Role) -> Style {
        self.styles[role as usize]
    }

    pub fn plain(self) -> Style {
        self.of(Role::Plain)
    }

    pub fn dim(self) -> Style {
        self.of(Role::Dim)
    }

    pub fn changed(self) -> Style {
        self.of(Role::Changed)
    }

    pub fn name(self) -> Style {
        self.of(Role::Name)
    }

    pub fn current(self) -> Style {
        self.of(Role::Current)
    }

    pub fn bar(self) -> Style {
        self.of(Role::Bar)
    }

    pub fn bad(self) -> Style {
        self.of(Role::Bad)
    }

    pub fn group(self) -> Style {
        self.of(Role::Group)
    }

    pub fn cursor(self) -> Style {
        self.of(Role::Cursor)
    }

    pub fn border(self, focused: bool) -> Style {
        self.of(if focused { Role::Focus } else { Role::Border })
    }

    pub fn sign(self, sign: Sign) -> Style {
        match sign {
            Sign::Same => self.plain(),
            Sign::Changed => self.of(Role::Changed),
            Sign::Added => self.of(Role::Added),
            Sign::Removed => self.of(Role::Removed),
        }
    }

    pub fn standing(self, standing: Standing) -> Style {
        self.of(match standing {
            Standing::Live => Role::Live,
            Standing::Past | Standing::Core => Role::Past,
            Standing::Rewound => Role::Rewound,
            Standing::Dead => Role::Dead,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_place() {
        for (place, (_, role)) in ROLES.iter().enumerate() {
            assert_eq!(*role as usize, place);
        }
        for name in THEMES {
            assert!(Theme::named(name).is_some());
        }
    }

    #[test]
    fn sixteen_colours_are_no_more_and_none_are_none() {
        for (name, role) in ROLES {
            let colour = Theme::sixteen().of(*role).fg;
            assert!(
                !matches!(colour, Some(Color::Indexed(_) | Color::Rgb(..))),
                "{name}"
            );
            assert_eq!(Theme::none().of(*role).fg, None, "{name}");
        }
    }
}
