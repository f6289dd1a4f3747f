//! The one thread that owns a partition's process: it takes the checkpoints and does the rewinds.

mod control;
mod restore;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsls::control::{Act, Breakpoint, Stop};
use libsls::protocol::{Checkpoint, Cost, Failure, Restored, Rewound};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slos::{Epoch, Partition};
use sls_engine::{
    Capture, CaptureError, Event, Group, Options, Probe, Request, Target, Tracking, Wish,
};

use crate::child::Child;
use crate::control::Control;
use crate::control::board::Board;
use crate::events;
use crate::mailbox::{Inbox, Over, Post, mailbox};
use crate::part::Figures;
use crate::registry::Refusal;
use crate::trouble;
use restore::Coming;

/// Pages that may be copied at once: half of a 24 GiB machine's memory, in the worst case.
const STAGING_PAGES: usize = 3 << 20;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
/// Expressions and debug information are walked by recursion.
const STACK: usize = 16 << 20;
const SUSPEND_PATIENCE: Duration = Duration::from_secs(2);

/// What a worker is asked.
#[derive(Debug)]
pub enum Command {
    Attach {
        pid: i32,
        period: Option<Duration>,
        /// Descendants too.
        follow: bool,
        hold: bool,
        /// A checkpoint is taken before it runs.
        begins: bool,
    },
    /// Of one process, or of all.
    Detach {
        pid: Option<i32>,
    },
    Checkpoint {
        name: Option<String>,
        /// Descendants join first, and from then on.
        follow: bool,
    },
    Rewind {
        to: Epoch,
        stay_stopped: bool,
    },
    Restore {
        from: Epoch,
        wish: Wish,
    },
    /// How did it end, which was restored?
    Ended {
        pid: i32,
    },
    Suspend,
    Resume,
    /// Forward control.
    Control {
        pid: Option<i32>,
        act: Act,
    },
}

/// What it answers.
#[derive(Debug)]
pub enum Reply {
    Done,
    Attached(String),
    Checkpoint(Checkpoint),
    Rewound(Rewound),
    Restored(Restored),
    Ended(Option<i32>),
    Stop(Box<Stop>),
    Points(Vec<Breakpoint>),
    /// Where it stops after so many stops is told at the board.
    Runs {
        after: u64,
        note: Option<String>,
    },
}

type Answer = Result<Reply, Refusal>;

/// How a checkpoint is taken; a periodic one by default.
#[derive(Default)]
struct How {
    name: Option<String>,
    explicit: bool,
    event: Option<libsls::record::Event>,
    begins: bool,
}

/// The handle on the thread, which lets its process go and ends when the handle is dropped.
pub struct Worker {
    post: Post<Command, Answer>,
}

impl Worker {
    pub fn start(
        history: Partition,
        figures: Arc<Mutex<Figures>>,
        probe: Probe,
        keeper: PathBuf,
        state: PathBuf,
        board: Arc<Board>,
    ) -> std::io::Result<Self> {
        let (post, inbox) = mailbox()?;
        let work = Work {
            inbox,
            history,
            figures,
            probe,
            keeper,
            state,
            group: None,
            coming: None,
            children: Vec::new(),
            next: None,
            control: Control::new(board),
        };
        std::thread::Builder::new()
            .name("partition".into())
            .stack_size(STACK)
            .spawn(move || work.run())?;
        Ok(Self { post })
    }

    /// Asks and waits for the answer. None: the thread has ended, which only a bug does.
    pub fn ask(&self, command: Command) -> Option<Answer> {
        self.post.ask(command).ok()
    }
}

struct Work {
    inbox: Inbox<Command, Answer>,
    history: Partition,
    figures: Arc<Mutex<Figures>>,
    probe: Probe,
    keeper: PathBuf,
    state: PathBuf,
    /// None where nothing is attached.
    group: Option<Group>,
    /// Restored and running, and attached to once their pages are there.
    coming: Option<Coming>,
    /// The last processes that were restored: the daemon's own children, attached or not.
    children: Vec<Child>,
    /// When the next periodic checkpoint is due.
    next: Option<Instant>,
    /// Breakpoints, and who stands still for them.
    control: Control,
}

impl Work {
    fn run(mut self) {
        loop {
            self.wait();
            if self.answer_all() == Err(Over) {
                return; // The partition is gone, and with it what the process was held for.
            }
            self.heed_pages();
            self.pace();
            self.heed_events();
            self.heed_time();
            self.heed_end();
            self.tick();
        }
    }

    /// Whoever asks without end must not keep the next periodic checkpoint from being taken.
    fn answer_all(&mut self) -> Result<(), Over> {
        while let Some(letter) = self.inbox.next()? {
            let (command, reply) = letter.open();
            reply(self.obey(command));
            if self.next.is_some_and(|at| at <= Instant::now()) {
                self.inbox.ring();
                break;
            }
        }
        Ok(())
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let unheard = self.group.as_ref().is_some_and(Group::has_event);
        if unheard || self.control.paces {
            return;
        }
        let alone = self.control.journey.as_ref().and_then(|j| j.until);
        let timeout = match self.next.into_iter().chain(alone).min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = vec![PollFd::new(self.inbox.bell(), PollFlags::POLLIN)];
        let dead = self.figures().dead;
        for member in self.members() {
            // How it ended is told after its end.
            fds.push(PollFd::new(member.event_fd(), PollFlags::POLLIN));
            if !dead {
                fds.push(PollFd::new(member.life(), PollFlags::POLLIN));
            }
        }
        if let Some(coming) = &self.coming {
            fds.push(PollFd::new(coming.voice(), PollFlags::POLLIN));
        }
        for life in self.children.iter().filter_map(Child::life) {
            fds.push(PollFd::new(life, PollFlags::POLLIN));
        }
        let _ = poll(&mut fds, timeout); // EINTR: the loop looks again.
    }

    fn obey(&mut self, command: Command) -> Result<Reply, Refusal> {
        if !matches!(command, Command::Ended { .. }) {
            self.await_pages();
        }
        if !matches!(command, Command::Control { .. } | Command::Ended { .. }) {
            self.join_alone();
        }
        match command {
            Command::Attach {
                pid,
                period,
                follow,
                hold,
                begins,
            } => {
                let attached = self.attach(pid, period, follow, hold)?;
                if begins {
                    self.begin(pid)?;
                }
                Ok(attached)
            }
            Command::Detach { pid } => self.detach(pid),
            Command::Checkpoint { name, follow } => {
                if let (true, Some(group)) = (follow, &mut self.group) {
                    group.follow().map_err(|e| trouble::attach_refusal(&e))?;
                }
                let taken = self.take(How {
                    name,
                    explicit: true,
                    ..How::default()
                });
                taken
                    .map(Reply::Checkpoint)
                    .map_err(|e| self.capture_refusal(&e))
            }
            Command::Rewind { to, stay_stopped } => self.rewind(to, stay_stopped),
            Command::Restore { from, wish } => self.restore(from, &wish),
            Command::Ended { pid } => {
                self.heed_end();
                match self.children.iter().find(|child| child.pid == pid) {
                    Some(child) => Ok(Reply::Ended(child.status)),
                    None => Err(Refusal::new(
                        Failure::NotFound,
                        format!("process {pid} was not restored here"),
                    )),
                }
            }
            Command::Suspend => self.suspend(),
            Command::Resume => self.resume(),
            Command::Control { pid, act } => self.control(pid, act),
        }
    }

    fn attach(
        &mut self,
        pid: i32,
        period: Option<Duration>,
        follow: bool,
        hold: bool,
    ) -> Result<Reply, Refusal> {
        self.heed_end();
        if self.figures().dead {
            self.let_go();
        }
        let begun = self.group.is_none();
        if begun {
            let (branch, begins) = {
                let figures = self.figures();
                (figures.branch.clone(), figures.begins)
            };
            let head = self.history.head(&branch).map_err(Refusal::other)?;
            self.group = Some(Group::new(self.options(hold), head.or(begins)));
        }
        let result = self.join(pid, follow, hold);
        match &result {
            Ok(tracking) => {
                let goes_on = self.figures().period.filter(|_| !begun);
                self.attached(period.or(goes_on), tracking);
            }
            Err(_) if begun => self.let_go(),
            Err(_) => {}
        }
        result.map(Reply::Attached)
    }

    /// One more process; how its changes are found.
    fn join(&mut self, pid: i32, follow: bool, hold: bool) -> Result<String, Refusal> {
        let group = self.group.as_mut().ok_or_else(nothing_attached)?;
        if group.holds() != hold {
            let (they, it) = if hold {
                ("without", "with")
            } else {
                ("with", "without")
            };
            let message = format!(
                "the processes of partition {} are attached {they} --hold: attach this one {they} it too, or {it} it to another partition (-o)",
                self.history.name()
            );
            return Err(Refusal::new(Failure::Usage, message));
        }
        let target = group.attach(&self.history, pid, follow);
        let target = target.map_err(|e| trouble::attach_refusal(&e))?;
        Ok(match target.tracking() {
            Tracking::WriteProtect => "write protection".to_owned(),
            Tracking::Content(why) => format!("content comparison: {why}"),
        })
    }

    fn members(&self) -> &[Target] {
        self.group.as_ref().map_or(&[], Group::members)
    }

    fn pids(&self) -> Vec<i32> {
        self.members().iter().map(Target::pid).collect()
    }

    fn detach(&mut self, pid: Option<i32>) -> Result<Reply, Refusal> {
        let group = self.group.as_mut().ok_or_else(nothing_attached)?;
        if let Some(pid) = pid {
            if !group.let_go(pid) {
                return Err(nothing_attached());
            }
            if !group.members().is_empty() {
                let pids = self.pids();
                self.figures().pids = pids;
                return Ok(Reply::Done);
            }
        }
        self.let_go();
        Ok(Reply::Done)
    }

    fn options(&self, hold: bool) -> Options {
        Options {
            probe: self.probe,
            keeper: self.keeper.clone(),
            hold,
            state: self.state.clone(),
            staging_pages: STAGING_PAGES,
        }
    }

    /// A process has come, and perhaps others with it.
    fn attached(&mut self, period: Option<Duration>, tracking: &str) {
        let pids = self.pids();
        let mut figures = self.figures();
        figures.attached(pids, period, tracking.to_owned());
        let period = figures.period;
        drop(figures);
        self.next = period.map(|p| Instant::now() + p);
    }

    /// Nothing is attached any more.
    fn let_go(&mut self) {
        if let Some(group) = self.group.take() {
            group.detach();
        }
        self.control.forget();
        self.next = None;
        self.figures().detached();
    }

    /// The first checkpoint of a program that is about to begin.
    fn begin(&mut self, pid: i32) -> Result<(), Refusal> {
        let taken = self.take(How {
            explicit: true,
            begins: true,
            ..How::default()
        });
        if let Err(error) = taken {
            let refusal = self.capture_refusal(&error);
            self.detach(Some(pid))?;
            return Err(refusal);
        }
        Ok(())
    }

    /// Takes a checkpoint and counts it.
    fn take(&mut self, how: How) -> Result<Checkpoint, CaptureError> {
        let branch = self.figures().branch.clone();
        let group = self.group.as_mut().ok_or(CaptureError::Detached)?;
        let request = Request {
            partition: &self.history,
            branch: &branch,
            name: how.name,
            explicit: how.explicit,
            stay_stopped: how.event.is_some(),
            event: how.event,
            begins: how.begins,
        };
        let result = group.checkpoint(request);
        let pids = self.pids();
        let mut figures = self.figures();
        figures.pids = pids;
        match result {
            Ok(capture) => {
                figures.taken += 1;
                figures.dropped += capture.dropped.len() as u64;
                figures.stops.add(capture.cost.stop_ns.div_ceil(1000));
                figures.last_error = None;
                drop(figures);
                let reply = reply_of(self.history.name(), &capture);
                tracing::debug!(epoch = reply.epoch, pages = reply.pages, cost = ?reply.cost, "kept");
                Ok(reply)
            }
            Err(error) => {
                figures.failed += 1;
                figures.last_error = Some(trouble::of_capture(&error));
                figures.dead |= matches!(error, CaptureError::Dead(_));
                Err(error)
            }
        }
    }

    fn rewind(&mut self, to: Epoch, stay_stopped: bool) -> Result<Reply, Refusal> {
        let branch = self.figures().branch.clone();
        let group = self.group.as_mut().ok_or_else(nothing_attached)?;
        let done = group
            .rewind(&self.history, &branch, to, stay_stopped)
            .map_err(|e| Refusal::other(trouble::of_rewind(&e)))?;
        self.control_rewound();
        let mut figures = self.figures();
        figures.branched(&done.branch, to);
        figures.suspended = stay_stopped;
        let period = figures.period;
        drop(figures);
        self.next = period.map(|p| Instant::now() + p);
        Ok(Reply::Rewound(Rewound {
            from: done.from.0,
            to: done.to.0,
            branch: done.branch,
            pages: done.pages,
            stop_us: done.stop_ns.div_ceil(1000),
            not_restored: done.not_restored,
        }))
    }

    fn suspend(&mut self) -> Result<Reply, Refusal> {
        let group = self.group.as_ref().ok_or_else(nothing_attached)?;
        group.signal(SIGSTOP).map_err(Refusal::other)?;
        let deadline = Instant::now() + SUSPEND_PATIENCE;
        for member in group.members() {
            let pid = member.pid();
            let status = || sls_engine::procfs::status(pid);
            while status().is_ok_and(|s| !matches!(s.state, 'T' | 't' | 'Z' | 'X')) {
                if Instant::now() > deadline {
                    return Err(Refusal::other(format!("process {pid} does not stop")));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.figures().suspended = true;
        Ok(Reply::Done)
    }

    fn resume(&mut self) -> Result<Reply, Refusal> {
        let group = self.group.as_ref().ok_or_else(nothing_attached)?;
        group.signal(SIGCONT).map_err(Refusal::other)?;
        self.figures().suspended = false;
        Ok(Reply::Done)
    }

    /// A periodic checkpoint when one is due. A period that passes while one is taken is missed,
    /// not made up for.
    fn tick(&mut self) {
        let Some(at) = self.next else { return };
        let now = Instant::now();
        if at > now {
            return;
        }
        let Some(period) = self.figures().period else {
            self.next = None;
            return;
        };
        if self.control.halted {
            // Nothing changes while they stand still.
            self.next = Some(now + period);
            return;
        }
        match self.take(How::default()) {
            Err(CaptureError::Dead(pid)) => {
                tracing::info!(pid, "has ended");
                self.next = None;
                return;
            }
            Err(error) => tracing::warn!(%error, "periodic checkpoint"),
            Ok(_) => {}
        }
        let mut next = at + period;
        let now = Instant::now();
        while next <= now {
            next += period;
            self.figures().missed += 1;
        }
        self.next = Some(next);
    }

    /// What a held target is about to do: a checkpoint of the state before, then it goes on.
    fn heed_events(&mut self) {
        while let Some(group) = &mut self.group {
            match group.event() {
                Ok(None) => return,
                Ok(Some((pid, event))) => self.heed(pid, event),
                Err((pid, error)) => {
                    tracing::error!(pid, %error, "keeper");
                    // Killed, most likely; the process runs on, and is looked after by another.
                    if let Err(error) = group.revive(pid) {
                        tracing::error!(pid, %error, "no other keeper");
                        group.let_go(pid);
                        if group.members().is_empty() {
                            self.let_go();
                        }
                    }
                    self.figures().last_error = Some(error.to_string());
                    self.control_again();
                    return;
                }
            }
        }
    }

    fn heed(&mut self, pid: i32, event: Event) {
        match event {
            Event::Trap { .. } | Event::Watch { .. } => return self.heed_hit(pid, event),
            Event::Replaced { .. } => return self.heed_replaced(pid),
            Event::Fatal { tid, ref info } if self.tells() => {
                return self.heed_fatal(pid, tid, info);
            }
            Event::Gone { status } if self.tells() => self.heed_gone(pid, status),
            _ => {}
        }
        self.take_before(&event);
        if let Some(Err(error)) = self.group.as_mut().map(Group::go_on) {
            tracing::warn!(%error, "let a held process go on");
        }
        self.heed_end();
    }

    /// The state before something happens, where it is known that it does: of processes that are held, and
    /// of an end.
    fn take_before(&mut self, event: &Event) {
        let holds = self.group.as_ref().is_some_and(Group::holds);
        if !holds && !matches!(event, Event::Exit { .. }) {
            return;
        }
        let Some(event) = events::of_record(event) else {
            return;
        };
        let taken = self.take(How {
            name: Some(events::name(&event)),
            event: Some(event),
            ..How::default()
        });
        match taken {
            Ok(taken) => self.control.end = Some(taken.epoch),
            Err(error) => tracing::warn!(%error, "checkpoint before an event"),
        }
    }

    /// Processes that have ended are known to have, whether checkpoints are due or not.
    fn heed_end(&mut self) {
        let ended = self.group.as_mut().is_some_and(|group| {
            group.bury();
            group.members().iter().all(Target::has_ended)
        });
        // Who is told of their end finds them gone.
        self.children.iter_mut().for_each(Child::reap);
        if self.group.is_none() {
            return;
        }
        let pids = self.pids();
        // Who controls it is told how it ended, which its keeper is the first to know.
        let known = self.control.gone || !self.tells();
        let mut figures = self.figures();
        if !figures.dead {
            figures.pids = pids;
            figures.dead = ended && known;
        }
        drop(figures);
        if ended {
            self.next = None;
        }
    }

    fn capture_refusal(&self, error: &CaptureError) -> Refusal {
        match error {
            CaptureError::Detached => nothing_attached(),
            CaptureError::Dead(_) => Refusal::new(Failure::NotFound, error.to_string()),
            other => Refusal::other(trouble::of_capture(other)),
        }
    }
}

impl Drop for Work {
    /// However the thread ends, its process runs on and the partition is not taken for attached.
    fn drop(&mut self) {
        self.let_go();
        if std::thread::panicking() {
            let message = "the partition's worker has ended by a bug; see slsd.log";
            self.figures().last_error = Some(message.to_owned());
        }
    }
}

fn nothing_attached() -> Refusal {
    Refusal::new(
        Failure::NotFound,
        "no process is attached to the partition; attach one: slsctl attach -p PID",
    )
}

fn reply_of(part: &str, capture: &Capture) -> Checkpoint {
    let c = capture.cost;
    Checkpoint {
        partition: part.to_owned(),
        epoch: capture.epoch.0,
        stop_us: c.stop_ns.div_ceil(1000),
        pages: capture.pages,
        bytes: capture.bytes,
        cost: Cost {
            stop_ns: c.stop_ns,
            quiesce_ns: c.quiesce_ns,
            maps_ns: c.maps_ns,
            scan_ns: c.scan_ns,
            copy_ns: c.copy_ns,
            copied_pages: c.copied,
            record_ns: c.record_ns,
        },
    }
}
