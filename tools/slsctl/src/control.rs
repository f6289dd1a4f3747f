//! Forward control of the live processes: pause, continue, step, next, finish, break, watch.

use clap::Args;
use libsls::Client;
use libsls::control::{Act, Breakpoint, By, State, Stop, Wait, What};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value as Json, json};

use crate::arguments::{PartArg, ProcessArg};
use crate::output::Paint;
use crate::session::{Outcome, Session};

/// How long the answer is waited for.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Waiting {
    /// Answer at once that it runs, rather than where it stops next
    #[arg(short = 'd', conflicts_with = "timeout")]
    detached: bool,
    /// Answer after so long that it runs, if it has not stopped by then; it goes on
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<u64>,
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is meant".to_owned())?;
    if !(0.0..=1e9).contains(&seconds) {
        return Err("between 0 and a billion seconds can be waited for".into());
    }
    let ms = std::time::Duration::from_secs_f64(seconds).as_millis();
    u64::try_from(ms).map_err(|error| error.to_string())
}

impl Waiting {
    fn wait(&self) -> Wait {
        match self.timeout {
            _ if self.detached => Wait::No,
            Some(ms) => Wait::Ms(ms),
            None => Wait::Stop,
        }
    }
}

/// Which thread.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Thread {
    /// The thread [default: the one that stopped last]
    #[arg(long, value_name = "TID", value_parser = crate::arguments::pid)]
    tid: Option<i32>,
}

/// Stop the processes where they are, all threads, until `continue`; a checkpoint is taken
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl pause && slsctl bt && slsctl continue -d")]
pub struct Pause {
    #[command(flatten)]
    which: ProcessArg,
}

impl Pause {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        run(session, &self.which, Act::Pause, Wait::No)
    }
}

/// Let the processes go on, and say where they stop next
///
/// That is at a breakpoint, a watchpoint, a signal that would end them, or their end. Ctrl-C stops them where
/// they are.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl break parse_line --if 'len > 80' && slsctl continue --timeout 10"
)]
pub struct Continue {
    #[command(flatten)]
    which: ProcessArg,
    #[command(flatten)]
    waiting: Waiting,
}

impl Continue {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let wait = self.waiting.wait();
        run(session, &self.which, Act::Continue { wait }, wait)
    }
}

/// Go on to the next source line, into functions that are called
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl step 3")]
pub struct Step {
    #[command(flatten)]
    how: Stepping,
}

/// Go on to the next source line of this function or the one that called it
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl next && slsctl locals")]
pub struct Next {
    #[command(flatten)]
    how: Stepping,
}

/// What `step` and `next` both take.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Stepping {
    #[command(flatten)]
    which: ProcessArg,
    /// So many times
    #[arg(value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// By machine instructions, not source lines
    #[arg(long)]
    insn: bool,
    #[command(flatten)]
    thread: Thread,
    #[command(flatten)]
    waiting: Waiting,
}

impl Stepping {
    fn run(&self, session: &Session, over: bool) -> anyhow::Result<Outcome> {
        let wait = self.waiting.wait();
        let act = Act::Step {
            by: if self.insn { By::Instruction } else { By::Line },
            over,
            count: self.count,
            tid: self.thread.tid,
            wait,
        };
        run(session, &self.which, act, wait)
    }
}

impl Step {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        self.how.run(session, false)
    }
}

impl Next {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        self.how.run(session, true)
    }
}

/// Go on until the function returns, and say what it gave back
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl finish --json")]
pub struct Finish {
    #[command(flatten)]
    which: ProcessArg,
    /// So many functions, each the caller of the one before
    #[arg(value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    #[command(flatten)]
    thread: Thread,
    #[command(flatten)]
    waiting: Waiting,
}

impl Finish {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let wait = self.waiting.wait();
        let act = Act::Finish {
            count: self.count,
            tid: self.thread.tid,
            wait,
        };
        run(session, &self.which, act, wait)
    }
}

/// Set a breakpoint, list those there are, or change one
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl break main.c:42 --if 'i == 7'")]
pub struct Break {
    #[command(flatten)]
    which: ProcessArg,
    /// FUNCTION, FILE:LINE, *ADDRESS or FUNCTION+OFFSET; without one, list them
    #[arg(value_name = "LOCATION")]
    location: Option<String>,
    /// Stop only where this is true
    #[arg(long = "if", value_name = "EXPR", requires = "location")]
    condition: Option<String>,
    /// Only for this thread
    #[arg(long, value_name = "TID", requires = "location", value_parser = crate::arguments::pid)]
    tid: Option<i32>,
    /// Remove it once it was hit
    #[arg(long, requires = "location")]
    temporary: bool,
    /// Remove number N, a breakpoint or a watchpoint
    #[arg(long, value_name = "N", conflicts_with_all = ["location", "enable", "disable"])]
    delete: Option<u32>,
    /// Have number N be met no more, but keep it
    #[arg(long, value_name = "N", conflicts_with_all = ["location", "enable"])]
    disable: Option<u32>,
    /// Have number N be met again
    #[arg(long, value_name = "N", conflicts_with = "location")]
    enable: Option<u32>,
}

impl Break {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let part = self.which.part.name();
        if let Some(act) = self.change() {
            let mut client = session.client()?.borrow_mut();
            client.change_breakpoint(part.as_deref(), act)?;
            session.answer(&json!({}), |_| String::new())?;
            return Ok(Outcome::Done);
        }
        let Some(location) = &self.location else {
            return list(session, &self.which);
        };
        let act = Act::Break {
            what: What::Place(location.clone()),
            condition: self.condition.clone(),
            tid: self.tid,
            temporary: self.temporary,
        };
        set(session, &self.which, act)
    }

    fn change(&self) -> Option<Act> {
        let enable = |number, on| Act::Enable { number, on };
        let delete = self.delete.map(|number| Act::Delete { number });
        let disable = self.disable.map(|number| enable(number, false));
        delete
            .or(disable)
            .or(self.enable.map(|number| enable(number, true)))
    }
}

/// Stop where the value of an expression changes, by the processor's debug registers
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl watch 'queue.len' --if 'queue.len > 100' && slsctl continue"
)]
pub struct Watch {
    #[command(flatten)]
    which: ProcessArg,
    /// A variable, a member, an element: up to four pieces of up to eight aligned bytes
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    expr: String,
    /// Stop only where this is true
    #[arg(long = "if", value_name = "EXPR")]
    condition: Option<String>,
    /// Only for this thread
    #[arg(long, value_name = "TID", value_parser = crate::arguments::pid)]
    tid: Option<i32>,
    /// Stop where it is read, too, and where the same is written again
    #[arg(long)]
    read: bool,
}

impl Watch {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let act = Act::Break {
            what: What::Value {
                expr: self.expr.clone(),
                reads: self.read,
            },
            condition: self.condition.clone(),
            tid: self.tid,
            temporary: false,
        };
        set(session, &self.which, act)
    }
}

fn set(session: &Session, which: &ProcessArg, act: Act) -> anyhow::Result<Outcome> {
    let mut client = session.client()?.borrow_mut();
    let made = client.breakpoints(which.part.name().as_deref(), which.pid, act)?;
    for one in &made {
        session.answer(&point_json(one), |paint| point_text(one, paint))?;
    }
    Ok(Outcome::Done)
}

fn list(session: &Session, which: &ProcessArg) -> anyhow::Result<Outcome> {
    let mut client = session.client()?.borrow_mut();
    let all = client.breakpoints(which.part.name().as_deref(), which.pid, Act::List)?;
    let rows: Vec<Json> = all.iter().map(point_json).collect();
    session.answer(&json!({ "breakpoints": rows }), |paint| {
        if all.is_empty() {
            return "no breakpoints; `slsctl break FUNCTION` sets one\n".to_owned();
        }
        all.iter().map(|one| point_text(one, paint)).collect()
    })?;
    Ok(Outcome::Done)
}

/// Does something that is answered by where it leads; Ctrl-C stops the processes meanwhile.
fn run(session: &Session, which: &ProcessArg, act: Act, wait: Wait) -> anyhow::Result<Outcome> {
    if wait != Wait::No {
        pause_by_interrupt(session, which.part.clone())?;
    }
    let mut client = session.client()?.borrow_mut();
    let stop = client.run(which.part.name().as_deref(), which.pid, act)?;
    session.answer(&stop_json(&stop), |paint| stop_text(&stop, paint))?;
    Ok(Outcome::Done)
}

/// From here on SIGINT pauses the partition, by a connection of its own; whoever waits is told of the stop.
fn pause_by_interrupt(session: &Session, part: PartArg) -> anyhow::Result<()> {
    let socket = session.socket()?;
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    interrupts.thread_block()?;
    std::thread::spawn(move || {
        while interrupts.wait().is_ok() {
            let paused = || Client::connect(&socket)?.run(part.name().as_deref(), None, Act::Pause);
            if let Err(error) = paused() {
                eprintln!("slsctl: {error}");
                std::process::exit(1);
            }
        }
    });
    Ok(())
}

/// As docs/cli.md has it.
fn stop_json(stop: &Stop) -> Json {
    let mut json = json!({
        "partition": stop.partition,
        "state": stop.state.name(),
        "reason": stop.reason.map(libsls::control::Reason::name),
        "epoch": stop.epoch,
        "pid": stop.pid,
        "tid": stop.tid,
        "number": stop.number,
        "pc": (stop.state == State::Stopped).then(|| format!("{:#x}", stop.pc)),
        "function": stop.function,
        "file": stop.file,
        "line": stop.line,
        "old": stop.old,
        "new": stop.new,
        "value": stop.value,
        "status": stop.status,
    });
    if let Some(note) = &stop.note {
        json["note"] = json!(note);
    }
    json
}

fn stop_text(stop: &Stop, paint: Paint) -> String {
    let number = stop
        .number
        .map_or_else(String::new, |number| format!(" {number}"));
    let reason = stop.reason.map_or("", libsls::control::Reason::name);
    let mut text = match stop.state {
        State::Running => format!("{} runs\n", stop.partition),
        State::Exited => format!(
            "process {} has exited with status {}\n",
            stop.pid,
            stop.status.unwrap_or(0)
        ),
        State::Killed => format!(
            "process {} was ended by signal {}\n",
            stop.pid,
            signal(stop)
        ),
        State::Stopped => {
            let epoch = stop.epoch.map_or_else(String::new, |epoch| {
                format!(", {}", paint.name(&format!("@{epoch}")))
            });
            let by = match (reason, stop.status) {
                ("signal", Some(_)) => format!("signal {}", signal(stop)),
                _ => format!("{reason}{number}"),
            };
            format!(
                "{by}{epoch}: thread {} of {}\n  {}\n",
                stop.tid,
                stop.pid,
                place(stop)
            )
        }
    };
    if let (Some(old), Some(new)) = (&stop.old, &stop.new) {
        text += &format!("  old {old}\n  new {new}\n");
    }
    if let Some(value) = &stop.value {
        text += &format!("  returned {value}\n");
    }
    if let Some(line) = source_line(stop) {
        text += &format!("  {line}\n");
    }
    if let Some(note) = &stop.note {
        text += &format!("  {}\n", paint.bad(note));
    }
    text
}

fn signal(stop: &Stop) -> String {
    let number = stop.status.unwrap_or(0);
    Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}

fn place(stop: &Stop) -> String {
    let function = stop.function.as_deref().unwrap_or("??");
    match (&stop.file, stop.line) {
        (Some(file), Some(line)) => format!("{function} at {file}:{line}"),
        _ => format!("{function} at {:#x}", stop.pc),
    }
}

fn source_line(stop: &Stop) -> Option<String> {
    let text = introspect::regular::read(stop.file.as_ref()?.as_ref()).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = usize::try_from(stop.line?).ok()?;
    let shown = text.lines().nth(line.checked_sub(1)?)?;
    Some(
        format!("{line}\t{}", shown.escape_debug())
            .replace("\\t", "    ")
            .replace("\\\"", "\"")
            .replace("\\'", "'"),
    )
}

fn point_json(point: &Breakpoint) -> Json {
    let locations: Vec<Json> = (point.locations.iter())
        .map(|at| {
            json!({
                "pid": at.pid,
                "address": format!("{:#x}", at.address),
                "function": at.function,
                "file": at.file,
                "line": at.line,
            })
        })
        .collect();
    json!({
        "number": point.number,
        "expr": point.expr,
        "kind": if point.watches { "watchpoint" } else { "breakpoint" },
        "locations": locations,
        "condition": point.condition,
        "tid": point.tid,
        "temporary": point.temporary,
        "hits": point.hits,
        "enabled": point.enabled,
        "trouble": point.trouble,
    })
}

fn point_text(point: &Breakpoint, paint: Paint) -> String {
    let kind = if point.watches {
        "watchpoint"
    } else {
        "breakpoint"
    };
    let mut text = format!(
        "{} {}",
        paint.name(&format!("{kind} {}", point.number)),
        point.expr
    );
    if let Some(condition) = &point.condition {
        text += &format!(" if {condition}");
    }
    if point.hits > 0 {
        let times = if point.hits == 1 { "time" } else { "times" };
        text += &format!(", hit {} {times}", point.hits);
    }
    if !point.enabled {
        text += ", disabled";
    }
    text.push('\n');
    for at in &point.locations {
        let place = match (&at.function, &at.file, at.line) {
            (Some(function), Some(file), Some(line)) => format!("{function} at {file}:{line}"),
            (Some(function), ..) => function.clone(),
            _ => String::new(),
        };
        text += format!("  {:#x} {place}", at.address).trim_end();
        text.push('\n');
    }
    if let Some(trouble) = &point.trouble {
        text += &format!("  {}\n", paint.bad(trouble));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use libsls::control::Reason;

    #[test]
    fn shapes_of_a_stop_and_of_a_breakpoint() {
        let stop = Stop {
            state: State::Stopped,
            reason: Some(Reason::Breakpoint),
            number: Some(2),
            pc: 0x40,
            ..Stop::default()
        };
        let json = stop_json(&stop);
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let contract = [
            "partition",
            "state",
            "reason",
            "epoch",
            "pid",
            "tid",
            "number",
            "pc",
            "function",
            "file",
            "line",
            "old",
            "new",
            "value",
            "status",
        ];
        for key in contract {
            assert!(keys.iter().any(|known| *known == key), "{key}");
        }
        assert_eq!(json["pc"], "0x40");
        assert_eq!(json["reason"], "breakpoint");
        let runs = stop_json(&Stop::default());
        assert_eq!(
            (&runs["state"], &runs["pc"]),
            (&json!("running"), &Json::Null)
        );
        assert_eq!(point_json(&Breakpoint::default())["hits"], 0);
    }

    #[test]
    fn timeouts_are_fractions_of_seconds() {
        assert_eq!(seconds("0.25"), Ok(250));
        assert!(seconds("-1").is_err() && seconds("x").is_err() && seconds("1e300").is_err());
    }
}
