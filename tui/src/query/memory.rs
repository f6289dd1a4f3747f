//! Memory searched: for values, and for pointers.

use std::collections::BTreeMap;

use introspect::narrowing::{Condition, narrowed};
use introspect::pointers::{in_registers, pointers_to};
use introspect::search::{HIT_LIMIT, Number, Reading, find};
use introspect::{Extent, Named, Reach, View};
use libsls::EpochRef;
use libsls::standing::standing;

use super::{Line, Standpoint, failed};
use crate::access::{Access, AccessError, CORE_EPOCH};
use crate::table::{Lead, Row, Table, left, right};
use crate::turn::{Guarded, Turn};

/// Hits that are shown.
const SHOWN: usize = 10_000;

fn resolved(access: &mut Access, at: &EpochRef) -> Result<u64, AccessError> {
    if access.origin.core.is_some() {
        return Ok(CORE_EPOCH);
    }
    at.resolve(&access.history()?).map_err(failed)
}

/// Places that hold a value, narrowed by what they hold at other checkpoints.
pub fn scan(
    access: &mut Access,
    turn: &Turn,
    (value, kind): (&str, Option<&str>),
    at: &EpochRef,
    then: &[(EpochRef, String)],
) -> Result<Table, AccessError> {
    let kind = kind.unwrap_or(if value.contains('.') { "double" } else { "int" });
    let number = Number::named(kind).ok_or_else(|| {
        failed(format!(
            "no type {kind:?}: write int, long, u8 ... f64 or ptr"
        ))
    })?;
    let no_value = |text: &str| failed(format!("{text:?} is no {kind}"));
    let needle = number.needle(value).ok_or_else(|| no_value(value))?;
    let first = number.reading(value).ok_or_else(|| no_value(value))?;
    let mut epoch = resolved(access, at)?;
    let mut view = access.view(epoch)?;
    let hits = find(&Guarded { view: &*view, turn }, &needle);
    turn.check()?;
    let cut = hits.len() >= HIT_LIMIT;
    let mut left_over: BTreeMap<u64, Reading> = hits.into_iter().map(|at| (at, first)).collect();
    for (at, condition) in then {
        let condition = Condition::parse(number, condition).ok_or_else(|| no_value(condition))?;
        epoch = resolved(access, at)?;
        view = access.view(epoch)?;
        left_over = narrowed(
            &Guarded { view: &*view, turn },
            number,
            &left_over,
            condition,
        );
        turn.check()?;
    }
    let program = access.origin.shelf.of(&*view).program;
    let view = Guarded { view: &*view, turn };
    let reach = Reach::of(&program, &view);
    turn.check()?;
    let mut rows: Vec<(bool, Row)> = Vec::new();
    for (address, reading) in left_over.iter().take(SHOWN) {
        let named = Named::of(&program, &view, &reach, *address);
        let value = match reading {
            Reading::Integer(number) => number.to_string(),
            Reading::Float(number) => number.to_string(),
        };
        let row = Row::new([
            named.text(),
            named.type_name.clone().unwrap_or_default(),
            format!("{address:#x}"),
            value,
        ]);
        let lead = Lead::Address(*address, Some(epoch));
        rows.push((named.path.is_none(), row.leading(lead)));
    }
    // What has a name comes first.
    rows.sort_by_key(|(unnamed, _)| *unnamed);
    let more = left_over.len().saturating_sub(rows.len());
    let more = match more {
        0 => String::new(),
        more => format!(", {more} not shown"),
    };
    Ok(Table {
        title: format!("scan {value} ({kind}) at @{epoch}"),
        columns: vec![left("NAME"), left("TYPE"), left("AT"), left("VALUE")],
        note: Some(format!(
            "{}{} found{more}; narrow it: `:scan {value} {kind} then @N changed`",
            left_over.len(),
            if cut { " or more" } else { "" }
        )),
        rows: rows.into_iter().map(|(_, row)| row).collect(),
    })
}

/// The address that a text is, where it is one.
fn address(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()
}

/// Who points at an object; along the line, since and until when.
pub fn refs(
    access: &mut Access,
    turn: &Turn,
    from: &Standpoint,
    expr: &str,
    along: bool,
) -> Result<Table, AccessError> {
    let view = access.view(from.epoch)?;
    let program = access.origin.shelf.of(&*view).program;
    let view = Guarded { view: &*view, turn };
    let reach = Reach::of(&program, &view);
    turn.check()?;
    let object = match address(expr) {
        Some(address) => Extent::around(&reach, address),
        None => program
            .extent(&view, &from.context(), expr)
            .map_err(failed)?,
    };
    let named = |address: u64| Named::of(&program, &view, &reach, address);
    let row = |address: u64, value: u64, when: String, epoch: u64| {
        let named = named(address);
        Row::new([
            named.text(),
            named.type_name.unwrap_or_default(),
            format!("{address:#x}"),
            format!("+{}", value.wrapping_sub(object.address)),
            when,
        ])
        .leading(Lead::Address(address, Some(epoch)))
    };
    let mut rows: Vec<Row> = if along {
        let epochs = Line::open(access, from.pid, (0, from.epoch))?.epochs();
        turn.expect(epochs.len());
        let (client, part) = (access.client()?, access.origin.part.clone());
        let stood = standing(&client, &part, from.pid, &epochs, &object, &mut || {
            turn.step()
        })?;
        turn.check()?;
        let each = stood.iter().map(|stood| {
            let when = format!("@{}..@{}", stood.from, stood.until);
            row(stood.address, stood.value, when, stood.from)
        });
        each.collect()
    } else {
        let each = pointers_to(&view, &object).into_iter();
        each.map(|(address, value)| row(address, value, String::new(), from.epoch))
            .collect()
    };
    if !along {
        let registers = in_registers(&view.threads(), &object);
        rows.extend(registers.into_iter().map(|(tid, name, value)| {
            Row::new([
                format!("thread({tid}).${name}"),
                String::new(),
                String::new(),
                format!("+{}", value.wrapping_sub(object.address)),
                String::new(),
            ])
        }));
    }
    let note = rows.is_empty().then(|| "nothing points at it".to_owned());
    Ok(Table {
        title: format!(
            "refs {expr}: {} at {:#x}, {} bytes",
            object.type_name, object.address, object.len
        ),
        columns: vec![
            left("POINTER"),
            left("TYPE"),
            left("AT"),
            right("TO"),
            left("WHEN"),
        ],
        rows,
        note,
    })
}
