//! What the worker does to control its processes: the acts that clients ask for, and what threads meet.

use std::time::Instant;

use libsls::control::{Act, Breakpoint, Reason, State, Stop, Wait, What};
use libsls::protocol::Failure;
use sls_engine::control::Stepped;
use sls_engine::{Event, Group, Target, procfs};

use super::{How, Reply, Work, nothing_attached};
use crate::control::journey::{ALONE, Goal, Journey, Next, sp};
use crate::control::live::{Live, RIP, RSP};
use crate::control::points::{Watched, context, holds, located, value_of};
use crate::events;
use crate::registry::Refusal;

/// Instructions that are executed before others are heard.
const PACES: usize = 500;

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

    fn set_out(
        &mut self,
        pid: Option<i32>,
        tid: Option<i32>,
        goal: Goal,
        count: u32,
    ) -> Result<Reply, Refusal> {
        if !self.control.halted || self.control.journey.is_some() {
            return Err(Refusal::new(
                Failure::Usage,
                format!(
                    "it is running: stop it first, `slsctl pause -o {}`",
                    self.history.name()
                ),
            ));
        }
        let (at, tid) = self.thread(pid, tid)?;
        let after = self.control.board.count();
        self.control.selected = Some((at, tid));
        self.pass_selected();
        self.load(at);
        let journey = self.with_live(at, |live, program| match goal {
            Goal::Finish => Journey::finish(live, program, tid, count),
            step => Journey::step(live, program, tid, step, count),
        });
        let journey = journey.flatten().ok_or_else(|| {
            let message = format!("thread {tid} has no frame to come back to: nobody called it");
            Refusal::new(Failure::Other, message)
        })?;
        let next = self.with_live(at, |live, _| {
            let mut journey = journey;
            let next = journey.set_out(live);
            (journey, next)
        });
        let (journey, next) = next.ok_or_else(nothing_attached)?;
        self.travel(journey, next)?;
        Ok(self.runs(after))
    }

    /// The process and thread that is meant.
    fn thread(&self, pid: Option<i32>, tid: Option<i32>) -> Result<(i32, i32), Refusal> {
        let seen = &self.control.seen;
        if let Some(tid) = tid {
            let has = |pid: &i32| seen[pid].words(tid).is_some();
            let found = seen.keys().find(|pid| has(pid)).map(|pid| (*pid, tid));
            return found.ok_or_else(|| {
                Refusal::new(
                    Failure::NotFound,
                    format!("there is no thread {tid}; `slsctl threads` lists them"),
                )
            });
        }
        match (pid, self.control.selected) {
            (None, Some(selected)) => Ok(selected),
            (Some(pid), Some(selected)) if selected.0 == pid => Ok(selected),
            (Some(pid), _) if seen.contains_key(&pid) => Ok((pid, pid)),
            _ => Err(nothing_attached()),
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

    /// A journey goes on from a standstill.
    fn travel(&mut self, mut journey: Journey, mut next: Next) -> Result<(), Refusal> {
        let (pid, tid) = (journey.pid, journey.tid);
        for _ in 0..PACES {
            match next {
                Next::Arrived => return self.at_its_end(journey),
                Next::Run => {
                    let alone = (!journey.all).then_some((pid, tid));
                    journey.until = alone.map(|_| Instant::now() + ALONE);
                    self.control.journey = Some(journey);
                    return self.go(alone);
                }
                Next::Instruction => {}
            }
            let before = self
                .control
                .seen
                .get(&pid)
                .and_then(|seen| seen.pc(tid))
                .unwrap_or(0);
            let member = self.group.as_mut().and_then(|group| group.member(pid));
            let stepped = member.ok_or_else(nothing_attached)?.step(tid);
            match stepped.map_err(Refusal::other)? {
                Stepped::Done { regs, slots } => {
                    self.control.seen.entry(pid).or_default().set(tid, *regs);
                    self.control.met.remove(&tid);
                    if slots != 0
                        && let Some(found) = self.watched(pid, tid, slots)
                    {
                        return self.stand_still(found).map(drop);
                    }
                    next = self
                        .with_live(pid, |live, program| journey.executed(live, program, before))
                        .ok_or_else(nothing_attached)?;
                }
                Stepped::Signal(signal) if is_fatal(pid, signal) => {
                    let mut found = Found::of(pid, tid, Reason::Signal);
                    found.status = Some(signal);
                    return self.stand_still(found).map(drop);
                }
                Stepped::Signal(_) => {
                    journey.again = Some(before);
                    next = Next::Run;
                }
                Stepped::Blocked => {
                    let code =
                        self.with_live(pid, |live, _| introspect::flow::step_at(live, before));
                    let after = code.flatten().map_or(before, |code| code.next);
                    journey.waits = Some((before, after));
                    journey.until = Some(Instant::now() + ALONE);
                    self.control.journey = Some(journey);
                    return Ok(());
                }
                Stepped::Ended => {
                    self.control.journey = None;
                    return self.go_on_with(Vec::new());
                }
            }
        }
        self.control.journey = Some(journey);
        self.control.paces = true;
        Ok(())
    }

    /// Goes on with a journey by single instructions.
    pub(super) fn pace(&mut self) {
        if !std::mem::take(&mut self.control.paces) {
            return;
        }
        if let Some(journey) = self.control.journey.take()
            && let Err(refusal) = self.travel(journey, Next::Instruction)
        {
            tracing::warn!(error = refusal.message, "step");
        }
    }

    fn at_its_end(&mut self, journey: Journey) -> Result<(), Refusal> {
        let (pid, tid) = (journey.pid, journey.tid);
        let mut found = Found::of(pid, tid, journey.reason());
        if journey.goal == Goal::Finish {
            found.value = self
                .with_live(pid, |live, program| {
                    let words = live.seen.words(tid)?;
                    program.returned(
                        live,
                        journey.leaves,
                        &introspect::Registers::from_user(words),
                    )
                })
                .flatten();
        }
        // Who steps onto a breakpoint has met it.
        let at = self
            .control
            .seen
            .get(&pid)
            .and_then(|seen| seen.words(tid))
            .copied();
        if let Some(words) = at
            && let Some(met) = self.met_point(pid, tid, words[RIP])
        {
            self.control.met.insert(tid, (words[RIP], words[RSP]));
            found = Found {
                value: found.value,
                ..met
            };
        }
        self.stand_still(found).map(drop)
    }

    /// The point that a thread has met at an address, if its condition holds; it is counted.
    fn met_point(&mut self, pid: i32, tid: i32, pc: u64) -> Option<Found> {
        let target = self
            .group
            .as_ref()?
            .members()
            .iter()
            .find(|m| m.pid() == pid)?;
        let control = &mut self.control;
        let live = Live {
            target,
            seen: control.seen.get(&pid)?,
        };
        let program = control.programs.get(&pid)?;
        let mut found: Option<Found> = None;
        for point in control.points.iter_mut() {
            let shown = &mut point.shown;
            let here = |at: &libsls::control::Location| at.pid == pid && at.address == pc;
            if !shown.enabled
                || point.watched.is_some()
                || shown.tid.is_some_and(|wanted| wanted != tid)
                || !shown.locations.iter().any(here)
            {
                continue;
            }
            let truth = match &shown.condition {
                None => Ok(true),
                Some(condition) => holds(program, &live, tid, condition),
            };
            if truth == Ok(false) {
                continue;
            }
            shown.hits += 1;
            if found.is_none() {
                let mut one = Found::of(pid, tid, Reason::Breakpoint);
                one.number = Some(shown.number);
                one.note = truth.err().map(|why| format!("condition: {why}"));
                found = Some(one);
            }
        }
        found
    }

    /// The watchpoint that a thread has met, if something has changed and its condition holds.
    fn watched(&mut self, pid: i32, tid: i32, slots: u8) -> Option<Found> {
        let target = self
            .group
            .as_ref()?
            .members()
            .iter()
            .find(|m| m.pid() == pid)?;
        let control = &mut self.control;
        let live = Live {
            target,
            seen: control.seen.get(&pid)?,
        };
        let program = control.programs.get(&pid)?;
        let mut found: Option<Found> = None;
        for point in control.points.iter_mut() {
            let (shown, Some(watched)) = (&mut point.shown, &mut point.watched) else {
                continue;
            };
            let hit = |w: &sls_engine::control::Watch| slots & 1 << w.slot != 0;
            if !shown.enabled || watched.pid != pid || !watched.slots.iter().any(hit) {
                continue;
            }
            if let Some((of, end)) = watched.frame
                && (of == tid && sp(&live, tid) > end)
            {
                shown.enabled = false;
                shown.trouble = Some("the frame it was a variable of has ended".to_owned());
                continue;
            }
            let place = (watched.address, watched.len);
            let (bytes, text) = value_of(program, &live, tid, &shown.expr, place);
            let changed = bytes != watched.bytes;
            let old = std::mem::replace(&mut watched.text, text.clone());
            watched.bytes = bytes;
            if !(changed || watched.reads) || shown.tid.is_some_and(|wanted| wanted != tid) {
                continue;
            }
            let truth = match &shown.condition {
                None => Ok(true),
                Some(condition) => holds(program, &live, tid, condition),
            };
            if truth == Ok(false) {
                continue;
            }
            shown.hits += 1;
            if found.is_none() {
                let mut one = Found::of(pid, tid, Reason::Watchpoint);
                one.number = Some(shown.number);
                one.old = Some(old);
                one.new = Some(text);
                one.note = truth.err().map(|why| format!("condition: {why}"));
                found = Some(one);
            }
        }
        found
    }

    /// A thread has met something.
    pub(super) fn heed_hit(&mut self, pid: i32, event: Event) {
        if let Err(refusal) = self.hit(pid, event) {
            tracing::warn!(pid, error = refusal.message, "a breakpoint");
        }
    }

    fn hit(&mut self, pid: i32, event: Event) -> Result<(), Refusal> {
        self.halt()?;
        let mut hits = vec![(pid, event)];
        while let Some(Ok(Some((pid, event)))) = self.group.as_mut().map(Group::event) {
            match event {
                Event::Trap { .. } | Event::Watch { .. } => hits.push((pid, event)),
                other => self.control.later.push_back((pid, other)),
            }
        }
        self.go_on_with(hits)
    }

    /// Judges what was met, while all stand still: they stay so, or go on.
    fn go_on_with(&mut self, hits: Vec<(i32, Event)>) -> Result<(), Refusal> {
        let mut found = None;
        let mut arrived = None;
        for (pid, event) in hits {
            if !self.control.programs.contains_key(&pid) {
                self.load(pid);
            }
            match event {
                Event::Trap { tid, regs } => {
                    let at = (regs[RIP], regs[RSP]);
                    if self.control.met.get(&tid) == Some(&at) {
                        continue; // A signal came before it could get past.
                    }
                    if found.is_some() {
                        continue; // It meets it again.
                    }
                    let travels = self
                        .control
                        .journey
                        .as_ref()
                        .filter(|j| (j.pid, j.tid) == (pid, tid));
                    let is_there =
                        travels.is_some_and(|j| j.waits.is_some() || j.places().contains(&at.0));
                    found = self.met_point(pid, tid, at.0);
                    self.control.met.insert(tid, at);
                    if found.is_none() && is_there {
                        arrived = Some(());
                    }
                }
                Event::Watch { tid, slots, regs } => {
                    let seen = self.control.seen.entry(pid).or_default();
                    let now = seen.words(tid).copied();
                    seen.set(tid, *regs);
                    let watched = self.watched(pid, tid, slots);
                    match (watched, &found) {
                        (Some(watched), None) => found = Some(watched),
                        // It has run on since then, or another one is told of.
                        _ => {
                            if let Some(now) = now {
                                self.control.seen.entry(pid).or_default().set(tid, now);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        let found = found.or_else(|| self.heed_later());
        if let Some(found) = found {
            return self.stand_still(found).map(drop);
        }
        match self.control.journey.take() {
            Some(mut journey) if arrived.is_some() => {
                let pid = journey.pid;
                let next = self.with_live(pid, |live, program| journey.met(live, program));
                let next = next.unwrap_or(Next::Arrived);
                self.travel(journey, next)
            }
            Some(journey) => self.travel(journey, Next::Run),
            None => self.go(None),
        }
    }

    /// What else came while all were made to stand still. Something that they are to stay so for comes back.
    fn heed_later(&mut self) -> Option<Found> {
        while let Some((pid, event)) = self.control.later.pop_front() {
            match event {
                Event::Fatal { tid, info } => return Some(fatal(pid, tid, &info)),
                Event::Gone { status } => self.heed_gone(pid, status),
                other => self.take_before(&other),
            }
        }
        None
    }

    /// A signal that ends a process comes.
    pub(super) fn heed_fatal(&mut self, pid: i32, tid: i32, info: &[u8]) {
        let found = fatal(pid, tid, info);
        let stopped = self.halt().and_then(|()| {
            self.sort_out_hits();
            self.stand_still(found)
        });
        if let Err(refusal) = stopped {
            tracing::warn!(pid, error = refusal.message, "a fatal signal");
        }
    }

    /// Is what happens to processes told to clients?
    pub(super) fn tells(&self) -> bool {
        self.is_controlled()
    }

    /// Another program has taken a process's place: breakpoints are looked for in it by name.
    pub(super) fn heed_replaced(&mut self, pid: i32) {
        self.control.journey = None;
        self.control.programs.remove(&pid);
        let anew = self.halt().and_then(|()| {
            let member = self.group.as_mut().and_then(|group| group.member(pid));
            let member = member.ok_or_else(nothing_attached)?;
            member.begin_anew().map_err(Refusal::other)?;
            self.load(pid);
            self.find_again(pid);
            self.control.selected = None;
            self.go_on_with(Vec::new())
        });
        if let Err(refusal) = anew {
            tracing::warn!(pid, error = refusal.message, "another program");
        }
    }

    fn find_again(&mut self, pid: i32) {
        let Some(target) = self
            .group
            .as_ref()
            .and_then(|g| g.members().iter().find(|m| m.pid() == pid))
        else {
            return;
        };
        let control = &mut self.control;
        let (Some(seen), Some(program)) = (control.seen.get(&pid), control.programs.get(&pid))
        else {
            return;
        };
        let live = Live { target, seen };
        for point in control.points.iter_mut() {
            let of_it = point.shown.locations.iter().any(|at| at.pid == pid);
            if point
                .watched
                .as_ref()
                .is_some_and(|watched| watched.pid == pid)
            {
                point.shown.enabled = false;
                point.shown.trouble =
                    Some("another program has taken the place of the one it was set in".to_owned());
                continue;
            }
            if !of_it {
                continue;
            }
            point.shown.locations.retain(|at| at.pid != pid);
            let is_number = point.shown.expr.trim_start().starts_with('*');
            let found = (!is_number).then(|| program.addresses_of(&live, &point.shown.expr, None));
            match found {
                Some(Ok(found)) => point.shown.locations.extend(located(program, pid, &found)),
                Some(Err(error)) => point.shown.trouble = Some(error.to_string()),
                None => {
                    point.shown.trouble =
                        Some("an address means nothing in another program".to_owned());
                }
            }
        }
    }

    /// It has ended.
    pub(super) fn heed_gone(&mut self, pid: i32, status: i32) {
        if self.members().first().map(Target::pid) != Some(pid) {
            return;
        }
        let killed = status & 0x7f;
        let stop = Stop {
            partition: self.history.name().to_owned(),
            state: if killed == 0 {
                State::Exited
            } else {
                State::Killed
            },
            reason: Some(if killed == 0 {
                Reason::Exit
            } else {
                Reason::Signal
            }),
            epoch: self.control.end.take(),
            pid,
            tid: pid,
            status: Some(if killed == 0 {
                status >> 8 & 0xff
            } else {
                killed
            }),
            ..Stop::default()
        };
        self.control.journey = None;
        self.control.halted = false;
        self.control.gone = true;
        self.figures().paused = false;
        self.control.board.announce(stop);
    }

    /// A thread that went on alone does not get there: others may be what it waits for.
    pub(super) fn heed_time(&mut self) {
        let due = self
            .control
            .journey
            .as_ref()
            .and_then(|journey| journey.until);
        if due.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let went = self.halt().and_then(|()| {
            let mut hits = Vec::new();
            while let Some(Ok(Some((pid, event)))) = self.group.as_mut().map(Group::event) {
                match event {
                    Event::Trap { .. } | Event::Watch { .. } => hits.push((pid, event)),
                    other => self.control.later.push_back((pid, other)),
                }
            }
            if let Some(journey) = &mut self.control.journey {
                journey.all = true;
                journey.until = None;
            }
            self.go_on_with(hits)
        });
        if let Err(refusal) = went {
            tracing::warn!(error = refusal.message, "a step");
        }
    }

    /// Before somebody else does something to processes of which one thread runs alone: all run.
    pub(super) fn join_alone(&mut self) {
        if self
            .control
            .journey
            .as_ref()
            .is_some_and(|j| j.until.is_some())
        {
            if let Some(journey) = &mut self.control.journey {
                journey.until = Some(Instant::now());
            }
            self.heed_time();
        }
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

    fn add_point(
        &mut self,
        pid: Option<i32>,
        what: What,
        shown: Breakpoint,
    ) -> Result<Reply, Refusal> {
        let runs = !self.control.halted;
        if runs || self.control.journey.is_some() {
            self.join_alone();
            self.halt()?;
        }
        let added = self.look_for(pid, what, shown);
        if runs {
            let mut hits = Vec::new();
            while let Some(Ok(Some((pid, event)))) = self.group.as_mut().map(Group::event) {
                match event {
                    // Set back: it meets it again.
                    Event::Trap { .. } => {}
                    Event::Watch { .. } => hits.push((pid, event)),
                    other => self.control.later.push_back((pid, other)),
                }
            }
            if added.is_err() && !self.control.points.any_enabled() && self.control.later.is_empty()
            {
                self.end_control()?;
            } else {
                self.go_on_with(hits)?;
            }
        }
        Ok(Reply::Points(vec![added?]))
    }

    fn look_for(
        &mut self,
        pid: Option<i32>,
        what: What,
        mut shown: Breakpoint,
    ) -> Result<Breakpoint, Refusal> {
        let pids: Vec<i32> = match pid {
            Some(pid) => vec![pid],
            None => self.pids(),
        };
        pids.iter().for_each(|pid| self.load(*pid));
        if let (Some(condition), Some(&pid)) = (&shown.condition, pids.first())
            && let Some(Err(error)) = self.with_live(pid, |_, program| program.check(condition))
        {
            return Err(Refusal::new(
                Failure::Usage,
                format!("condition {condition}: {error}"),
            ));
        }
        match what {
            What::Place(place) => {
                let mut failed = None;
                for &pid in &pids {
                    let file = self.current_file(pid);
                    let found = self.with_live(pid, |live, program| {
                        let found = program.addresses_of(live, &place, file.as_deref())?;
                        let mapped = |address: &u64| {
                            let mut byte = [0];
                            live.target.memory().read_at(*address, &mut byte).is_ok()
                        };
                        let found: Vec<u64> = found.into_iter().filter(mapped).collect();
                        Ok(located(program, pid, &found))
                    });
                    match found.ok_or_else(nothing_attached)? {
                        Ok(found) => shown.locations.extend(found),
                        Err(error @ introspect::PlaceError::Malformed(_)) => {
                            return Err(Refusal::new(Failure::Usage, error.to_string()));
                        }
                        Err(error) => failed = Some(error),
                    }
                }
                if shown.locations.is_empty() {
                    let why = failed.map_or_else(
                        || format!("nothing is mapped at {place}"),
                        |e: introspect::PlaceError| e.to_string(),
                    );
                    return Err(Refusal::new(Failure::NotFound, why));
                }
                shown.expr = place;
                self.control.points.add(shown, None)
            }
            What::Value { expr, reads } => {
                self.look_for_value(pids.first().copied().unwrap_or(0), expr, reads, shown)
            }
        }
    }

    fn current_file(&self, pid: i32) -> Option<String> {
        let (at, tid) = self.control.selected.filter(|(at, _)| *at == pid)?;
        let frame = self.with_live(at, |live, program| {
            live.frames(program, tid, 1).into_iter().next()
        });
        frame.flatten()?.file
    }

    fn look_for_value(
        &mut self,
        root: i32,
        expr: String,
        reads: bool,
        mut shown: Breakpoint,
    ) -> Result<Breakpoint, Refusal> {
        let (pid, tid) = match self.control.selected {
            Some(selected) if self.control.seen.contains_key(&selected.0) => selected,
            _ => (root, root),
        };
        self.load(pid);
        let held = self.group.as_ref().is_some_and(Group::holds);
        let looked = self.with_live(pid, |live, program| {
            let place = program.place_of(live, &context(tid), &expr)?;
            let frames = live.frames(program, tid, 1);
            let end = frames.first().and_then(|frame| frame.cfa);
            let (bytes, text) = value_of(program, live, tid, &expr, (place.address, place.len));
            let low = sp(live, tid).saturating_sub(128);
            // Of the innermost frame: what lies between its stack pointer and its end.
            let frame = end
                .filter(|end| (low..*end).contains(&place.address))
                .map(|end| (tid, end));
            Ok((place, bytes, text, frame))
        });
        let looked = looked.ok_or_else(nothing_attached)?;
        let (place, bytes, text, frame) = looked.map_err(|error: introspect::ExprError| {
            Refusal::new(Failure::Other, format!("watch {expr}: {error}"))
        })?;
        let slots = self
            .control
            .points
            .slots_for(pid, (place.address, place.len), reads, held)?;
        shown.expr = expr;
        shown.watches = true;
        shown.locations = vec![libsls::control::Location {
            pid,
            address: place.address,
            ..Default::default()
        }];
        let watched = Watched {
            pid,
            address: place.address,
            len: place.len,
            reads,
            bytes,
            text,
            frame,
            slots,
        };
        self.control.points.add(shown, Some(watched))
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

fn fatal(pid: i32, tid: i32, info: &[u8]) -> Found {
    let signal = info
        .first_chunk()
        .map_or(0, |word| i32::from_ne_bytes(*word));
    Found {
        status: Some(signal),
        ..Found::of(pid, tid, Reason::Signal)
    }
}

/// Does a signal end the process? Those with a handler, and those that are nothing by default, do not.
fn is_fatal(pid: i32, signal: i32) -> bool {
    const HARMLESS: [i32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
    let Ok(status) = procfs::status(pid) else {
        return true;
    };
    let bit = 1u64
        .checked_shl(signal.cast_unsigned().wrapping_sub(1))
        .unwrap_or(0);
    (status.sig_caught | status.sig_ignored) & bit == 0 && !HARMLESS.contains(&signal)
}
