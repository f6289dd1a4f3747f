//! Processes, threads and descriptors.

use serde::{Deserialize, Serialize};

use crate::{
    AltStack, Attributes, Conduct, Filters, IntervalTimer, Layout, Mapping, PosixTimer, Registers,
    Scheduling, Segment, SigInfo, Signals, Socket,
};

/// One checkpoint's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Why it was taken, when not on request or on a timer.
    pub event: Option<Event>,
    /// Root process first.
    pub processes: Vec<Process>,
    /// Of their children those that had ended without their taking note of it yet.
    pub ended: Vec<Ended>,
    /// What had other names before a restore.
    pub renamed: Vec<Renamed>,
    /// When they were asked to stop, in ns of CLOCK_BOOTTIME, which also tells when a process began.
    pub taken_ns: u64,
    /// Are all in it that descended from them?
    pub is_family: bool,
}

/// Something that a restore has made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// As checkpoints from before it call it.
    pub old: Name,
    /// As it is called now.
    pub new: Name,
}

/// By what a descriptor or a mapping is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Path, or what stands for one.
    pub target: String,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub inode: u64,
}

/// A process that has ended, and is there for its parent to take note of (a zombie).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Command name.
    pub comm: String,
    /// Status as wait(2) gives it.
    pub status: i32,
    /// The signal its parent got at its end.
    pub exit_signal: i32,
}

/// What was about to happen when a held process was checkpointed, or why it stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A signal that ends the process.
    Fatal {
        /// Thread that got it.
        tid: i32,
        /// The signal with its details.
        info: SigInfo,
    },
    /// execve.
    Exec {
        /// Thread that calls it.
        tid: i32,
    },
    /// fork, vfork or clone of a process.
    Fork {
        /// Thread that calls it.
        tid: i32,
        /// The new process.
        child: i32,
    },
    /// exit.
    Exit {
        /// Status as wait(2) gives it.
        status: i32,
    },
    /// Somebody had it stand still, or it has met what they set.
    Stop {
        /// Thread that is looked at.
        tid: i32,
    },
}

impl Event {
    /// The thread that it happened to.
    #[must_use]
    pub fn tid(&self) -> Option<i32> {
        match *self {
            Self::Fatal { tid, .. }
            | Self::Exec { tid }
            | Self::Fork { tid, .. }
            | Self::Stop { tid } => Some(tid),
            Self::Exit { .. } => None,
        }
    }
}

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Start time, clock ticks since boot: tells a reused pid from the old one.
    pub start_ticks: u64,
    /// Start times of those it was restored from, oldest first: their checkpoints are its own past.
    pub former: Vec<u64>,
    /// Where its memory has guards (MADV_GUARD_INSTALL), by address.
    pub guards: Vec<(u64, u64)>,
    /// Command name.
    pub comm: String,
    /// Executable path.
    pub exe: String,
    /// Working directory.
    pub cwd: String,
    /// Root directory.
    pub root: String,
    /// umask.
    pub umask: u32,
    /// End of the heap as brk(2) has it; 0 when unknown.
    pub brk: u64,
    /// Where the parts of the program lie.
    pub layout: Layout,
    /// Credentials, limits and the rest.
    pub attributes: Attributes,
    /// What prctl(2) tells; None when it could not be asked.
    pub conduct: Option<Conduct>,
    /// Space its private pages are kept under.
    pub space: u32,
    /// Auxiliary vector as key, value pairs.
    pub auxv: Vec<(u64, u64)>,
    /// Threads, main thread first.
    pub threads: Vec<Thread>,
    /// Mappings by address.
    pub mappings: Vec<Mapping>,
    /// Descriptors by number.
    pub files: Vec<File>,
    /// Signals.
    pub signals: Signals,
    /// setitimer timers that are armed.
    pub itimers: Vec<IntervalTimer>,
    /// timer_create timers.
    pub timers: Vec<PosixTimer>,
    /// Memory that no scan vouched for and that was compared by content.
    pub unvouched: Vec<Unvouched>,
    /// SIGSTOPped at the time.
    pub stopped: bool,
    /// The signal its parent gets at its end.
    pub exit_signal: i32,
    /// Its controlling terminal.
    pub terminal: Option<Controlling>,
    /// System V shared memory that it has attached.
    pub segments: Vec<Segment>,
    /// Seccomp filters of the threads of which they are known; nothing when none has any.
    pub filters: Vec<Filters>,
    /// Its number for slsd, where it is in a PID namespace of its own: all others here are those that
    /// it knows itself; else 0.
    pub outside: i32,
}

impl Process {
    /// Its number for slsd.
    #[must_use]
    pub fn outside(&self) -> i32 {
        if self.outside == 0 {
            self.pid
        } else {
            self.outside
        }
    }
}

impl Record {
    /// The process of a number, by slsd's or its own; without one the root.
    #[must_use]
    pub fn process(mut self, number: Option<i32>) -> Option<Process> {
        let Some(number) = number else {
            return self.processes.into_iter().next();
        };
        let at = |is_it: &dyn Fn(&Process) -> bool| self.processes.iter().position(is_it);
        let at = at(&|p| p.outside() == number).or_else(|| at(&|p| p.pid == number))?;
        Some(self.processes.swap_remove(at))
    }
}

/// A terminal as the controlling one of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controlling {
    /// Path.
    pub path: String,
    /// Process group in its foreground.
    pub foreground: i32,
}

/// What a terminal has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The descriptor is the master of the pseudo terminal of this number.
    pub master: Option<u32>,
    /// struct termios2.
    #[serde(with = "serde_bytes")]
    pub modes: Vec<u8>,
    /// Rows, columns, and both in pixels.
    pub window: [u16; 4],
    /// A master that is read in packets.
    pub packets: bool,
    /// Bytes that waited to be read by way of the descriptor: what was typed, or written to a master.
    /// They are not kept.
    pub waiting: u32,
}

/// A range taken by content, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unvouched {
    /// First address.
    pub start: u64,
    /// First after it.
    pub end: u64,
    /// Reason, for people.
    pub reason: String,
}

/// One thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id.
    pub tid: i32,
    /// Name.
    pub name: String,
    /// General registers.
    pub regs: Registers,
    /// XSAVE image as NT_X86_XSTATE gives it.
    #[serde(with = "serde_bytes")]
    pub xstate: Vec<u8>,
    /// Blocked signals.
    pub sigmask: u64,
    /// Pending for this thread, delivery order.
    pub pending: Vec<SigInfo>,
    /// Alternate signal stack; None when the thread could not be asked.
    pub altstack: Option<AltStack>,
    /// Restartable sequences registration.
    pub rseq: Option<Rseq>,
    /// get_robust_list: head, length.
    pub robust_list: (u64, u64),
    /// set_tid_address; None when the thread could not be asked.
    pub clear_tid: Option<u64>,
    /// PR_SET_PDEATHSIG, 0 for none; None when the thread could not be asked.
    pub death_signal: Option<i32>,
    /// PR_SET_TIMERSLACK, ns; None when the thread could not be asked.
    pub timer_slack_ns: Option<u64>,
    /// The system call it was blocked in.
    pub blocked: Option<Blocked>,
    /// How it is scheduled.
    pub scheduling: Scheduling,
}

/// rseq(2) registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rseq {
    /// Address of struct rseq.
    pub addr: u64,
    /// Its size.
    pub size: u32,
    /// Signature before abort handlers.
    pub signature: u32,
}

/// A call that was interrupted by the stop and goes on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// System call number.
    pub nr: u64,
    /// Time left until its timeout, ns; None waits for ever.
    pub remaining_ns: Option<u64>,
}

/// One descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Number.
    pub fd: i32,
    /// What /proc/PID/fd/N points at.
    pub target: String,
    /// O_* flags, O_CLOEXEC included.
    pub flags: u32,
    /// Offset in bytes.
    pub offset: u64,
    /// Device and inode of what it is open on.
    pub dev: u64,
    /// Inode.
    pub inode: u64,
    /// What it is.
    pub kind: FileKind,
    /// The lowest descriptor that shares its open file description (offset, flags) with it, when
    /// that is another one.
    pub shares: Option<i32>,
    /// The first process, and its descriptor, that has the same open file description, when that is
    /// another process. Told of the lowest of its own that has it.
    pub shared_with: Option<(i32, i32)>,
    /// Locks that it, or the process by way of it, holds on the file.
    pub locks: Vec<Lock>,
    /// Of a file that has no name.
    pub unnamed: Option<Box<Unnamed>>,
}

/// A file without a name: memory, or one that was unlinked while it is open. What it holds is kept
/// with the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unnamed {
    /// Bytes.
    pub size: u64,
    /// Rights.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// F_SEAL_*; of memory.
    pub seals: u32,
    /// What it holds.
    pub content: Content,
}

/// What a file without a name holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Pages by offset, under this space of the partition.
    Space(u32),
    /// Not kept, and why.
    Unread(String),
}

impl File {
    /// Has it no name, and is what it holds kept? The space its pages are in.
    #[must_use]
    pub fn content(&self) -> Option<u32> {
        match self.unnamed.as_deref()?.content {
            Content::Space(space) => Some(space),
            Content::Unread(_) => None,
        }
    }
}

/// A lock on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Whose it is, and of which call.
    pub kind: LockKind,
    /// Exclusive.
    pub write: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; None: to the end, wherever that is.
    pub end: Option<u64>,
}

/// Kinds of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKind {
    /// flock(2): of the open file description.
    Flock,
    /// fcntl(F_SETLK): of the process.
    Posix,
    /// fcntl(F_OFD_SETLK): of the open file description.
    OpenFile,
    /// fcntl(F_SETLEASE).
    Lease,
}

/// A POSIX message queue. What waits in it is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageQueue {
    /// Messages it takes.
    pub capacity: u32,
    /// Bytes of the longest it takes.
    pub longest: u32,
    /// Messages that waited in it.
    pub waiting: u32,
    /// Rights.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kinds of descriptors with what each carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file; size and mtime (ns) tell whether its content changed since.
    Regular {
        /// Bytes.
        size: u64,
        /// Modification time.
        mtime_ns: i128,
    },
    /// A directory.
    Directory,
    /// A pipe or fifo with what it holds.
    Pipe {
        /// Content, or why it could not be read.
        content: Queued,
        /// Bytes it may hold; 0 where it could not be asked.
        capacity: u32,
        /// Lengths of the packets that the content is (O_DIRECT), when it is more than one.
        packets: Vec<u32>,
    },
    /// A socket of any family, as /proc/net shows it.
    Socket {
        /// For people: family, state, addresses.
        description: String,
        /// Listening sockets are as they were when they are still open.
        listening: bool,
        /// How it was made and set; None where it could not be asked.
        state: Option<Box<Socket>>,
    },
    /// eventfd counter.
    EventFd {
        /// Value.
        count: u64,
    },
    /// timerfd.
    TimerFd {
        /// Clock.
        clock: i32,
        /// Expirations not read yet.
        ticks: u64,
        /// TFD_TIMER_* flags it was set with.
        settime_flags: u32,
        /// Remaining ns.
        value_ns: u64,
        /// Period ns.
        interval_ns: u64,
    },
    /// signalfd mask.
    SignalFd {
        /// Mask.
        mask: u64,
    },
    /// epoll set.
    Epoll {
        /// Members.
        members: Vec<Epoll>,
    },
    /// inotify.
    Inotify {
        /// By number.
        watches: Vec<Watch>,
        /// Bytes of events that wait to be read.
        waiting: u32,
    },
    /// memfd or other memory file.
    Memory {
        /// Bytes.
        size: u64,
    },
    /// Character or block device.
    Device {
        /// Of a terminal.
        terminal: Option<Box<Terminal>>,
    },
    /// A POSIX message queue, by the name that is the target.
    MessageQueue(MessageQueue),
    /// Anything else, by name.
    Other,
}

/// What a pipe held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Queued {
    /// All of it.
    Bytes(Vec<u8>),
    /// Not read, and why.
    Unread(String),
}

/// What an inotify descriptor watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The number that the program knows it by.
    pub number: i32,
    /// Device of what is watched.
    pub dev: u64,
    /// Its inode.
    pub inode: u64,
    /// IN_* events.
    pub mask: u32,
    /// Where it was, when that could be told.
    pub path: Option<String>,
}

impl Watch {
    /// The same thing watched for the same, wherever it is?
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let own = |w: &Self| (w.number, w.dev, w.inode, w.mask);
        own(self) == own(other)
    }
}

/// One member of an epoll set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoll {
    /// Descriptor number.
    pub fd: i32,
    /// EPOLL* events.
    pub events: u32,
    /// epoll_data.
    pub data: u64,
}
