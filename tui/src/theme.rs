//! What things look like. Every meaning that has a colour has a sign or a modifier too.

use ratatui::style::{Color, Modifier, Style};

use crate::model::Standing;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    colours: bool,
}

impl Theme {
    pub fn new(colours: bool) -> Self {
        Self { colours }
    }

    /// Without colours where the environment asks for that (no-color.org).
    pub fn of_environment() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::new(!unwanted)
    }

    fn colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub fn plain(self) -> Style {
        Style::new()
    }

    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub fn changed(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    pub fn name(self) -> Style {
        self.colour(Color::Cyan)
    }

    pub fn current(self) -> Style {
        self.colour(Color::Green).add_modifier(Modifier::BOLD)
    }

    pub fn bar(self) -> Style {
        self.colour(Color::Blue)
    }

    pub fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn group(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub fn border(self, focused: bool) -> Style {
        if focused {
            self.colour(Color::Cyan)
        } else {
            self.dim()
        }
    }

    pub fn standing(self, standing: Standing) -> Style {
        let colour = match standing {
            Standing::Live => Color::Green,
            Standing::Past => Color::Yellow,
            Standing::Rewound => Color::Magenta,
            Standing::Dead => Color::Red,
        };
        self.colour(colour)
            .add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }
}
