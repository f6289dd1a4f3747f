//! Memory searched for a value, and the hits narrowed by later checkpoints.

use std::collections::BTreeMap;

use clap::Args;
use introspect::narrowing::{Condition, narrowed};
use introspect::search::{HIT_LIMIT, Number, Reading, find};
use introspect::{Named, Program, Reach, View};
use serde_json::{Value as Json, json};

use crate::arguments::{Place, ProcessArg, WrongUsage, split_place};
use crate::look::Look;
use crate::output::{Paint, Table, left, right};
use crate::progress::Shown;
use crate::session::{Outcome, Session};
use crate::values::one_expression;

/// Search memory for a value, then narrow what was found by other checkpoints
///
/// Each --then looks at what is left there: a VALUE it must have, or what it must be since the look before, one of
/// changed, unchanged, more, less. What is left is named by the last place looked at.
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl scan [OPTIONS] [@N|pid:PID|core:FILE] VALUE [--then @M VALUE|changed|unchanged|more|less]...",
    after_help = "Example: slsctl scan @5 --type int 42 --then @9 43 --then @12 more"
)]
pub struct Scan {
    /// Where to look [default: @-1], and the value
    #[arg(value_name = "VIEW|VALUE", required = true, num_args = 1..=2, allow_negative_numbers = true)]
    words: Vec<String>,
    /// What the value is: int, long, short, u8, double, ptr, ... [default: int, or double for one with a point]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Keep what fits there, too
    #[arg(long, value_names = ["@M", "CONDITION"], num_args = 2, allow_negative_numbers = true)]
    then: Vec<String>,
    /// Show up to N of what is found
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max: usize,
    #[command(flatten)]
    which: ProcessArg,
}

fn condition(number: Number, text: &str) -> Result<Condition, WrongUsage> {
    Condition::parse(number, text)
        .ok_or_else(|| WrongUsage(format!("{text:?} is no value of that type")))
}

impl Scan {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let (place, words) = split_place(&self.words)?;
        let [value] = words[..] else {
            return Err(one_expression(&words).into());
        };
        let kind = self
            .kind
            .clone()
            .unwrap_or_else(|| if value.contains('.') { "double" } else { "int" }.to_owned());
        let number = Number::named(&kind).ok_or_else(|| {
            WrongUsage(format!("no type {kind:?}: write int, unsigned, long, short, char, u8 ... i64, float, double or ptr"))
        })?;
        let needle = number
            .needle(value)
            .ok_or_else(|| WrongUsage(format!("{value:?} is no {kind}")))?;
        let first = number
            .read(needle.bytes())
            .ok_or_else(|| WrongUsage(format!("{value:?} is no {kind}")))?;
        let mut rounds: Vec<(Place, Condition)> = Vec::new();
        for pair in self.then.chunks_exact(2) {
            let place = pair[0].parse().map_err(WrongUsage)?;
            rounds.push((place, condition(number, &pair[1])?));
        }
        let shown = Shown::waiting("scan");
        let mut look = Look::open(session, &self.which, &place)?;
        let mut left: BTreeMap<u64, Reading> = find(look.view(), &needle)
            .into_iter()
            .map(|address| (address, first))
            .collect();
        let cut = left.len() >= HIT_LIMIT;
        for (place, condition) in &rounds {
            look = Look::open(session, &self.which, place)?;
            left = narrowed(look.view(), number, &left, *condition);
        }
        let program = look.program();
        let named = named(&program, look.view(), &left, self.max);
        drop(shown);
        let json = json!({
            "epoch": look.epoch(),
            "type": kind,
            "count": left.len(),
            "hits": named.iter().map(hit_json).collect::<Vec<_>>(),
            "cut": cut,
        });
        session.answer(&json, |paint| hits_text(&named, left.len(), paint))?;
        Ok(Outcome::Done)
    }
}

/// What is known of the first `max` of them; those with a name first.
fn named(
    program: &Program,
    view: &dyn View,
    left: &BTreeMap<u64, Reading>,
    max: usize,
) -> Vec<(Named, Reading)> {
    let reach = Reach::of(program, view);
    let mut all: Vec<(Named, Reading)> = left
        .iter()
        .take(NAMED)
        .map(|(address, now)| (Named::of(program, view, &reach, *address), *now))
        .collect();
    all.sort_by_key(|(named, _)| (named.path.is_none(), named.address));
    all.truncate(max);
    all
}

/// Hits that are named at most.
const NAMED: usize = 100_000;

fn value_text(reading: Reading) -> String {
    match reading {
        Reading::Integer(number) => number.to_string(),
        Reading::Float(number) => number.to_string(),
    }
}

fn hit_json((named, now): &(Named, Reading)) -> Json {
    let mut json = named.to_json();
    json["text"] = json!(value_text(*now));
    json["value"] = match *now {
        Reading::Integer(number) => match (i64::try_from(number), u64::try_from(number)) {
            (Ok(small), _) => json!(small),
            (_, Ok(large)) => json!(large),
            _ => json!(number.to_string()),
        },
        Reading::Float(number) => json!(number),
    };
    json
}

fn hits_text(named: &[(Named, Reading)], count: usize, paint: Paint) -> String {
    let mut table = Table::new([
        left("NAME").coloured(Paint::name),
        left("TYPE").coloured(Paint::faint),
        right("AT"),
        left("VALUE"),
    ]);
    for (named, now) in named {
        table.row([
            named.text(),
            named.type_name.clone().unwrap_or_default(),
            format!("{:#x}", named.address),
            value_text(*now),
        ]);
    }
    let more = match count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(", {more} not shown: see --max"),
    };
    format!("{}{count} found{more}\n", table.text(paint))
}
