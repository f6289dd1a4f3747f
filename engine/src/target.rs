//! An attached process.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sls_keeper::{Outcome, Refusal};
use sls_record::{AltStack, Conduct, Filters, IntervalTimer, PosixTimer, SigAction};
use sls_sys::probe::Probe;
use sls_sys::uffd::WriteProtect;
use sls_sys::{RemoteMemory, fd, procfs};

use crate::attributes::Outside;
use crate::content::Content;
use crate::copy::Copies;
use crate::error::{AttachError, CaptureError, KeeperError};
use crate::flags::Flags;
use crate::keeper::Keeper;
use crate::leftover::Notes;
use crate::maplist::MapList;
use crate::pager;
use crate::record::FileTimes;
use crate::sockets::Sockets;
use crate::space::Space;
use crate::traps::Traps;
use crate::watches::Watches;

/// One that is on its way out is gone by then.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// How to attach.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the machine can do; mask it to force fallbacks.
    pub probe: Probe,
    /// The keeper's program.
    pub keeper: PathBuf,
    /// Stay seized and see ends coming.
    pub hold: bool,
    /// Where journals are kept; private to this user.
    pub state: PathBuf,
    /// Pages staging may hold.
    pub staging_pages: usize,
}

/// How changes are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracking {
    /// By the kernel.
    WriteProtect,
    /// By comparing content, and why.
    Content(String),
}

/// The one or the other, with its state.
pub(crate) enum Tracker {
    Kernel(Space),
    Content(Content),
}

/// What was told last, kept between the stops that ask, and for one that has ended since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub at: Option<Instant>,
    pub as_of_ns: u64,
    pub caught: u64,
    pub actions: Vec<SigAction>,
    pub itimers: Vec<IntervalTimer>,
    pub timers: Vec<PosixTimer>,
    pub brk: u64,
    pub conduct: Option<Conduct>,
    /// Flags of its mappings, and when they were read.
    pub flags: Flags,
    pub threads: HashMap<i32, ToldThread>,
    pub outside: Outside,
    pub filters: Vec<Filters>,
}

impl Told {
    /// Nothing yet but what needs no asking. None: the process has ended.
    fn new(pid: i32) -> Option<Self> {
        Some(Self {
            outside: Outside::read(pid)?,
            ..Self::default()
        })
    }
}

/// What a thread told of its own last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToldThread {
    pub altstack: AltStack,
    pub clear_tid: u64,
    pub death_signal: i32,
    pub timer_slack_ns: u64,
}

/// One process under capture.
pub struct Target {
    pub(crate) pid: i32,
    /// As its own PID namespace has it, and records.
    pub(crate) own_pid: i32,
    pub(crate) start_ticks: u64,
    /// Start times of those it was restored from, oldest first.
    pub(crate) former: Vec<u64>,
    pub(crate) options: Options,
    pub(crate) keeper: Keeper,
    pub(crate) notes: Notes,
    pub(crate) pidfd: OwnedFd,
    pub(crate) memory: RemoteMemory,
    pub(crate) maps: MapList,
    pub(crate) tracker: Tracker,
    pub(crate) tracking: Tracking,
    pub(crate) copies: Copies,
    pub(crate) sockets: Sockets,
    pub(crate) watches: Watches,
    pub(crate) file_times: FileTimes,
    pub(crate) told: Told,
    /// Number of its memory in the history.
    pub(crate) space: u32,
    /// Whom it came along with: itself, or an ancestor.
    pub(crate) came_with: i32,
    /// Until its first checkpoint: the memory that it is a copy of, as a child of fork.
    pub(crate) fork_of: Option<u32>,
    /// The next checkpoint starts its page map from nothing: first one, or exec since.
    pub(crate) fresh: bool,
    pub(crate) stopped: bool,
    /// Breakpoints and watchpoints.
    pub(crate) traps: Traps,
    /// First interrupt of the last stop, CLOCK_MONOTONIC ns.
    pub(crate) since_ns: u64,
    /// Other processes that shared the memory at the last checkpoint.
    pub(crate) siblings: Vec<i32>,
}

impl Target {
    /// Attaches. The target is stopped for a moment and runs on.
    ///
    /// # Errors
    /// Whatever makes it impossible, by name; the target is unharmed.
    pub fn attach(pid: i32, options: Options) -> Result<Self, AttachError> {
        let stat = check(pid)?;
        let system = |what| move |source| AttachError::System { what, pid, source };
        pager::await_pages(pid, &options.state).map_err(system("wait for the pages"))?;
        let pidfd = fd::pidfd_open(pid).map_err(|_| AttachError::NoProcess(pid))?;
        let memory = RemoteMemory::open(pid).map_err(|e| denied(pid, e))?;
        let mut keeper = Keeper::start(&options.keeper, pid, &options.probe, options.hold)
            .map_err(|e| refused(pid, e))?;
        let notes = Notes::on(pid, stat.start_ticks, &options.state);
        let outcome = notes.put_right(&mut keeper, &options);
        if let Some(Outcome::Halted { why }) = outcome.map_err(|e| refused(pid, e))? {
            keeper.leave();
            return Err(AttachError::Halted { pid, why });
        }
        let (tracker, tracking) = tracker(pid, &options, &notes, &mut keeper)?;
        Ok(Self {
            notes,
            pid,
            own_pid: procfs::status(pid).map_or(pid, |s| s.own.tgid),
            start_ticks: stat.start_ticks,
            former: Vec::new(),
            pidfd,
            memory,
            maps: MapList::open(pid).map_err(system("open the map list"))?,
            tracker,
            tracking,
            copies: Copies::default(),
            sockets: Sockets::default(),
            watches: Watches::default(),
            file_times: FileTimes::default(),
            told: Told::new(pid).ok_or(AttachError::NoProcess(pid))?,
            space: 0,
            came_with: pid,
            fork_of: None,
            fresh: true,
            stopped: false,
            traps: Traps::default(),
            since_ns: 0,
            siblings: Vec::new(),
            options,
            keeper,
        })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How changes are found.
    #[must_use]
    pub fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// Start time in ticks: with the pid it names the process for good.
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Has it ended?
    #[must_use]
    pub fn is_dead(&self) -> bool {
        procfs::stat(self.pid).map_or(true, |s| {
            matches!(s.state, 'Z' | 'X') || s.start_ticks != self.start_ticks
        })
    }

    /// Is what started then this process, or one that it was restored from?
    pub(crate) fn was(&self, start_ticks: u64) -> bool {
        self.start_ticks == start_ticks || self.former.contains(&start_ticks)
    }

    /// Descriptor that is readable once it has ended.
    #[must_use]
    pub fn life(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Has it ended, the last of its threads too?
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Ends it in a moment, if it has not yet?
    pub(crate) fn ends_soon(&self) -> bool {
        self.ends_within(END_PATIENCE)
    }

    fn ends_within(&self, patience: Duration) -> bool {
        fd::is_readable_within(self.life(), patience)
    }

    /// Descriptor that is readable when there is an event.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.keeper.event_fd()
    }

    /// Another keeper in the place of one that was killed, which let everything go.
    ///
    /// # Errors
    /// It cannot take charge.
    pub fn revive(&mut self) -> Result<(), KeeperError> {
        // First of all, before anybody meets one.
        self.notes.untrap()?;
        self.traps.lost();
        self.replace_keeper()?;
        let (notes, keeper) = (&self.notes, &mut self.keeper);
        notes.put_right(keeper, &self.options).map(drop)
    }

    /// Another keeper, which has not looked for what the one before it left.
    pub(crate) fn replace_keeper(&mut self) -> Result<(), KeeperError> {
        let Options {
            keeper,
            probe,
            hold,
            ..
        } = &self.options;
        let next = Keeper::start(keeper, self.pid, probe, *hold)?;
        std::mem::replace(&mut self.keeper, next).leave();
        self.stopped = false;
        Ok(())
    }

    /// Is every thread stopped by us?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Lets go for good.
    pub fn detach(mut self) {
        self.notes.look_away();
        // Where this fails the keeper takes them out when it lets go, and the note stays for the next.
        let _ = self.end_control();
        self.keeper.leave();
    }

    /// Has exec replaced the address space that is tracked, or its end emptied it?
    pub(crate) fn is_another_program(&mut self) -> bool {
        let (Ok(ours), Ok(now)) = (self.maps.read(), procfs::maps(self.pid)) else {
            return true;
        };
        // The old space may live on in a child of vfork: where stack and vDSO lie tells the two
        // apart.
        let place = |maps: &[procfs::MapLine], path: &str| {
            let line = maps.iter().find(|m| m.path == path);
            line.map(|m| m.end)
        };
        let same = |path| place(&ours, path) == place(&now, path);
        ours.is_empty() || !same("[stack]") || !same("[vdso]")
    }

    /// After exec: the old address space is gone, and with it everything tracked.
    pub(crate) fn start_over(&mut self) -> Result<(), CaptureError> {
        let pid = self.pid;
        if self.is_dead() {
            return Err(CaptureError::Dead(pid));
        }
        let system = |what| move |source| CaptureError::System { what, pid, source };
        self.traps.forget();
        let _ = self.notes.trap(&[]); // A note that stays is of other text, and harms nobody.
        if !self.options.hold && !self.traps.is_seized() {
            self.keeper.adopt(&self.options.probe, false)?;
        }
        self.memory = RemoteMemory::open(pid).map_err(system("open the memory"))?;
        self.maps = MapList::open(pid).map_err(system("open the map list"))?;
        let (tracker, tracking) = tracker(pid, &self.options, &self.notes, &mut self.keeper)
            .map_err(|e| system("track the new program")(std::io::Error::other(e.to_string())))?;
        self.tracker = tracker;
        self.tracking = tracking;
        self.copies.clear();
        self.told = Told::new(pid).ok_or(CaptureError::Dead(pid))?;
        self.fresh = true;
        Ok(())
    }
}

fn tracker(
    pid: i32,
    options: &Options,
    notes: &Notes,
    keeper: &mut Keeper,
) -> Result<(Tracker, Tracking), AttachError> {
    let why = if options.probe.tracks_writes() {
        match kernel_tracking(pid, notes, keeper) {
            Ok(space) => return Ok((Tracker::Kernel(space), Tracking::WriteProtect)),
            Err(KeeperError::Refused {
                message,
                refusal: Refusal::Injection,
            }) => message,
            Err(other) => return Err(refused(pid, other)),
        }
    } else {
        "the kernel has no asynchronous write protection (Linux 6.7)".to_owned()
    };
    let content =
        Content::new(pid, options.probe.pagemap_scan).map_err(|source| AttachError::System {
            what: "open the page map",
            pid,
            source,
        })?;
    Ok((Tracker::Content(content), Tracking::Content(why)))
}

fn kernel_tracking(pid: i32, notes: &Notes, keeper: &mut Keeper) -> Result<Space, KeeperError> {
    let fd = notes.userfaultfd(keeper)?;
    let space = WriteProtect::new(fd).and_then(|wp| Space::new(pid, wp));
    space
        .and_then(|mut space| space.register_all(&procfs::maps(pid)?).map(|()| space))
        .map_err(|error| KeeperError::Refused {
            refusal: Refusal::Injection,
            message: format!("write protection of process {pid}: {error}"),
        })
}

/// What can be told before anything is touched.
fn check(pid: i32) -> Result<procfs::Stat, AttachError> {
    if pid == std::process::id().cast_signed() {
        return Err(AttachError::Myself(pid));
    }
    let status = procfs::status(pid).map_err(|_| AttachError::NoProcess(pid))?;
    if status.tgid != pid {
        return Err(AttachError::Thread {
            tid: pid,
            pid: status.tgid,
        });
    }
    if matches!(status.state, 'Z' | 'X') {
        return Err(AttachError::Zombie(pid));
    }
    if status.tracer != 0 {
        let name = procfs::status(status.tracer)
            .map(|s| s.name)
            .unwrap_or_default();
        return Err(AttachError::Traced(format!(
            "process {pid} is under another debugger, pid {} ({name}); let that one detach first",
            status.tracer
        )));
    }
    match procfs::is_64_bit(pid) {
        Ok(true) => {}
        Ok(false) => return Err(AttachError::NotSixtyFour(pid)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(AttachError::Kernel(pid));
        }
        Err(error) => return Err(denied(pid, error)),
    }
    procfs::stat(pid).map_err(|_| AttachError::NoProcess(pid))
}

fn denied(pid: i32, source: std::io::Error) -> AttachError {
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        let uid = procfs::status(pid).map_or(0, |s| s.uid());
        return AttachError::Permission { pid, uid };
    }
    AttachError::System {
        what: "open the memory",
        pid,
        source,
    }
}

fn refused(pid: i32, error: KeeperError) -> AttachError {
    match error {
        KeeperError::Refused {
            refusal: Refusal::Traced,
            message,
        } => AttachError::Traced(message),
        KeeperError::Refused {
            refusal: Refusal::Dead,
            ..
        } => AttachError::NoProcess(pid),
        KeeperError::Refused {
            refusal: Refusal::Permission,
            ..
        } => {
            let uid = procfs::status(pid).map_or(0, |s| s.uid());
            AttachError::Permission { pid, uid }
        }
        other => AttachError::Keeper(other),
    }
}
