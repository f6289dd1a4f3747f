//! What the worker finds out at one checkpoint, as plain data that can be sent and drawn.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use introspect::Value;
use introspect::disassembly::{Instruction, Syntax};

/// Bytes of memory fetched at once.
pub const MEMORY_BYTES: usize = 1024;
/// Elements decoded of a container that is not expanded.
pub const SUMMARY_ELEMENTS: usize = 8;
/// Elements decoded of one that is, at first.
pub const EXPANDED_ELEMENTS: usize = 100;
/// And at most, of those that cannot be shown by stretches.
pub const MOST_ELEMENTS: usize = 8192;

/// A frame by what stays the same while it is on the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameKey {
    pub function: Option<String>,
    pub cfa: Option<u64>,
    pub index: usize,
}

/// Everything that decides what one look shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    pub epoch: u64,
    /// The epoch that values and memory are compared with.
    pub base: Option<u64>,
    /// None: the main thread.
    pub tid: Option<u32>,
    /// None: the innermost frame with source.
    pub frame: Option<FrameKey>,
    /// Threads whose stacks are shown besides the selected one's.
    pub stacks: BTreeSet<u32>,
    pub watches: Vec<String>,
    /// Globals are only read when they are shown.
    pub globals: bool,
    /// How many elements to decode of each root that is open, by path.
    pub open: Vec<(String, usize)>,
    /// Pointers to follow, by path.
    pub follow: Vec<String>,
    /// Stretches of containers that are open.
    pub stretches: Vec<Stretch>,
    pub memory: MemoryAt,
    /// Whether code is wanted, and how it is written.
    pub assembly: Option<Syntax>,
    /// Variables and pointers in the memory shown are wanted too.
    pub laid: bool,
}

/// Elements `from..to` of what can be indexed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stretch {
    pub of: String,
    pub from: u64,
    pub to: u64,
}

impl Stretch {
    /// The expression for these elements.
    pub fn path(&self) -> String {
        format!("{}[{}..{}]", self.of, self.from, self.to)
    }
}

/// Where memory is shown from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MemoryAt {
    /// The stack pointer of the selected frame.
    #[default]
    Stack,
    Address(u64),
    /// Where this expression lies.
    Variable(String),
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    pub question: Question,
    pub threads: Vec<Thread>,
    pub tid: u32,
    pub frames: Vec<FrameRow>,
    /// Stacks of other threads that are open.
    pub stacks: BTreeMap<u32, Vec<FrameRow>>,
    /// Index of the selected frame.
    pub frame: Option<usize>,
    pub source: Option<Source>,
    pub assembly: Result<Vec<Instruction>, String>,
    pub locals: Vec<Root>,
    pub globals: Vec<Root>,
    /// Globals there are, shown or not.
    pub global_count: usize,
    pub watches: Vec<Root>,
    /// What followed pointers lead to, by the pointer's path.
    pub followed: HashMap<String, Root>,
    /// Open containers whose elements can be had by number.
    pub sliced: HashSet<String>,
    /// Open stretches, by path.
    pub stretches: HashMap<String, Root>,
    pub memory: Result<Memory, String>,
    /// What completion offers.
    pub names: Arc<Vec<String>>,
    /// What was found missing of debug information so far.
    pub notes: Vec<String>,
}

impl Look {
    /// One in which nothing was found yet.
    pub fn empty(question: Question) -> Self {
        Self {
            question,
            threads: Vec::new(),
            tid: 0,
            frames: Vec::new(),
            stacks: BTreeMap::new(),
            frame: None,
            source: None,
            assembly: Ok(Vec::new()),
            locals: Vec::new(),
            globals: Vec::new(),
            global_count: 0,
            watches: Vec::new(),
            followed: HashMap::new(),
            sliced: HashSet::new(),
            stretches: HashMap::new(),
            memory: Err("nothing is looked at yet".to_owned()),
            names: Arc::default(),
            notes: Vec::new(),
        }
    }

    /// The frames of a thread, where they are known.
    pub fn stack(&self, tid: u32) -> &[FrameRow] {
        if tid == self.tid {
            &self.frames
        } else {
            self.stacks.get(&tid).map_or(&[], Vec::as_slice)
        }
    }

    pub fn selected_frame(&self) -> Option<&FrameRow> {
        self.frames.get(self.frame?)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    pub tid: u32,
    pub name: String,
    /// Where it is, where that was looked up.
    pub place: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameRow {
    pub key: FrameKey,
    pub pc: u64,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub inlined: bool,
    pub guessed: bool,
}

/// A source file, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: String,
    pub line: u32,
    pub text: Result<Arc<Vec<String>>, String>,
}

/// A variable at the top of the tree, now and at the base.
#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    /// An expression that names it.
    pub path: String,
    pub type_name: String,
    pub value: Value,
    pub address: Option<u64>,
    /// Its value at the base; None where it is not there or nothing is compared.
    pub old: Option<Value>,
}

/// A stretch of memory, now and at the base; None for bytes that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub start: u64,
    pub bytes: Vec<Option<u8>>,
    pub old: Option<Vec<Option<u8>>>,
    /// Variables that lie here: first address, length, name, type.
    pub objects: Vec<Laid>,
    /// Words that point somewhere, and what lies there.
    pub pointers: Vec<Pointed>,
}

/// A variable where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    pub start: u64,
    pub len: u64,
    pub name: String,
    pub type_name: String,
}

/// A word that points somewhere, with each stop of the way as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointed {
    pub at: u64,
    pub chain: Vec<String>,
}

/// How touched pages lie in the mappings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heat {
    pub rows: Vec<HeatRow>,
    /// Pages that differ from the base.
    pub touched: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeatRow {
    pub start: u64,
    pub pages: u64,
    pub label: String,
    /// First page and count, within the mapping, of those that differ from the base.
    pub touched: Vec<(u64, u64)>,
    /// Of those that the checkpoint has.
    pub kept: Vec<(u64, u64)>,
}
