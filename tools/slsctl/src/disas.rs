//! Machine code with the source between.

use std::collections::HashMap;

use clap::Args;
use introspect::disassembly::{Instruction, Syntax, disassemble, extent_of};
use introspect::{Context, Frame, FunctionAt, Program};
use serde_json::{Value as Json, json};

use crate::arguments::{FrameArg, ProcessArg, number, split_place};
use crate::explain::explained;
use crate::look::{Look, answer_from};
use crate::output::{Paint, one_line};
use crate::session::{Outcome, Session};
use crate::values::one_expression;

/// Instructions shown where nothing says how far a function goes.
const ALONE: usize = 32;
/// Source files longer than this are not shown.
const SOURCE_LIMIT: u64 = 16 << 20;

/// Disassemble a function, with its source lines between and the current instruction marked
///
/// Without FUNC it is that of the frame. The code is read from the view, as it was there and then.
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl disas [OPTIONS] [@N|pid:PID|core:FILE] [FUNC|ADDR]",
    after_help = "Example: slsctl disas @7 handle_request"
)]
pub struct Disas {
    /// Where to look [default: @-1], and a function, or an address in one
    #[arg(value_name = "VIEW|FUNC|ADDR", num_args = 0..=2)]
    words: Vec<String>,
    /// As Intel's manuals write it, not as gas does
    #[arg(long)]
    intel: bool,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    frame: FrameArg,
}

impl Disas {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let (place, words) = split_place(&self.words)?;
        let what = match words[..] {
            [] => None,
            [one] => Some(one),
            _ => return Err(one_expression(&words).into()),
        };
        answer_from(session, &self.which, &place, |look| {
            let program = look.program();
            let frame = program
                .select_frame(look.view(), &self.frame.context())
                .ok();
            let (function, start, end) = code(look, &program, frame.as_ref(), what)?;
            let syntax = if self.intel {
                Syntax::Intel
            } else {
                Syntax::Att
            };
            let all = disassemble(&program, look.view(), (start, end), syntax)
                .map_err(|why| anyhow::Error::msg(format!("the code at {start:#x}: {why}")))?;
            let pc = frame.map(|frame| frame.pc);
            let json = json!({
                "epoch": look.epoch(),
                "function": function,
                "start": format!("{start:#x}"),
                "end": format!("{end:#x}"),
                "instructions": all.iter().map(|one| instruction_json(one, pc)).collect::<Vec<_>>(),
            });
            session.answer(&json, |paint| text(&all, pc, paint))
        })
    }
}

/// Name and extent of the code meant.
fn code(
    look: &Look,
    program: &Program,
    frame: Option<&Frame>,
    what: Option<&str>,
) -> anyhow::Result<(Option<String>, u64, u64)> {
    let whole = |function: FunctionAt| (Some(function.name), function.start, function.end);
    let around = |address: u64| match program.function_at(address) {
        Some(function) if function.end - function.start > 1 => Ok(whole(function)),
        _ => match extent_of(look.view(), address, ALONE) {
            Ok((start, end)) => Ok((None, start, end)),
            Err(why) => Err(anyhow::Error::msg(format!("no code: {why}"))),
        },
    };
    let Some(what) = what else {
        let frame =
            frame.ok_or_else(|| anyhow::Error::msg("there is no frame; name a function"))?;
        return around(frame.pc);
    };
    if let Some(address) = number(what) {
        return around(address);
    }
    if let Some(function) = program.functions_named(what).into_iter().next() {
        return Ok(whole(function));
    }
    let extent = program.extent(look.view(), &Context::default(), what);
    around(extent.map_err(|error| explained(what, error))?.address)
}

fn instruction_json(one: &Instruction, pc: Option<u64>) -> Json {
    json!({
        "address": format!("{:#x}", one.address),
        "bytes": hex(&one.bytes),
        "text": one.text,
        "offset": one.function.as_ref().map(|function| function.1),
        "file": one.file,
        "line": one.line,
        "current": pc == Some(one.address),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(all: &[Instruction], pc: Option<u64>, paint: Paint) -> String {
    let mut sources = Sources::default();
    let mut text = String::new();
    if let Some((name, 0)) = all.first().and_then(|one| one.function.as_ref()) {
        text += &format!("{}:\n", paint.function(&one_line(name)));
    }
    let mut last = None;
    for one in all {
        let place = one.file.as_deref().zip(one.line);
        if place.is_some() && place != last {
            let (file, line) = place.unwrap_or_default();
            let name = file.rsplit('/').next().unwrap_or(file);
            let source = sources.line(file, line).unwrap_or_default();
            text += &paint.faint(&format!("{name}:{line}  {}", one_line(&source)));
            text.push('\n');
            last = place;
        }
        let mark = if pc == Some(one.address) { "=>" } else { "  " };
        let offset = one
            .function
            .as_ref()
            .map_or(String::new(), |function| format!(" <+{}>", function.1));
        text += &format!("{mark} {:#x}{offset}:\t{}\n", one.address, one.text);
    }
    text
}

/// Lines of source files that are there.
#[derive(Default)]
struct Sources {
    files: HashMap<String, Vec<String>>,
}

impl Sources {
    fn line(&mut self, file: &str, line: u32) -> Option<String> {
        let lines = self.files.entry(file.to_owned()).or_insert_with(|| {
            let size = std::fs::metadata(file).map_or(u64::MAX, |meta| meta.len());
            let bytes = if size <= SOURCE_LIMIT {
                introspect::regular::read(file.as_ref()).unwrap_or_default()
            } else {
                Vec::new()
            };
            let text = String::from_utf8_lossy(&bytes);
            text.lines().map(str::to_owned).collect()
        });
        let at = usize::try_from(line).ok()?.checked_sub(1)?;
        lines.get(at).cloned()
    }
}
