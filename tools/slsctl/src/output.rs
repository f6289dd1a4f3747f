//! What people read: tables, colours, units.

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};

/// Writes to standard output; a reader that has left is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// As [`print`], for bytes.
pub fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Colours, where they are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// On a terminal, unless NO_COLOR is set (no-color.org) or it can show none.
    pub fn of_stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self {
            on: io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb,
        }
    }

    #[cfg(test)]
    pub const PLAIN: Self = Self { on: false };

    fn with(self, style: Style, text: &str) -> String {
        if self.on && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    pub fn heading(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    pub fn name(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    pub fn function(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    pub fn faint(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    pub fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }
}

/// Columns, as wide as their widest cell. Cells are plain text; a column's colour is put on after
/// the width is known.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// How one column looks.
#[derive(Clone, Copy)]
pub struct Column {
    title: &'static str,
    right: bool,
    colour: fn(Paint, &str) -> String,
}

fn uncoloured(_: Paint, text: &str) -> String {
    text.to_owned()
}

/// A column of words.
pub fn left(title: &'static str) -> Column {
    Column {
        title,
        right: false,
        colour: uncoloured,
    }
}

/// A column of numbers.
pub fn right(title: &'static str) -> Column {
    Column {
        right: true,
        ..left(title)
    }
}

impl Column {
    pub fn coloured(self, colour: fn(Paint, &str) -> String) -> Self {
        Self { colour, ..self }
    }
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, of as many cells as there are columns.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.map(|cell| one_line(&cell)).into());
    }

    pub fn text(&self, paint: Paint) -> String {
        let widths: Vec<usize> = (self.columns.iter().enumerate())
            .map(|(at, column)| {
                let cells = self.rows.iter().map(|row| width(&row[at]));
                cells.chain([width(column.title)]).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        if self.columns.iter().any(|column| !column.title.is_empty()) {
            let titles = self.columns.iter().map(|column| column.title);
            self.line(&mut out, titles, &widths, |_, text| paint.heading(text));
        }
        for row in &self.rows {
            let cells = row.iter().map(String::as_str);
            self.line(&mut out, cells, &widths, |column, text| {
                (column.colour)(paint, text)
            });
        }
        out
    }

    fn line<'a>(
        &self,
        out: &mut String,
        cells: impl Iterator<Item = &'a str>,
        widths: &[usize],
        colour: impl Fn(&Column, &str) -> String,
    ) {
        let start = out.len();
        for ((column, cell), cell_width) in self.columns.iter().zip(cells).zip(widths) {
            if out.len() > start {
                out.push_str("  ");
            }
            let pad = " ".repeat(cell_width.saturating_sub(width(cell)));
            let cell = colour(column, cell);
            if column.right {
                out.push_str(&pad);
                out.push_str(&cell);
            } else {
                out.push_str(&cell);
                out.push_str(&pad);
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Text of a target may hold anything: nothing of it may steer the terminal or break a row.
pub fn one_line(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// `12.4K`.
pub fn bytes(count: u64) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    let unit = units.iter().find(|(shift, _)| count >= 1 << shift);
    match unit {
        None => count.to_string(),
        Some((shift, unit)) => {
            let tenths = (u128::from(count) * 10) >> shift;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
    }
}

/// `812 us`, `3.1 ms`.
pub fn micros(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} us"),
        10_000..10_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// `250ms`, `3.2s`, `4m10s`, `2h03m`, `3d04h`.
pub fn duration_ns(ns: u64) -> String {
    let ms = ns / 1_000_000;
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([left("A"), right("NUM"), left("")]);
        table.row(["long".into(), "1".into(), "é".into()]);
        table.row(["x".into(), "12345".into(), "\u{1b}[31m".into()]);
        let expected = "A       NUM\nlong      1  é\nx     12345  \u{fffd}[31m\n";
        assert_eq!(table.text(Paint::PLAIN), expected);
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let mut table = Table::new([left("A").coloured(Paint::name), left("B")]);
        table.row(["x".into(), "y".into()]);
        let painted = table.text(Paint { on: true });
        assert!(painted.ends_with("x\u{1b}[0m  y\n"), "{painted:?}");
    }

    #[test]
    fn units() {
        assert_eq!(bytes(1023), "1023");
        assert_eq!(bytes(1536), "1.5K");
        assert_eq!(bytes(u64::MAX), "17179869183.9G");
        assert_eq!(micros(812), "812 us");
        assert_eq!(micros(31_250), "31.2 ms");
        assert_eq!(duration_ns(3_250_000_000), "3.2s");
        assert_eq!(duration_ns(7_380_000_000_000), "2h03m");
    }
}
