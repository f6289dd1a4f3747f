//! The tables of a query, and what fills them.

use introspect::{Frame, Limits, Program, Value, View};
use libsls::protocol::History;
use libsls::record::Process;
use rusqlite::{Connection, Result, params};

use crate::memory::file_json;
use crate::threads::call_name;

pub const SCHEMA: &str = "
    CREATE TABLE checkpoints(epoch INTEGER, parent INTEGER, branch TEXT, name TEXT, time INTEGER, stop_us INTEGER,
        pages INTEGER, bytes INTEGER);
    CREATE TABLE threads(epoch INTEGER, tid INTEGER, name TEXT, blocked TEXT, function TEXT, file TEXT, line INTEGER);
    CREATE TABLE frames(epoch INTEGER, tid INTEGER, frame INTEGER, pc INTEGER, function TEXT, file TEXT, line INTEGER,
        inlined INTEGER);
    CREATE TABLE fds(epoch INTEGER, fd INTEGER, kind TEXT, target TEXT, offset INTEGER, flags TEXT);
    CREATE TABLE maps(epoch INTEGER, start INTEGER, end INTEGER, perms TEXT, offset INTEGER, path TEXT);
    CREATE TABLE variables(epoch INTEGER, tid INTEGER, frame INTEGER, function TEXT, name TEXT, type TEXT, text TEXT,
        number NUMERIC);
";

const FRAME_LIMIT: usize = 1000;
/// Elements of a container in a variable's text.
const ELEMENTS: usize = 200;

/// Which tables a query names.
pub struct Wanted {
    pub checkpoints: bool,
    pub threads: bool,
    pub frames: bool,
    pub fds: bool,
    pub maps: bool,
    pub variables: bool,
}

impl Wanted {
    /// By its words: one that is only in a string fills a table for nothing.
    pub fn of(sql: &str) -> Self {
        let lower = sql.to_lowercase();
        let has = |name: &str| {
            lower
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == name)
        };
        Self {
            checkpoints: has("checkpoints"),
            threads: has("threads"),
            frames: has("frames"),
            fds: has("fds"),
            maps: has("maps"),
            variables: has("variables"),
        }
    }

    /// Whether any state must be looked at.
    pub fn states(&self) -> bool {
        self.threads || self.frames || self.fds || self.maps || self.variables
    }
}

/// A state that is looked at.
pub struct Sight<'a> {
    /// None for what is no numbered checkpoint.
    pub epoch: Option<u64>,
    pub view: &'a dyn View,
    /// A core has none.
    pub process: Option<&'a Process>,
    pub program: &'a Program,
}

pub fn fill_checkpoints(database: &Connection, history: &History) -> Result<()> {
    let mut insert = database.prepare("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    for row in &history.checkpoints {
        insert.execute(params![
            number(row.epoch),
            row.parent.map(number),
            row.branch,
            row.name,
            number(row.time),
            number(row.stop_us),
            number(row.pages),
            number(row.bytes)
        ])?;
    }
    Ok(())
}

/// Adds what a state has to the tables that are wanted.
pub fn fill(database: &Connection, wanted: &Wanted, sight: &Sight<'_>) -> Result<()> {
    if wanted.threads || wanted.frames || wanted.variables {
        stacks(database, wanted, sight)?;
    }
    if wanted.variables {
        globals(database, sight)?;
    }
    if wanted.fds {
        descriptors(database, sight)?;
    }
    if wanted.maps {
        mappings(database, sight)?;
    }
    Ok(())
}

fn stacks(database: &Connection, wanted: &Wanted, sight: &Sight<'_>) -> Result<()> {
    let mut threads = database.prepare("INSERT INTO threads VALUES (?, ?, ?, ?, ?, ?, ?)")?;
    let mut rows = database.prepare("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    let epoch = sight.epoch.map(number);
    for thread in sight.view.threads() {
        let frames = sight.program.backtrace(sight.view, thread.tid, FRAME_LIMIT);
        let place = sight.program.default_frame(&frames);
        let recorded = sight.process.and_then(|process| {
            let mut all = process.threads.iter();
            all.find(|one| one.tid.cast_unsigned() == thread.tid)
        });
        let blocked = recorded.and_then(|one| one.blocked);
        threads.execute(params![
            epoch,
            thread.tid,
            thread.name,
            blocked.map(|call| call_name(call.nr)),
            place.and_then(|frame| frame.function.as_deref()),
            place.and_then(|frame| frame.file.as_deref()),
            place.and_then(|frame| frame.line)
        ])?;
        for frame in &frames {
            rows.execute(params![
                epoch,
                thread.tid,
                index(frame),
                number(frame.pc),
                frame.function,
                frame.file,
                frame.line,
                frame.inlined
            ])?;
            if wanted.variables {
                locals(database, sight, frame)?;
            }
        }
    }
    Ok(())
}

const VARIABLE: &str = "INSERT INTO variables VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

fn locals(database: &Connection, sight: &Sight<'_>, frame: &Frame) -> Result<()> {
    let mut insert = database.prepare_cached(VARIABLE)?;
    let limits = Limits { elements: ELEMENTS };
    for local in sight.program.locals(sight.view, frame, limits) {
        insert.execute(params![
            sight.epoch.map(number),
            frame.tid,
            index(frame),
            frame.function,
            local.name,
            local.type_name,
            local.text,
            of_value(&local.value)
        ])?;
    }
    Ok(())
}

fn globals(database: &Connection, sight: &Sight<'_>) -> Result<()> {
    let mut insert = database.prepare_cached(VARIABLE)?;
    let limits = Limits { elements: ELEMENTS };
    for global in sight.program.globals() {
        if global.is_toolchain() {
            continue;
        }
        let read = sight.program.global(sight.view, &global, limits);
        insert.execute(params![
            sight.epoch.map(number),
            None::<u32>,
            None::<i64>,
            None::<String>,
            read.name,
            read.type_name,
            read.text,
            of_value(&read.value)
        ])?;
    }
    Ok(())
}

fn descriptors(database: &Connection, sight: &Sight<'_>) -> Result<()> {
    let mut insert = database.prepare("INSERT INTO fds VALUES (?, ?, ?, ?, ?, ?)")?;
    let files = sight.process.map(|process| process.files.as_slice());
    for file in files.unwrap_or_default() {
        let json = file_json(file);
        insert.execute(params![
            sight.epoch.map(number),
            json["fd"].as_i64(),
            json["kind"].as_str(),
            json["target"].as_str(),
            json["offset"].as_i64(),
            json["flags"].as_str()
        ])?;
    }
    Ok(())
}

fn mappings(database: &Connection, sight: &Sight<'_>) -> Result<()> {
    let mut insert = database.prepare("INSERT INTO maps VALUES (?, ?, ?, ?, ?, ?)")?;
    for mapping in sight.view.mappings() {
        let flag = |set: bool, letter: &'static str| if set { letter } else { "-" };
        let perms = [
            flag(mapping.perms.read, "r"),
            flag(mapping.perms.write, "w"),
            flag(mapping.perms.execute, "x"),
            if mapping.perms.shared { "s" } else { "p" },
        ];
        insert.execute(params![
            sight.epoch.map(number),
            number(mapping.start),
            number(mapping.end),
            perms.concat(),
            number(mapping.offset),
            mapping.path
        ])?;
    }
    Ok(())
}

/// SQLite has signed integers only; the upper half of addresses is the kernel's.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn index(frame: &Frame) -> i64 {
    i64::try_from(frame.index).unwrap_or(i64::MAX)
}

/// What can be calculated with.
fn of_value(value: &Value) -> Option<rusqlite::types::Value> {
    use rusqlite::types::Value as Sql;
    match value {
        Value::Bool(value) => Some(Sql::Integer((*value).into())),
        Value::Signed(number) | Value::Enumerator { number, .. } => {
            i64::try_from(*number).ok().map(Sql::Integer)
        }
        Value::Unsigned(number) => i64::try_from(*number).ok().map(Sql::Integer),
        Value::Char(code) => Some(Sql::Integer((*code).into())),
        Value::Float(number) => Some(Sql::Real(*number)),
        Value::Pointer { address, .. } => i64::try_from(*address).ok().map(Sql::Integer),
        _ => None,
    }
}
