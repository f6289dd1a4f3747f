//! Steps: one thread goes on, alone at first, until it is where it was to get.

use std::time::Instant;

use libsls::control::Reason;
use libsls::protocol::Failure;
use sls_engine::control::Stepped;
use sls_engine::{Event, Group, procfs};

use super::{Found, Reply, Work, nothing_attached};
use crate::control::journey::{ALONE, Goal, Journey, Next};
use crate::control::live::{RIP, RSP};
use crate::registry::Refusal;

/// Instructions that are executed before others are heard.
const PACES: usize = 500;

impl Work {
    pub(super) fn set_out(
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

    /// A journey goes on from a standstill.
    pub(super) fn travel(&mut self, mut journey: Journey, mut next: Next) -> Result<(), Refusal> {
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
    pub(in crate::worker) fn pace(&mut self) {
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

    /// A thread that went on alone does not get there: others may be what it waits for.
    pub(in crate::worker) fn heed_time(&mut self) {
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
    pub(in crate::worker) fn join_alone(&mut self) {
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
}

/// One that cannot be asked any more has ended.
fn is_fatal(pid: i32, signal: i32) -> bool {
    procfs::status(pid).map_or(true, |status| status.ends_by(signal))
}
