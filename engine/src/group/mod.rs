//! The processes of a partition: attached to, checkpointed and rewound together.
//!
//! - **Invariant**: a checkpoint is one cut. Everybody stands still at one moment, those that were
//!   born until then included, and what is shared between them is read while they do.

mod checkpoint;
pub mod connections;
mod descendants;
mod descriptions;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use slos::{Epoch, Partition, Staging};
use sls_record::{Ended, Process, Renamed};
use sls_sys::{fd, procfs};

use crate::error::{AttachError, CaptureError, KeeperError};
use crate::keeper::Event;
use crate::shared::Spaces;
use crate::target::{Options, Target};
use crate::{former, numbers, renamed};
use connections::Connections;
use descendants::Descendants;
use descriptions::Descriptions;

pub use checkpoint::{Capture, Request};

/// Whoever is on the way out has so long, where others may stand still for it.
const BRIEF: Duration = Duration::from_millis(50);

/// Processes with one history. It may have no process yet.
pub struct Group {
    pub(crate) options: Options,
    /// The root first.
    pub(crate) members: Vec<Target>,
    /// Epoch they run on from; None before the first checkpoint of their history.
    pub(crate) parent: Option<Epoch>,
    pub(crate) spaces: Spaces,
    /// Where their pages are copied to.
    pub(crate) staging: Staging,
    /// Who was there at the checkpoint that the first of ours goes on from.
    past: Vec<Process>,
    /// Who has ended of them, or of their children, and may not have been taken note of yet.
    ended: Vec<i32>,
    /// Those that had not been at the last stop.
    pub(crate) zombies: Vec<Ended>,
    /// What has other names now than in checkpoints from before a restore.
    pub(crate) renamed: Vec<Renamed>,
    /// Whoever descends from them joins them.
    descendants: Option<Descendants>,
    connections: Connections,
    descriptions: Descriptions,
}

/// Who was met that descends from members and is none.
#[derive(Debug, Default, Clone, Copy)]
struct Met {
    /// Somebody has joined them.
    joined: bool,
    /// Somebody has ended, and may have done something until then.
    ended: bool,
}

impl Group {
    /// Nobody yet. The first checkpoint goes on from `parent`, with whole images of its own.
    #[must_use]
    pub fn new(options: Options, parent: Option<Epoch>) -> Self {
        Self {
            staging: Staging::new(options.staging_pages),
            options,
            members: Vec::new(),
            parent,
            spaces: Spaces::default(),
            past: Vec::new(),
            ended: Vec::new(),
            zombies: Vec::new(),
            renamed: Vec::new(),
            descendants: None,
            connections: Connections::default(),
            descriptions: Descriptions::default(),
        }
    }

    /// Attaches to one more process, which is stopped for a moment and runs on. With `follow` all
    /// that descend from it come along, now and later.
    ///
    /// # Errors
    /// Whatever makes it impossible, by name; the process is unharmed. Those of its descendants that
    /// were attached to already stay.
    pub fn attach(
        &mut self,
        partition: &Partition,
        pid: i32,
        follow: bool,
    ) -> Result<&Target, AttachError> {
        let target = attach_in_time(pid, &self.options)?;
        let at = self.members.len();
        if at == 0 {
            self.look_back(partition);
        }
        self.join(target, 0);
        if follow {
            let result = self.follow();
            if let Err(error) = result.and_then(|()| self.meet_newcomers().map(drop)) {
                self.members.drain(at..).for_each(Target::detach);
                return Err(error);
            }
        }
        Ok(&self.members[at])
    }

    /// Whoever descends from the members joins them at the next checkpoint, and from then on.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn follow(&mut self) -> Result<(), AttachError> {
        let pid = self.root().unwrap_or_default();
        match &mut self.descendants {
            Some(descendants) => descendants.look_at_all(),
            none => {
                let made = Descendants::new().map_err(|source| AttachError::System {
                    what: "look for the descendants",
                    pid,
                    source,
                })?;
                *none = Some(made);
            }
        }
        Ok(())
    }

    /// What the checkpoint that all this goes on from tells of its processes.
    fn look_back(&mut self, partition: &Partition) {
        let record = self.parent.and_then(|epoch| partition.record(epoch).ok());
        if let Some(record) = record.and_then(|bytes| sls_record::decode(&bytes).ok()) {
            self.past = record.processes;
            self.renamed = record.renamed;
        }
        self.spaces.know(&self.past);
        let spaces = self.parent.and_then(|epoch| partition.spaces(epoch).ok());
        for space in spaces.unwrap_or_default() {
            self.spaces.skip(space.0);
        }
    }

    /// Attaches to those that descend from members and are none yet.
    fn meet_newcomers(&mut self) -> Result<Met, AttachError> {
        let Some(descendants) = &mut self.descendants else {
            return Ok(Met::default());
        };
        let known: Vec<i32> = self.members.iter().map(|m| m.pid).collect();
        let found = descendants
            .look(&known)
            .map_err(|source| AttachError::System {
                what: "look for the descendants",
                pid: known.first().copied().unwrap_or_default(),
                source,
            })?;
        let before = (self.members.len(), self.ended.len());
        for (pid, parent) in found {
            // A child of vfork is its parent's, until it executes.
            let shares = |m: &Target| fd::same_memory(m.pid, pid).unwrap_or(false);
            if self.members.iter().any(shares) {
                if let Some(descendants) = &mut self.descendants {
                    descendants.again(pid);
                }
                continue;
            }
            match attach_in_time(pid, &self.options) {
                Ok(target) => self.join(target, parent),
                // Who lives for a moment only: its parent may have to take note of it yet.
                Err(AttachError::Zombie(_)) => self.ended.push(pid),
                Err(_) if ends_soon(pid) => self.ended.push(pid),
                Err(AttachError::NoProcess(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Met {
            joined: self.members.len() > before.0,
            ended: self.ended.len() > before.1,
        })
    }

    /// One more, a child of `parent` if that is a member. Its memory has the number in the history
    /// that it had there, if it was there.
    fn join(&mut self, mut target: Target, parent: i32) {
        let own = |p: &Process| (p.pid, p.start_ticks) == (target.own_pid, target.start_ticks);
        let parent = self.members.iter().find(|m| m.pid == parent);
        if let Some(parent) = parent {
            target.came_with = parent.came_with;
        }
        if let Some(own) = self.past.iter().position(own) {
            let own = self.past.swap_remove(own);
            target.space = own.space;
            target.former = own.former;
        } else if self.members.is_empty() && !self.past.is_empty() {
            // In the place of a root that has ended: so the two can be compared page by page.
            target.space = self.past.swap_remove(0).space;
        } else {
            target.fork_of = parent.filter(|p| !p.fresh).map(|p| p.space);
            target.space = self.spaces.of_process();
        }
        self.members.push(target);
    }

    /// Attaches to one that a rewind has made anew, as it was then. It may have ended by now.
    pub(crate) fn attach_again(&mut self, was: &Process) -> Result<(), AttachError> {
        let pid = was.outside();
        let mut target = match attach_in_time(pid, &self.options) {
            Ok(target) => target,
            Err(AttachError::NoProcess(_)) => return Ok(()),
            Err(error) if !ends_soon(pid) => return Err(error),
            Err(_) => {
                self.ended.push(pid);
                return Ok(());
            }
        };
        let parent = self.members.iter().find(|m| m.own_pid == was.ppid);
        if let Some(parent) = parent {
            target.came_with = parent.came_with;
        }
        target.space = was.space;
        target.former = [&was.former[..], &[was.start_ticks]].concat();
        self.members.push(target);
        Ok(())
    }

    /// Its processes, the root first.
    #[must_use]
    pub fn members(&self) -> &[Target] {
        &self.members
    }

    /// Are they held, so that ends are seen coming?
    #[must_use]
    pub fn holds(&self) -> bool {
        self.options.hold
    }

    /// Number of the root.
    #[must_use]
    pub fn root(&self) -> Option<i32> {
        self.members.first().map(|m| m.pid)
    }

    /// Are all stopped by us?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.members.iter().any(Target::is_stopped)
    }

    /// The member was restored: the past of these, by their start times, is its own. Before its first
    /// checkpoint.
    pub fn remember(&mut self, pid: i32, former: Vec<u64>) {
        let Some(member) = self.members.iter_mut().find(|m| m.pid == pid) else {
            return;
        };
        let own = member.own_pid;
        let was = |p: &&Process| p.pid == own && former.contains(&p.start_ticks);
        if let Some(was) = self.past.iter().find(was) {
            member.space = was.space;
        }
        member.former = former;
    }

    /// Lets go of members that have ended; the last stays, to be asked about.
    pub fn bury(&mut self) {
        while self.members.len() > 1
            && let Some(at) = self.members.iter().position(Target::has_ended)
        {
            self.bury_at(at);
        }
    }

    fn bury_at(&mut self, at: usize) {
        let member = self.members.remove(at);
        self.ended.push(member.pid);
        member.detach();
    }

    /// They were just restored: these have ended already, for members to take note of, and this has
    /// other names than before. Before the first checkpoint.
    pub fn note_restored(&mut self, ended: Vec<i32>, renamed: Vec<Renamed>) {
        self.ended.extend(ended);
        self.spaces.rename(&renamed);
        renamed::add(&mut self.renamed, renamed);
    }

    /// Finds out who has ended without its parent, a member, having taken note of it; while all stand
    /// still.
    pub(crate) fn find_zombies(&mut self) {
        let mut found: Vec<Ended> = Vec::new();
        let members = &self.members;
        self.ended.retain(|&pid| {
            let Ok(stat) = procfs::stat(pid) else {
                return false;
            };
            let is_child = members.iter().any(|m| m.pid == stat.ppid);
            let is_it = stat.state == 'Z' && is_child && !members.iter().any(|m| m.pid == pid);
            if is_it && let Ok(status) = procfs::status(pid) {
                let ended = numbers::ended(&stat, status);
                if !found.iter().any(|e| e.pid == ended.pid) {
                    found.push(ended);
                }
            }
            is_it
        });
        self.zombies = found;
    }

    /// Lets go of one for good, and of those that came along with it. False: it is none of these.
    pub fn let_go(&mut self, pid: i32) -> bool {
        if !self.members.iter().any(|m| m.pid == pid) {
            return false;
        }
        if let Some(descendants) = &mut self.descendants {
            descendants.leave_out(pid);
        }
        let goes = |m: &mut Target| m.pid == pid || m.came_with == pid;
        self.members.extract_if(.., goes).for_each(Target::detach);
        true
    }

    /// Next thing about to happen to a held member, and to which; it waits for [`Group::go_on`].
    ///
    /// # Errors
    /// A keeper is gone: which member's.
    pub fn event(&mut self) -> Result<Option<(i32, Event)>, (i32, KeeperError)> {
        for member in &mut self.members {
            match member.keeper.event() {
                Ok(None) => {}
                Ok(Some(event)) => return Ok(Some((member.pid, event))),
                Err(error) => return Err((member.pid, error)),
            }
        }
        Ok(None)
    }

    /// Another keeper in the place of one that was killed.
    ///
    /// # Errors
    /// It cannot take charge.
    pub fn revive(&mut self, pid: i32) -> Result<(), KeeperError> {
        match self.members.iter_mut().find(|m| m.pid == pid) {
            Some(member) => member.revive(),
            None => Ok(()),
        }
    }

    /// Lets everything that is stopped by us run on.
    ///
    /// # Errors
    /// A keeper is gone, which lets go too.
    pub fn go_on(&mut self) -> Result<(), KeeperError> {
        self.resume_all().map(drop).map_err(|(_, error)| error)
    }

    /// All that is stopped runs on, whatever becomes of single ones; ns from the first interrupt to
    /// the last thread let go, or the first member that failed, and how.
    pub(crate) fn resume_all(&mut self) -> Result<u64, (usize, KeeperError)> {
        let mut failed = None;
        let mut asked = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            if !std::mem::take(&mut member.stopped) {
                continue;
            }
            match member.keeper.ask_to_resume() {
                Ok(()) => asked.push(at),
                Err(error) => failed = failed.or(Some((at, error))),
            }
        }
        let (mut first, mut last) = (u64::MAX, 0);
        for at in asked {
            let member = &mut self.members[at];
            match member.keeper.resumed() {
                Ok(stop_ns) => {
                    first = first.min(member.since_ns);
                    last = last.max(member.since_ns + stop_ns);
                }
                Err(error) => failed = failed.or(Some((at, error))),
            }
        }
        match failed {
            Some(failed) => Err(failed),
            None => Ok(last.saturating_sub(first)),
        }
    }

    /// Sends a signal to each.
    ///
    /// # Errors
    /// One is not ours to signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        for member in &self.members {
            match fd::pidfd_signal(member.pidfd.as_fd(), signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Lets all go for good.
    pub fn detach(mut self) {
        self.members.drain(..).for_each(Target::detach);
    }

    pub(crate) fn is_dead(&self) -> Result<(), CaptureError> {
        match self.members.first() {
            None => Err(CaptureError::Detached),
            Some(root) if self.members.iter().all(Target::is_dead) => {
                Err(CaptureError::Dead(root.pid))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Has it ended, or does it in a moment?
fn ends_soon(pid: i32) -> bool {
    fd::pidfd_open(pid).map_or(true, |life| fd::is_readable_within(life.as_fd(), BRIEF))
}

/// Attaches, also where an earlier keeper has not quite let go.
fn attach_in_time(pid: i32, options: &Options) -> Result<Target, AttachError> {
    let attempt = || Target::attach(pid, options.clone());
    let is_traced = |error: &AttachError| matches!(error, AttachError::Traced(_));
    former::patiently(pid, former::LONG, attempt, is_traced)
}
