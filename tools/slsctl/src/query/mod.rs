//! SQL over states.
//!
//! The engine is SQLite, built in. Its tables are filled from the checkpoints asked about before the query runs, and only
//! those that the query names: a state has some hundreds of rows, and virtual tables would need unsafe code here.

mod tables;

use anyhow::Context as _;
use clap::Args;
use libsls::view::CheckpointView;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Value as Json, json};

use crate::arguments::{ProcessArg, Range, WrongUsage, split_place};
use crate::line::Line;
use crate::look::Histories;
use crate::look::Look;
use crate::output::{Paint, one_line};
use crate::progress::Shown;
use crate::session::{Outcome, Session};
use tables::{SCHEMA, Sight, Wanted};

/// Ask in SQL about frames, threads, descriptors, mappings, variables and checkpoints
///
/// Tables: checkpoints(epoch, parent, branch, name, time, stop_us, pages, bytes); threads(epoch, tid, name, blocked,
/// function, file, line); frames(epoch, tid, frame, pc, function, file, line, inlined); fds(epoch, fd, kind, target,
/// offset, flags); maps(epoch, start, end, perms, offset, path); variables(epoch, tid, frame, function, name, type, text,
/// number), where a global has no tid. They hold the checkpoints asked about; `checkpoints` has all there are. Addresses
/// are numbers: printf('%x', pc) shows one as gdb does.
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl query [OPTIONS] [@N|@A..@B|pid:PID|core:FILE] SQL",
    after_help = "Example: slsctl query @1..@-1 \"SELECT epoch, count(*) FROM fds WHERE kind = 'socket' GROUP BY epoch\""
)]
pub struct Query {
    /// Where to look [default: @-1], and one SELECT
    #[arg(value_name = "VIEW|SQL", required = true, num_args = 1..=2)]
    words: Vec<String>,
    #[command(flatten)]
    which: ProcessArg,
}

/// What came out.
struct Found {
    columns: Vec<String>,
    rows: Vec<Vec<Json>>,
}

impl Query {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let shown = Shown::waiting("query");
        let range = self.words.iter().position(|word| Range::is_meant(word));
        let (database, sql) = match range {
            Some(at) => self.along(session, at)?,
            None => self.at(session)?,
        };
        let found = select(&database, &sql)?;
        drop(shown);
        session.answer(&found.json(), |paint| found.text(paint))?;
        Ok(Outcome::Done)
    }

    /// Of one view.
    fn at(&self, session: &Session) -> anyhow::Result<(Connection, String)> {
        let (place, words) = split_place(&self.words)?;
        let sql = only(&words)?;
        let (database, wanted) = prepared(sql)?;
        let look = Look::open(session, &self.which, &place)?;
        if wanted.checkpoints && look.core().is_none() {
            let history = session.history(self.which.part.name().as_deref())?;
            tables::fill_checkpoints(&database, &history)?;
        }
        if wanted.states() {
            let program = look.program();
            let sight = Sight {
                epoch: look.epoch().as_u64(),
                view: look.view(),
                process: look.process(),
                program: &program,
            };
            tables::fill(&database, &wanted, &sight)?;
        }
        Ok((database, sql.to_owned()))
    }

    /// Of each checkpoint of a range, the word number `at`.
    fn along(&self, session: &Session, at: usize) -> anyhow::Result<(Connection, String)> {
        let mut words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let range: Range = words.remove(at).parse().map_err(WrongUsage)?;
        let sql = only(&words)?;
        let (database, wanted) = prepared(sql)?;
        let line = Line::open(session, &self.which, Some(&range))?;
        if wanted.checkpoints {
            let history = session.history(Some(line.partition()))?;
            tables::fill_checkpoints(&database, &history)?;
        }
        let programs = Histories::default();
        for epoch in line.epochs() {
            if !wanted.states() {
                break;
            }
            let client = session.client()?;
            let view = CheckpointView::open(client, line.partition(), epoch, self.which.pid)?;
            let program = programs.of(&view);
            let sight = Sight {
                epoch: Some(epoch),
                view: &view,
                process: Some(view.process()),
                program: &program,
            };
            tables::fill(&database, &wanted, &sight)?;
        }
        Ok((database, sql.to_owned()))
    }
}

fn only<'a>(words: &[&'a str]) -> Result<&'a str, WrongUsage> {
    match words {
        [sql] => Ok(sql),
        _ => Err(WrongUsage(
            "one SELECT is wanted; quote it: 'SELECT * FROM threads'".to_owned(),
        )),
    }
}

/// The tables, empty, and which of them the query names. Nothing outside them can be reached.
fn prepared(sql: &str) -> anyhow::Result<(Connection, Wanted)> {
    let database = Connection::open_in_memory()?;
    database.execute_batch(SCHEMA)?;
    database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    let statement = database.prepare(sql).map_err(refused)?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(WrongUsage("only a SELECT can be asked".to_owned()).into());
    }
    drop(statement);
    Ok((database, Wanted::of(sql)))
}

/// SQLite's own words name the place.
fn refused(error: rusqlite::Error) -> anyhow::Error {
    match error {
        rusqlite::Error::SqlInputError {
            msg, sql, offset, ..
        } => {
            let at = usize::try_from(offset).unwrap_or(0);
            let column = sql.get(..at).map_or(1, |before| before.chars().count() + 1);
            let mark = crate::explain::mark(&sql, column);
            WrongUsage(format!("{msg}\n{mark}")).into()
        }
        // Without a place: a table that is not there.
        rusqlite::Error::SqliteFailure(_, Some(message)) => {
            WrongUsage(format!("{message}; `slsctl query --help` lists the tables")).into()
        }
        rusqlite::Error::MultipleStatement => WrongUsage("one statement at a time".into()).into(),
        other => other.into(),
    }
}

fn select(database: &Connection, sql: &str) -> anyhow::Result<Found> {
    let mut statement = database.prepare(sql).map_err(refused)?;
    let columns: Vec<String> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let width = columns.len();
    let read = |row: &Row<'_>| (0..width).map(|at| Ok(cell(row.get_ref(at)?))).collect();
    let rows = statement.query_map([], read)?;
    let rows: Result<Vec<Vec<Json>>, rusqlite::Error> = rows.collect();
    Ok(Found {
        columns,
        rows: rows.context("the query")?,
    })
}

fn cell(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) => json!(number),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!(hex)
        }
    }
}

impl Found {
    fn json(&self) -> Json {
        let row = |row: &Vec<Json>| -> Json {
            let pairs = self.columns.iter().cloned().zip(row.iter().cloned());
            Json::Object(pairs.collect())
        };
        json!({
            "columns": self.columns,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }

    fn text(&self, paint: Paint) -> String {
        let shown = |cell: &Json| match cell {
            Json::Null => String::new(),
            Json::String(text) => one_line(text),
            other => other.to_string(),
        };
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(shown).collect())
            .collect();
        let width = |at: usize| {
            let all = cells.iter().map(|row| row[at].chars().count());
            let title = self.columns[at].chars().count();
            all.chain([title]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &[String]| {
            let padded = row.iter().zip(&widths);
            let text: Vec<String> = padded
                .map(|(cell, wide)| format!("{cell:<wide$}"))
                .collect();
            text.join("  ").trim_end().to_owned() + "\n"
        };
        let head = paint.heading(line(&self.columns).trim_end()) + "\n";
        cells.iter().fold(head, |text, row| text + &line(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_selects_of_known_tables_are_asked() {
        let refused = |sql: &str| prepared(sql).err().map(|error| error.to_string());
        assert!(refused("SELECT * FROM thread").is_some_and(|text| text.contains("no such table")));
        assert!(refused("SELECT nam FROM threads").is_some_and(|text| text.contains('^')));
        for sql in [
            "DELETE FROM threads",
            "ATTACH '/tmp/x' AS y",
            "PRAGMA user_version = 3",
        ] {
            assert!(refused(sql).is_some(), "{sql}");
        }
        let (_, wanted) = prepared("SELECT t.name FROM threads t JOIN maps USING (epoch)").unwrap();
        assert!(wanted.threads && wanted.maps && !wanted.fds && wanted.states());
        assert!(
            !prepared("SELECT count(*) FROM checkpoints")
                .unwrap()
                .1
                .states()
        );
    }

    #[test]
    fn answers_are_rows_by_column() {
        let (database, _) = prepared("SELECT 1").unwrap();
        let found = select(&database, "SELECT 1 AS a, 'x' AS b, NULL AS c, 0.5 AS d").unwrap();
        let expected = r#"{"columns":["a","b","c","d"],"rows":[{"a":1,"b":"x","c":null,"d":0.5}]}"#;
        assert_eq!(found.json().to_string(), expected);
        assert_eq!(found.text(Paint::PLAIN), "a  b  c  d\n1  x     0.5\n");
    }
}
