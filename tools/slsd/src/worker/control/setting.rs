//! Breakpoints and watchpoints are set: places and values are looked for, while all stand still.

use libsls::control::{Breakpoint, What};
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
}
