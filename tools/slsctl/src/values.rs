//! Variables and expressions.

use clap::Args;
use introspect::{Answer, Frame, Local};
use serde_json::{Value as Json, json};

use crate::arguments::{FrameArg, Place, ProcessArg, WrongUsage, split_place};
use crate::explain::explained;
use crate::look::{Look, answer_from};
use crate::output::{Paint, one_line};
use crate::session::{Outcome, Session};
use crate::threads::frame_line;

/// Evaluate an expression: globals, locals, `file.c::var`, `frame(main).x`, `thread(7).x`, `$rip`
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl print [OPTIONS] [@N|pid:PID|core:FILE] EXPR",
    after_help = "Example: slsctl print @-1 'list->head.next->value'"
)]
pub struct Print {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE [default: @-1]
    #[arg(value_name = "VIEW")]
    first: String,
    /// What to evaluate; after `--` when it begins with a minus
    #[arg(value_name = "EXPR")]
    second: Option<String>,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Print {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let words: Vec<String> = [Some(&self.first), self.second.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let (place, words) = split_place(&words)?;
        let [expr] = words[..] else {
            return Err(one_expression(&words).into());
        };
        answer_from(session, &self.which, &place, |look| {
            let answer = look
                .program()
                .evaluate(look.view(), &self.frame.context(), expr)
                .map_err(|error| explained(expr, error))?;
            session.answer(&answer_json(look, &answer, self.frame.max), |paint| {
                format!("{} = {}\n", paint.name(expr), one_line(&answer.text))
            })
        })
    }
}

/// What is wrong with other than one expression.
pub fn one_expression(words: &[&str]) -> WrongUsage {
    WrongUsage(match words {
        [] => "the expression is missing".to_owned(),
        [first, ..] => {
            format!("one expression is wanted; quote it when it has spaces: '{first} ...'")
        }
    })
}

fn answer_json(look: &Look, answer: &Answer, max: usize) -> Json {
    let mut json = json!({ "epoch": look.epoch() });
    if let (Json::Object(out), Json::Object(fields)) = (&mut json, answer.to_json(max)) {
        out.extend(fields);
    }
    json
}

/// Show the arguments and locals of a frame
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl locals @7 --frame handle_request")]
pub struct Locals {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Locals {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, &self.place, |look| {
            let context = self.frame.context();
            let program = look.program();
            let frame = program.select_frame(look.view(), &context)?;
            if let Some(trouble) = frame.trouble(&program) {
                anyhow::bail!(
                    "the locals of frame {} are not known: {trouble}",
                    frame.index
                );
            }
            let locals = program.locals(look.view(), &frame, context.limits);
            let json = locals_json(look, &frame, &locals, self.frame.max);
            session.answer(&json, |paint| locals_text(&frame, &locals, paint))
        })
    }
}

fn locals_json(look: &Look, frame: &Frame, locals: &[Local], max: usize) -> Json {
    json!({
        "epoch": look.epoch(),
        "frame": frame.to_json(),
        "locals": locals.iter().map(|local| local.to_json(max)).collect::<Vec<_>>(),
    })
}

fn locals_text(frame: &Frame, locals: &[Local], paint: Paint) -> String {
    let mut text = frame_line(frame, paint);
    for local in locals {
        let (kind, name) = (one_line(&local.type_name), paint.name(&local.name));
        let mark = if local.arg { " (argument)" } else { "" };
        text += &format!(
            "  {} {name} = {}{}\n",
            paint.faint(&kind),
            one_line(&local.text),
            paint.faint(mark)
        );
    }
    if locals.is_empty() {
        text += "  no locals\n";
    }
    text
}
