//! One expression along a history: its values, where it turned, since when its parts are what they are.

use introspect::{bisect, blame, timeline};
use libsls::EpochRef;

use super::{Line, Standpoint, failed};
use crate::access::{Access, AccessError};
use crate::table::{Lead, Row, Sign, Table, left, right};
use crate::text::seconds;
use crate::turn::Turn;

/// The value at every checkpoint of the line looked at.
pub fn along(
    access: &mut Access,
    turn: &Turn,
    from: &Standpoint,
    expr: &str,
    changes: bool,
    range: Option<&(EpochRef, EpochRef)>,
) -> Result<Table, AccessError> {
    let ends = match range {
        Some((first, last)) => {
            let history = access.history()?;
            let end = |end: &EpochRef| end.resolve(&history).map_err(failed);
            (end(first)?, end(last)?)
        }
        None => (0, from.newest.max(from.epoch)),
    };
    let line = Line::open(access, from.pid, ends)?;
    turn.expect(line.epochs().len());
    let counted = line.counted(turn);
    let programs = &access.origin.shelf.programs;
    let answer = timeline(
        programs,
        &counted,
        &from.context(),
        expr,
        ends.0..=ends.1,
        changes,
    );
    turn.check()?;
    let answer = answer.map_err(failed)?;
    let start = answer.rows.first().map_or(0, |row| row.time);
    let mut last: Option<&str> = None;
    let rows = answer.rows.iter().map(|row| {
        let turns = last.replace(&row.text).is_some_and(|last| last != row.text);
        Row::new([
            format!("@{}", row.epoch),
            format!("+{}", seconds(row.time.saturating_sub(start))),
            row.text.clone(),
        ])
        .leading(Lead::Epoch(row.epoch))
        .signed(if turns { Sign::Changed } else { Sign::Same })
    });
    let type_name = match answer.type_name.as_str() {
        "" => String::new(),
        name => format!(": {name}"),
    };
    Ok(Table {
        title: format!("timeline {expr}{type_name}"),
        columns: vec![left("EPOCH"), right("TIME"), left("VALUE")],
        rows: rows.collect(),
        note: Some(format!(
            "evaluated at {} of {} checkpoints",
            answer.evaluations,
            line.epochs().len()
        )),
    })
}

/// The first checkpoint on the way at which a condition has turned.
pub fn turned(
    access: &mut Access,
    turn: &Turn,
    from: &Standpoint,
    expr: &str,
    (good, bad): (&EpochRef, &EpochRef),
) -> Result<Table, AccessError> {
    let history = access.history()?;
    let ends = (
        good.resolve(&history).map_err(failed)?,
        bad.resolve(&history).map_err(failed)?,
    );
    let line = Line::between(access, from.pid, ends)?
        .ok_or_else(|| failed(format!("nothing leads from @{} to @{}", ends.0, ends.1)))?;
    let counted = line.counted(turn);
    let programs = &access.origin.shelf.programs;
    let found = bisect(programs, &counted, &from.context(), expr, &line.epochs());
    turn.check()?;
    let found = found.map_err(failed)?;
    let row = |epoch: u64, what: &str, text: &str| {
        Row::new([format!("@{epoch}"), what.to_owned(), text.to_owned()])
            .leading(Lead::Epoch(epoch))
    };
    let mut rows = vec![
        row(found.first_bad, "first bad", &found.bad.text).signed(Sign::Changed),
        row(found.last_good, "last good", &found.good.text),
    ];
    let untold = found.untold.iter();
    rows.extend(untold.map(|epoch| row(*epoch, "cannot be told", "")));
    Ok(Table {
        title: format!("bisect {expr}"),
        columns: vec![left("EPOCH"), left("IS"), left("VALUE")],
        rows,
        note: Some(format!(
            "{} evaluations between the ends",
            found.evaluations
        )),
    })
}

/// Since when each part of a value is what it is.
pub fn since(
    access: &mut Access,
    turn: &Turn,
    from: &Standpoint,
    expr: &str,
) -> Result<Table, AccessError> {
    let line = Line::open(access, from.pid, (0, from.epoch))?;
    turn.expect(line.epochs().len());
    let counted = line.counted(turn);
    let programs = &access.origin.shelf.programs;
    let answer = blame(programs, &counted, &from.context(), expr, 0..=from.epoch);
    turn.check()?;
    let answer = answer.map_err(failed)?;
    let rows = answer.rows.iter().map(|row| {
        let since = row
            .epoch
            .map_or("-".to_owned(), |epoch| format!("@{epoch}"));
        Row {
            lead: row.epoch.map(Lead::Epoch),
            ..Row::new([since, row.path.clone(), row.text.clone()])
        }
    });
    Ok(Table {
        title: format!("blame {expr}, as of @{}", from.epoch),
        columns: vec![left("SINCE"), left("PART"), left("VALUE")],
        rows: rows.collect(),
        note: answer.cut.then(|| "there are more parts".to_owned()),
    })
}
