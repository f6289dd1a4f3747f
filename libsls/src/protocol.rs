//! Messages between clients and slsd.
//!
//! A message is a frame: its length as u32, little endian, then postcard. The first of each side
//! is [`Hello`]; another version is refused by name. Page contents never change once numbered, so
//! a client may keep what it read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::{Act, Breakpoint, Stop};

/// Version of this protocol; both sides must have the same.
pub const VERSION: u32 = 9;
/// First word of a hello.
pub const MAGIC: u32 = 0x534c_5301;
/// Longest request.
pub const MAX_REQUEST: u32 = 256 << 10;
/// Longest answer.
pub const MAX_ANSWER: u32 = 32 << 20;
/// Most pages one request may ask for.
pub const MAX_PAGES: u32 = 4096;
/// Aurora's default disk and memory partitions, by number.
pub const DISK_PARTITION: (&str, &str) = ("5115", "disk");
/// See [`DISK_PARTITION`].
pub const MEMORY_PARTITION: (&str, &str) = ("5116", "mem");

/// First message of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u32,
}

/// Which checkpoints a partition keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// All the budget holds.
    All,
    /// The newest so many.
    Last(u64),
    /// Spacing doubles with age.
    Log,
}

/// What a client asks. Partitions are named; `None` means the only one there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Fields are named as the options of cli.md.
pub enum Request {
    PartAdd {
        part: String,
        keep: Keep,
        budget: Option<u64>,
        period_ms: Option<u64>,
        /// Absolute: it is written there as it runs.
        store: Option<PathBuf>,
    },
    PartDel {
        part: String,
    },
    Attach {
        pid: i32,
        part: String,
        period_ms: Option<u64>,
        /// Descendants too, now and later.
        follow: bool,
        hold: bool,
        /// It was just started and stands still until the caller lets it run: the first checkpoint is
        /// of what it is about to do, and says that it runs.
        begins: bool,
    },
    Detach {
        pid: Option<i32>,
        part: Option<String>,
    },
    Checkpoint {
        part: Option<String>,
        name: Option<String>,
        /// Descendants join first, and from then on.
        follow: bool,
    },
    Rewind {
        part: Option<String>,
        epoch: u64,
        stay_stopped: bool,
    },
    /// Make the process of a checkpoint anew.
    Restore {
        part: Option<String>,
        epoch: u64,
        stay_stopped: bool,
        force: bool,
        /// Descriptors of the client's, each in the place of what was open on something of this name.
        inherit: Vec<(i32, String)>,
        /// Running before all of its pages are there: they are brought as they are needed.
        lazy: bool,
        /// In a PID namespace of its own.
        pidns: bool,
        /// With its TCP connections closed.
        tcp_close: bool,
    },
    /// Make a clone of the process of a checkpoint, beside it, in a partition of its own. Answered as
    /// Restore.
    Branch {
        part: Option<String>,
        epoch: u64,
        /// The partition to make for it; by default one is chosen.
        into: Option<String>,
        stay_stopped: bool,
        force: bool,
        lazy: bool,
    },
    /// How did a process end that was restored?
    Ended {
        part: Option<String>,
        pid: i32,
    },
    Suspend {
        part: Option<String>,
    },
    Resume {
        part: Option<String>,
    },
    Ps,
    History {
        part: Option<String>,
    },
    Record {
        part: Option<String>,
        epoch: u64,
    },
    /// Pages by space, each a first page and a count.
    Pages {
        part: Option<String>,
        epoch: u64,
        space: u32,
        runs: Vec<(u64, u32)>,
    },
    /// Have any of these pages other content at `to` than at `from`?
    Changed {
        part: Option<String>,
        from: u64,
        to: u64,
        pages: Vec<(u32, u64, u64)>,
    },
    /// Pages whose content differs.
    DiffPages {
        part: Option<String>,
        from: u64,
        to: u64,
        space: u32,
    },
    /// Which pages a space has.
    Kept {
        part: Option<String>,
        epoch: u64,
        space: u32,
    },
    Name {
        part: Option<String>,
        epoch: u64,
        name: Option<String>,
    },
    Stat,
    Check,
    /// How far along `epochs`, each the child of the one before and the first of `from`, do these
    /// pages and all mappings of the process (None: the root) stay as they are at `from`? A long
    /// walk ends early: ask again for the rest.
    Steady {
        part: Option<String>,
        pid: Option<i32>,
        from: u64,
        epochs: Vec<u64>,
        pages: Vec<(u32, u64, u64)>,
    },
    /// Bring to a store what it does not have yet of the checkpoints from `first` to `last`.
    Export {
        part: Option<String>,
        first: Option<u64>,
        last: Option<u64>,
        /// Absolute.
        store: PathBuf,
        /// What the history is called there; None: as the partition.
        name: Option<String>,
    },
    /// Make a partition of a history in a store.
    Import {
        store: PathBuf,
        /// Which history; None: that of the partition's name, or the only one.
        from: Option<String>,
        /// None: named as the history.
        part: Option<String>,
        budget: Option<u64>,
    },
    /// Remove a history from a store.
    Unstore {
        store: PathBuf,
        part: String,
    },
    /// The histories of a store, or of the daemon.
    Snapshots {
        store: Option<PathBuf>,
    },
    /// Check a condition at the newest checkpoint and at each that comes, until it is broken, nothing is attached any more,
    /// or the client leaves. The checkpoint of a breach and its neighbours are kept from then on.
    Watch {
        part: Option<String>,
        pid: Option<i32>,
        expr: String,
        tid: Option<u32>,
        /// By number or function name; None: the innermost that has source.
        frame: Option<String>,
    },
    /// Wait until a checkpoint (None: the newest) lasts in its partition's store.
    EpochWait {
        part: Option<String>,
        epoch: Option<u64>,
    },
    /// Control of the live processes.
    Control {
        part: Option<String>,
        /// None: the root, or whichever stopped last.
        pid: Option<i32>,
        act: Act,
    },
    /// Write checkpoints, and the files that their processes had mapped, to a file of its own.
    Bundle {
        part: Option<String>,
        first: Option<u64>,
        last: Option<u64>,
        /// Absolute. A bundle that is there is replaced.
        file: PathBuf,
        /// What the history is called there; None: as the partition.
        name: Option<String>,
    },
    /// Where the files lie that a history brought along.
    Files {
        part: Option<String>,
    },
}

/// What slsd answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Answer {
    Done,
    Failed {
        kind: Failure,
        message: String,
    },
    Attached {
        part: String,
        tracking: String,
    },
    Checkpoint(Checkpoint),
    Rewound(Rewound),
    Restored(Restored),
    /// Its status as wait(2) gives it; None while it lives.
    Ended(Option<i32>),
    Ps(Vec<PsRow>),
    History(History),
    Record(#[serde(with = "serde_bytes")] Vec<u8>),
    /// One flag a page asked for, in order; the bytes of those that are kept follow.
    Pages {
        present: Vec<bool>,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Changed(bool),
    /// First page and count, ascending.
    PageRuns(Vec<(u64, u64)>),
    Stat(Stat),
    Check(Vec<CheckRow>),
    /// So many of the epochs; `remapped` when it is the mappings of the next one that differ.
    Steady {
        same: u32,
        remapped: bool,
    },
    Moved(Moved),
    Snapshots(Vec<History>),
    Watched(Watched),
    Stop(Stop),
    Breakpoints(Vec<Breakpoint>),
    Bundled(Bundled),
    /// A folder, if any came with it.
    Files(Option<PathBuf>),
}

/// Kinds of failure a program may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No such partition, checkpoint or process.
    NotFound,
    /// It is there already.
    Exists,
    /// Not this user's.
    Permission,
    /// The request makes no sense as put.
    Usage,
    /// Everything else; the message says it.
    Other,
}

/// A checkpoint that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Checkpoint {
    pub partition: String,
    pub epoch: u64,
    pub stop_us: u64,
    pub pages: u64,
    pub bytes: u64,
    pub cost: Cost,
}

/// Where a stop's time went, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Cost {
    pub stop_ns: u64,
    pub quiesce_ns: u64,
    pub maps_ns: u64,
    pub scan_ns: u64,
    pub copy_ns: u64,
    pub copied_pages: u64,
    pub record_ns: u64,
}

/// A rewind that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Rewound {
    /// The present that was saved first.
    pub from: u64,
    pub to: u64,
    pub branch: String,
    pub pages: u64,
    pub stop_us: u64,
    pub not_restored: Vec<String>,
}

/// A restore that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Restored {
    pub partition: String,
    pub epoch: u64,
    /// Each process by the number it had, and the one it has.
    pub pids: Vec<(i32, i32)>,
    pub branch: String,
    pub pages: u64,
    pub us: u64,
    pub not_restored: Vec<String>,
}

/// Checkpoints that were brought to a store or from one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Moved {
    /// Its name where it came to.
    pub partition: String,
    /// So many that were not there before.
    pub checkpoints: u64,
    pub pages: u64,
    pub bytes: u64,
    /// Older than what was there: they cannot be put in between.
    pub passed: Vec<u64>,
}

/// A bundle that was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Bundled {
    pub moved: Moved,
    /// Of the bundle.
    pub bytes: u64,
    /// Paths of the files that are in it.
    pub files: Vec<String>,
    /// Of those that are not, and why.
    pub left_out: Vec<String>,
}

/// How a watch over a condition ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Watched {
    pub partition: String,
    /// Checkpoints that were looked at.
    pub checked: u64,
    /// Those at which it was evaluated; at the others nothing that it reads had changed.
    pub evaluations: u64,
    /// Those at which it has no truth value.
    pub untold: u64,
    /// None when it held to the end.
    pub breach: Option<Breach>,
}

/// A checkpoint at which a condition is false.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Breach {
    pub epoch: u64,
    /// ns since 1970.
    pub time: u64,
    /// What it is called now.
    pub name: Option<String>,
    /// Of the condition, there.
    pub text: String,
    /// Checkpoints that are kept for it, ascending; the one that comes next will be too.
    pub kept: Vec<u64>,
}

/// A process of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PsRow {
    pub pid: i32,
    pub partition: String,
    /// running, sleeping, paused, suspended, stopped (by a rewind -s), dead.
    pub state: String,
    pub threads: u32,
    pub comm: String,
    pub period_ms: Option<u64>,
    pub checkpoints: u64,
    pub tracking: String,
    /// Why periodic checkpoints fail, when they do.
    pub trouble: Option<String>,
}

/// The history of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct History {
    pub partition: String,
    /// Newest checkpoint of the current branch, 0 before the first.
    pub head: u64,
    pub branch: String,
    pub checkpoints: Vec<HistoryRow>,
}

/// One checkpoint of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HistoryRow {
    pub epoch: u64,
    pub parent: Option<u64>,
    pub branch: String,
    pub name: Option<String>,
    /// ns since 1970.
    pub time: u64,
    pub stop_us: u64,
    pub pages: u64,
    pub bytes: u64,
    pub pids: Vec<i32>,
}

/// Counters of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Stat {
    pub pid: i32,
    pub uptime_ms: u64,
    pub clients: u64,
    pub rss_bytes: u64,
    pub partitions: Vec<PartStat>,
}

/// Counters of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PartStat {
    pub partition: String,
    pub checkpoints: u64,
    pub budget: Option<u64>,
    pub held_bytes: u64,
    pub segment_bytes: u64,
    pub live_bytes: u64,
    pub record_bytes: u64,
    pub index_bytes: u64,
    pub pinned_base_bytes: u64,
    pub cleaned_segments: u64,
    pub taken: u64,
    pub failed: u64,
    pub dropped: u64,
    pub missed_periods: u64,
    pub stop_us_p50: u64,
    pub stop_us_p99: u64,
    pub stop_us_max: u64,
    pub last_error: Option<String>,
    /// Where it is written to a store as it runs.
    pub kept: Option<Kept>,
}

/// How far a store follows its partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Kept {
    pub store: String,
    /// All up to this checkpoint lasts.
    pub durable: u64,
    /// Checkpoints newer than that.
    pub behind: u64,
    pub trouble: Option<String>,
}

/// One line of `slsctl check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CheckRow {
    pub name: String,
    pub ok: bool,
    pub effect: String,
    pub remedy: Option<String>,
}
