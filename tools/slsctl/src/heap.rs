//! What is on the heap, by type.

use clap::Args;
use introspect::census::{Census, Grown, Sum, by_size, census, growth, total};
use introspect::{Context, Reach};
use serde_json::{Value as Json, json};

use crate::arguments::{Place, ProcessArg, number};
use crate::explain::explained;
use crate::look::{Look, answer_from};
use crate::output::{Paint, Table, bytes, left, right};
use crate::progress::Shown;
use crate::session::{Outcome, Session};

/// Count what typed pointers reach, by type; between two checkpoints, what has grown
///
/// Counted is what globals and the locals of all frames lead to and what lies in no variable: targets of pointers,
/// elements and nodes of containers, text. Sizes are those of the types, without what an allocator or a container adds.
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl heap [OPTIONS] [@N|pid:PID|core:FILE] [@M]",
    after_help = "Example: slsctl heap @10 @-1"
)]
pub struct Heap {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    /// A later view to compare with
    #[arg(value_name = "VIEW", conflicts_with = "path")]
    other: Option<Place>,
    /// Show the way from a variable to this object: an address, or an expression
    #[arg(long, value_name = "ADDR|EXPR")]
    path: Option<String>,
    #[command(flatten)]
    which: ProcessArg,
}

/// What is on one heap.
struct Taken {
    epoch: Json,
    census: Census,
    cut: bool,
}

impl Heap {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        if let Some(path) = &self.path {
            return answer_from(session, &self.which, &self.place, |look| {
                way(session, look, path)
            });
        }
        let shown = Shown::waiting("heap");
        let take = |place: &Place| -> anyhow::Result<Taken> {
            let look = Look::open(session, &self.which, place)?;
            let program = look.program();
            let reach = Reach::of(&program, look.view());
            Ok(Taken {
                epoch: look.epoch(),
                census: census(&reach),
                cut: reach.cut,
            })
        };
        let first = take(&self.place)?;
        let second = self.other.as_ref().map(take).transpose()?;
        drop(shown);
        match second {
            None => session.answer(&census_json(&first), |paint| census_text(&first, paint))?,
            Some(second) => {
                let grown = growth(&first.census, &second.census);
                session.answer(&growth_json(&first, &second, &grown), |paint| {
                    growth_text(&grown, paint)
                })?;
            }
        }
        Ok(Outcome::Done)
    }
}

fn census_json(taken: &Taken) -> Json {
    let total = total(&taken.census);
    let row = |(name, sum): (&String, &Sum)| json!({"type": name, "count": sum.count, "bytes": sum.bytes});
    json!({
        "epoch": taken.epoch,
        "count": total.count,
        "bytes": total.bytes,
        "types": by_size(&taken.census).into_iter().map(row).collect::<Vec<_>>(),
        "cut": taken.cut,
    })
}

fn census_text(taken: &Taken, paint: Paint) -> String {
    let mut table = Table::new([
        right("COUNT"),
        right("BYTES"),
        left("TYPE").coloured(Paint::name),
    ]);
    for (name, sum) in by_size(&taken.census) {
        table.row([sum.count.to_string(), sum.bytes.to_string(), name.clone()]);
    }
    let total = total(&taken.census);
    let cut = if taken.cut { "; there is more" } else { "" };
    table.text(paint) + &format!("{} objects, {}{cut}\n", total.count, bytes(total.bytes))
}

fn growth_json(first: &Taken, second: &Taken, grown: &[Grown]) -> Json {
    let row = |grown: &Grown| {
        json!({
            "type": grown.name,
            "count": grown.new.count,
            "bytes": grown.new.bytes,
            "grown_count": i64::try_from(grown.count()).unwrap_or_default(),
            "grown_bytes": i64::try_from(grown.bytes()).unwrap_or_default(),
        })
    };
    json!({
        "from": first.epoch,
        "epoch": second.epoch,
        "count": total(&second.census).count,
        "bytes": total(&second.census).bytes,
        "types": grown.iter().map(row).collect::<Vec<_>>(),
        "cut": first.cut || second.cut,
    })
}

fn growth_text(grown: &[Grown], paint: Paint) -> String {
    if grown.is_empty() {
        return "nothing has grown or shrunk\n".to_owned();
    }
    let mut table = Table::new([
        right("COUNT"),
        right("BYTES"),
        right("NOW"),
        left("TYPE").coloured(Paint::name),
    ]);
    for row in grown {
        table.row([
            format!("{:+}", row.count()),
            format!("{:+}", row.bytes()),
            row.new.count.to_string(),
            row.name.clone(),
        ]);
    }
    table.text(paint)
}

/// From the object back to the variable that it is reached from.
fn way(session: &Session, look: &Look, target: &str) -> anyhow::Result<()> {
    let shown = Shown::waiting("heap");
    let program = look.program();
    let reach = Reach::of(&program, look.view());
    let address = match number(target) {
        Some(address) => address,
        None => {
            let extent = program.extent(look.view(), &Context::default(), target);
            extent.map_err(|error| explained(target, error))?.address
        }
    };
    drop(shown);
    let Some(first) = reach.around(address) else {
        return Err(anyhow::Error::msg(format!(
            "no variable leads to {address:#x} by typed pointers; `slsctl refs` finds any pointer to it"
        )));
    };
    let steps: Vec<_> = std::iter::successors(Some(first), |at| reach.get(*at).parent)
        .map(|at| reach.get(at))
        .collect();
    let step = |found: &&introspect::Found| {
        json!({
            "path": found.path(),
            "type": found.type_name,
            "address": format!("{:#x}", found.start),
            "size": found.len,
            "home": found.home.word(),
        })
    };
    let json = json!({
        "epoch": look.epoch(),
        "address": format!("{address:#x}"),
        "path": steps.iter().map(step).collect::<Vec<_>>(),
    });
    session.answer(&json, |paint| {
        let mut table = Table::new([
            left("OBJECT").coloured(Paint::name),
            left("TYPE").coloured(Paint::faint),
            right("AT"),
            left("HOME"),
        ]);
        for found in &steps {
            table.row([
                found.path(),
                found.type_name.clone(),
                format!("{:#x}", found.start),
                found.home.word().to_owned(),
            ]);
        }
        table.text(paint)
    })
}
