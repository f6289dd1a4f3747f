//! Lists with columns: descriptors, mappings, results of queries. Plain data, found out by a worker, drawn as rows.

/// A column's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub right: bool,
}

pub const fn left(name: &'static str) -> Column {
    Column { name, right: false }
}

pub const fn right(name: &'static str) -> Column {
    Column { name, right: true }
}

/// How a row stands to the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sign {
    #[default]
    Same,
    Changed,
    Added,
    Removed,
}

impl Sign {
    pub fn mark(self) -> &'static str {
        match self {
            Self::Same => " ",
            Self::Changed => "*",
            Self::Added => "+",
            Self::Removed => "-",
        }
    }
}

/// Where a row leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// To a checkpoint.
    Epoch(u64),
    /// To memory, at a checkpoint perhaps.
    Address(u64, Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    pub sign: Sign,
    pub cells: Vec<String>,
    pub lead: Option<Lead>,
}

impl Row {
    pub fn new(cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            cells: cells.into_iter().collect(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn leading(mut self, lead: Lead) -> Self {
        self.lead = Some(lead);
        self
    }

    #[must_use]
    pub fn signed(mut self, sign: Sign) -> Self {
        self.sign = sign;
        self
    }

    /// Whether any cell has this text, letter case aside.
    pub fn has(&self, text: &str) -> bool {
        self.cells.iter().any(|cell| contains(cell, text))
    }
}

/// Whether a text has another one in it; letter case counts only where the wanted one has capitals.
pub fn contains(text: &str, wanted: &str) -> bool {
    if wanted.chars().any(char::is_uppercase) {
        text.contains(wanted)
    } else {
        text.to_lowercase().contains(wanted)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// What it is a list of.
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// Said below the rows.
    pub note: Option<String>,
}

impl Table {
    /// Places of the rows that a filter lets through.
    pub fn filtered(&self, filter: &str) -> Vec<usize> {
        let fits = |at: &usize| filter.is_empty() || self.rows[*at].has(filter);
        (0..self.rows.len()).filter(fits).collect()
    }

    /// One row as a line, for copying.
    pub fn line(&self, at: usize) -> Option<String> {
        Some(self.rows.get(at)?.cells.join("\t"))
    }
}

/// Rows paired by their first `keys` cells: what is new, gone or other than in an older list. Gone ones come last.
pub fn compared(now: Vec<Row>, then: &[Row], keys: usize) -> Vec<Row> {
    use std::collections::HashMap;
    let key = |row: &Row| row.cells.iter().take(keys).cloned().collect::<Vec<_>>();
    let mut old: HashMap<Vec<String>, &Row> = then.iter().map(|row| (key(row), row)).collect();
    let mut rows: Vec<Row> = now
        .into_iter()
        .map(|row| {
            let sign = match old.remove(&key(&row)) {
                None => Sign::Added,
                Some(before) if before.cells == row.cells => Sign::Same,
                Some(_) => Sign::Changed,
            };
            row.signed(sign)
        })
        .collect();
    let gone = then.iter().filter(|row| old.contains_key(&key(row)));
    rows.extend(gone.map(|row| row.clone().signed(Sign::Removed)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_by_key() {
        let row = |cells: [&str; 2]| Row::new(cells.map(str::to_owned));
        let then = [row(["1", "a"]), row(["2", "b"]), row(["3", "c"])];
        let now = vec![row(["2", "b"]), row(["3", "x"]), row(["4", "d"])];
        let signs: Vec<_> = compared(now, &then, 1)
            .iter()
            .map(|row| (row.cells[0].clone(), row.sign.mark()))
            .collect();
        let expected = [("2", " "), ("3", "*"), ("4", "+"), ("1", "-")];
        assert_eq!(signs, expected.map(|(cell, mark)| (cell.to_owned(), mark)));
    }

    #[test]
    fn a_filter_with_capitals_means_them() {
        assert!(contains("Heap", "hea") && contains("Heap", "Hea") && !contains("heap", "Hea"));
    }
}
