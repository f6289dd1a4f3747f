//! Breakpoints and watchpoints are set: places and values are looked for, while all stand still.

use introspect::PlaceError;
use libsls::control::{Breakpoint, Location, What};
use libsls::protocol::Failure;
use sls_engine::{Event, Group};

use super::{Reply, Work, nothing_attached};
use crate::control::journey::sp;
use crate::control::points::{Watched, context, located, value_of};
use crate::registry::Refusal;

impl Work {
    pub(super) fn add_point(
        &mut self,
        pid: Option<i32>,
        what: What,
        shown: Breakpoint,
    ) -> Result<Reply, Refusal> {
        let runs = !self.control.halted;
        if runs {
            self.rehearse(pid, &what, shown.condition.as_deref())?;
        }
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

    /// Looks for it while they run: so that debug information is read before they stand still for it, and
    /// that nobody does for what is nowhere.
    fn rehearse(
        &mut self,
        pid: Option<i32>,
        what: &What,
        condition: Option<&str>,
    ) -> Result<(), Refusal> {
        let pids = self.meant(pid);
        self.check_condition(&pids, condition)?;
        match what {
            What::Place(place) => self.places_of(&pids, place).map(drop),
            What::Value { expr, .. } => {
                let pid = self.watched_in(&pids).0;
                // Of a frame it is only known once that stands still.
                self.with_live(pid, |live, program| {
                    program.place_of(live, &context(pid), expr).map(drop)
                });
                Ok(())
            }
        }
    }

    /// The processes that are meant, with their programs loaded.
    fn meant(&mut self, pid: Option<i32>) -> Vec<i32> {
        let pids = pid.map_or_else(|| self.pids(), |pid| vec![pid]);
        pids.iter().for_each(|pid| self.load(*pid));
        pids
    }

    fn check_condition(&self, pids: &[i32], condition: Option<&str>) -> Result<(), Refusal> {
        let (Some(condition), Some(&pid)) = (condition, pids.first()) else {
            return Ok(());
        };
        let checked = self.with_live(pid, |_, program| program.check(condition));
        checked.unwrap_or(Ok(())).map_err(|error| {
            Refusal::new(Failure::Usage, format!("condition {condition}: {error}"))
        })
    }

    /// Where a place is in each of the processes.
    fn places_of(&self, pids: &[i32], place: &str) -> Result<Vec<Location>, Refusal> {
        let (mut all, mut failed) = (Vec::new(), None);
        for &pid in pids {
            let file = self.current_file(pid);
            let found = self.with_live(pid, |live, program| {
                let found = program.addresses_of(live, place, file.as_deref())?;
                let mapped = |address: &u64| {
                    let mut byte = [0];
                    live.target.memory().read_at(*address, &mut byte).is_ok()
                };
                let found: Vec<u64> = found.into_iter().filter(mapped).collect();
                Ok(located(program, pid, &found))
            });
            match found.ok_or_else(nothing_attached)? {
                Ok(found) => all.extend(found),
                Err(error @ PlaceError::Malformed(_)) => {
                    return Err(Refusal::new(Failure::Usage, error.to_string()));
                }
                Err(error) => failed = Some(error),
            }
        }
        if all.is_empty() {
            let why = failed.map_or_else(
                || format!("nothing is mapped at {place}"),
                |error: PlaceError| error.to_string(),
            );
            return Err(Refusal::new(Failure::NotFound, why));
        }
        Ok(all)
    }

    /// The process and thread of which a watched expression is.
    fn watched_in(&self, pids: &[i32]) -> (i32, i32) {
        let root = pids.first().copied().unwrap_or(0);
        match self.control.selected {
            Some(selected) if self.control.seen.contains_key(&selected.0) => selected,
            _ => (root, root),
        }
    }

    fn look_for(
        &mut self,
        pid: Option<i32>,
        what: What,
        mut shown: Breakpoint,
    ) -> Result<Breakpoint, Refusal> {
        let pids = self.meant(pid);
        self.check_condition(&pids, shown.condition.as_deref())?;
        match what {
            What::Place(place) => {
                shown.locations = self.places_of(&pids, &place)?;
                shown.expr = place;
                self.control.points.add(shown, None)
            }
            What::Value { expr, reads } => {
                self.look_for_value(self.watched_in(&pids), expr, reads, shown)
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
        (pid, tid): (i32, i32),
        expr: String,
        reads: bool,
        mut shown: Breakpoint,
    ) -> Result<Breakpoint, Refusal> {
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
        shown.locations = vec![Location {
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
}
