//! The state of the workbench. Drawing reads it, [`crate::update`] changes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use introspect::disassembly::Syntax;
use libsls::control::Breakpoint;
use libsls::protocol::{History, HistoryRow, Rewound};

use crate::clerk::{Content, Hit, Members, Spark};
use crate::data::{FrameKey, Look, MemoryAt, Question, Stretch};
use crate::driver::Drive;
use crate::keys::{Key, Keymap};
use crate::overlay::Overlay;
use crate::paint::Paint;
use crate::place::{Pane, Shown, Tab};
use crate::query::Standpoint;
use crate::table::Table;
use crate::theme::Theme;
use crate::variables::{Row, rows};

/// Lines of the log that are kept.
const LOG_LINES: usize = 1000;

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
    /// A file, of which there is no history.
    Core,
}

/// The process, as `ps` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    pub pid: i32,
    pub comm: String,
    pub part: String,
    /// running, sleeping, suspended, stopped, dead, detached; core.
    pub state: String,
    pub trouble: Option<String>,
    /// This program attached it, and lets go of it at the end.
    pub ours: bool,
}

impl Target {
    pub fn is_dead(&self) -> bool {
        self.state == "dead"
    }

    pub fn is_core(&self) -> bool {
        self.state == "core"
    }

    /// Nothing is added to its history any more.
    pub fn is_gone(&self) -> bool {
        self.is_dead() || self.is_core() || self.state == "detached"
    }

    /// What it does, in a word.
    pub fn word(&self) -> &str {
        match self.state.as_str() {
            "running" | "sleeping" => "running",
            "suspended" | "stopped" => "paused",
            other => other,
        }
    }
}

/// A line at the bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    pub bad: bool,
}

/// What values are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The checkpoint before the one looked at.
    Previous,
    At(u64),
}

/// Something that was asked and is not answered yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending<T> {
    pub number: u64,
    pub what: T,
    /// Tenths of a second it takes so far.
    pub ticks: u32,
}

/// What a tab showed last, and of which checkpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    pub of: (u64, Option<u64>),
    pub content: Result<Content, String>,
}

/// Forward control of the process.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// The user has agreed that it is made to stand and go.
    pub agreed: bool,
    /// What was asked of it, and has not led to a stop yet.
    pub driving: Option<Driving>,
    /// Breakpoints and watchpoints, as last told.
    pub points: Vec<Breakpoint>,
    /// A typed order.
    pub wanted: Option<Drive>,
}

/// An order to the process under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driving {
    pub word: &'static str,
    /// It ends by itself soon, as a rule.
    pub is_short: bool,
}

/// A query under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub word: &'static str,
    pub done: u64,
    pub total: u64,
}

/// Selected rows, and the first ones shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursors {
    rows: BTreeMap<Tab, usize>,
    pub first: BTreeMap<Tab, usize>,
    /// The selected node was just opened: what is in it is brought into sight when it comes.
    pub reveals: bool,
    /// Columns to the left of what is shown.
    pub across: BTreeMap<Tab, usize>,
    /// Lines away from the current one.
    pub source: i64,
}

impl Cursors {
    pub fn row(&self, tab: Tab) -> usize {
        self.rows.get(&tab).copied().unwrap_or(0)
    }

    pub fn put(&mut self, tab: Tab, row: usize) {
        self.rows.insert(tab, row);
    }
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

/// A checkpoint to come back to. Its time tells it from one of the same number in another history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    pub letter: char,
    pub epoch: u64,
    pub time: u64,
}

/// A tab whose content is asked for: at which checkpoint, against which.
pub type Detailing = (Tab, (u64, Option<u64>));

#[derive(Debug, Clone)]
pub struct Model {
    pub target: Target,
    pub history: Option<History>,
    pub following: bool,
    /// The epoch looked at; 0 before there is one. Following the newest, the one that is shown: it moves with the answers.
    pub at: u64,
    pub base: Base,
    /// The last answer; shown until there is a newer one.
    pub look: Option<Look>,
    pub pending: Option<Pending<Question>>,
    /// Numbers given to questions and jobs so far.
    pub asked: u64,
    /// The question that had no answer: not asked again until something is different.
    pub refused: Option<Question>,
    /// The instruction that was brought into sight.
    pub current_pc: Option<u64>,
    pub rewinding: Option<u64>,
    pub rewound: Option<Rewound>,
    pub control: Control,
    pub focus: Pane,
    pub shown: Shown,
    pub zoomed: bool,
    pub overlays: Vec<Overlay>,
    pub notice: Option<Notice>,
    pub log: Vec<Notice>,
    /// What was said of debug information that is missing.
    pub noted: BTreeSet<String>,
    pub tid: Option<u32>,
    pub frame: Option<FrameKey>,
    /// Threads whose stacks are open.
    pub stacks: BTreeSet<u32>,
    pub watches: Vec<String>,
    /// Open nodes of the variables tree, with the elements shown of each.
    pub open: BTreeMap<String, usize>,
    pub closed_groups: BTreeSet<Group>,
    /// Pointers that are followed.
    pub follow: BTreeSet<String>,
    /// Stretches of containers that are open.
    pub stretches: BTreeSet<Stretch>,
    pub cursors: Cursors,
    pub filters: BTreeMap<Tab, String>,
    pub memory: MemoryAt,
    pub details: BTreeMap<Tab, Detail>,
    pub detailing: Option<Pending<Detailing>>,
    pub query: Option<Pending<Running>>,
    pub results: Option<Table>,
    /// Looking for the checkpoint at which this expression changes.
    pub changing: Option<Pending<String>>,
    pub hits: HashMap<u64, Option<Hit>>,
    pub hitting: Option<u64>,
    pub sparks: HashMap<String, Spark>,
    /// Of which checkpoint and watches they are.
    pub sparked: Option<(u64, Vec<String>)>,
    pub sparking: Option<u64>,
    pub members: Members,
    pub naming: Option<u64>,
    pub paint: Paint,
    pub bookmarks: Vec<Bookmark>,
    /// Lines typed after `:`, oldest first.
    pub commands: Vec<String>,
    pub keymap: Keymap,
    pub theme: Theme,
    /// How machine code is written.
    pub syntax: Syntax,
    /// Keys of something longer that were typed.
    pub typed: Vec<Key>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Tenths of a second, while something is under way.
    pub ticks: u64,
    /// Why the daemon cannot be asked, since it cannot.
    pub lost: Option<String>,
    /// Another partition to look at.
    pub switch: Option<(String, Option<i32>)>,
    pub quit: bool,
    /// Why the program ends, where nobody asked it to.
    pub failure: Option<String>,
    /// The variables tree as rows: made when what it shows changes, not at each drawing.
    pub rows: Vec<Row>,
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
            refused: None,
            current_pc: None,
            rewinding: None,
            rewound: None,
            control: Control::default(),
            focus: Pane::Timeline,
            shown: Shown::default(),
            zoomed: false,
            overlays: Vec::new(),
            notice: None,
            log: Vec::new(),
            noted: BTreeSet::new(),
            tid: None,
            frame: None,
            stacks: BTreeSet::new(),
            watches: Vec::new(),
            open: BTreeMap::new(),
            closed_groups: BTreeSet::new(),
            follow: BTreeSet::new(),
            stretches: BTreeSet::new(),
            cursors: Cursors::default(),
            filters: BTreeMap::new(),
            memory: MemoryAt::Stack,
            details: BTreeMap::new(),
            detailing: None,
            query: None,
            results: None,
            changing: None,
            hits: HashMap::new(),
            hitting: None,
            sparks: HashMap::new(),
            sparked: None,
            sparking: None,
            members: Members::default(),
            naming: None,
            paint: Paint::default(),
            bookmarks: Vec::new(),
            commands: Vec::new(),
            keymap: Keymap::default(),
            theme: Theme::dark(),
            syntax: Syntax::default(),
            typed: Vec::new(),
            size: (80, 24),
            ticks: 0,
            lost: None,
            switch: None,
            quit: false,
            failure: None,
            rows: Vec::new(),
        };
        model.refresh_rows();
        model
    }

    /// A number for the next question or job.
    pub fn next_number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    pub fn standing(&self) -> Standing {
        match &self.rewound {
            _ if self.target.is_core() => Standing::Core,
            _ if self.target.is_dead() => Standing::Dead,
            _ if self.following && !self.target.is_gone() => Standing::Live,
            Some(rewound) if rewound.to == self.at => Standing::Rewound,
            _ => Standing::Past,
        }
    }

    /// What the focused pane shows.
    pub fn tab(&self) -> Tab {
        self.shown.of(self.focus)
    }

    pub fn filter(&self, tab: Tab) -> &str {
        self.filters.get(&tab).map_or("", String::as_str)
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

    pub fn base_of(&self, epoch: u64) -> Option<u64> {
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
        if self.position(self.at).is_none() {
            return self.neighbour(|row, at| row > at);
        }
        let history = self.history.as_ref()?;
        let line = history.line_to_head();
        let on_line = line
            .windows(2)
            .find(|pair| pair[1].epoch == self.at)
            .map(|pair| pair[0].epoch);
        on_line.or_else(|| {
            let mut children = history.checkpoints.iter();
            children
                .rfind(|row| row.parent == Some(self.at))
                .map(|row| row.epoch)
        })
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
            stacks: self.stacks.clone(),
            watches: self.watches.clone(),
            globals: !self.closed_groups.contains(&Group::Globals),
            open: self
                .open
                .iter()
                .map(|(path, count)| (path.clone(), *count))
                .collect(),
            follow: self.follow.iter().cloned().collect(),
            stretches: self.stretches.iter().cloned().collect(),
            memory: self.memory.clone(),
            assembly: self.shows(Tab::Assembly).then_some(self.syntax),
            laid: self.shows(Tab::Memory),
        }
    }

    /// Whether a tab is in sight.
    pub fn shows(&self, tab: Tab) -> bool {
        let pane = tab.pane();
        self.shown.of(pane) == tab && crate::layout::areas(self).iter().any(|(at, _)| *at == pane)
    }

    /// Where queries are asked from.
    pub fn standpoint(&self) -> Standpoint {
        Standpoint {
            epoch: self.at,
            base: self.base_epoch().filter(|base| *base != self.at),
            newest: self.newest().unwrap_or(self.at),
            pid: (self.target.pid != 0 && !self.target.is_core()).then_some(self.target.pid),
            tid: self.tid,
            function: self.frame.as_ref().and_then(|frame| frame.function.clone()),
        }
    }

    pub fn refresh_rows(&mut self) {
        self.rows = rows(self);
        let last = self.rows.len().saturating_sub(1);
        let row = self.cursors.row(Tab::Variables).min(last);
        self.cursors.put(Tab::Variables, row);
    }

    pub fn selected_variable(&self) -> Option<&Row> {
        self.rows.get(self.cursors.row(Tab::Variables))
    }

    /// Rows of the threads pane: every thread, the frames of those that are open under it.
    pub fn thread_rows(&self) -> Vec<ThreadRow> {
        let Some(look) = &self.look else {
            return Vec::new();
        };
        let filter = self.filter(Tab::Threads);
        let mut rows = Vec::new();
        for (number, thread) in look.threads.iter().enumerate() {
            let frames = look.stack(thread.tid);
            let name = format!("{} {}", thread.tid, thread.name);
            let fits = |text: &str| filter.is_empty() || crate::table::contains(text, filter);
            let whole = fits(&name) || thread.place.as_deref().is_some_and(fits);
            let fitting = (0..frames.len()).filter(|at| {
                let frame = &frames[*at];
                let text = [frame.key.function.as_deref(), frame.file.as_deref()];
                whole || text.into_iter().flatten().any(fits)
            });
            let fitting: Vec<usize> = fitting.collect();
            if whole || !fitting.is_empty() {
                rows.push(ThreadRow::Thread(number));
                rows.extend(fitting.into_iter().map(|at| ThreadRow::Frame(number, at)));
            }
        }
        rows
    }

    /// The table of a tab, and the places of the rows that its filter lets through.
    pub fn table(&self, tab: Tab) -> Option<(&Table, Vec<usize>)> {
        let table = match tab {
            Tab::Results => self.results.as_ref()?,
            _ => match &self.details.get(&tab)?.content {
                Ok(Content::Table(table)) => table,
                _ => return None,
            },
        };
        Some((table, table.filtered(self.filter(tab))))
    }

    pub fn say(&mut self, text: impl Into<String>, bad: bool) {
        let notice = Notice {
            text: text.into(),
            bad,
        };
        if self.log.len() >= LOG_LINES {
            self.log.remove(0);
        }
        self.log.push(notice.clone());
        self.notice = Some(notice);
    }

    /// The bookmark of a checkpoint.
    pub fn bookmark_at(&self, epoch: u64) -> Option<&Bookmark> {
        self.bookmarks.iter().find(|mark| mark.epoch == epoch)
    }

    /// Whether something takes so long that people wonder.
    pub fn is_slow(&self) -> bool {
        const WONDER: u32 = 3;
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.ticks >= WONDER)
    }

    /// Whether ticks are wanted.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
            || self.query.is_some()
            || self.changing.is_some()
            || self.detailing.is_some()
            || self.rewinding.is_some()
            || self.control.driving.is_some_and(|driving| driving.is_short)
    }
}

/// A row of the threads pane: a thread by its place in the look, a frame of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadRow {
    Thread(usize),
    Frame(usize, usize),
}
