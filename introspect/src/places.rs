//! Places in a program as people write them: `main`, `file.c:12`, `*0x401000`, `main+8`.
//!
//! A function means the first statement after its prologue in each of its instances, also of those that
//! were inlined, and of each that a template or a generic function was made to.

use std::collections::{BTreeMap, BTreeSet};

use crate::debug_info::DieOffset;
use crate::index::Kind;
use crate::program::{Program, last_segment};
use crate::scopes::blocks_at;
use crate::view::{View, ViewExt};

/// Lines after the one that was named, where it has no code.
const LINES_ON: u32 = 200;

/// Why a place is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No such function.
    #[error(
        "there is no function {name}{hint}; a place is FUNCTION, FILE:LINE, *ADDRESS or FUNCTION+OFFSET"
    )]
    NoFunction {
        /// As given.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// No such file.
    #[error("no source file of the program is called {0}")]
    NoFile(String),
    /// No code there or soon after.
    #[error("line {line} of {file} has no code, nor has any of the lines that follow it")]
    NoCode {
        /// File.
        file: String,
        /// Line.
        line: u32,
    },
    /// Not of the form.
    #[error("{0:?} is no place: write FUNCTION, FILE:LINE, *ADDRESS or FUNCTION+OFFSET")]
    Malformed(String),
}

impl Program {
    /// The addresses of a place, ascending. A line alone is one of `file`, where that is known.
    ///
    /// # Errors
    /// It is none in this program.
    pub fn addresses_of(
        &self,
        view: &dyn View,
        place: &str,
        file: Option<&str>,
    ) -> Result<Vec<u64>, PlaceError> {
        let bad = || PlaceError::Malformed(place.to_owned());
        let place = place.trim();
        if let Some(address) = place.strip_prefix('*') {
            return Ok(vec![number(address.trim()).ok_or_else(bad)?]);
        }
        if let Ok(line) = place.parse() {
            return self.of_line(view, file.ok_or_else(bad)?, line);
        }
        if let Some((file, line)) = place.rsplit_once(':')
            && !file.ends_with(':')
            && let Ok(line) = line.parse()
        {
            return self.of_line(view, file, line);
        }
        if let Some((function, offset)) = place.rsplit_once('+')
            && let Some(offset) = number(offset.trim())
        {
            let starts = self.functions_called(function.trim());
            if !starts.is_empty() {
                return Ok(starts
                    .iter()
                    .map(|(at, _)| at.wrapping_add(offset))
                    .collect());
            }
        }
        self.of_function(view, place)
    }

    fn of_function(&self, view: &dyn View, name: &str) -> Result<Vec<u64>, PlaceError> {
        let functions = self.functions_called(name);
        let mut found: BTreeSet<u64> = functions
            .iter()
            .map(|&(start, end)| self.after_prologue(view, start, end))
            .collect();
        found.extend(self.inlined_called(name));
        if found.is_empty() {
            return Err(PlaceError::NoFunction {
                name: name.to_owned(),
                hint: self.function_like(name),
            });
        }
        Ok(found.into_iter().collect())
    }

    fn of_line(&self, view: &dyn View, file: &str, line: u32) -> Result<Vec<u64>, PlaceError> {
        if self.sources_named(file).is_empty() {
            return Err(PlaceError::NoFile(file.to_owned()));
        }
        let with_code = |line: u32| {
            let at = self.addresses_of_line(file, line);
            (!at.is_empty()).then_some(at)
        };
        let all = (line..=line.saturating_add(LINES_ON)).find_map(with_code);
        let all = all.ok_or_else(|| PlaceError::NoCode {
            file: file.to_owned(),
            line,
        })?;
        // A line that the compiler has cut into pieces is one place in each block.
        let mut first: BTreeMap<(usize, DieOffset), u64> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for address in all {
            match self.block_around(address) {
                Some(block) => {
                    let lowest = first.entry(block).or_insert(address);
                    *lowest = (*lowest).min(address);
                }
                None => _ = found.insert(address),
            }
        }
        for address in first.into_values() {
            let function = self.function_at(address).filter(|f| f.start == address);
            found.insert(function.map_or(address, |f| self.after_prologue(view, f.start, f.end)));
        }
        Ok(found.into_iter().collect())
    }

    fn block_around(&self, address: u64) -> Option<(usize, DieOffset)> {
        let (number, module, within) = self.module_at(address)?;
        let debug = module.object.debug()?;
        let function = debug.function_at(within)?;
        let block = blocks_at(debug, function.die, within).pop()?;
        Some((number, block.die))
    }

    /// Start and end of each function of this name that is no inlined one.
    fn functions_called(&self, name: &str) -> Vec<(u64, u64)> {
        let mut found = BTreeSet::new();
        for (number, module) in self.modules().iter().enumerate() {
            let Some(debug) = module.object.debug() else {
                continue;
            };
            for die in self.dies_called(number, name) {
                for (start, end) in debug.ranges_of(die).into_iter().take(1) {
                    found.insert((
                        start.wrapping_add(module.bias),
                        end.wrapping_add(module.bias),
                    ));
                }
            }
        }
        if found.is_empty() {
            let symbol = self.symbol_named(name);
            found.extend(symbol.map(|(start, size)| (start, start.wrapping_add(size.max(1)))));
        }
        found.into_iter().collect()
    }

    /// Functions of a module that are called so, whatever their template arguments are.
    fn dies_called(&self, module: usize, name: &str) -> Vec<DieOffset> {
        let Some(debug) = self.modules().get(module).and_then(|m| m.object.debug()) else {
            return Vec::new();
        };
        let last = last_segment(name);
        let is_general = !last.contains('<');
        let called = |full: &str| {
            let (full, name) = if is_general {
                (without_arguments(full), name)
            } else {
                (full, name)
            };
            full == name || full.ends_with(&format!("::{name}"))
        };
        let named = debug.index().names().filter(|(known, _)| {
            *known == last || is_general && known.split('<').next() == Some(last)
        });
        let functions = named
            .flat_map(|(_, all)| all)
            .filter(|named| named.kind == Kind::Function);
        functions
            .filter(|named| {
                self.function_name(module, named.die)
                    .is_some_and(|full| called(&full))
            })
            .map(|named| named.die)
            .collect()
    }

    /// Where the code of inlined calls of a function is entered.
    fn inlined_called(&self, name: &str) -> Vec<u64> {
        let last = last_segment(name);
        let mut found = Vec::new();
        for (number, module) in self.modules().iter().enumerate() {
            let Some(debug) = module.object.debug() else {
                continue;
            };
            let mut known: BTreeMap<DieOffset, bool> = BTreeMap::new();
            for &(origin, address) in debug.index().inlined() {
                let is_it = *known.entry(origin).or_insert_with(|| {
                    let full = self.function_name(number, origin).unwrap_or_default();
                    let general = if last.contains('<') {
                        &full
                    } else {
                        without_arguments(&full)
                    };
                    general == name || general.ends_with(&format!("::{name}"))
                });
                if is_it {
                    found.push(address.wrapping_add(module.bias));
                }
            }
        }
        found
    }

    /// The first statement after the prologue of a function, as gdb finds it: where the compiler says; of
    /// one that sets up a frame pointer, the line after the one which that is on; else its start.
    pub fn after_prologue(&self, view: &dyn View, start: u64, end: u64) -> u64 {
        let Some((_, module, address)) = self.module_at(start) else {
            return start;
        };
        let lines = module
            .object
            .debug()
            .and_then(|debug| debug.lines(debug.unit_at(address)?));
        let bias = module.bias;
        let within = (address, end.wrapping_sub(bias));
        if let Some(at) = lines.and_then(|lines| lines.prologue_end(within)) {
            return at.wrapping_add(bias);
        }
        let Some(set_up) = frame_pointer_set_up(view, start) else {
            return start;
        };
        let next = lines.and_then(|lines| lines.next_after(set_up.wrapping_sub(bias), within.1));
        next.map_or(set_up, |at| at.wrapping_add(bias))
    }

    /// Whether a statement of a line begins right at an address.
    pub fn begins_line(&self, pc: u64) -> bool {
        let begins = || {
            let (_, module, address) = self.module_at(pc)?;
            let debug = module.object.debug()?;
            Some(debug.lines(debug.unit_at(address)?)?.begins_at(address))
        };
        begins().unwrap_or(false)
    }

    fn function_like(&self, name: &str) -> String {
        let last = last_segment(name).to_lowercase();
        let all = self.modules().iter().filter_map(|m| m.object.debug());
        let functions = all
            .flat_map(|debug| debug.index().names())
            .filter(|(_, all)| all.iter().any(|named| named.kind == Kind::Function));
        let like = functions
            .map(|(known, _)| known)
            .filter(|known| {
                known.to_lowercase().contains(&last) || last.contains(&known.to_lowercase())
            })
            .min_by_key(|known| (known.len().abs_diff(last.len()), *known));
        like.map_or_else(String::new, |like| format!(", there is {like}"))
    }
}

/// Where the frame pointer has been set up, if that is how the function begins: `endbr64`, perhaps,
/// `push %rbp`, `mov %rsp,%rbp`.
fn frame_pointer_set_up(view: &dyn View, start: u64) -> Option<u64> {
    let bytes = view.read_vec(start, 12).ok()?;
    let mut at = if bytes.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) {
        4
    } else {
        0
    };
    if bytes.get(at) != Some(&0x55) {
        return None;
    }
    at += 1;
    let mov = bytes.get(at..at + 3)?;
    (mov == [0x48, 0x89, 0xe5] || mov == [0x48, 0x8b, 0xec]).then(|| start + at as u64 + 3)
}

/// `a::f<int>` as `a::f`; what is not the last segment stays.
fn without_arguments(full: &str) -> &str {
    let last = last_segment(full);
    let before = full.len() - last.len();
    let end = last.find('<').filter(|at| *at > 0).unwrap_or(last.len());
    full.get(..before + end).unwrap_or(full)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_arguments_of_the_last_segment_go() {
        assert_eq!(without_arguments("a::f<int>"), "a::f");
        assert_eq!(without_arguments("a<b::c>::f"), "a<b::c>::f");
        assert_eq!(without_arguments("f"), "f");
        assert_eq!(without_arguments("<T as U>::f<i32>"), "<T as U>::f");
    }
}
