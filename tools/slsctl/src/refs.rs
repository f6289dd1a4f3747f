//! Who points at an object.

use std::collections::BTreeMap;

use clap::Args;
use introspect::search::{pointers_into, written};
use introspect::{Context, Extent, Programs, Reach, ThreadView, View, registers};
use libsls::compare::{differing_pages, touched};
use libsls::view::CheckpointView;
use serde_json::{Value as Json, json};

use crate::arguments::{Place, ProcessArg, Range, number, split_place};
use crate::explain::explained;
use crate::line::Line;
use crate::look::{Look, answer_from};
use crate::naming::Named;
use crate::output::{Paint, Table, left, right};
use crate::progress::Shown;
use crate::session::{Outcome, Session};
use crate::values::one_expression;

/// Find the pointers to an object: words in memory and registers that hold an address within it
///
/// The object is what EXPR points at when it is a pointer, else what it names; of a bare address, the object around it.
/// With a range of checkpoints, each pointer has the first and the last of them at which it stood; the object lies where
/// it does at the last.
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl refs [OPTIONS] [@N|@A..@B|pid:PID|core:FILE] ADDR|EXPR",
    after_help = "Example: slsctl refs @7 'list->next'"
)]
pub struct Refs {
    /// Where to look [default: @-1], and the object
    #[arg(value_name = "VIEW|EXPR", required = true, num_args = 1..=2)]
    words: Vec<String>,
    #[command(flatten)]
    which: ProcessArg,
}

/// A pointer, and since and until when it stands.
struct Row {
    at: Named,
    value: u64,
    from: Option<u64>,
    until: Option<u64>,
}

impl Refs {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        if let Some(at) = self.words.iter().position(|word| Range::is_meant(word)) {
            let mut rest: Vec<&str> = self.words.iter().map(String::as_str).collect();
            let range: Range = rest
                .remove(at)
                .parse()
                .map_err(crate::arguments::WrongUsage)?;
            let [expr] = rest[..] else {
                return Err(one_expression(&rest).into());
            };
            return self.along(session, &range, expr);
        }
        let (place, words) = split_place(&self.words)?;
        let [expr] = words[..] else {
            return Err(one_expression(&words).into());
        };
        self.at(session, &place, expr)
    }

    fn at(&self, session: &Session, place: &Place, expr: &str) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, place, |look: &Look| {
            let shown = Shown::waiting("refs");
            let (program, view) = (look.program(), look.view());
            let reach = Reach::of(&program, view);
            let object = object(&program, view, &reach, expr)?;
            let rows: Vec<Row> = found(view, &object)
                .into_iter()
                .map(|(address, value)| Row {
                    at: Named::of(&program, view, &reach, address),
                    value,
                    from: None,
                    until: None,
                })
                .collect();
            let registers = in_registers(&view.threads(), &object);
            drop(shown);
            let json = json!({
                "epoch": look.epoch(),
                "object": object_json(&object),
                "refs": rows.iter().map(|row| row_json(row, &object)).collect::<Vec<_>>(),
                "registers": registers.iter().map(register_json).collect::<Vec<_>>(),
            });
            session.answer(&json, |paint| rows_text(&object, &rows, &registers, paint))
        })
    }

    /// After the first checkpoint only what was touched is searched.
    fn along(&self, session: &Session, range: &Range, expr: &str) -> anyhow::Result<Outcome> {
        let line = Line::open(session, &self.which, Some(range))?;
        let shown = Shown::counted("refs", line.len());
        let epochs = line.epochs();
        let open = |epoch| {
            CheckpointView::open(session.client()?, line.partition(), epoch, self.which.pid)
                .map_err(anyhow::Error::from)
        };
        let Some(&last) = epochs.last() else {
            return Err(anyhow::Error::msg("no checkpoints in the range"));
        };
        let newest = open(last)?;
        let programs = Programs::default();
        let program = programs.of(&newest);
        let reach = Reach::of(&program, &newest);
        let object = object(&program, &newest, &reach, expr)?;
        let mut standing: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut ended: Vec<(u64, u64, u64, u64)> = Vec::new();
        let mut before: Option<CheckpointView> = None;
        for &epoch in &epochs {
            shown.progress().step();
            let view = open(epoch)?;
            let now: Vec<(u64, u64)> = match &before {
                None => found(&view, &object),
                Some(old) => {
                    let pages = differing_pages(old, &view)?;
                    let touched = touched(old, &view, &pages);
                    let kept = standing.iter().map(|(at, known)| (*at, known.0));
                    let mut now: Vec<(u64, u64)> =
                        kept.filter(|(at, _)| !touched.overlaps(*at, 8)).collect();
                    for run in touched.ranges() {
                        now.extend(found_in(&view, *run, &object));
                    }
                    now
                }
            };
            let now: BTreeMap<u64, u64> = now.into_iter().collect();
            let until = before.as_ref().map_or(epoch, CheckpointView::epoch);
            standing.retain(|at, (value, from)| {
                let stands = now.get(at) == Some(value);
                if !stands {
                    ended.push((*at, *value, *from, until));
                }
                stands
            });
            for (at, value) in now {
                standing.entry(at).or_insert((value, epoch));
            }
            before = Some(view);
        }
        ended.extend(
            standing
                .into_iter()
                .map(|(at, (value, from))| (at, value, from, last)),
        );
        ended.sort_by_key(|row| (row.2, row.0));
        let rows: Vec<Row> = ended
            .into_iter()
            .map(|(address, value, from, until)| Row {
                at: Named::of(&program, &newest, &reach, address),
                value,
                from: Some(from),
                until: Some(until),
            })
            .collect();
        drop(shown);
        let json = json!({
            "epoch": last,
            "object": object_json(&object),
            "refs": rows.iter().map(|row| row_json(row, &object)).collect::<Vec<_>>(),
            "registers": [],
        });
        session.answer(&json, |paint| rows_text(&object, &rows, &[], paint))?;
        Ok(Outcome::Done)
    }
}

/// The object meant: of a bare address the smallest that is known around it, else that byte.
fn object(
    program: &introspect::Program,
    view: &dyn View,
    reach: &Reach<'_>,
    expr: &str,
) -> anyhow::Result<Extent> {
    let Some(address) = number(expr) else {
        return program
            .extent(view, &Context::default(), expr)
            .map_err(|error| explained(expr, error));
    };
    Ok(match reach.around(address).map(|at| reach.get(at)) {
        Some(found) => Extent {
            address: found.start,
            len: found.len,
            type_name: found.type_name.clone(),
        },
        None => Extent {
            address,
            len: 1,
            type_name: "?".to_owned(),
        },
    })
}

fn found(view: &dyn View, object: &Extent) -> Vec<(u64, u64)> {
    found_in(view, (0, u64::MAX), object)
}

fn found_in(view: &dyn View, (start, end): (u64, u64), object: &Extent) -> Vec<(u64, u64)> {
    let target = (object.address, object.address.saturating_add(object.len));
    let mappings = view.mappings();
    let parts = mappings
        .iter()
        .filter(|mapping| written(mapping))
        .map(|mapping| (mapping.start.max(start), mapping.end.min(end)))
        .filter(|(from, to)| from < to);
    parts
        .flat_map(|part| pointers_into(view, part, target))
        .collect()
}

/// Thread, register, value.
type InRegister = (u32, &'static str, u64);

fn in_registers(threads: &[ThreadView], object: &Extent) -> Vec<InRegister> {
    let within = |value: u64| value.wrapping_sub(object.address) < object.len;
    let of = |thread: &ThreadView| {
        let each = (0u16..).zip(registers::NAMES);
        let held: Vec<InRegister> = each
            .filter_map(|(number, name)| Some((thread.tid, name, thread.registers.get(number)?)))
            .filter(|(.., value)| within(*value))
            .collect();
        held
    };
    threads.iter().flat_map(of).collect()
}

fn object_json(object: &Extent) -> Json {
    json!({
        "address": format!("{:#x}", object.address),
        "size": object.len,
        "type": object.type_name,
    })
}

fn row_json(row: &Row, object: &Extent) -> Json {
    let mut json = row.at.json();
    json["value"] = json!(format!("{:#x}", row.value));
    json["offset"] = json!(row.value - object.address);
    if let (Some(from), Some(until)) = (row.from, row.until) {
        json["from"] = json!(from);
        json["until"] = json!(until);
    }
    json
}

fn register_json((tid, name, value): &InRegister) -> Json {
    json!({"tid": tid, "register": name, "value": format!("{value:#x}")})
}

fn rows_text(object: &Extent, rows: &[Row], registers: &[InRegister], paint: Paint) -> String {
    let head = format!(
        "{} at {:#x}, {} bytes:\n",
        object.type_name, object.address, object.len
    );
    if rows.is_empty() && registers.is_empty() {
        return head + "nothing points at it\n";
    }
    let mut table = Table::new([
        left("POINTER").coloured(Paint::name),
        left("TYPE").coloured(Paint::faint),
        right("AT"),
        left("TO"),
        left("WHEN"),
    ]);
    for row in rows {
        let when = match (row.from, row.until) {
            (Some(from), Some(until)) => format!("@{from}..@{until}"),
            _ => String::new(),
        };
        table.row([
            row.at.text(),
            row.at.type_name.clone().unwrap_or_default(),
            format!("{:#x}", row.at.address),
            format!("+{}", row.value - object.address),
            when,
        ]);
    }
    for (tid, name, value) in registers {
        table.row([
            format!("thread({tid}).${name}"),
            String::new(),
            String::new(),
            format!("+{}", value - object.address),
            String::new(),
        ]);
    }
    head + &table.text(paint)
}
