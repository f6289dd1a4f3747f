//! Requests, answers and events. Both ends are built together, so there is no version.

use serde::{Deserialize, Serialize};
use sls_sys::RemoteMemory;

/// What slsd asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Take charge of a process. The board's descriptor comes along.
    Adopt {
        /// Process.
        pid: i32,
        /// May seccomp be suspended for injections?
        suspend_seccomp: bool,
        /// Does /proc/TID/sched tell when a thread fell asleep?
        sched_debug: bool,
        /// Stay seized between checkpoints and report what is about to happen.
        hold: bool,
    },
    /// Make a process under this number, with nothing in it but a page of code, and take charge of
    /// it: it stands still, and ends with this keeper until it is let go. The board's descriptor comes
    /// along. Answered by Made.
    Create {
        /// Process.
        pid: i32,
        /// Where its page is.
        address: u64,
        /// As in Adopt.
        suspend_seccomp: bool,
        /// As in Adopt.
        sched_debug: bool,
        /// A namespace to make it in, where not in the keeper's own.
        within: Option<Within>,
    },
    /// Make a PID namespace, with mounts of its own in which /proc tells of it. Answered by
    /// Namespace; its init reads what is asked from then on; the keeper leaves. Until it is
    /// told by Watch for whom it is there, the namespace ends with the channel.
    BeginNamespace {
        /// Nothing that is done in it is to be noticed outside: it has a network of its own, System V
        /// memory, semaphores and queues, and its files are layers over those outside.
        apart: bool,
    },
    /// The init of a namespace stays until all of these, and what they leave to it, have ended.
    /// Answered by Done.
    Watch {
        /// By the namespace's numbers.
        pids: Vec<i32>,
    },
    /// Have the process that was made begin a session. Answered by Done.
    BeginSession {
        /// Path of the terminal that becomes its controlling one, if that is nobody else's.
        terminal: Option<String>,
    },
    /// Have the process that was made make a child under this number, as it is itself. It ends when
    /// its parent does, until a keeper takes it up. Answered by Made.
    Fork {
        /// The child.
        pid: i32,
        /// What its parent gets at its end.
        exit_signal: i32,
        /// It ends like this at once, for its parent to take note of.
        end: Option<End>,
    },
    /// While a plan awaits something: have the process, whose threads are parked, make a child under this
    /// number, with nothing in it but a page of code; where one of that number has ended it takes note of
    /// that first. Answered by Made, and the plan awaits on.
    BearAgain {
        /// The child.
        pid: i32,
        /// Where its page is.
        address: u64,
    },
    /// Take charge of such a child, as of one that this keeper had made. The board's descriptor comes
    /// along. Answered by Adopted.
    TakeUp {
        /// Process.
        pid: i32,
        /// As in Adopt.
        suspend_seccomp: bool,
        /// As in Adopt.
        sched_debug: bool,
    },
    /// What the plan awaited has come: it goes on.
    GoOn,
    /// It does not come: the plan goes back.
    GiveUp {
        /// For people.
        why: String,
    },
    /// Make a userfaultfd in the target and hand it over.
    MakeUserfaultfd {
        /// It is to bring missing pages, also to the kernel's own accesses, which takes root.
        brings: bool,
    },
    /// Look at what waits in these TCP connections too from the next stop on. Answered by Done.
    LookAt {
        /// Inodes of their sockets.
        connections: Vec<u64>,
    },
    /// Stop every thread. Answered by Stopped, then Collected; what is to become of one that is alone is
    /// told on the board meanwhile ([`crate::rendezvous`]).
    Stop {
        /// Give up and let go after this long.
        deadline_ms: u32,
        /// Read all that only injected calls can tell: actions, timers, alternate stacks. Threads
        /// that were never asked are asked for their own in any case.
        facts: bool,
        /// Nobody else stops with it: read its states at once, and look for what is to become of it
        /// on the board. Else the states wait for [`Ask::Collect`], and it stays stopped until
        /// [`Ask::Resume`].
        alone: bool,
    },
    /// Everybody who stops with it stands still: what they share can be read now. Answered by
    /// Collected.
    Collect,
    /// Let every thread run. Answered by Resumed.
    Resume,
    /// Stay seized from now on, so that it can be controlled, or no longer; the latter while it stands
    /// still. Answered by Done.
    Seize {
        /// Begin or end.
        on: bool,
    },
    /// Stop every thread, without a checkpoint, until [`Ask::Go`] or [`Ask::Resume`]. Answered by Halted.
    Halt {
        /// Give up and let go after this long.
        deadline_ms: u32,
    },
    /// These breakpoints are in its text whenever it runs, and no others. While it stands still.
    /// Answered by Done.
    Traps {
        /// All of them.
        traps: Vec<Trap>,
    },
    /// These watchpoints are armed in all threads whenever they run, and no others. While it stands
    /// still. Answered by Done.
    Watches {
        /// All of them.
        watches: Vec<Watch>,
    },
    /// Execute one instruction of one thread while all others stand still. Answered by Stepped.
    Step {
        /// Thread.
        tid: i32,
    },
    /// Let threads run. Answered by Went.
    Go {
        /// This one only; None: all.
        only: Option<i32>,
        /// These get past the breakpoint that they stand at.
        pass: Vec<i32>,
    },
    /// Carry the journal through (its descriptor comes along); everything stays stopped after it.
    /// Answered by Executed.
    Execute,
    /// Put right what a keeper that was killed in the middle of a rewind left, by its journal (the
    /// descriptor comes along); everything runs after it. Answered by Executed.
    PutRight,
    /// Close descriptors of the target's, all of them ours. Answered by Done.
    Close {
        /// Their numbers.
        fds: Vec<i32>,
    },
    /// Let go of everything and leave when no call waits for its timeout any more.
    Leave,
}

/// A breakpoint in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trap {
    /// Where.
    pub address: u64,
    /// The byte that belongs there.
    pub original: u8,
}

impl Trap {
    /// int3.
    const INSTRUCTION: u8 = 0xcc;

    /// Puts it in, if what belongs there is there.
    pub fn insert(&self, memory: &RemoteMemory) {
        self.replace(memory, self.original, Self::INSTRUCTION);
    }

    /// Takes it out, if it is there.
    pub fn remove(&self, memory: &RemoteMemory) {
        self.replace(memory, Self::INSTRUCTION, self.original);
    }

    /// A text that cannot be written is not there any more, and with it nothing to be replaced.
    fn replace(&self, memory: &RemoteMemory, old: u8, new: u8) {
        let mut now = [0];
        if memory.read_at(self.address, &mut now).is_ok() && now[0] == old {
            let _ = memory.write_at(self.address, &[new]);
        }
    }
}

/// A watchpoint in a debug register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// A multiple of `len`.
    pub address: u64,
    /// 1, 2, 4 or 8.
    pub len: u8,
    /// Reads count too.
    pub reads: bool,
    /// Its number among the debug registers, 0 to 3.
    pub slot: u8,
}

/// Words of user_regs_struct in its own order.
pub type Words = [u64; 27];

/// How one instruction went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stepped {
    /// Executed; the thread stands still behind it.
    Done {
        /// Its registers.
        regs: Box<Words>,
        /// Watchpoints it hit, a bit each slot.
        slots: u8,
    },
    /// A signal comes first.
    Signal(i32),
    /// It is in a call that waits: it runs on.
    Blocked,
    /// The thread has ended.
    Ended,
}

/// A PID namespace that a process is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// Its init, by the keeper's numbers.
    pub init: i32,
    /// The number under which the process has a pidfd of slsd, whom it cannot name.
    pub lent: i32,
    /// It has a network and other things of its own.
    pub apart: bool,
}

/// How a process ends that was made only for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its name.
    pub comm: String,
    /// It leads a session.
    pub leads_session: bool,
    /// It leads a process group.
    pub leads_group: bool,
    /// Status as wait(2) gives it.
    pub status: i32,
}

/// Why something was refused or failed, as far as the caller acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The target is gone.
    Dead,
    /// Another tracer has it.
    Traced,
    /// Not ours to look at.
    Permission,
    /// Did not stop in time.
    Deadline,
    /// Injection is not possible; the target was left alone.
    Injection,
    /// Another process has the number.
    Taken,
    /// Anything else.
    Other,
}

/// What the keeper says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Say {
    /// In charge.
    Adopted,
    /// What was asked for is there.
    Made {
        /// Its number as the keeper has it.
        pid: i32,
    },
    /// The namespace is there.
    Namespace {
        /// Its init, by the keeper's numbers.
        init: i32,
        /// Where those in it cannot write, since what is mounted there takes no layer.
        read_only: Vec<String>,
    },
    /// The userfaultfd comes along.
    Userfaultfd,
    /// Every thread is stopped.
    Stopped {
        /// ns from the first interrupt to here.
        quiesce_ns: u64,
        /// CLOCK_MONOTONIC ns of the first interrupt.
        since_ns: u64,
    },
    /// Facts and thread states are on the board.
    Collected {
        /// Their length, bytes.
        bytes: u64,
        /// ns from the first interrupt to the last thread let go; None where all stand still.
        stop_ns: Option<u64>,
    },
    /// Running again.
    Resumed {
        /// ns from the first interrupt to the last thread let go.
        stop_ns: u64,
    },
    /// Every thread stands still.
    Halted {
        /// Registers of each.
        threads: Vec<(i32, Words)>,
    },
    /// How the instruction went.
    Stepped(Stepped),
    /// It runs.
    Went {
        /// Who could not get past its breakpoint, since a signal came first, and will meet it again.
        left: Vec<i32>,
        /// The breakpoints are not in its text: this process shares its memory, and nobody would catch it.
        shared: Option<i32>,
    },
    /// The plan has come to where it awaits something.
    Awaits,
    /// The plan was carried through.
    Executed(crate::Outcome),
    /// What was asked is done.
    Done,
    /// Refused or failed; nothing of the request is left half done.
    Failed {
        /// Kind.
        refusal: Refusal,
        /// For people.
        message: String,
    },
    /// Something is about to happen to the held target; it waits until Resume.
    Event(EventKind),
}

/// What is about to happen to a held target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A signal that ends it.
    Fatal {
        /// Thread.
        tid: i32,
        /// siginfo.
        info: Vec<u8>,
    },
    /// execve.
    Exec {
        /// Thread.
        tid: i32,
    },
    /// fork, vfork, clone.
    Fork {
        /// Thread.
        tid: i32,
        /// Child.
        child: i32,
    },
    /// exit.
    Exit {
        /// Status.
        status: i32,
    },
    /// A breakpoint was hit; the thread stands before the instruction. Or a step that had to wait has
    /// ended.
    Trap {
        /// Thread.
        tid: i32,
        /// Its registers.
        regs: Box<Words>,
    },
    /// A watchpoint was hit; the thread stands behind the instruction, unless a checkpoint came between.
    Watch {
        /// Thread.
        tid: i32,
        /// Which, a bit each slot.
        slots: u8,
        /// Its registers then.
        regs: Box<Words>,
    },
    /// Another program has taken its place.
    Replaced {
        /// Thread.
        tid: i32,
    },
    /// It is gone.
    Gone {
        /// Wait status.
        status: i32,
    },
}

/// State of one stopped thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadState {
    /// Thread id.
    pub tid: i32,
    /// user_regs_struct in its own order.
    pub regs: [u64; 27],
    /// NT_X86_XSTATE.
    #[serde(with = "serde_bytes")]
    pub xstate: Vec<u8>,
    /// Blocked signals.
    pub sigmask: u64,
    /// Pending siginfos, the one about to be delivered first.
    pub pending: Vec<serde_bytes::ByteBuf>,
    /// rseq area.
    pub rseq: Option<(u64, u32, u32)>,
    /// Group-stopped.
    pub group_stop: bool,
    /// Call it was interrupted in.
    pub blocked: Option<BlockedCall>,
    /// get_robust_list: head, length.
    pub robust: (u64, u64),
    /// What only the thread itself can be asked, when it was at this stop.
    pub own: Option<OwnFacts>,
    /// Its number as its own PID namespace has it.
    pub own_tid: i32,
}

/// What a thread told of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnFacts {
    /// Alternate signal stack.
    pub altstack: AltStack,
    /// set_tid_address.
    pub clear_tid: u64,
    /// PR_GET_PDEATHSIG.
    pub death_signal: i32,
    /// PR_GET_TIMERSLACK, ns.
    pub timer_slack_ns: u64,
}

/// sigaltstack(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStack {
    /// Base.
    pub sp: u64,
    /// Flags.
    pub flags: u32,
    /// Bytes.
    pub size: u64,
}

/// A call that goes on after the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedCall {
    /// Number.
    pub nr: u64,
    /// ns until its timeout, None for ever.
    pub remaining_ns: Option<u64>,
}

/// sigaction words of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigActionWords {
    /// Signal.
    pub signo: i32,
    /// handler, flags, restorer, mask.
    pub words: [u64; 4],
}

/// it_interval and it_value of one timer, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawTimer {
    /// ITIMER_* or timer id.
    pub id: i32,
    /// Remaining; 0 has rung, and one of setitimer waits for its signal to be taken.
    pub value_ns: u64,
    /// Period.
    pub interval_ns: u64,
}

/// What injected calls told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Actions of the caught signals.
    pub actions: Vec<SigActionWords>,
    /// setitimer timers that are armed.
    pub itimers: Vec<RawTimer>,
    /// timer_create timers.
    pub timers: Vec<RawTimer>,
    /// brk(0).
    pub brk: u64,
    /// What prctl(2) tells.
    pub conduct: Conduct,
    /// Seccomp filters of each thread of which they can be read; nothing when none has any.
    pub filters: Vec<(i32, Vec<sls_sys::filters::Program>)>,
}

/// What prctl(2) tells of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conduct {
    /// PR_GET_DUMPABLE.
    pub dumpable: u32,
    /// PR_GET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// PR_GET_SECUREBITS.
    pub securebits: u32,
    /// PR_GET_THP_DISABLE.
    pub no_huge_pages: bool,
}

/// Everything the keeper reads of a stopped target while slsd scans and copies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// What injected calls told, when asked.
    pub facts: Option<Facts>,
    /// Every thread.
    pub threads: Vec<ThreadState>,
    /// Other processes that share the memory; stopped too.
    pub siblings: Vec<i32>,
    /// Signals pending for the whole process.
    pub pending: Vec<serde_bytes::ByteBuf>,
    /// Descriptors.
    pub files: Vec<sls_sys::descriptors::Raw>,
    /// Text of /proc/PID/status.
    pub status: serde_bytes::ByteBuf,
    /// Working directory.
    pub cwd: String,
    /// Root directory.
    pub root: String,
}
