//! What threads meet, and what becomes of processes: judged while all stand still.

use introspect::Program;
use libsls::control::{Breakpoint, Reason, State, Stop};
use sls_engine::{Event, Group, Target};

use super::{Found, Work, nothing_attached};
use crate::control::journey::{Next, sp};
use crate::control::live::{Live, RIP, RSP};
use crate::control::points::{Points, holds, located, value_of};
use crate::registry::Refusal;

/// Counts a point that is met, unless its condition says no; with what is to be known of the condition.
fn counted(
    shown: &mut Breakpoint,
    program: &Program,
    live: &Live<'_>,
    tid: i32,
) -> Option<Option<String>> {
    let condition = shown.condition.as_ref();
    let truth = condition.map_or(Ok(true), |condition| holds(program, live, tid, condition));
    if truth == Ok(false) {
        return None;
    }
    shown.hits += 1;
    Some(truth.err().map(|why| format!("condition: {why}")))
}

impl Work {
    /// A process as it stands, and what may be met in it.
    fn judges(&mut self, pid: i32) -> Option<(Live<'_>, &Program, &mut Points)> {
        let mut members = self.group.as_ref()?.members().iter();
        let target = members.find(|m| m.pid() == pid)?;
        let control = &mut self.control;
        let seen = control.seen.get(&pid)?;
        let program = control.programs.get(&pid)?;
        Some((Live { target, seen }, program, &mut control.points))
    }

    /// The point that a thread has met at an address, if its condition holds; it is counted.
    pub(super) fn met_point(&mut self, pid: i32, tid: i32, pc: u64) -> Option<Found> {
        let (live, program, points) = self.judges(pid)?;
        let mut found: Option<Found> = None;
        for point in points.iter_mut() {
            let shown = &mut point.shown;
            let here = |at: &libsls::control::Location| at.pid == pid && at.address == pc;
            if !shown.enabled
                || point.watched.is_some()
                || shown.tid.is_some_and(|wanted| wanted != tid)
                || !shown.locations.iter().any(here)
            {
                continue;
            }
            let Some(note) = counted(shown, program, &live, tid) else {
                continue;
            };
            if found.is_none() {
                let mut one = Found::of(pid, tid, Reason::Breakpoint);
                one.number = Some(shown.number);
                one.note = note;
                found = Some(one);
            }
        }
        found
    }

    /// The watchpoint that a thread has met, if something has changed and its condition holds.
    pub(super) fn watched(&mut self, pid: i32, tid: i32, slots: u8) -> Option<Found> {
        let (live, program, points) = self.judges(pid)?;
        let mut found: Option<Found> = None;
        for point in points.iter_mut() {
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
            let Some(note) = counted(shown, program, &live, tid) else {
                continue;
            };
            if found.is_none() {
                let mut one = Found::of(pid, tid, Reason::Watchpoint);
                one.number = Some(shown.number);
                one.old = Some(old);
                one.new = Some(text);
                one.note = note;
                found = Some(one);
            }
        }
        found
    }

    /// A thread has met something.
    pub(in crate::worker) fn heed_hit(&mut self, pid: i32, event: Event) {
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
    pub(super) fn go_on_with(&mut self, hits: Vec<(i32, Event)>) -> Result<(), Refusal> {
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
    pub(in crate::worker) fn heed_fatal(&mut self, pid: i32, tid: i32, info: &[u8]) {
        let found = fatal(pid, tid, info);
        let stopped = self.halt().and_then(|()| {
            self.sort_out_hits();
            self.stand_still(found)
        });
        if let Err(refusal) = stopped {
            tracing::warn!(pid, error = refusal.message, "a fatal signal");
        }
    }

    /// It has ended.
    pub(in crate::worker) fn heed_gone(&mut self, pid: i32, status: i32) {
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

    /// Another program has taken a process's place: breakpoints are looked for in it by name.
    pub(in crate::worker) fn heed_replaced(&mut self, pid: i32) {
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
