//! Where control leaves a stretch of code: what a stepper waits for instead of executing it instruction
//! by instruction.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

use crate::view::{View, ViewExt};

/// Longest stretch that is looked at, bytes.
const LIMIT: u64 = 1 << 16;
/// Longest instruction, bytes.
const LONGEST: usize = 15;

/// What an instruction does with control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It goes on with the next one.
    None,
    /// It comes back.
    Call,
    /// To where memory or a register says: a return, a jump through a table.
    Elsewhere,
    /// To here, perhaps.
    Jump(u64),
}

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where the next one is.
    pub next: u64,
    /// What it does with control.
    pub turn: Turn,
    /// Nothing but a landing pad or a jump through memory, as a stub to another library has.
    pub is_stub: bool,
}

/// Where a stretch of code is left, or may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    /// Outside of it: whoever comes there has left.
    pub outside: BTreeSet<u64>,
    /// Instructions in it that lead nobody knows where until they are executed.
    pub turns: BTreeSet<u64>,
    /// Instructions in it that call.
    pub calls: BTreeSet<u64>,
}

/// The instruction at an address; None where none can be read.
pub fn step_at(view: &dyn View, address: u64) -> Option<Step> {
    let bytes = (1..=LONGEST)
        .rev()
        .find_map(|len| view.read_vec(address, len).ok())?;
    let mut decoder = Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE);
    let code = decoder.decode();
    (!code.is_invalid()).then(|| step_of(&code))
}

/// Where `start..end` is left, of code that begins at its start.
pub fn exits_of(view: &dyn View, (start, end): (u64, u64)) -> Option<Exits> {
    let len = end.checked_sub(start).filter(|len| *len <= LIMIT)?;
    let bytes = view.read_vec(start, usize::try_from(len).ok()?).ok()?;
    let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
    let mut exits = Exits::default();
    let mut code = Instruction::default();
    let mut falls = true;
    while decoder.can_decode() {
        decoder.decode_out(&mut code);
        if code.is_invalid() {
            return None;
        }
        let step = step_of(&code);
        falls = !matches!(
            code.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return
        );
        match step.turn {
            Turn::None => {}
            Turn::Call => _ = exits.calls.insert(code.ip()),
            Turn::Elsewhere => _ = exits.turns.insert(code.ip()),
            Turn::Jump(to) if (start..end).contains(&to) => {}
            Turn::Jump(to) => _ = exits.outside.insert(to),
        }
    }
    if falls {
        exits.outside.insert(end);
    }
    Some(exits)
}

fn step_of(code: &Instruction) -> Step {
    let near = matches!(
        code.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    let turn = match code.flow_control() {
        FlowControl::Next | FlowControl::Interrupt | FlowControl::Exception => Turn::None,
        // A system call is one too, for the decoder.
        FlowControl::Call | FlowControl::IndirectCall if is_call(code) => Turn::Call,
        FlowControl::Call | FlowControl::IndirectCall => Turn::None,
        FlowControl::ConditionalBranch
        | FlowControl::UnconditionalBranch
        | FlowControl::XbeginXabortXend
            if near =>
        {
            Turn::Jump(code.near_branch_target())
        }
        FlowControl::XbeginXabortXend => Turn::None,
        _ => Turn::Elsewhere,
    };
    Step {
        next: code.next_ip(),
        turn,
        is_stub: code.code() == Code::Endbr64 || code.flow_control() == FlowControl::IndirectBranch,
    }
}

fn is_call(code: &Instruction) -> bool {
    !matches!(code.code(), Code::Syscall | Code::Sysenter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Mapping, ThreadView, Unavailable};

    struct Text(&'static [u8]);

    impl View for Text {
        fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
            let from = usize::try_from(address.wrapping_sub(0x1000)).unwrap_or(usize::MAX);
            let bytes = from
                .checked_add(buf.len())
                .and_then(|to| self.0.get(from..to));
            buf.copy_from_slice(bytes.ok_or_else(|| Unavailable::not_mapped(address))?);
            Ok(())
        }

        fn threads(&self) -> Vec<ThreadView> {
            Vec::new()
        }

        fn mappings(&self) -> Vec<Mapping> {
            Vec::new()
        }
    }

    #[test]
    fn a_loop_with_a_call_is_left_at_its_end_and_by_its_jump() {
        // 1000: dec %eax; 1002: je 1010; 1004: call 2000; 1009: jmp 1000; 100b: (end)
        let text = Text(&[0xff, 0xc8, 0x74, 0x0c, 0xe8, 0xf7, 0x0f, 0, 0, 0xeb, 0xf5]);
        let exits = exits_of(&text, (0x1000, 0x100b)).unwrap();
        assert_eq!(
            exits.outside,
            BTreeSet::from([0x1010]),
            "it never falls through"
        );
        assert_eq!(exits.calls, BTreeSet::from([0x1004]));
        assert_eq!(exits.turns, BTreeSet::new());
        assert_eq!(step_at(&text, 0x1004).unwrap().next, 0x1009);
    }

    #[test]
    fn returns_and_jumps_through_tables_are_turns_and_system_calls_are_not() {
        // 1000: syscall; 1002: jmp *%rax; 1004: ret
        let text = Text(&[0x0f, 0x05, 0xff, 0xe0, 0xc3]);
        let exits = exits_of(&text, (0x1000, 0x1005)).unwrap();
        assert_eq!(exits.turns, BTreeSet::from([0x1002, 0x1004]));
        assert!(exits.outside.is_empty() && exits.calls.is_empty());
    }

    #[test]
    fn what_cannot_be_read_has_none() {
        assert_eq!(exits_of(&Text(&[0x90]), (0x1000, 0x1002)), None);
        assert_eq!(step_at(&Text(&[]), 0x1000), None);
    }
}
