//! What a function gave back, right after its return.

use crate::debug_info::{DebugInfo, DieOffset};
use crate::decode::{Decoder, Limits, Object};
use crate::program::Program;
use crate::registers::Registers;
use crate::storage::Storage;
use crate::types::{Encoding, Shape, Ty};
use crate::view::View;

/// Number of rax in DWARF.
const RAX: u16 = 0;
/// Declarations and copies that lead from a function to what says its type.
const HOPS: usize = 4;

impl Program {
    /// The value that the function around `pc` returned to where `registers` are, where it is a number,
    /// an enumerator or a pointer: those come in rax (System V psABI, section 3.2.3).
    pub fn returned(&self, view: &dyn View, pc: u64, registers: &Registers) -> Option<String> {
        let (object, module, address) = self.module_at(pc)?;
        let debug = module.object.debug()?;
        let die = type_of(debug, debug.function_at(address)?.die)?;
        let ty = Ty::Die { object, die };
        let size = usize::try_from(self.size_of(&ty)?).ok()?;
        let in_rax = match &self.strip(&ty).shape {
            Shape::Base(encoding) => *encoding != Encoding::Float,
            Shape::Pointer { .. } | Shape::Enum { .. } => true,
            _ => false,
        };
        let bytes = registers.get(RAX)?.to_le_bytes();
        let bytes = bytes.get(..size).filter(|_| in_rax)?;
        let object = Object::new(ty.clone(), Storage::bytes(bytes.to_vec()));
        let value = Decoder::new(self, view, None, Limits::default()).value(&object);
        Some(crate::expr::answer_text(&value, &self.type_name(&ty)))
    }
}

fn type_of(debug: &DebugInfo, function: DieOffset) -> Option<DieOffset> {
    let mut die = function;
    for _ in 0..HOPS {
        let (unit, offset) = debug.locate(die)?;
        let entry = unit.entry(offset).ok()?;
        if let Some(ty) = debug.reference_attr(unit, &entry, gimli::DW_AT_type) {
            return Some(ty);
        }
        die = debug.origin(unit, &entry)?;
    }
    None
}
