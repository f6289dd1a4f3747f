//! Line tables: address to line for frames, line to addresses for breakpoints.

use crate::debug_info::{Dwarf, Unit};

/// The line program of one unit, run once.
#[derive(Default)]
pub struct LineTable {
    files: Vec<String>,
    sequences: Vec<Sequence>,
}

struct Sequence {
    end: u64,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// In the file's own addresses.
    pub address: u64,
    pub line: u32,
    pub statement: bool,
    /// The compiler says that the prologue ends here.
    pub prologue_end: bool,
    file: u32,
}

impl LineTable {
    /// Damage ends the table where it is met; what came before is kept.
    pub(crate) fn parse(dwarf: &Dwarf, unit: &Unit) -> Self {
        let mut table = Self::default();
        let Some(program) = unit.line_program.clone() else {
            return table;
        };
        table.files = file_names(dwarf, unit, program.header());
        let mut rows = program.rows();
        let mut sequence = Vec::new();
        while let Ok(Some((_, row))) = rows.next_row() {
            if row.end_sequence() {
                table.close(std::mem::take(&mut sequence), row.address());
                continue;
            }
            sequence.push(Row {
                address: row.address(),
                line: row
                    .line()
                    .and_then(|line| u32::try_from(line.get()).ok())
                    .unwrap_or(0),
                statement: row.is_stmt(),
                prologue_end: row.prologue_end(),
                file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
            });
        }
        table
            .sequences
            .sort_by_key(|sequence| sequence.rows[0].address);
        table
    }

    fn close(&mut self, mut rows: Vec<Row>, end: u64) {
        // A sequence at 0 is code the linker dropped.
        if rows.first().is_some_and(|row| row.address != 0) {
            rows.sort_by_key(|row| row.address);
            self.sequences.push(Sequence { end, rows });
        }
    }

    /// File and line of an address; line 0 is code without one.
    pub fn at(&self, address: u64) -> Option<(&str, u32)> {
        let row = self.row_at(address)?;
        Some((self.file(u64::from(row.file))?, row.line))
    }

    /// The half-open range of addresses around `address` that belong to one line.
    pub fn extent_at(&self, address: u64) -> Option<(u64, u64)> {
        let (sequence, index) = self.position(address)?;
        let (line, file) = (sequence.rows[index].line, sequence.rows[index].file);
        let same = |row: &&Row| row.line == line && row.file == file;
        let start = sequence.rows[..=index]
            .iter()
            .rev()
            .take_while(same)
            .last()?
            .address;
        let end = sequence.rows[index..]
            .iter()
            .find(|row| !same(row))
            .map_or(sequence.end, |row| row.address);
        Some((start, end))
    }

    /// Whether a statement of a line begins right here.
    pub fn begins_at(&self, address: u64) -> bool {
        let Some((sequence, index)) = self.position(address) else {
            return false;
        };
        let here = sequence.rows[..=index].iter().rev();
        here.take_while(|row| row.address == address)
            .any(|row| row.statement && row.line != 0)
    }

    /// Address of the first row after `address`, before `end`.
    pub fn next_after(&self, address: u64, end: u64) -> Option<u64> {
        let (sequence, index) = self.position(address)?;
        let mut later = sequence.rows[index..].iter();
        let next = later.find(|row| row.address > address && row.line != 0)?;
        (next.address < end).then_some(next.address)
    }

    /// Where the compiler says that the prologue of the function around these addresses ends.
    pub fn prologue_end(&self, (start, end): (u64, u64)) -> Option<u64> {
        let (sequence, index) = self.position(start)?;
        let rows = sequence.rows[index..].iter();
        let mut inside = rows.take_while(|row| row.address < end);
        inside.find(|row| row.prologue_end).map(|row| row.address)
    }

    /// Of several rows at one address the last statement, as gdb has it: optimised code goes on with rows that are none.
    fn row_at(&self, address: u64) -> Option<&Row> {
        let (sequence, index) = self.position(address)?;
        let last = &sequence.rows[index];
        let before = sequence.rows[..=index].iter().rev();
        let here = before.take_while(|row| row.address == last.address && row.line != 0);
        let statement = here.into_iter().find(|row| row.statement);
        Some(statement.unwrap_or(last))
    }

    fn position(&self, address: u64) -> Option<(&Sequence, usize)> {
        let after = self
            .sequences
            .partition_point(|sequence| sequence.rows[0].address <= address);
        let sequence = self.sequences[..after]
            .last()
            .filter(|sequence| address < sequence.end)?;
        let index = sequence
            .rows
            .partition_point(|row| row.address <= address)
            .checked_sub(1)?;
        Some((sequence, index))
    }

    pub fn file(&self, index: u64) -> Option<&str> {
        self.files
            .get(usize::try_from(index).ok()?)
            .map(String::as_str)
    }

    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// First address of each run of statements for a line; `file` matches by a suffix of path components.
    pub fn addresses(&self, file: &str, line: u32) -> Vec<u64> {
        let wanted: Vec<bool> = self
            .files
            .iter()
            .map(|known| path_ends_with(known, file))
            .collect();
        let matches = |row: &Row| {
            row.line == line
                && row.statement
                && wanted.get(row.file as usize).copied().unwrap_or(false)
        };
        let mut found = Vec::new();
        for sequence in &self.sequences {
            let mut inside = false;
            for row in &sequence.rows {
                let here = matches(row);
                if here && !inside {
                    found.push(row.address);
                }
                inside = here;
            }
        }
        found
    }

    /// Lines of `file` that have code, ascending.
    pub fn lines_of(&self, file: &str) -> Vec<u32> {
        let wanted: Vec<bool> = self
            .files
            .iter()
            .map(|known| path_ends_with(known, file))
            .collect();
        let rows = self.sequences.iter().flat_map(|sequence| &sequence.rows);
        let mut lines: Vec<u32> = rows
            .filter(|row| row.statement && wanted.get(row.file as usize) == Some(&true))
            .map(|row| row.line)
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }
}

/// Whether `path` is `suffix` or ends in it at a component boundary.
pub fn path_ends_with(path: &str, suffix: &str) -> bool {
    path.strip_suffix(suffix)
        .is_some_and(|head| head.is_empty() || head.ends_with('/') || suffix.starts_with('/'))
}

fn file_names(
    dwarf: &Dwarf,
    unit: &Unit,
    header: &gimli::LineProgramHeader<crate::object_file::Slice>,
) -> Vec<String> {
    let text = |value| {
        let value = dwarf.attr_string(unit, value).ok()?;
        gimli::Reader::to_string_lossy(&value)
            .ok()
            .map(std::borrow::Cow::into_owned)
    };
    let compiled_in = unit
        .comp_dir
        .as_ref()
        .and_then(|folder| {
            gimli::Reader::to_string_lossy(folder)
                .ok()
                .map(std::borrow::Cow::into_owned)
        })
        .unwrap_or_default();
    // Version 5 counts files from 0, earlier ones from 1.
    let first = u64::from(header.version() < 5);
    let count = header.file_names().len() as u64 + first;
    (0..count)
        .map(|index| {
            let Some(entry) = header.file(index) else {
                return String::new();
            };
            let name = text(entry.path_name()).unwrap_or_default();
            let folder = entry.directory(header).and_then(text).unwrap_or_default();
            join(&compiled_in, &join(&folder, &name))
        })
        .collect()
}

fn join(folder: &str, name: &str) -> String {
    let name = name.strip_prefix("./").unwrap_or(name);
    if name.starts_with('/') || folder.is_empty() {
        name.to_owned()
    } else {
        format!("{}/{name}", folder.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::path_ends_with;

    #[test]
    fn suffixes_stop_at_components() {
        assert!(path_ends_with("/a/b.c", "b.c"));
        assert!(path_ends_with("/a/b.c", "a/b.c"));
        assert!(path_ends_with("b.c", "b.c"));
        assert!(!path_ends_with("/a/ab.c", "b.c"));
    }
}
