//! DWARF expressions: where a variable is, or what it is.

use std::sync::Arc;

use gimli::{EvaluationResult, Location, Value, ValueType};

use crate::call_sites::entry_value;
use crate::debug_info::{Attribute, DebugInfo, DieOffset, LINKED, Unit};
use crate::frames::Frame;
use crate::object_file::Slice;
use crate::program::Program;
use crate::registers::Registers;
use crate::storage::{Piece, Storage};
use crate::view::{Unavailable, View, ViewExt};

/// Operations of one expression; hostile ones may loop.
const OPERATION_LIMIT: u32 = 10_000;
/// Expressions within expressions (frame bases, entry values).
const NESTING_LIMIT: usize = 8;

/// What a location may refer to.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub program: &'a Program,
    pub view: &'a dyn View,
    pub module: usize,
    /// None for globals.
    pub frame: Option<&'a Frame>,
    /// Whose thread-local variables, where no frame says; None for the main thread's.
    pub thread: Option<u32>,
    /// The location says that a register survives the call the frame waits for.
    pub(crate) survives: bool,
    pub nesting: usize,
}

type Result<T> = std::result::Result<T, Unavailable>;

fn damaged<E>(_: E) -> Unavailable {
    Unavailable::because("damaged debug information")
}

impl<'a> Place<'a> {
    pub fn new(
        program: &'a Program,
        view: &'a dyn View,
        module: usize,
        frame: Option<&'a Frame>,
    ) -> Self {
        Self {
            program,
            view,
            module,
            frame,
            thread: None,
            survives: false,
            nesting: 0,
        }
    }

    pub(crate) fn debug(&self) -> Option<&'a DebugInfo> {
        self.program.modules().get(self.module)?.object.debug()
    }

    fn bias(&self) -> u64 {
        self.program
            .modules()
            .get(self.module)
            .map_or(0, |module| module.bias)
    }

    /// Storage of a variable or parameter DIE.
    pub fn variable(&self, die: DieOffset, size: Option<u64>) -> Storage {
        self.try_variable(die, size)
            .unwrap_or_else(Storage::Missing)
    }

    fn try_variable(&self, die: DieOffset, size: Option<u64>) -> Result<Storage> {
        let debug = self.debug().ok_or_else(Unavailable::optimized_out)?;
        let (unit, offset) = debug.locate(die).ok_or_else(|| damaged(()))?;
        let entry = unit.entry(offset).map_err(damaged)?;
        if let Some(value) = entry
            .attr_value(gimli::DW_AT_const_value)
            .map_err(damaged)?
        {
            return constant(debug, unit, value, size);
        }
        let Some(location) = entry.attr_value(gimli::DW_AT_location).map_err(damaged)? else {
            // An inlined copy may leave a constant to its origin.
            let origin = debug
                .origin(unit, &entry)
                .filter(|_| self.nesting < NESTING_LIMIT)
                .ok_or_else(Unavailable::optimized_out)?;
            return Self {
                nesting: self.nesting + 1,
                ..*self
            }
            .try_variable(origin, size);
        };
        let (expression, survives) = self.expression_of(debug, unit, location)?;
        Self { survives, ..*self }.evaluate(unit, expression, size)
    }

    /// The expression of a location attribute that holds at the frame's pc, and whether it vouches for registers
    /// that the call in progress may change. GCC ends a range before the call's last byte if it may; LLVM only
    /// after it, so there the range must go on behind the call.
    fn expression_of(
        &self,
        debug: &DebugInfo,
        unit: &Unit,
        location: Attribute,
    ) -> Result<(gimli::Expression<Slice>, bool)> {
        if let Attribute::Exprloc(expression) = location {
            return Ok((expression, false));
        }
        let mut list = unit
            .dwarf
            .attr_locations(unit, location)
            .map_err(damaged)?
            .ok_or_else(|| damaged(()))?;
        let frame = self.frame.ok_or_else(Unavailable::optimized_out)?;
        let pc = frame.lookup_pc.wrapping_sub(self.bias());
        while let Some(entry) = list.next().map_err(damaged)? {
            if (entry.range.begin..entry.range.end).contains(&pc) {
                let goes_on = frame.pc.wrapping_sub(self.bias()) < entry.range.end;
                return Ok((entry.data, goes_on || is_gcc(debug, unit)));
            }
        }
        Err(Unavailable::optimized_out())
    }

    fn register(&self, number: u16) -> Option<Vec<u8>> {
        let registers = &self.frame?.registers;
        if self.survives {
            registers.bytes_even_if_carried(number)
        } else {
            registers.bytes(number)
        }
    }

    /// Runs an expression. `size` is that of the object, for pieces that do not say theirs.
    pub fn evaluate(
        &self,
        unit: &Unit,
        expression: gimli::Expression<Slice>,
        size: Option<u64>,
    ) -> Result<Storage> {
        if self.nesting >= NESTING_LIMIT {
            return Err(damaged(()));
        }
        if expression.0.bytes().is_empty() {
            return Err(Unavailable::optimized_out());
        }
        let mut evaluation = expression.evaluation(unit.encoding());
        evaluation.set_max_iterations(OPERATION_LIMIT);
        let mut state = evaluation.evaluate().map_err(damaged)?;
        while !matches!(state, EvaluationResult::Complete) {
            state = self.supply(unit, &mut evaluation, state)?;
        }
        self.assemble(unit, evaluation.result(), size)
    }

    fn supply(
        &self,
        unit: &Unit,
        evaluation: &mut gimli::Evaluation<Slice>,
        wanted: EvaluationResult<Slice>,
    ) -> Result<EvaluationResult<Slice>> {
        match wanted {
            EvaluationResult::RequiresMemory {
                address,
                size,
                base_type,
                space: None,
            } => {
                let bytes = self.view.read_vec(address, usize::from(size))?;
                let kind = value_type(unit, base_type)?;
                evaluation.resume_with_memory(value_from(kind, &bytes)?)
            }
            EvaluationResult::RequiresRegister {
                register,
                base_type,
            } => {
                let bytes = self
                    .register(register.0)
                    .ok_or_else(Unavailable::optimized_out)?;
                evaluation.resume_with_register(value_from(value_type(unit, base_type)?, &bytes)?)
            }
            EvaluationResult::RequiresFrameBase => {
                evaluation.resume_with_frame_base(self.frame_base()?)
            }
            EvaluationResult::RequiresCallFrameCfa => evaluation.resume_with_call_frame_cfa(
                self.frame
                    .and_then(|frame| frame.cfa)
                    .ok_or_else(Unavailable::optimized_out)?,
            ),
            EvaluationResult::RequiresTls(offset) => {
                let offset = self.thread_offset(unit, offset)?;
                evaluation.resume_with_tls(self.thread_local(offset)?)
            }
            EvaluationResult::RequiresRelocatedAddress(address) => {
                evaluation.resume_with_relocated_address(address.wrapping_add(self.bias()))
            }
            EvaluationResult::RequiresIndexedAddress { index, relocate } => {
                let address = unit.dwarf.address(unit, index).map_err(damaged)?;
                evaluation.resume_with_indexed_address(if relocate {
                    address.wrapping_add(self.bias())
                } else {
                    address
                })
            }
            EvaluationResult::RequiresBaseType(offset) => {
                evaluation.resume_with_base_type(value_type(unit, offset)?)
            }
            EvaluationResult::RequiresEntryValue(expression) => {
                let deeper = Self {
                    nesting: self.nesting + 1,
                    ..*self
                };
                evaluation.resume_with_entry_value(Value::Generic(entry_value(
                    &deeper,
                    unit,
                    &expression,
                )?))
            }
            _ => return Err(Unavailable::because("unsupported location")),
        }
        .map_err(damaged)
    }

    fn assemble(
        &self,
        unit: &Unit,
        pieces: Vec<gimli::Piece<Slice>>,
        size: Option<u64>,
    ) -> Result<Storage> {
        if let [only] = pieces.as_slice()
            && only.size_in_bits.is_none()
        {
            return match &only.location {
                Location::Address { address } => Ok(Storage::Memory(*address)),
                Location::ImplicitPointer { value, byte_offset } => Ok(Storage::Implicit {
                    module: self.module,
                    die: DieOffset::in_info(unit.part, value.0).ok_or_else(|| damaged(()))?,
                    offset: *byte_offset,
                }),
                location => Ok(Storage::pieces(vec![self.piece(
                    location,
                    size.unwrap_or(8),
                    0,
                )?])),
            };
        }
        let mut gathered = Vec::new();
        for piece in &pieces {
            let bits = piece.size_in_bits.ok_or_else(|| damaged(()))?;
            if bits % 8 != 0 || piece.bit_offset.unwrap_or(0) % 8 != 0 || bits > 1 << 24 {
                return Err(Unavailable::because("unsupported location"));
            }
            gathered.push(self.piece(
                &piece.location,
                bits / 8,
                piece.bit_offset.unwrap_or(0) / 8,
            )?);
        }
        Ok(Storage::pieces(gathered))
    }

    fn piece(&self, location: &Location<Slice>, len: u64, skip: u64) -> Result<Piece> {
        let cut = |bytes: Vec<u8>| {
            let start = usize::try_from(skip).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            bytes
                .get(start..end.min(bytes.len()))
                .filter(|bytes| bytes.len() as u64 == len)
                .map(<[u8]>::to_vec)
        };
        let bytes = match location {
            Location::Empty | Location::ImplicitPointer { .. } => None,
            Location::Address { address } => {
                return Ok(Piece::Memory {
                    address: address.wrapping_add(skip),
                    len,
                });
            }
            Location::Register { register } => self.register(register.0).and_then(cut),
            Location::Value { value } => cut(value_bytes(value, len)),
            Location::Bytes { value } => cut(value.bytes().to_vec()),
        };
        Ok(bytes.map_or(Piece::Hole { len }, Piece::Bytes))
    }

    fn frame_base(&self) -> Result<u64> {
        let scope = self
            .frame
            .and_then(|frame| frame.scope.as_ref())
            .ok_or_else(Unavailable::optimized_out)?;
        let debug = self.debug().ok_or_else(|| damaged(()))?;
        let (unit, offset) = debug.locate(scope.function).ok_or_else(|| damaged(()))?;
        let entry = unit.entry(offset).map_err(damaged)?;
        let location = entry
            .attr_value(gimli::DW_AT_frame_base)
            .map_err(damaged)?
            .ok_or_else(Unavailable::optimized_out)?;
        let deeper = Self {
            nesting: self.nesting + 1,
            ..*self
        };
        let (base, _) = deeper.expression_of(debug, unit, location)?;
        match deeper.evaluate(unit, base, Some(8))? {
            Storage::Memory(address) => Ok(address),
            // A register location as frame base means the register's content (DWARF 5, 3.3.5).
            other => u64::try_from(other.read_unsigned(self.view, 8)?).map_err(damaged),
        }
    }

    /// The offset in a module's block. GCC (12 is seen to) gives the address in the file instead where the unit was split off.
    fn thread_offset(&self, unit: &Unit, given: u64) -> Result<u64> {
        let modules = self.program.modules();
        let tls = modules.get(self.module).and_then(|m| m.object.tls);
        let Some(tls) = tls.filter(|_| unit.part != LINKED) else {
            return Ok(given);
        };
        let from_address = given.checked_sub(tls.address);
        let from_address = from_address.filter(|offset| *offset < tls.memory_len);
        let by_gcc = self.debug().is_some_and(|debug| is_gcc(debug, unit));
        match (from_address, given < tls.memory_len) {
            (Some(offset), false) => Ok(offset),
            (Some(_), true) if by_gcc => Err(Unavailable::because(
                "the compiler gives an address or an offset, and it cannot be told which",
            )),
            (_, true) => Ok(given),
            (None, false) => Err(damaged(())),
        }
    }

    fn thread_local(&self, offset: u64) -> Result<u64> {
        let fs_base = match self.frame {
            Some(frame) => frame.registers.fs_base,
            None => {
                let wanted = |tid: u32| self.thread.is_none_or(|wanted| wanted == tid);
                self.view
                    .threads()
                    .iter()
                    .find(|thread| wanted(thread.tid))
                    .and_then(|thread| thread.registers.fs_base)
            }
        };
        crate::tls::address(
            self.program,
            self.view,
            self.module,
            fs_base.ok_or_else(Unavailable::optimized_out)?,
            offset,
        )
    }
}

/// An expression of the unwind tables: a number, from registers and memory alone.
pub fn evaluate_unwind(
    expression: gimli::Expression<Slice>,
    encoding: gimli::Encoding,
    view: &dyn View,
    registers: &Registers,
    initial: Option<u64>,
) -> Option<u64> {
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(OPERATION_LIMIT);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                evaluation.resume_with_register(Value::Generic(registers.get(register.0)?))
            }
            EvaluationResult::RequiresMemory { address, size, .. } => {
                let bytes = view.read_vec(address, usize::from(size)).ok()?;
                evaluation.resume_with_memory(value_from(ValueType::Generic, &bytes).ok()?)
            }
            _ => return None,
        }
        .ok()?;
    }
    match evaluation.result().first()?.location {
        Location::Address { address } => Some(address),
        Location::Value { value } => value.to_u64(u64::MAX).ok(),
        _ => None,
    }
}

fn value_type(unit: &Unit, offset: gimli::UnitOffset) -> Result<ValueType> {
    if offset.0 == 0 {
        return Ok(ValueType::Generic);
    }
    let entry = unit.entry(offset).map_err(damaged)?;
    ValueType::from_entry(&entry)
        .map_err(damaged)?
        .ok_or_else(|| Unavailable::because("unsupported location"))
}

/// The first bytes of a register or memory word as a value of a type.
fn value_from(kind: ValueType, bytes: &[u8]) -> Result<Value> {
    let mut padded = [0; 16];
    let len = bytes.len().min(16);
    padded[..len].copy_from_slice(&bytes[..len]);
    if kind == ValueType::Generic {
        let mut word = [0; 8];
        word.copy_from_slice(&padded[..8]);
        return Ok(Value::Generic(u64::from_le_bytes(word)));
    }
    Value::parse(
        kind,
        Slice::new(Arc::from(&padded[..]), gimli::LittleEndian),
    )
    .map_err(damaged)
}

fn value_bytes(value: &Value, len: u64) -> Vec<u8> {
    let extended = match value {
        Value::F32(number) => return number.to_le_bytes().to_vec(),
        Value::F64(number) => return number.to_le_bytes().to_vec(),
        Value::I8(number) => i128::from(*number).cast_unsigned(),
        Value::I16(number) => i128::from(*number).cast_unsigned(),
        Value::I32(number) => i128::from(*number).cast_unsigned(),
        Value::I64(number) => i128::from(*number).cast_unsigned(),
        other => other.to_u64(u64::MAX).unwrap_or(0).into(),
    };
    extended.to_le_bytes()[..usize::try_from(len).unwrap_or(16).min(16)].to_vec()
}

/// `DW_AT_const_value` in any of its forms.
fn constant(
    debug: &DebugInfo,
    unit: &Unit,
    value: Attribute,
    size: Option<u64>,
) -> Result<Storage> {
    let len = usize::try_from(size.unwrap_or(8)).unwrap_or(16).min(16);
    let number = match value {
        Attribute::Block(block) => return Ok(Storage::bytes(block.bytes().to_vec())),
        Attribute::String(_)
        | Attribute::DebugStrRef(_)
        | Attribute::DebugLineStrRef(_)
        | Attribute::DebugStrOffsetsIndex(_) => {
            let text = debug.string(unit, value).ok_or_else(|| damaged(()))?;
            return Ok(Storage::bytes(
                text.into_bytes().into_iter().chain([0]).collect(),
            ));
        }
        Attribute::Data1(byte) => u128::from(byte),
        Attribute::Data2(half) => u128::from(half),
        Attribute::Data4(word) => u128::from(word),
        Attribute::Data8(long) => u128::from(long),
        Attribute::Udata(number) => u128::from(number),
        Attribute::Sdata(number) => i128::from(number).cast_unsigned(),
        _ => return Err(Unavailable::because("unsupported location")),
    };
    Ok(Storage::bytes(number.to_le_bytes()[..len].to_vec()))
}

fn is_gcc(debug: &DebugInfo, unit: &Unit) -> bool {
    let mut cursor = unit.entries();
    let Ok(Some((_, root))) = cursor.next_dfs() else {
        return false;
    };
    debug
        .string_attr(unit, root, gimli::DW_AT_producer)
        .is_some_and(|producer| producer.starts_with("GNU "))
}
