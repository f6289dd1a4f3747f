//! Two checkpoints compared.

use introspect::census::{by_size, census, growth, total};
use introspect::{Change, Reach};
use libsls::EpochRef;
use libsls::compare::{Pair, differing_pages, pairs, touched, typed_difference};

use super::failed;
use crate::access::{Access, AccessError, Seen};
use crate::table::{Lead, Row, Sign, Table, left, right};
use crate::text::size;
use crate::turn::{Guarded, Turn};

/// Everything that differs: variables, threads, descriptors, mappings, pages.
pub fn differing(
    access: &mut Access,
    turn: &Turn,
    (old, new): (&EpochRef, &EpochRef),
) -> Result<Table, AccessError> {
    let history = access.history()?;
    let (old, new) = (
        old.resolve(&history).map_err(failed)?,
        new.resolve(&history).map_err(failed)?,
    );
    let (before, after) = (access.view(old)?, access.view(new)?);
    let (Seen::Checkpoint(a), Seen::Checkpoint(b)) = (&*before, &*after) else {
        return Err(AccessError::NotInACore("history"));
    };
    turn.check()?;
    let pages = differing_pages(a, b)?;
    turn.check()?;
    let typed = typed_difference(&access.origin.shelf.programs, a, b, &touched(a, b, &pages));
    turn.check()?;
    let mut rows: Vec<Row> = typed.changes.iter().map(variable).collect();
    rows.extend(
        pairs(&a.process().threads, &b.process().threads, |t| t.tid)
            .into_iter()
            .filter_map(|pair| {
                side(
                    "thread",
                    pair,
                    |t| t.tid.to_string(),
                    |t| format!("{} at {:#x}", t.name, t.regs.rip),
                )
            }),
    );
    rows.extend(
        pairs(&a.process().files, &b.process().files, |f| f.fd)
            .into_iter()
            .filter_map(|pair| {
                side(
                    "fd",
                    pair,
                    |f| f.fd.to_string(),
                    |f| format!("{} offset {}", f.target, f.offset),
                )
            }),
    );
    rows.extend(
        pairs(&a.process().mappings, &b.process().mappings, |m| m.start)
            .into_iter()
            .filter_map(|pair| {
                side(
                    "map",
                    pair,
                    |m| format!("{:#x}", m.start),
                    |m| format!("{:#x} {} {}", m.end, m.perms, m.path),
                )
            }),
    );
    let count: u64 = pages.iter().map(|(_, count)| count).sum();
    rows.extend(pages.iter().map(|(start, count)| {
        Row::new([
            "pages".to_owned(),
            format!("{start:#x}"),
            String::new(),
            format!("{count} differ"),
        ])
        .leading(Lead::Address(*start, Some(new)))
        .signed(Sign::Changed)
    }));
    let cut = if typed.cut {
        "; there was too much to compare: more may differ"
    } else {
        ""
    };
    Ok(Table {
        title: format!("diff @{old} @{new}"),
        columns: vec![left("KIND"), left("NAME"), left("WAS"), left("IS")],
        rows,
        note: Some(format!(
            "{} variables differ, {count} pages{cut}",
            typed.changes.len()
        )),
    })
}

fn sign<T>(old: Option<T>, new: Option<T>) -> Sign {
    match (old, new) {
        (None, _) => Sign::Added,
        (_, None) => Sign::Removed,
        _ => Sign::Changed,
    }
}

fn variable(change: &Change) -> Row {
    let text = |value: &Option<introspect::Value>| {
        value
            .as_ref()
            .map(introspect::Value::to_text)
            .unwrap_or_default()
    };
    Row::new([
        "variable".to_owned(),
        change.path.clone(),
        text(&change.old),
        text(&change.new),
    ])
    .signed(sign(change.old.as_ref(), change.new.as_ref()))
}

fn side<T>(
    kind: &str,
    (old, new): Pair<'_, T>,
    key: impl Fn(&T) -> String,
    text: impl Fn(&T) -> String,
) -> Option<Row> {
    let row = Row::new([
        kind.to_owned(),
        key(old.or(new)?),
        old.map(&text).unwrap_or_default(),
        new.map(&text).unwrap_or_default(),
    ]);
    Some(row.signed(sign(old, new)))
}

/// The heap by type; with a base, what has grown since.
pub fn heap(
    access: &mut Access,
    turn: &Turn,
    at: &EpochRef,
    base: Option<&EpochRef>,
) -> Result<Table, AccessError> {
    let (at, base) = if access.origin.core.is_some() {
        (crate::access::CORE_EPOCH, None)
    } else {
        let history = access.history()?;
        let epoch = |at: &EpochRef| at.resolve(&history).map_err(failed);
        (epoch(at)?, base.map(epoch).transpose()?)
    };
    heap_at(access, turn, at, base.filter(|base| *base != at))
}

/// What typed pointers reach at a checkpoint, and what has grown since `base`.
///
/// # Errors
/// A checkpoint is gone, or another question came.
pub fn heap_at(
    access: &mut Access,
    turn: &Turn,
    at: u64,
    base: Option<u64>,
) -> Result<Table, AccessError> {
    let mut take = |epoch: u64| -> Result<_, AccessError> {
        let view = access.view(epoch)?;
        let program = access.origin.shelf.of(&*view).program;
        let view = Guarded { view: &*view, turn };
        let reach = Reach::of(&program, &view);
        turn.check()?;
        Ok((census(&reach), reach.cut))
    };
    let (now, cut) = take(at)?;
    // A base that is gone is no reason to show nothing.
    let then = base.and_then(|base| Some((base, take(base).ok()?.0)));
    turn.check()?;
    let total = total(&now);
    let grown = then.as_ref().map(|(_, then)| growth(then, &now));
    let of_type = |name: &str| grown.iter().flatten().find(|grown| grown.name == name);
    let mut rows: Vec<Row> = by_size(&now)
        .into_iter()
        .map(|(name, sum)| {
            let (objects, bytes, sign) = match of_type(name) {
                Some(grown) => (
                    format!("{:+}", grown.count()),
                    format!("{:+}", grown.bytes()),
                    if grown.old.count == 0 {
                        Sign::Added
                    } else {
                        Sign::Changed
                    },
                ),
                None => Default::default(),
            };
            Row::new([
                sum.count.to_string(),
                objects,
                sum.bytes.to_string(),
                bytes,
                name.clone(),
            ])
            .signed(sign)
        })
        .collect();
    let gone = grown.iter().flatten().filter(|grown| grown.new.count == 0);
    rows.extend(gone.map(|grown| {
        Row::new([
            "0".to_owned(),
            format!("{:+}", grown.count()),
            "0".to_owned(),
            format!("{:+}", grown.bytes()),
            grown.name.clone(),
        ])
        .signed(Sign::Removed)
    }));
    let since = then.map_or(String::new(), |(base, _)| format!(", since @{base}"));
    Ok(Table {
        title: format!("heap @{at}{since}"),
        columns: vec![
            right("COUNT"),
            right("GROWN"),
            right("BYTES"),
            right("GROWN"),
            left("TYPE"),
        ],
        rows,
        note: Some(format!(
            "{} objects, {}{}",
            total.count,
            size(total.bytes),
            if cut { "; there is more" } else { "" }
        )),
    })
}
