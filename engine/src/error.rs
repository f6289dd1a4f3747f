//! Errors, one enum per family of operations.

use std::io;

use sls_keeper::Refusal;

/// Why a process could not be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such process.
    #[error("there is no process {0}; `slsctl ps` lists what is attached, `ps -e` what runs")]
    NoProcess(i32),
    /// A zombie.
    #[error("process {0} has ended and waits for its parent (zombie): it has no memory to look at")]
    Zombie(i32),
    /// A kernel thread.
    #[error("process {0} is a kernel thread: it has no memory of its own")]
    Kernel(i32),
    /// 32-bit program.
    #[error("process {0} runs a 32-bit program; only 64-bit x86 programs are supported")]
    NotSixtyFour(i32),
    /// A thread id.
    #[error("{tid} is a thread of process {pid}; attach to {pid}")]
    Thread {
        /// Given.
        tid: i32,
        /// Its process.
        pid: i32,
    },
    /// Itself.
    #[error("process {0} is the daemon itself")]
    Myself(i32),
    /// Another tracer has it.
    #[error("{0}")]
    Traced(String),
    /// Not ours.
    #[error("process {pid} belongs to uid {uid}: only root or that user may attach to it")]
    Permission {
        /// Process.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// A rewind that broke off could not be put right.
    #[error("process {pid} is halted: {why}; attach again to try once more")]
    Halted {
        /// Process.
        pid: i32,
        /// Cause.
        why: String,
    },
    /// The keeper could not be started or said something unexpected.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The system refused.
    #[error("{what} of process {pid}: {source}")]
    System {
        /// Act.
        what: &'static str,
        /// Process.
        pid: i32,
        /// Cause.
        source: io::Error,
    },
}

/// What went wrong with the keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Could not be started.
    #[error("start {path} for process {pid}: {source}; sls-keeper belongs beside slsd")]
    Start {
        /// Where it was looked for.
        path: String,
        /// Process.
        pid: i32,
        /// Cause.
        source: io::Error,
    },
    /// It is gone.
    #[error("the keeper of process {0} is gone; detach and attach again")]
    Gone(i32),
    /// It refused.
    #[error("{message}")]
    Refused {
        /// Kind.
        refusal: Refusal,
        /// For people.
        message: String,
    },
    /// Talking to it failed.
    #[error("talk to the keeper: {0}")]
    Talk(#[from] io::Error),
    /// It answered something else.
    #[error("the keeper answered {0} out of turn")]
    OutOfTurn(String),
}

impl KeeperError {
    /// Kind of a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

/// Why a checkpoint was not taken. The target runs on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no process to take a checkpoint of.
    #[error("no process is attached")]
    Detached,
    /// It has ended.
    #[error("process {0} has ended; its history stays")]
    Dead(i32),
    /// The keeper refused, late threads for example.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// One that was born since could not be attached to.
    #[error("the checkpoint would lack a descendant: {0}")]
    Joining(#[from] AttachError),
    /// Processes are born faster than they can be stopped.
    #[error(
        "process {0} and those that descend from it make new ones faster than they can be stopped"
    )]
    Crowd(i32),
    /// No room for the pages.
    #[error("no room to copy the pages of process {pid}: {source}")]
    Staging {
        /// Process.
        pid: i32,
        /// Cause.
        source: slos::StagingFull,
    },
    /// The log refused.
    #[error("keep the checkpoint of process {pid}: {source}")]
    Commit {
        /// Process.
        pid: i32,
        /// Cause.
        source: slos::CommitError,
    },
    /// The system refused.
    #[error("{what} of process {pid}: {source}")]
    System {
        /// Act.
        what: &'static str,
        /// Process.
        pid: i32,
        /// Cause.
        source: io::Error,
    },
}

/// Why a process was not made anew. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint could not be read.
    #[error("read checkpoint @{epoch}: {source}")]
    Read {
        /// Epoch.
        epoch: u64,
        /// Cause.
        source: slos::ReadError,
    },
    /// Its record does not decode.
    #[error("the record of @{epoch}: {source}")]
    Record {
        /// Epoch.
        epoch: u64,
        /// Cause.
        source: sls_record::DecodeError,
    },
    /// The number of the process is in use.
    #[error("@{epoch} cannot be restored: {why}")]
    Taken {
        /// Epoch.
        epoch: u64,
        /// By whom.
        why: String,
    },
    /// It cannot be, whatever is asked for.
    #[error("@{epoch} cannot be restored: {why}")]
    Impossible {
        /// Epoch.
        epoch: u64,
        /// Cause.
        why: String,
    },
    /// Something of it would not be as it was.
    #[error("@{epoch} would not come back as it was: {}", .why.join("; "))]
    Objections {
        /// Epoch.
        epoch: u64,
        /// What, by name.
        why: Vec<String>,
    },
    /// A step failed.
    #[error("restore of @{epoch} failed, and nothing of it is left: {why}")]
    Failed {
        /// Epoch.
        epoch: u64,
        /// Step and cause.
        why: String,
    },
    /// The keeper could not be started or has gone.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// Something else was refused; the cause says what.
    #[error("restore of @{epoch} failed, and nothing of it is left: {source}")]
    System {
        /// Epoch.
        epoch: u64,
        /// Step and cause.
        source: io::Error,
    },
}

/// Why a rewind was not done. The target is as it was, and its present has been saved.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The present could not be saved.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The past could not be read.
    #[error("read checkpoint @{epoch}: {source}")]
    Read {
        /// Epoch.
        epoch: u64,
        /// Cause.
        source: slos::ReadError,
    },
    /// The past does not decode.
    #[error("the record of @{epoch}: {source}")]
    Record {
        /// Epoch.
        epoch: u64,
        /// Cause.
        source: sls_record::DecodeError,
    },
    /// Something cannot be done, found out before anything was touched.
    #[error("@{epoch} cannot be rewound to: {why}")]
    Impossible {
        /// Epoch.
        epoch: u64,
        /// Cause and what to do.
        why: String,
    },
    /// A step failed; the present was put back.
    #[error("rewind to @{epoch} failed and the present was put back: {why}")]
    PutBack {
        /// Epoch.
        epoch: u64,
        /// Cause.
        why: String,
    },
    /// Both ways failed.
    #[error(
        "rewind to @{epoch} failed and so did the way back; every thread is halted, the present is saved as @{present}: {why}"
    )]
    Halted {
        /// Epoch.
        epoch: u64,
        /// Epoch of the saved present.
        present: u64,
        /// Cause.
        why: String,
    },
    /// The journal could not be written.
    #[error("write the journal: {0}")]
    Journal(#[from] io::Error),
}
