//! One step up the stack.

use gimli::{CfaRule, Register, RegisterRule, UnwindContext, UnwindSection, UnwindTableRow};

use crate::location::evaluate_unwind;
use crate::object_file::{Slice, UnwindSections};
use crate::program::Program;
use crate::registers::{RBP, RIP, RSP, Registers};
use crate::view::{View, ViewExt};

/// The caller's registers, and the frame address of the callee.
pub struct Step {
    pub cfa: Option<u64>,
    pub registers: Registers,
    /// The callee was a signal trampoline: the caller's pc is where it was interrupted.
    pub signal: bool,
    pub guessed: bool,
}

/// Registers a callee must preserve (System V psABI): rbx, rbp, r12 to r15.
const CALLEE_SAVED: [u16; 6] = [3, 6, 12, 13, 14, 15];

/// Unwinds one frame. `lookup_pc` is where the frame's rules are looked up. None: there is nothing above.
pub fn step(
    program: &Program,
    view: &dyn View,
    registers: &Registers,
    lookup_pc: u64,
) -> Option<Step> {
    let Some((_, module, address)) = program.module_at(lookup_pc) else {
        return guess(program, view, registers, lookup_pc);
    };
    let sections = module.object.unwind_sections();
    let found = with_row(sections, address, |unwound| apply(view, registers, unwound));
    found.unwrap_or_else(|| guess(program, view, registers, lookup_pc))
}

/// A table row with what its expressions need.
struct Unwound<'a> {
    row: &'a UnwindTableRow<usize>,
    expression: &'a dyn Fn(&gimli::UnwindExpression<usize>) -> Option<gimli::Expression<Slice>>,
    encoding: gimli::Encoding,
    signal: bool,
}

/// Calls `then` with the row for an address, from `.eh_frame` or else `.debug_frame`.
fn with_row<T>(
    sections: &UnwindSections,
    address: u64,
    then: impl Fn(&Unwound<'_>) -> T,
) -> Option<T> {
    if let Some(frames) = &sections.eh_frame {
        let table = sections
            .eh_frame_hdr
            .as_ref()
            .and_then(gimli::ParsedEhFrameHdr::table);
        let found = match table {
            // Not gimli's own `fde_for_address`, which subtracts the section's address unchecked.
            Some(table) => table
                .lookup(address, &sections.bases)
                .and_then(gimli::Pointer::direct)
                .and_then(|at| {
                    let offset = at
                        .checked_sub(sections.eh_frame_address)
                        .and_then(|offset| usize::try_from(offset).ok());
                    let offset =
                        gimli::EhFrameOffset(offset.ok_or(gimli::Error::NoUnwindInfoForAddress)?);
                    frames.fde_from_offset(&sections.bases, offset, UnwindSection::cie_from_offset)
                }),
            None => {
                frames.fde_for_address(&sections.bases, address, UnwindSection::cie_from_offset)
            }
        };
        if let Ok(fde) = found
            && fde.contains(address)
        {
            return row_of(frames, sections, &fde, address, &then);
        }
    }
    let frames = sections.debug_frame.as_ref()?;
    let fde = frames
        .fde_for_address(&sections.bases, address, UnwindSection::cie_from_offset)
        .ok()?;
    row_of(frames, sections, &fde, address, &then)
}

fn row_of<T, S: UnwindSection<Slice>>(
    frames: &S,
    sections: &UnwindSections,
    fde: &gimli::FrameDescriptionEntry<Slice>,
    address: u64,
    then: &impl Fn(&Unwound<'_>) -> T,
) -> Option<T> {
    let mut context = UnwindContext::new();
    let row = fde
        .unwind_info_for_address(frames, &sections.bases, &mut context, address)
        .ok()?;
    let expression = |unwind: &gimli::UnwindExpression<usize>| unwind.get(frames).ok();
    Some(then(&Unwound {
        row,
        expression: &expression,
        encoding: fde.cie().encoding(),
        signal: fde.is_signal_trampoline(),
    }))
}

fn apply(view: &dyn View, registers: &Registers, unwound: &Unwound<'_>) -> Option<Step> {
    let cfa = match unwound.row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            registers.get(register.0)?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(expression) => evaluate_unwind(
            (unwound.expression)(expression)?,
            unwound.encoding,
            view,
            registers,
            None,
        )?,
    };
    let mut caller = registers.of_caller();
    for number in 0..RIP {
        let value = match unwound.row.register(Register(number)) {
            RegisterRule::Undefined if CALLEE_SAVED.contains(&number) => registers.get(number),
            RegisterRule::Undefined if number == RSP => Some(cfa),
            rule => recover(view, registers, unwound, cfa, number, &rule),
        };
        caller.set(number, value);
    }
    let pc = recover(
        view,
        registers,
        unwound,
        cfa,
        RIP,
        &unwound.row.register(Register(RIP)),
    );
    // An undefined return address marks the outermost frame; its own CFA is still good.
    caller.set(RIP, pc);
    Some(Step {
        cfa: Some(cfa),
        registers: caller,
        signal: unwound.signal,
        guessed: false,
    })
}

fn recover(
    view: &dyn View,
    registers: &Registers,
    unwound: &Unwound<'_>,
    cfa: u64,
    number: u16,
    rule: &RegisterRule<usize>,
) -> Option<u64> {
    let evaluate = |expression| {
        evaluate_unwind(
            (unwound.expression)(expression)?,
            unwound.encoding,
            view,
            registers,
            Some(cfa),
        )
    };
    match rule {
        RegisterRule::SameValue => registers.get(number),
        RegisterRule::Offset(offset) => view.read_u64(cfa.wrapping_add_signed(*offset)).ok(),
        RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
        RegisterRule::Register(other) => registers.get(other.0),
        RegisterRule::Expression(expression) => view.read_u64(evaluate(expression)?).ok(),
        RegisterRule::ValExpression(expression) => evaluate(expression),
        RegisterRule::Constant(value) => Some(*value),
        _ => None,
    }
}

/// Without rules: the return address just pushed (a call to nowhere, or the first instruction), else the rbp chain.
fn guess(
    program: &Program,
    view: &dyn View,
    registers: &Registers,
    lookup_pc: u64,
) -> Option<Step> {
    let sp = registers.get(RSP)?;
    let executable = |pc: u64| pc != 0 && program.module_at(pc.wrapping_sub(1)).is_some();
    let entered = program.module_at(lookup_pc).is_none()
        || program
            .symbol_at(lookup_pc)
            .is_some_and(|(_, into)| into == 0);
    if entered
        && let Ok(pc) = view.read_u64(sp)
        && executable(pc)
    {
        return Some(guessed_step(
            registers,
            pc,
            sp.wrapping_add(8),
            registers.get(RBP),
        ));
    }
    let rbp = registers
        .get(RBP)
        .filter(|rbp| *rbp >= sp && rbp - sp < 1 << 24)?;
    let pc = view
        .read_u64(rbp.wrapping_add(8))
        .ok()
        .filter(|pc| executable(*pc))?;
    let caller_rbp = view.read_u64(rbp).ok();
    Some(guessed_step(
        registers,
        pc,
        rbp.wrapping_add(16),
        caller_rbp,
    ))
}

fn guessed_step(registers: &Registers, pc: u64, sp: u64, rbp: Option<u64>) -> Step {
    let mut caller = registers.of_caller();
    caller.set(RIP, Some(pc));
    caller.set(RSP, Some(sp));
    caller.set(RBP, rbp);
    Step {
        cfa: None,
        registers: caller,
        signal: false,
        guessed: true,
    }
}
