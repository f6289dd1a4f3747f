//! The panes of the screen, and the tabs in them.

/// The panes, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pane {
    Timeline,
    Threads,
    Source,
    Variables,
    Memory,
}

/// What a pane shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tab {
    Timeline,
    Threads,
    Source,
    Assembly,
    Variables,
    Memory,
    Pages,
    Fds,
    Maps,
    Sockets,
    Signals,
    Heap,
    Results,
    Log,
}

impl Pane {
    pub const ALL: [Self; 5] = [
        Self::Timeline,
        Self::Threads,
        Self::Source,
        Self::Variables,
        Self::Memory,
    ];

    pub fn number(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0) + 1
    }

    pub fn tabs(self) -> &'static [Tab] {
        match self {
            Self::Timeline => &[Tab::Timeline],
            Self::Threads => &[Tab::Threads],
            Self::Source => &[Tab::Source, Tab::Assembly],
            Self::Variables => &[Tab::Variables],
            Self::Memory => &[
                Tab::Memory,
                Tab::Pages,
                Tab::Fds,
                Tab::Maps,
                Tab::Sockets,
                Tab::Signals,
                Tab::Heap,
                Tab::Results,
                Tab::Log,
            ],
        }
    }
}

impl Tab {
    /// All of them, pane by pane.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        Pane::ALL.into_iter().flat_map(Pane::tabs).copied()
    }

    /// By its title, letter case aside.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|tab| tab.title().eq_ignore_ascii_case(name))
    }

    pub fn pane(self) -> Pane {
        let holds = |pane: &Pane| pane.tabs().contains(&self);
        Pane::ALL.into_iter().find(holds).unwrap_or(Pane::Timeline)
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Timeline => "Timeline",
            Self::Threads => "Threads",
            Self::Source => "Source",
            Self::Assembly => "Assembly",
            Self::Variables => "Variables",
            Self::Memory => "Memory",
            Self::Pages => "Pages",
            Self::Fds => "Fds",
            Self::Maps => "Maps",
            Self::Sockets => "Sockets",
            Self::Signals => "Signals",
            Self::Heap => "Heap",
            Self::Results => "Results",
            Self::Log => "Log",
        }
    }

    /// Whether it is found out apart from the rest, when it is looked at.
    pub fn is_detail(self) -> bool {
        matches!(
            self,
            Self::Pages | Self::Fds | Self::Maps | Self::Sockets | Self::Signals | Self::Heap
        )
    }
}

/// Which tab each pane shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    source: Tab,
    memory: Tab,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            source: Tab::Source,
            memory: Tab::Memory,
        }
    }
}

impl Shown {
    pub fn of(self, pane: Pane) -> Tab {
        match pane {
            Pane::Source => self.source,
            Pane::Memory => self.memory,
            other => other.tabs()[0],
        }
    }

    pub fn set(&mut self, tab: Tab) {
        match tab.pane() {
            Pane::Source => self.source = tab,
            Pane::Memory => self.memory = tab,
            _ => {}
        }
    }
}
