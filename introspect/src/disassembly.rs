//! Machine code as text, each instruction with the source line that it belongs to.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction as Code,
    IntelFormatter,
};

use crate::program::Program;
use crate::view::{Unavailable, View, ViewExt};

/// Code that is disassembled at once, in bytes.
const CODE_LIMIT: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syntax {
    /// As gas and gdb write it.
    #[default]
    Att,
    Intel,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    pub address: u64,
    pub bytes: Vec<u8>,
    pub text: String,
    /// The function around it, and how far in.
    pub function: Option<(String, u64)>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// The instructions that begin in `start..end`, as the view has them: breakpoints and patches of the program included.
pub fn disassemble(
    program: &Program,
    view: &dyn View,
    (start, end): (u64, u64),
    syntax: Syntax,
) -> Result<Vec<Instruction>, Unavailable> {
    let len = end.saturating_sub(start).min(CODE_LIMIT);
    let bytes = view.read_vec(start, usize::try_from(len).unwrap_or(0))?;
    let mut formatter = formatter(syntax);
    let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
    let mut code = Code::default();
    let mut found = Vec::new();
    while decoder.can_decode() {
        let from = decoder.position();
        decoder.decode_out(&mut code);
        let mut text = String::new();
        formatter.format(&code, &mut text);
        text.push_str(&target(program, &code));
        let place = program.line_at(code.ip());
        found.push(Instruction {
            address: code.ip(),
            bytes: bytes[from..decoder.position()].to_vec(),
            text,
            function: program
                .function_at(code.ip())
                .map(|function| (function.name, code.ip() - function.start)),
            line: place.as_ref().map(|place| place.1),
            file: place.map(|place| place.0),
        });
    }
    Ok(found)
}

/// The addresses of so many instructions from `start` on, where no function says how far it goes.
pub fn extent_of(view: &dyn View, start: u64, count: usize) -> Result<(u64, u64), Unavailable> {
    // The last may end where the mapping does.
    let longest = count.saturating_mul(15);
    let bytes = (1..=longest)
        .rev()
        .step_by(15)
        .find_map(|len| view.read_vec(start, len).ok())
        .ok_or_else(|| Unavailable::not_mapped(start))?;
    let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
    let mut code = Code::default();
    for _ in 0..count {
        if !decoder.can_decode() {
            break;
        }
        decoder.decode_out(&mut code);
    }
    Ok((start, decoder.ip()))
}

/// What a jump leads to, or an operand relative to the instruction lies at, as gdb writes it.
fn target(program: &Program, code: &Code) -> String {
    let named = |address: u64| {
        let (name, offset) = program.symbol_at(address)?;
        // Between symbols there are stubs; the one before is not theirs.
        let within = program
            .function_at(address)
            .is_none_or(|function| address < function.end);
        within.then(|| match offset {
            0 => format!(" <{name}>"),
            _ => format!(" <{name}+{offset}>"),
        })
    };
    let direct = matches!(
        code.flow_control(),
        FlowControl::Call | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
    );
    if direct && code.near_branch_target() != 0 {
        return named(code.near_branch_target()).unwrap_or_default();
    }
    if code.is_ip_rel_memory_operand() {
        let address = code.ip_rel_memory_address();
        let name = named(address).unwrap_or_default();
        return format!("        # {address:#x}{name}");
    }
    String::new()
}

fn formatter(syntax: Syntax) -> Box<dyn Formatter> {
    let mut formatter: Box<dyn Formatter> = match syntax {
        Syntax::Att => Box::new(GasFormatter::new()),
        Syntax::Intel => Box::new(IntelFormatter::new()),
    };
    let options = formatter.options_mut();
    options.set_uppercase_hex(false);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_branch_leading_zeros(false);
    options.set_displacement_leading_zeros(false);
    options.set_rip_relative_addresses(true);
    options.set_space_after_operand_separator(false);
    formatter
}
