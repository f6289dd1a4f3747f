//! `DW_OP_entry_value`: what a register held when the function was entered, where the caller's call site says so.

use crate::debug_info::{Attribute, DebugInfo, DieOffset, Entry, Unit, flag};
use crate::frames::Frame;
use crate::location::Place;
use crate::object_file::Slice;
use crate::scopes::each_child;
use crate::view::Unavailable;

/// DIEs of a caller looked at for the one call site.
const SITE_LIMIT: usize = 200_000;

/// The value on entry that `expression` (one register) asks for.
pub(crate) fn entry_value(
    place: &Place<'_>,
    unit: &Unit,
    expression: &gimli::Expression<Slice>,
) -> Result<u64, Unavailable> {
    find(place, unit, expression).ok_or_else(Unavailable::optimized_out)
}

fn find(place: &Place<'_>, unit: &Unit, expression: &gimli::Expression<Slice>) -> Option<u64> {
    let gimli::Operation::Register { register } = expression
        .clone()
        .operations(unit.encoding())
        .next()
        .ok()??
    else {
        return None;
    };
    let frame = place.frame?;
    let scope = frame.scope.as_ref()?;
    let after_call = frame.lookup_pc != frame.pc;
    let here = place.program.physical(
        place.view,
        frame.registers.clone(),
        after_call,
        frame.guessed,
    );
    let up = here.caller.filter(|up| !up.signal && !up.guessed)?;
    let above = place
        .program
        .physical(place.view, up.registers, true, false);
    let (module, loaded, address) = place.program.module_at(above.lookup_pc)?;
    let debug = loaded.object.debug()?;
    let caller = debug.function_at(address)?.die;
    let returns_to = above.registers.pc().wrapping_sub(loaded.bias);
    let site = site_returning_to(debug, caller, returns_to)?;
    if !calls(debug, site, place.debug()?, scope.function) {
        return None;
    }
    let value = parameter(debug, site, register)?;
    let caller_frame = Frame {
        index: 0,
        tid: frame.tid,
        pc: above.registers.pc(),
        cfa: above.cfa,
        registers: above.registers,
        function: None,
        file: None,
        line: None,
        inlined: false,
        guessed: false,
        lookup_pc: above.lookup_pc,
        scope: Some(crate::frames::FrameScope {
            module,
            function: caller,
            blocks: Vec::new(),
        }),
    };
    let outer = Place {
        module,
        frame: Some(&caller_frame),
        nesting: place.nesting + 1,
        survives: false,
        ..*place
    };
    let (caller_unit, _) = debug.locate(caller)?;
    match outer.evaluate(caller_unit, value, Some(8)).ok()? {
        // A call value is a plain expression: what would be an address is the value.
        crate::storage::Storage::Memory(number) => Some(number),
        other => u64::try_from(other.read_unsigned(place.view, 8).ok()?).ok(),
    }
}

/// The call site DIE below a function whose call returns to a file address.
fn site_returning_to(debug: &DebugInfo, function: DieOffset, address: u64) -> Option<DieOffset> {
    let mut pending = vec![function];
    let mut visited = 0;
    let mut found = None;
    while let Some(parent) = pending.pop() {
        each_child(debug, parent, |unit, entry, die| {
            visited += 1;
            match entry.tag() {
                gimli::DW_TAG_call_site | gimli::DW_TAG_GNU_call_site
                    if return_address(unit, entry) == Some(address) =>
                {
                    found = Some(die)
                }
                gimli::DW_TAG_lexical_block | gimli::DW_TAG_inlined_subroutine => pending.push(die),
                _ => {}
            }
            found.is_some() || visited > SITE_LIMIT
        });
        if found.is_some() || visited > SITE_LIMIT {
            break;
        }
    }
    found
}

fn return_address(unit: &Unit, entry: &Entry<'_>) -> Option<u64> {
    [gimli::DW_AT_call_return_pc, gimli::DW_AT_low_pc]
        .into_iter()
        .find_map(|name| {
            unit.dwarf
                .attr_address(unit, entry.attr_value(name).ok()??)
                .ok()?
        })
}

/// Whether the call certainly went to `function`: a tail call in between would make the site's parameters another's.
fn calls(debug: &DebugInfo, site: DieOffset, callee: &DebugInfo, function: DieOffset) -> bool {
    let Some(target) = called(debug, site) else {
        return false;
    };
    let (target, function) = (first_of(debug, target), first_of(callee, function));
    let same_file = std::ptr::eq(debug, callee);
    // A function of another unit is declared in the caller's: external names are one namespace.
    same_file && target == function
        || external_name(debug, target)
            .is_some_and(|name| external_name(callee, function) == Some(name))
}

/// The function a call site names, unless the call is a jump.
fn called(debug: &DebugInfo, site: DieOffset) -> Option<DieOffset> {
    let (unit, offset) = debug.locate(site)?;
    let entry = unit.entry(offset).ok()?;
    if flag(&entry, gimli::DW_AT_call_tail_call) || flag(&entry, gimli::DW_AT_GNU_tail_call) {
        return None;
    }
    let names = [gimli::DW_AT_call_origin, gimli::DW_AT_abstract_origin];
    names
        .into_iter()
        .find_map(|name| debug.reference_attr(unit, &entry, name))
}

/// The DIE that a copy or a definition goes back to.
fn first_of(debug: &DebugInfo, die: DieOffset) -> DieOffset {
    let mut die = die;
    for _ in 0..4 {
        let Some((unit, offset)) = debug.locate(die) else {
            break;
        };
        let Some(next) = unit
            .entry(offset)
            .ok()
            .and_then(|entry| debug.origin(unit, &entry))
        else {
            break;
        };
        die = next;
    }
    die
}

fn external_name(debug: &DebugInfo, die: DieOffset) -> Option<String> {
    let (unit, offset) = debug.locate(die)?;
    let entry = unit.entry(offset).ok()?;
    let names = [gimli::DW_AT_linkage_name, gimli::DW_AT_name];
    flag(&entry, gimli::DW_AT_external).then(|| {
        names
            .into_iter()
            .find_map(|name| debug.string_attr(unit, &entry, name))
    })?
}

fn parameter(
    debug: &DebugInfo,
    site: DieOffset,
    register: gimli::Register,
) -> Option<gimli::Expression<Slice>> {
    let mut found = None;
    each_child(debug, site, |unit, entry, _| {
        let Ok(Some(Attribute::Exprloc(location))) = entry.attr_value(gimli::DW_AT_location) else {
            return false;
        };
        let first = location.operations(unit.encoding()).next();
        if matches!(first, Ok(Some(gimli::Operation::Register { register: at })) if at == register)
        {
            found = [gimli::DW_AT_call_value, gimli::DW_AT_GNU_call_site_value]
                .into_iter()
                .find_map(|name| match entry.attr_value(name) {
                    Ok(Some(Attribute::Exprloc(value))) => Some(value),
                    _ => None,
                });
        }
        found.is_some()
    });
    found
}
