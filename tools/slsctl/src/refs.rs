//! Who points at an object.

use std::ops::ControlFlow;

use clap::Args;
use introspect::pointers::{InRegister, in_registers, pointers_to};
use introspect::{Context, Extent, Named, Reach, View};
use libsls::standing::standing;
use libsls::view::CheckpointView;
use serde_json::{Value as Json, json};

use crate::arguments::{Place, ProcessArg, Range, number, split_place};
use crate::explain::explained;
use crate::line::Line;
use crate::look::Histories;
use crate::look::{Look, answer_from};
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
            let rows: Vec<Row> = pointers_to(view, &object)
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
        let programs = Histories::default();
        let program = programs.of(&newest);
        let reach = Reach::of(&program, &newest);
        let object = object(&program, &newest, &reach, expr)?;
        let found = standing(
            session.client()?,
            line.partition(),
            self.which.pid,
            &epochs,
            &object,
            &mut || {
                shown.progress().step();
                ControlFlow::Continue(())
            },
        )?;
        let rows: Vec<Row> = found
            .into_iter()
            .map(|stood| Row {
                at: Named::of(&program, &newest, &reach, stood.address),
                value: stood.value,
                from: Some(stood.from),
                until: Some(stood.until),
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

/// The object meant.
fn object(
    program: &introspect::Program,
    view: &dyn View,
    reach: &Reach<'_>,
    expr: &str,
) -> anyhow::Result<Extent> {
    match number(expr) {
        Some(address) => Ok(Extent::around(reach, address)),
        None => program
            .extent(view, &Context::default(), expr)
            .map_err(|error| explained(expr, error)),
    }
}

fn object_json(object: &Extent) -> Json {
    json!({
        "address": format!("{:#x}", object.address),
        "size": object.len,
        "type": object.type_name,
    })
}

fn row_json(row: &Row, object: &Extent) -> Json {
    let mut json = row.at.to_json();
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
