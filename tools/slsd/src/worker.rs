//! The one thread that owns a partition's process: it takes the checkpoints and does the rewinds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libsls::protocol::{Checkpoint, Cost, Failure, Restored, Rewound};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slos::{Epoch, Partition};
use sls_engine::{Capture, CaptureError, Options, Probe, Request, Target, Tracking};

use crate::attach::attach;
use crate::events;
use crate::mailbox::{Inbox, Over, Post, mailbox};
use crate::part::Figures;
use crate::registry::Refusal;
use crate::trouble;

/// Pages that may be copied at once: half of a 24 GiB machine's memory, in the worst case.
const STAGING_PAGES: usize = 3 << 20;
const SUSPEND_PATIENCE: Duration = Duration::from_secs(2);

/// What a worker is asked.
#[derive(Debug)]
pub enum Command {
    Attach {
        pid: i32,
        period: Option<Duration>,
        hold: bool,
    },
    Detach,
    Checkpoint {
        name: Option<String>,
    },
    Rewind {
        to: Epoch,
        stay_stopped: bool,
    },
    Restore {
        from: Epoch,
        stay_stopped: bool,
        force: bool,
    },
    /// How did it end, which was restored?
    Ended {
        pid: i32,
    },
    Suspend,
    Resume,
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
}

type Answer = Result<Reply, Refusal>;

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
    ) -> std::io::Result<Self> {
        let (post, inbox) = mailbox()?;
        let work = Work {
            inbox,
            history,
            figures,
            probe,
            keeper,
            state,
            target: None,
            life: None,
            child: None,
            next: None,
        };
        std::thread::Builder::new()
            .name("partition".into())
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
    target: Option<Target>,
    /// Readable once the process has ended; None when that is known, or nothing is attached.
    life: Option<OwnedFd>,
    /// The last process that was restored: the daemon's own child, attached or not.
    child: Option<Child>,
    /// When the next periodic checkpoint is due.
    next: Option<Instant>,
}

impl Work {
    fn run(mut self) {
        loop {
            self.wait();
            if self.answer_all() == Err(Over) {
                return; // The partition is gone, and with it what the process was held for.
            }
            self.heed_events();
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
        let timeout = match self.next {
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
        if let Some(target) = &self.target {
            fds.push(PollFd::new(target.event_fd(), PollFlags::POLLIN));
        }
        if let Some(life) = &self.life {
            fds.push(PollFd::new(life.as_fd(), PollFlags::POLLIN));
        }
        if let Some(life) = self.child.as_ref().and_then(Child::life) {
            fds.push(PollFd::new(life, PollFlags::POLLIN));
        }
        let _ = poll(&mut fds, timeout); // EINTR: the loop looks again.
    }

    fn obey(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Attach { pid, period, hold } => self.attach(pid, period, hold),
            Command::Detach => {
                if self.target.is_none() {
                    return Err(nothing_attached());
                }
                self.let_go();
                Ok(Reply::Done)
            }
            Command::Checkpoint { name } => self.checkpoint(name, true).map(Reply::Checkpoint),
            Command::Rewind { to, stay_stopped } => self.rewind(to, stay_stopped),
            Command::Restore {
                from,
                stay_stopped,
                force,
            } => self.restore(from, stay_stopped, force),
            Command::Ended { pid } => {
                self.heed_end();
                match &self.child {
                    Some(child) if child.pid == pid => Ok(Reply::Ended(child.status)),
                    _ => Err(Refusal::new(
                        Failure::NotFound,
                        format!("process {pid} was not restored here"),
                    )),
                }
            }
            Command::Suspend => self.suspend(),
            Command::Resume => self.resume(),
        }
    }

    fn attach(&mut self, pid: i32, period: Option<Duration>, hold: bool) -> Result<Reply, Refusal> {
        if let Some(target) = &self.target {
            if !target.is_dead() {
                let message = format!(
                    "partition {} holds process {} already; detach it, or name another partition with -o",
                    self.history.name(),
                    target.pid()
                );
                return Err(Refusal::new(Failure::Exists, message));
            }
            self.obey(Command::Detach)?;
        }
        let (branch, begins) = {
            let figures = self.figures();
            (figures.branch.clone(), figures.begins)
        };
        let head = self.history.head(&branch).map_err(Refusal::other)?;
        let head = head.or(begins);
        let (mut target, life) = attach(pid, &self.options(hold))?;
        target.continue_from(&self.history, head);
        let tracking = self.attached(target, life, period);
        Ok(Reply::Attached(tracking))
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

    /// Takes charge of a process; how its changes are found.
    fn attached(&mut self, target: Target, life: OwnedFd, period: Option<Duration>) -> String {
        let tracking = match target.tracking() {
            Tracking::WriteProtect => "write protection".to_owned(),
            Tracking::Content(why) => format!("content comparison: {why}"),
        };
        let mut figures = self.figures();
        figures.attached(target.pid(), period, tracking.clone());
        let period = figures.period;
        drop(figures);
        self.next = period.map(|p| Instant::now() + p);
        self.target = Some(target);
        self.life = Some(life);
        tracking
    }

    /// Makes the process of a checkpoint anew, and attaches to it.
    fn restore(&mut self, from: Epoch, stay_stopped: bool, force: bool) -> Result<Reply, Refusal> {
        self.heed_end();
        if let Some(target) = self.target.as_ref().filter(|target| !target.is_dead()) {
            let (pid, part) = (target.pid(), self.history.name());
            return Err(Refusal::new(
                Failure::Exists,
                format!(
                    "process {pid} of partition {part} is alive: `slsctl rewind -o {part} @{}` puts it back in place, or end it first",
                    from.0
                ),
            ));
        }
        let period = self.figures().period;
        self.let_go();
        let options = self.options(false);
        let done = sls_engine::restore(&self.history, from, &options, stay_stopped, force)
            .map_err(|e| trouble::restore_refusal(&e))?;
        let child = Child::new(done.pid)?;
        self.figures().branched(&done.branch, from);
        let mut not_restored = done.not_restored;
        match attach(done.pid, &options) {
            Ok((mut target, life)) => {
                target.continue_from(&self.history, Some(from));
                target.remember(done.former);
                self.attached(target, life, period);
                self.figures().suspended = done.stopped;
            }
            // It may have ended at once.
            Err(refusal) => not_restored.push(format!("its attachment: {}", refusal.message)),
        }
        self.child = Some(child);
        Ok(Reply::Restored(Restored {
            partition: self.history.name().to_owned(),
            epoch: from.0,
            pids: vec![(done.pid, done.pid)],
            branch: done.branch,
            pages: done.pages,
            us: u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX),
            not_restored,
        }))
    }

    /// Nothing is attached any more.
    fn let_go(&mut self) {
        if let Some(target) = self.target.take() {
            target.detach();
        }
        self.life = None;
        self.next = None;
        self.figures().detached();
    }

    fn checkpoint(&mut self, name: Option<String>, explicit: bool) -> Result<Checkpoint, Refusal> {
        self.take(name, explicit, None)
            .map_err(|e| self.capture_refusal(&e))
    }

    /// Takes a checkpoint and counts it.
    fn take(
        &mut self,
        name: Option<String>,
        explicit: bool,
        event: Option<libsls::record::Event>,
    ) -> Result<Checkpoint, CaptureError> {
        let branch = self.figures().branch.clone();
        let target = self.target.as_mut().ok_or(CaptureError::Detached)?;
        let request = Request {
            partition: &self.history,
            branch: &branch,
            name,
            explicit,
            stay_stopped: event.is_some(),
            event,
        };
        let result = target.checkpoint(request);
        let mut figures = self.figures();
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
        let target = self.target.as_mut().ok_or_else(nothing_attached)?;
        let done = target
            .rewind(&self.history, &branch, to, stay_stopped)
            .map_err(|e| Refusal::other(trouble::of_rewind(&e)))?;
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
        let target = self.target.as_ref().ok_or_else(nothing_attached)?;
        target.signal(19).map_err(Refusal::other)?; // SIGSTOP
        let deadline = Instant::now() + SUSPEND_PATIENCE;
        while !sls_engine::procfs::status(target.pid()).is_ok_and(|s| matches!(s.state, 'T' | 't'))
        {
            if Instant::now() > deadline {
                return Err(Refusal::other(format!(
                    "process {} does not stop",
                    target.pid()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.figures().suspended = true;
        Ok(Reply::Done)
    }

    fn resume(&mut self) -> Result<Reply, Refusal> {
        let target = self.target.as_ref().ok_or_else(nothing_attached)?;
        target.signal(18).map_err(Refusal::other)?; // SIGCONT
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
        match self.take(None, false, None) {
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
        loop {
            let Some(target) = &mut self.target else {
                return;
            };
            match target.event() {
                Ok(None) => return,
                Ok(Some(event)) => {
                    if let Some(event) = events::of_record(&event) {
                        let name = events::name(&event);
                        if let Err(error) = self.take(Some(name), false, Some(event)) {
                            tracing::warn!(%error, "checkpoint before an event");
                        }
                    } else {
                        self.figures().dead = true;
                        self.next = None;
                    }
                    let Some(target) = &mut self.target else {
                        return;
                    };
                    if let Err(error) = target.go_on() {
                        tracing::warn!(%error, "let a held process go on");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "keeper");
                    // Killed, most likely; the process runs on, and is looked after by another.
                    let revived = target.revive();
                    if let Err(error) = revived {
                        tracing::error!(%error, "no other keeper");
                        self.let_go();
                    }
                    self.figures().last_error = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// A process that has ended is known to have, whether checkpoints are due or not.
    fn heed_end(&mut self) {
        if let Some(child) = &mut self.child {
            child.reap();
        }
        if self.life.as_ref().is_some_and(is_readable) {
            self.life = None;
            self.next = None;
            self.figures().dead = true;
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

/// A process that was restored: it is the daemon's to take note of its end.
struct Child {
    pid: i32,
    /// Readable once it has ended; None when it has been reaped.
    life: Option<OwnedFd>,
    /// As wait(2) gives it.
    status: Option<i32>,
}

impl Child {
    fn new(pid: i32) -> Result<Self, Refusal> {
        Ok(Self {
            pid,
            life: Some(crate::attach::life(pid).map_err(Refusal::other)?),
            status: None,
        })
    }

    fn life(&self) -> Option<BorrowedFd<'_>> {
        self.life.as_ref().map(AsFd::as_fd)
    }

    /// Takes note of its end, if it has come.
    fn reap(&mut self) {
        if !self.life.as_ref().is_some_and(is_readable) {
            return;
        }
        match sls_engine::reap(self.pid) {
            Ok(None) => {} // Its keeper has to take note of it first.
            Ok(status) => (self.life, self.status) = (None, status),
            Err(error) => {
                tracing::warn!(pid = self.pid, %error, "reap");
                self.life = None;
            }
        }
    }
}

impl Drop for Child {
    /// Nobody asks for it any more, but it may live on.
    fn drop(&mut self) {
        let (pid, Some(life)) = (self.pid, self.life.take()) else {
            return;
        };
        std::thread::spawn(move || {
            let mut fds = [PollFd::new(life.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::NONE);
            while sls_engine::reap(pid).is_ok_and(|status| status.is_none()) {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
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

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
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
