//! Threads: their stacks, registers and what they wait for.

use clap::Args;
use introspect::{Frame, Program, ThreadView, registers};
use libsls::record::Blocked;
use serde_json::{Map, Value as Json, json};
use syscalls::Sysno;

use crate::arguments::{Place, ProcessArg};
use crate::look::{Look, answer_from};
use crate::output::{Paint, Table, left, one_line, right};
use crate::session::{Outcome, Session};

/// Frames shown of one thread.
const FRAMES: usize = 10_000;
/// Frames looked through for the one a thread is known by.
const NEAR_FRAMES: usize = 64;

/// Which threads.
#[derive(Debug, Clone, Args)]
#[group(skip)]
struct ThreadArg {
    /// The thread [default: the one that stopped, else the main one]
    #[arg(long, value_name = "TID", conflicts_with = "all")]
    tid: Option<u32>,
    /// Every thread
    #[arg(long = "all-threads")]
    all: bool,
}

impl ThreadArg {
    /// What there is to say of each.
    fn each<T>(
        &self,
        look: &Look,
        of: impl Fn(&ThreadView) -> T,
    ) -> anyhow::Result<Vec<(ThreadView, T)>> {
        let threads = look.threads(self.tid, self.all)?.into_iter();
        Ok(threads
            .map(|thread| {
                let said = of(&thread);
                (thread, said)
            })
            .collect())
    }
}

fn by_thread<T>(look: &Look, each: &[T], json: impl Fn(&T) -> Json) -> Json {
    json!({
        "epoch": look.epoch(),
        "threads": each.iter().map(json).collect::<Vec<_>>(),
    })
}

/// Show the stack of a thread
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl bt @-1 --all-threads")]
pub struct Bt {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    threads: ThreadArg,
}

impl Bt {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, &self.place, |look| {
            let program = look.program();
            let stack = |thread: &ThreadView| program.backtrace(look.view(), thread.tid, FRAMES);
            let stacks = self.threads.each(look, stack)?;
            let json = by_thread(look, &stacks, stack_json);
            session.answer(&json, |paint| stacks_text(&stacks, paint))
        })
    }
}

fn stack_json((thread, frames): &(ThreadView, Vec<Frame>)) -> Json {
    json!({
        "tid": thread.tid,
        "name": thread.name,
        "frames": frames.iter().map(Frame::to_json).collect::<Vec<_>>(),
    })
}

fn stacks_text(stacks: &[(ThreadView, Vec<Frame>)], paint: Paint) -> String {
    let mut text = String::new();
    for (thread, frames) in stacks {
        if stacks.len() > 1 {
            text += &heading(thread, paint);
        }
        for frame in frames {
            text += &frame_line(frame, paint);
        }
        if frames.is_empty() {
            text += "no frames: its registers were not captured\n";
        }
    }
    text
}

fn heading(thread: &ThreadView, paint: Paint) -> String {
    let line = format!("Thread {} \"{}\":", thread.tid, one_line(&thread.name));
    format!("{}\n", paint.heading(&line))
}

/// `#0  0x0000000000401136 in main () at file.c:12`, as gdb writes it.
pub fn frame_line(frame: &Frame, paint: Paint) -> String {
    format!("#{:<3}{}\n", frame.index, frame_place(frame, paint))
}

/// The same without its number.
pub fn frame_place(frame: &Frame, paint: Paint) -> String {
    let function = one_line(frame.function.as_deref().unwrap_or("??"));
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!(" at {}:{line}", one_line(file)),
        (Some(file), None) => format!(" at {}", one_line(file)),
        _ => String::new(),
    };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    let guessed = if frame.guessed { " (guessed)" } else { "" };
    format!(
        "{} in {} (){place}{}",
        paint.faint(&format!("{:#018x}", frame.pc)),
        paint.function(&function),
        paint.faint(&format!("{inlined}{guessed}"))
    )
}

/// Show the registers of a thread
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl regs @7 --tid 1235")]
pub struct Regs {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    threads: ThreadArg,
}

type Named = Vec<(&'static str, u64)>;

impl Regs {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, &self.place, |look| {
            let each = (self.threads).each(look, |thread| named_registers(look, thread))?;
            let json = by_thread(look, &each, registers_json);
            session.answer(&json, |paint| registers_text(&each, paint))
        })
    }
}

/// All of the record; of a core what introspection keeps.
fn named_registers(look: &Look, thread: &ThreadView) -> Named {
    let recorded = look.process().and_then(|process| {
        let of = |t: &&libsls::record::Thread| t.tid.cast_unsigned() == thread.tid;
        process.threads.iter().find(of)
    });
    if let Some(recorded) = recorded {
        return recorded.regs.named().into();
    }
    let registers = &thread.registers;
    let general = (0u16..).zip(registers::NAMES);
    let mut named: Named = general
        .filter_map(|(number, name)| Some((name, registers.get(number)?)))
        .collect();
    let special = [
        ("eflags", registers.rflags),
        ("fs_base", registers.fs_base),
        ("gs_base", registers.gs_base),
    ];
    named.extend(
        special
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    named
}

/// Numbers, and their exact text for readers whose numbers have 53 bits.
fn registers_json((thread, named): &(ThreadView, Named)) -> Json {
    let numbers: Map<String, Json> = named
        .iter()
        .map(|(name, value)| ((*name).into(), json!(value)))
        .collect();
    let text: Map<String, Json> = named
        .iter()
        .map(|(name, value)| ((*name).into(), json!(format!("{value:#x}"))))
        .collect();
    json!({"tid": thread.tid, "name": thread.name, "regs": numbers, "text": text})
}

fn registers_text(each: &[(ThreadView, Named)], paint: Paint) -> String {
    let mut text = String::new();
    for (thread, named) in each {
        if each.len() > 1 {
            text += &heading(thread, paint);
        }
        let mut table = Table::new([left("").coloured(Paint::name), left(""), right("")]);
        for (name, value) in named {
            table.row([
                (*name).to_owned(),
                format!("{value:#018x}"),
                value.to_string(),
            ]);
        }
        text += &table.text(paint);
    }
    text
}

/// List the threads: where each is, and the call it is blocked in
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl threads @-1")]
pub struct Threads {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    #[command(flatten)]
    which: ProcessArg,
}

/// A line of `threads`.
struct Row {
    tid: u32,
    name: String,
    /// False where nothing says whether it ran.
    known: bool,
    blocked: Option<Blocked>,
    frame: Option<Frame>,
}

impl Threads {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, &self.place, |look| {
            let program = look.program();
            let threads = look.view().threads();
            let rows: Vec<Row> = threads.iter().map(|t| row(look, &program, t)).collect();
            let json = json!({
                "epoch": look.epoch(),
                "threads": rows.iter().map(row_json).collect::<Vec<_>>(),
            });
            session.answer(&json, |paint| rows_text(&rows, paint))
        })
    }
}

fn row(look: &Look, program: &Program, thread: &ThreadView) -> Row {
    let frames = program.backtrace(look.view(), thread.tid, NEAR_FRAMES);
    let recorded = look.process().and_then(|process| {
        let of = |t: &&libsls::record::Thread| t.tid.cast_unsigned() == thread.tid;
        process.threads.iter().find(of)
    });
    Row {
        tid: thread.tid,
        name: thread.name.clone(),
        known: recorded.is_some(),
        blocked: recorded.and_then(|thread| thread.blocked),
        frame: program.default_frame(&frames).or(frames.first()).cloned(),
    }
}

/// The name of a system call; one that is newer than our list goes by its number.
pub fn call_name(nr: u64) -> String {
    let known = usize::try_from(nr).ok().and_then(Sysno::new);
    known.map_or_else(|| format!("syscall {nr}"), |call| call.name().to_owned())
}

fn row_json(row: &Row) -> Json {
    let frame = row.frame.as_ref();
    let mut json = json!({"tid": row.tid, "name": row.name});
    if row.known {
        json["state"] = json!(state(row));
    }
    if let Some(blocked) = row.blocked {
        json["blocked"] = json!(call_name(blocked.nr));
        json["remaining_ns"] = json!(blocked.remaining_ns);
    }
    json["function"] = json!(frame.and_then(|f| f.function.as_deref()));
    json["file"] = json!(frame.and_then(|f| f.file.as_deref()));
    json["line"] = json!(frame.and_then(|f| f.line));
    json
}

fn state(row: &Row) -> &'static str {
    if row.blocked.is_some() {
        "blocked"
    } else {
        "running"
    }
}

fn rows_text(rows: &[Row], paint: Paint) -> String {
    let mut table = Table::new([
        right("TID"),
        left("NAME").coloured(Paint::name),
        left("BLOCKED IN"),
        left("FUNCTION").coloured(Paint::function),
        left("AT"),
    ]);
    for row in rows {
        let frame = row.frame.as_ref();
        let place = frame.and_then(|f| Some(format!("{}:{}", f.file.as_deref()?, f.line?)));
        table.row([
            row.tid.to_string(),
            row.name.clone(),
            row.blocked.map(|b| call_name(b.nr)).unwrap_or_default(),
            frame
                .and_then(|f| f.function.clone())
                .unwrap_or_else(|| "??".into()),
            place.unwrap_or_default(),
        ]);
    }
    table.text(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names() {
        assert_eq!(call_name(232), "epoll_wait");
        assert_eq!(call_name(99_999), "syscall 99999");
    }

    #[test]
    fn registers_are_exact() {
        let thread = ThreadView {
            tid: 3,
            name: "a".into(),
            registers: introspect::Registers::default(),
        };
        let json = registers_json(&(thread, vec![("rip", u64::MAX)]));
        let expected = r#"{"tid":3,"name":"a","regs":{"rip":18446744073709551615},"text":{"rip":"0xffffffffffffffff"}}"#;
        assert_eq!(json.to_string(), expected);
    }

    #[test]
    fn a_thread_tells_what_it_waits_for() {
        let mut row = Row {
            tid: 3,
            name: "a".into(),
            known: true,
            blocked: Some(Blocked {
                nr: 232,
                remaining_ns: None,
            }),
            frame: None,
        };
        let json = row_json(&row);
        assert_eq!(
            (&json["blocked"], &json["state"]),
            (&json!("epoll_wait"), &json!("blocked"))
        );
        row.blocked = None;
        assert!(row_json(&row).get("blocked").is_none());
    }
}
