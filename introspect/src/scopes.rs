//! Lexical blocks and inlined calls around an address, and the variables they declare.

use crate::debug_info::{DebugInfo, DieOffset, Entry, Unit, unsigned};

/// Depth and breadth at which a function's DIE tree counts as damaged.
const DEPTH_LIMIT: usize = 256;
const BREADTH_LIMIT: usize = 200_000;

/// A function, a lexical block or an inlined call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub die: DieOffset,
    /// Set on inlined calls.
    pub inlined: Option<CallSite>,
}

/// Where an inlined call was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSite {
    pub file: u64,
    pub line: u32,
}

/// A variable or parameter of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub die: DieOffset,
    pub argument: bool,
}

/// From the function inwards, the blocks whose code covers a file address.
pub fn blocks_at(debug: &DebugInfo, function: DieOffset, address: u64) -> Vec<Block> {
    let mut blocks = vec![Block {
        die: function,
        inlined: None,
    }];
    while blocks.len() < DEPTH_LIMIT {
        let Some(inner) = blocks
            .last()
            .and_then(|block| child_at(debug, block.die, address))
        else {
            break;
        };
        blocks.push(inner);
    }
    blocks
}

/// The variables a block itself declares, in order.
pub fn variables_of(debug: &DebugInfo, block: DieOffset) -> Vec<Variable> {
    let mut found = Vec::new();
    each_child(debug, block, |unit, entry, die| {
        let argument = entry.tag() == gimli::DW_TAG_formal_parameter;
        if argument || entry.tag() == gimli::DW_TAG_variable {
            found.extend(debug.name(unit, entry).map(|name| Variable {
                name,
                die,
                argument,
            }));
        }
        false
    });
    found
}

/// Calls `each` on the direct children until it says true.
pub fn each_child(
    debug: &DebugInfo,
    parent: DieOffset,
    mut each: impl FnMut(&Unit, &Entry<'_>, DieOffset) -> bool,
) {
    let Some((unit, offset)) = debug.locate(parent) else {
        return;
    };
    let Ok(mut cursor) = unit.entries_at_offset(offset) else {
        return;
    };
    match cursor.next_dfs() {
        Ok(Some((_, entry))) if entry.has_children() => {}
        _ => return,
    }
    if !matches!(cursor.next_entry(), Ok(Some(()))) {
        return;
    }
    for _ in 0..BREADTH_LIMIT {
        let Some(entry) = cursor.current() else {
            return;
        };
        let Some(die) = unit.die(entry.offset()) else {
            return;
        };
        if each(unit, entry, die) || !matches!(cursor.next_sibling(), Ok(Some(_))) {
            return;
        }
    }
}

fn child_at(debug: &DebugInfo, parent: DieOffset, address: u64) -> Option<Block> {
    let mut found = None;
    each_child(debug, parent, |unit, entry, die| {
        let inlined = entry.tag() == gimli::DW_TAG_inlined_subroutine;
        if (inlined || entry.tag() == gimli::DW_TAG_lexical_block) && covers(unit, entry, address) {
            let line = unsigned(entry, gimli::DW_AT_call_line)
                .and_then(|line| u32::try_from(line).ok())
                .unwrap_or(0);
            let site = CallSite {
                file: call_file(entry),
                line,
            };
            found = Some(Block {
                die,
                inlined: inlined.then_some(site),
            });
        }
        found.is_some()
    });
    found
}

fn call_file(entry: &Entry<'_>) -> u64 {
    match entry.attr_value(gimli::DW_AT_call_file) {
        Ok(Some(gimli::AttributeValue::FileIndex(index))) => index,
        Ok(Some(value)) => value.udata_value().unwrap_or(0),
        _ => 0,
    }
}

fn covers(unit: &Unit, entry: &Entry<'_>, address: u64) -> bool {
    let Ok(mut ranges) = unit.dwarf.die_ranges(unit, entry) else {
        return false;
    };
    while let Ok(Some(range)) = ranges.next() {
        if (range.begin..range.end).contains(&address) {
            return true;
        }
    }
    false
}
