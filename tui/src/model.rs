//! The state of the workbench. Drawing reads it, [`crate::update`] changes it.

use std::collections::{BTreeMap, BTreeSet};

use libsls::protocol::{History, HistoryRow, Rewound};

use crate::data::{FrameKey, Look, MemoryAt, Question};
use crate::variables::{Row, rows};

/// The panes, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pane {
    Timeline,
    Threads,
    Source,
    Variables,
    Memory,
}

impl Pane {
    pub const ALL: [Self; 5] = [
        Self::Timeline,
        Self::Threads,
        Self::Source,
        Self::Variables,
        Self::Memory,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Timeline => "Timeline",
            Self::Threads => "Threads",
            Self::Source => "Source",
            Self::Variables => "Variables",
            Self::Memory => "Memory",
        }
    }

    pub fn number(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0) + 1
    }
}

/// What lies over the panes; Escape closes the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    Help {
        scroll: usize,
    },
    /// The expression being typed, and the cursor in it, in characters.
    Prompt {
        text: String,
        cursor: usize,
    },
    Confirm {
        to: u64,
    },
    Rewound(Rewound),
}

/// What is looked at, in relation to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The newest, as it comes.
    Live,
    Past,
    /// The checkpoint that was gone back to.
    Rewound,
    /// Nobody runs any more: the history is all there is.
    Dead,
}

/// The process, as `ps` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    pub pid: i32,
    pub comm: String,
    pub part: String,
    /// running, sleeping, suspended, stopped, dead, detached.
    pub state: String,
    pub trouble: Option<String>,
    /// This program attached it, and lets go of it at the end.
    pub ours: bool,
}

impl Target {
    pub fn is_dead(&self) -> bool {
        self.state == "dead"
    }

    /// Nothing is added to its history any more.
    pub fn is_gone(&self) -> bool {
        self.is_dead() || self.state == "detached"
    }
}

/// A line at the bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    pub bad: bool,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub target: Target,
    pub history: Option<History>,
    pub following: bool,
    /// The epoch looked at; 0 before there is one. Following the newest, the one that is shown: it moves with the answers.
    pub at: u64,
    pub base: Base,
    pub look: Option<Look>,
    /// The question under way, with its number.
    pub pending: Option<(u64, Question)>,
    pub asked: u64,
    pub rewinding: Option<u64>,
    pub rewound: Option<Rewound>,
    pub focus: Pane,
    pub overlays: Vec<Overlay>,
    pub notice: Option<Notice>,
    pub tid: Option<u32>,
    pub frame: Option<FrameKey>,
    pub watches: Vec<String>,
    /// Open nodes of the variables tree, with the elements shown of each.
    pub open: BTreeMap<String, usize>,
    pub closed_groups: BTreeSet<Group>,
    /// Pointers that are followed.
    pub follow: BTreeSet<String>,
    pub cursors: Cursors,
    pub memory: MemoryAt,
    /// `g` was typed.
    pub prefix: bool,
    pub quit: bool,
    /// Why the program ends, where nobody asked it to.
    pub failure: Option<String>,
    /// The variables tree as rows: made when what it shows changes, not at each drawing.
    pub rows: Vec<Row>,
}

/// What values are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The checkpoint before the one looked at.
    Previous,
    At(u64),
}

/// Selected rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursors {
    pub threads: usize,
    /// Lines away from the current one.
    pub source: i64,
    pub variables: usize,
}

/// Nodes at the top of the variables pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Watches,
    Locals,
    Globals,
}

impl Group {
    pub fn title(self) -> &'static str {
        match self {
            Self::Watches => "Watches",
            Self::Locals => "Locals",
            Self::Globals => "Globals",
        }
    }
}

impl Model {
    pub fn new(target: Target) -> Self {
        let mut model = Self {
            target,
            history: None,
            following: true,
            at: 0,
            base: Base::Previous,
            look: None,
            pending: None,
            asked: 0,
            rewinding: None,
            rewound: None,
            focus: Pane::Timeline,
            overlays: Vec::new(),
            notice: None,
            tid: None,
            frame: None,
            watches: Vec::new(),
            open: BTreeMap::new(),
            closed_groups: BTreeSet::new(),
            follow: BTreeSet::new(),
            cursors: Cursors::default(),
            memory: MemoryAt::Stack,
            prefix: false,
            quit: false,
            failure: None,
            rows: Vec::new(),
        };
        model.refresh_rows();
        model
    }

    pub fn standing(&self) -> Standing {
        match &self.rewound {
            _ if self.target.is_dead() => Standing::Dead,
            _ if self.following && !self.target.is_gone() => Standing::Live,
            Some(rewound) if rewound.to == self.at => Standing::Rewound,
            _ => Standing::Past,
        }
    }

    /// The checkpoints, ascending.
    pub fn checkpoints(&self) -> &[HistoryRow] {
        self.history
            .as_ref()
            .map_or(&[], |history| &history.checkpoints)
    }

    pub fn position(&self, epoch: u64) -> Option<usize> {
        self.checkpoints()
            .binary_search_by_key(&epoch, |row| row.epoch)
            .ok()
    }

    pub fn checkpoint(&self, epoch: u64) -> Option<&HistoryRow> {
        self.checkpoints().get(self.position(epoch)?)
    }

    /// The newest of the current branch.
    pub fn newest(&self) -> Option<u64> {
        let history = self.history.as_ref()?;
        self.checkpoint(history.head)
            .or(history.checkpoints.last())
            .map(|row| row.epoch)
    }

    pub fn base_epoch(&self) -> Option<u64> {
        self.base_of(self.at)
    }

    fn base_of(&self, epoch: u64) -> Option<u64> {
        match self.base {
            Base::At(epoch) => Some(epoch),
            Base::Previous => self.checkpoint(epoch)?.parent,
        }
    }

    /// The checkpoint the one looked at came from. One that is no longer kept has neighbours still.
    pub fn before(&self) -> Option<u64> {
        match self.checkpoint(self.at) {
            Some(row) => self.checkpoint(row.parent?).map(|row| row.epoch),
            None => self.neighbour(|row, at| row < at),
        }
    }

    fn neighbour(&self, fits: impl Fn(u64, u64) -> bool) -> Option<u64> {
        let fitting = self
            .checkpoints()
            .iter()
            .map(|row| row.epoch)
            .filter(|epoch| fits(*epoch, self.at));
        fitting.min_by_key(|epoch| epoch.abs_diff(self.at))
    }

    /// The one that came from it: on the way to the newest if it lies there, else the latest.
    pub fn after(&self) -> Option<u64> {
        let history = self.history.as_ref()?;
        let line = history.line_to_head();
        let children = || {
            history
                .checkpoints
                .iter()
                .filter(|row| row.parent == Some(self.at))
        };
        let on_line = line
            .windows(2)
            .find(|pair| pair[1].epoch == self.at)
            .map(|pair| pair[0].epoch);
        if self.position(self.at).is_none() {
            return self.neighbour(|row, at| row > at);
        }
        on_line.or_else(|| children().next_back().map(|row| row.epoch))
    }

    /// What has to be known for all that is open; epoch 0 where there is no checkpoint yet.
    pub fn question(&self) -> Question {
        let epoch = if self.following {
            self.newest().unwrap_or(0)
        } else {
            self.at
        };
        Question {
            epoch,
            base: self.base_of(epoch).filter(|base| *base != epoch),
            tid: self.tid,
            frame: self.frame.clone(),
            watches: self.watches.clone(),
            globals: !self.closed_groups.contains(&Group::Globals),
            open: self
                .open
                .iter()
                .map(|(path, count)| (path.clone(), *count))
                .collect(),
            follow: self.follow.iter().cloned().collect(),
            memory: self.memory.clone(),
        }
    }

    pub fn refresh_rows(&mut self) {
        self.rows = rows(self);
        let last = self.rows.len().saturating_sub(1);
        self.cursors.variables = self.cursors.variables.min(last);
    }

    pub fn selected_variable(&self) -> Option<&Row> {
        self.rows.get(self.cursors.variables)
    }

    /// Rows of the threads pane: every thread, the selected one's frames under it.
    pub fn thread_rows(&self) -> Vec<ThreadRow> {
        let Some(look) = &self.look else {
            return Vec::new();
        };
        let each = look
            .threads
            .iter()
            .enumerate()
            .flat_map(|(number, thread)| {
                let frames = if thread.tid == look.tid {
                    look.frames.len()
                } else {
                    0
                };
                std::iter::once(ThreadRow::Thread(number)).chain((0..frames).map(ThreadRow::Frame))
            });
        each.collect()
    }
}

/// A row of the threads pane, by its place in the look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadRow {
    Thread(usize),
    Frame(usize),
}
