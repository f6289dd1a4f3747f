//! What the worker does to control its processes: the acts that clients ask for.

mod hits;
mod setting;
mod travel;

use libsls::control::{Act, Breakpoint, Reason, State, Stop, Wait};
use libsls::protocol::Failure;
use sls_engine::{Event, Group, Target};

use super::{How, Reply, Work, nothing_attached};
use crate::control::journey::Goal;
use crate::control::live::{Live, RIP, RSP};
use crate::events;
use crate::registry::Refusal;

/// Why all are to stand still.
struct Found {
    pid: i32,
    tid: i32,
    reason: Reason,
    number: Option<u32>,
    old: Option<String>,
    new: Option<String>,
    value: Option<String>,
    status: Option<i32>,
    note: Option<String>,
}

impl Found {
    fn of(pid: i32, tid: i32, reason: Reason) -> Self {
        Self {
            pid,
            tid,
            reason,
            number: None,
            old: None,
            new: None,
            value: None,
            status: None,
            note: None,
        }
    }
}

impl Work {
    pub(super) fn control(&mut self, pid: Option<i32>, act: Act) -> Result<Reply, Refusal> {
        self.heed_end();
        match act {
            Act::List => return Ok(Reply::Points(self.control.points.list())),
            Act::Delete { number } => {
                self.control.points.remove(number)?;
                return self.rearm().map(|()| Reply::Done);
            }
            Act::Enable { number, on } => {
                self.control.points.get(number)?.shown.enabled = on;
                return self.rearm().map(|()| Reply::Done);
            }
            _ => {}
        }
        if self.figures().dead
            && matches!(act, Act::Pause | Act::Continue { .. })
            && let Some(end) = self.control.board.untold()
        {
            return Ok(Reply::Stop(Box::new(end)));
        }
        self.must_live()?;
        match act {
            Act::Pause => self.pause(pid),
            Act::Continue { wait } => self.proceed(wait),
            Act::Step {
                by,
                over,
                count,
                tid,
                wait: _,
            } => {
                let goal = Goal::Step { by, over };
                self.set_out(pid, tid, goal, count)
            }
            Act::Finish { count, tid, .. } => self.set_out(pid, tid, Goal::Finish, count),
            Act::Break {
                what,
                condition,
                tid,
                temporary,
            } => {
                let shown = Breakpoint {
                    condition,
                    tid,
                    temporary,
                    ..Breakpoint::default()
                };
                self.add_point(pid, what, shown)
            }
            Act::List | Act::Delete { .. } | Act::Enable { .. } => Ok(Reply::Done),
        }
    }

    fn must_live(&self) -> Result<(), Refusal> {
        if self.group.is_none() {
            return Err(nothing_attached());
        }
        if self.figures().dead {
            return Err(Refusal::new(
                Failure::NotFound,
                format!(
                    "the process of partition {0} has ended; its history can be looked at, and `slsctl restore -o {0}` makes it anew",
                    self.history.name()
                ),
            ));
        }
        Ok(())
    }

    fn is_controlled(&self) -> bool {
        self.members().iter().any(Target::is_controlled)
    }

    /// Stops all where they are.
    fn halt(&mut self) -> Result<(), Refusal> {
        let group = self.group.as_mut().ok_or_else(nothing_attached)?;
        match group.halt() {
            Ok(all) => {
                for (pid, threads) in all {
                    self.control.seen.entry(pid).or_default().threads = threads;
                }
                self.control.halted = true;
                Ok(())
            }
            Err((pid, error)) => {
                if let Err(error) = group.go_on() {
                    tracing::warn!(pid, %error, "let go after a stop that failed");
                }
                self.control.halted = false;
                Err(Refusal::other(error))
            }
        }
    }

    /// Lets all run, or one thread alone, with what is set for them to meet.
    fn go(&mut self, only: Option<(i32, i32)>) -> Result<(), Refusal> {
        let group = self.group.as_mut().ok_or_else(nothing_attached)?;
        let control = &mut self.control;
        let pids: Vec<i32> = group.members().iter().map(Target::pid).collect();
        control.note = None;
        for pid in pids {
            let Some(member) = group.member(pid) else {
                continue;
            };
            if only.is_some_and(|(alone, _)| alone != pid) {
                continue;
            }
            let seen = control.seen.entry(pid).or_default();
            let goes = |tid: &i32| only.is_none_or(|(_, alone)| alone == *tid);
            let mut pass = Vec::new();
            for (tid, words) in seen.threads.iter().filter(|(tid, _)| goes(tid)) {
                if let Some(met) = control.met.remove(tid)
                    && met == (words[RIP], words[RSP])
                {
                    pass.push((*tid, met));
                }
            }
            let went = member
                .set_breakpoints(&control.traps(pid))
                .and_then(|_| member.set_watchpoints(control.points.watches(pid)))
                .and_then(|()| {
                    let pass = pass.iter().map(|(tid, _)| *tid).collect();
                    member.go(only.map(|(_, tid)| tid), pass)
                });
            match went {
                Ok(went) => {
                    let left = pass.into_iter().filter(|(tid, _)| went.left.contains(tid));
                    control.met.extend(left);
                    control.note = went.shared.map(|other| {
                        format!("process {other} shares the memory of {pid}: no breakpoint is in its text as long as it does")
                    });
                }
                // The next event tells what has become of it.
                Err(error) => tracing::warn!(pid, %error, "let go"),
            }
        }
        control.halted = only.is_some();
        self.figures().paused = false;
        Ok(())
    }

    /// What is set has changed.
    fn rearm(&mut self) -> Result<(), Refusal> {
        if self.group.is_none() || self.figures().dead || self.control.halted {
            return Ok(()); // It is seen to when they go on.
        }
        if self.control.points.any_enabled() {
            self.halt()?;
            self.sort_out_hits();
            return self.go_on_with(Vec::new());
        }
        self.end_control()
    }

    /// Nothing is set, and nobody waits: as if it had never been controlled.
    fn end_control(&mut self) -> Result<(), Refusal> {
        self.control.journey = None;
        self.control.met.clear();
        let group = self.group.as_mut().ok_or_else(nothing_attached)?;
        let pids: Vec<i32> = group.members().iter().map(Target::pid).collect();
        for pid in pids {
            if let Some(Err(error)) = group.member(pid).map(Target::end_control) {
                tracing::warn!(pid, %error, "end control");
            }
        }
        // What was met before that is of no interest any more, and would have them seized again.
        self.sort_out_hits();
        self.control
            .later
            .retain(|(_, event)| !matches!(event, Event::Watch { .. }));
        self.control.halted = false;
        self.figures().paused = false;
        if self.group.as_ref().is_some_and(Group::is_stopped)
            && let Some(Err(error)) = self.group.as_mut().map(Group::go_on)
        {
            tracing::warn!(%error, "let go");
        }
        Ok(())
    }

    fn pause(&mut self, pid: Option<i32>) -> Result<Reply, Refusal> {
        let root = self.pids().first().copied().unwrap_or(0);
        let paused = self.control.halted && self.control.journey.is_none();
        if paused {
            if let Some(stop) = self.control.board.untold() {
                return Ok(Reply::Stop(Box::new(stop)));
            }
        } else {
            self.halt()?;
            self.control.journey = None;
            self.sort_out_hits();
        }
        let (mut at, mut tid) = self.control.selected.unwrap_or((root, root));
        if let Some(pid) = pid {
            (at, tid) = (pid, pid);
        }
        if !self.members().iter().any(|m| m.pid() == at) {
            (at, tid) = (root, root);
        }
        let threads = &self.control.seen.entry(at).or_default().threads;
        if !threads.iter().any(|thread| thread.0 == tid) {
            tid = threads.first().map_or(at, |thread| thread.0);
        }
        let stop = self.stand_still(Found::of(at, tid, Reason::Pause))?;
        self.control.board.untold();
        Ok(Reply::Stop(Box::new(stop)))
    }

    /// Events of what threads had met when they were stopped for another reason: they meet it again.
    fn sort_out_hits(&mut self) {
        while let Some(Ok(Some((pid, event)))) = self.group.as_mut().map(Group::event) {
            if !matches!(event, Event::Trap { .. }) {
                self.control.later.push_back((pid, event));
            }
        }
    }

    fn proceed(&mut self, wait: Wait) -> Result<Reply, Refusal> {
        let after = self.control.board.count();
        if wait == Wait::No && !self.control.points.any_enabled() && self.control.later.is_empty() {
            self.end_control()?;
            return Ok(Reply::Runs { after, note: None });
        }
        if !self.control.halted {
            if !self.is_controlled() {
                self.halt()?;
                self.sort_out_hits();
                self.go_on_with(Vec::new())?;
            }
            return Ok(self.runs(after));
        }
        // It has stopped before anybody waited for that.
        if wait != Wait::No
            && self.control.journey.is_none()
            && let Some(stop) = self.control.board.untold()
        {
            return Ok(Reply::Stop(Box::new(stop)));
        }
        self.control.journey = None;
        self.pass_selected();
        self.go_on_with(Vec::new())?;
        Ok(self.runs(after))
    }

    fn runs(&self, after: u64) -> Reply {
        Reply::Runs {
            after,
            note: self.control.note.clone(),
        }
    }

    /// Whoever goes on from a breakpoint does not stop at it at once.
    fn pass_selected(&mut self) {
        if let Some((pid, tid)) = self.control.selected
            && let Some(words) = self.control.seen.get(&pid).and_then(|seen| seen.words(tid))
        {
            self.control.met.insert(tid, (words[RIP], words[RSP]));
        }
    }

    fn load(&mut self, pid: i32) {
        let member = self.group.as_ref().map_or(&[][..], Group::members);
        if let Some(target) = member.iter().find(|m| m.pid() == pid) {
            self.control.load(target);
        }
    }

    fn with_live<T>(
        &self,
        pid: i32,
        look: impl FnOnce(&Live<'_>, &introspect::Program) -> T,
    ) -> Option<T> {
        let target = self.members().iter().find(|m| m.pid() == pid)?;
        let seen = self.control.seen.get(&pid)?;
        let program = self.control.programs.get(&pid)?;
        Some(look(&Live { target, seen }, program))
    }

    /// Is what happens to processes told to clients?
    pub(super) fn tells(&self) -> bool {
        self.is_controlled()
    }

    /// All stand still: a checkpoint is taken, and clients are told.
    fn stand_still(&mut self, found: Found) -> Result<Stop, Refusal> {
        let Found { pid, tid, .. } = found;
        self.control.journey = None;
        self.control.paces = false;
        self.load(pid);
        let taken = self.take(How {
            // Steps are many: they thin out as other checkpoints do.
            name: (found.reason != Reason::Step).then(|| found.reason.name().to_owned()),
            explicit: found.reason == Reason::Pause,
            event: Some(events::stop(tid)),
            ..How::default()
        });
        let (epoch, trouble) = match taken {
            Ok(taken) => (Some(taken.epoch), None),
            Err(error) => (None, Some(format!("no checkpoint was taken: {error}"))),
        };
        let frame = self.with_live(pid, |live, program| {
            live.frames(program, tid, 1).into_iter().next()
        });
        let frame = frame.flatten();
        let pc = self
            .control
            .seen
            .get(&pid)
            .and_then(|seen| seen.pc(tid))
            .unwrap_or(0);
        let stop = Stop {
            partition: self.history.name().to_owned(),
            state: State::Stopped,
            reason: Some(found.reason),
            epoch,
            pid,
            tid,
            number: found.number,
            pc,
            function: frame.as_ref().and_then(|frame| frame.function.clone()),
            line: frame
                .as_ref()
                .and_then(|frame| frame.line)
                .filter(|line| *line != 0),
            file: frame.and_then(|frame| frame.file),
            old: found.old,
            new: found.new,
            value: found.value,
            status: found.status,
            note: found.note.or(trouble),
        };
        if let Some(number) = found.number
            && self
                .control
                .points
                .get(number)
                .is_ok_and(|point| point.shown.temporary)
        {
            self.control.points.remove(number)?;
        }
        self.control.selected = Some((pid, tid));
        self.figures().paused = true;
        self.control.board.announce(stop.clone());
        Ok(stop)
    }

    /// A keeper was killed and another one has taken its place: what was set is set again.
    pub(super) fn control_again(&mut self) {
        if !(self.control.halted || self.control.points.any_enabled()) {
            return;
        }
        let paused = self.control.halted && self.control.journey.is_none();
        self.control.journey = None;
        self.control.met.clear();
        let again = self.halt().and_then(|()| {
            if !paused {
                return self.go_on_with(Vec::new());
            }
            let (pid, tid) = self.control.selected.ok_or_else(nothing_attached)?;
            let mut found = Found::of(pid, tid, Reason::Pause);
            found.note = Some(
                "its keeper was killed: it ran on until another one had stopped it".to_owned(),
            );
            self.stand_still(found).map(drop)
        });
        if let Err(refusal) = again {
            tracing::warn!(error = refusal.message, "control again");
        }
    }

    /// After a rewind of processes that stood still: they do, elsewhere.
    pub(super) fn control_rewound(&mut self) {
        self.control.journey = None;
        self.control.met.clear();
        if !self.control.halted {
            return;
        }
        match self.halt() {
            Ok(()) => {
                let here = |(pid, tid): &(i32, i32)| {
                    self.control
                        .seen
                        .get(pid)
                        .is_some_and(|seen| seen.words(*tid).is_some())
                };
                if !self.control.selected.as_ref().is_some_and(here) {
                    self.control.selected = self.pids().first().map(|pid| (*pid, *pid));
                }
            }
            Err(refusal) => tracing::warn!(error = refusal.message, "look after a rewind"),
        }
    }
}
