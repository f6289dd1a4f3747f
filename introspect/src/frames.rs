//! Stack frames: unwound by CFI, with inlined calls made frames of their own.

use crate::cfi::{Step, step};
use crate::debug_info::{DebugInfo, DieOffset};
use crate::globals::TOOLCHAIN;
use crate::program::{Program, last_segment};
use crate::registers::Registers;
use crate::scopes::{Block, blocks_at};
use crate::view::View;

/// Frames of one thread, never more.
const FRAME_LIMIT: usize = 10_000;

/// One call, inlined or real.
#[derive(Debug, Clone)]
pub struct Frame {
    pub index: usize,
    pub tid: u32,
    pub pc: u64,
    /// Canonical frame address of the real frame; None where no unwind rule gives it.
    pub cfa: Option<u64>,
    /// As the function sees them at `pc`; registers that calls may clobber are unknown in outer frames.
    pub registers: Registers,
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub inlined: bool,
    /// Found without unwind information.
    pub guessed: bool,
    /// `pc`, or the call before it in frames that wait for a call to return.
    pub(crate) lookup_pc: u64,
    pub(crate) scope: Option<FrameScope>,
}

/// Where a frame's names are: blocks from the function (or inlined call) to the innermost.
#[derive(Debug, Clone)]
pub(crate) struct FrameScope {
    pub module: usize,
    /// The function with the code, whose frame base counts for inlined calls too.
    pub function: DieOffset,
    pub blocks: Vec<Block>,
}

/// A frame before its inlined calls are told apart.
pub(crate) struct Physical {
    pub registers: Registers,
    pub cfa: Option<u64>,
    pub guessed: bool,
    pub lookup_pc: u64,
    pub caller: Option<Step>,
}

impl Program {
    /// The frames of a thread, innermost first, up to `main` or the thread's start; at most `max`.
    pub fn backtrace(&self, view: &dyn View, tid: u32, max: usize) -> Vec<Frame> {
        let Some(thread) = view.threads().into_iter().find(|thread| thread.tid == tid) else {
            return Vec::new();
        };
        self.unwind(view, tid, thread.registers, max)
    }

    /// Like [`Program::backtrace`], from registers at hand.
    pub fn unwind(
        &self,
        view: &dyn View,
        tid: u32,
        registers: Registers,
        max: usize,
    ) -> Vec<Frame> {
        let max = max.min(FRAME_LIMIT);
        let mut frames = Vec::new();
        let mut next = Some(self.physical(view, registers, false, false));
        while let Some(current) = next.take() {
            self.expand(tid, &current, &mut frames);
            if frames.len() >= max || self.is_main(current.lookup_pc) {
                break;
            }
            let before = current.registers.sp();
            next = current.caller.and_then(|caller| {
                // A stack that does not shrink is damaged or a loop; only a signal may switch stacks.
                let onward = caller.signal || caller.registers.sp() > before;
                onward
                    .then(|| self.physical(view, caller.registers, !caller.signal, caller.guessed))
            });
        }
        frames.truncate(max);
        frames
    }

    /// One real frame with the step to its caller. `after_call`: the pc is a return address.
    pub(crate) fn physical(
        &self,
        view: &dyn View,
        registers: Registers,
        after_call: bool,
        guessed: bool,
    ) -> Physical {
        let pc = registers.pc();
        let lookup_pc = if after_call { pc.wrapping_sub(1) } else { pc };
        let caller = step(self, view, &registers, lookup_pc);
        let cfa = caller.as_ref().and_then(|step| step.cfa);
        let caller = caller.filter(|step| step.registers.pc() != 0);
        Physical {
            registers,
            cfa,
            guessed,
            lookup_pc,
            caller,
        }
    }

    fn expand(&self, tid: u32, physical: &Physical, frames: &mut Vec<Frame>) {
        let pc = physical.registers.pc();
        let plain = |frames: &Vec<Frame>| Frame {
            index: frames.len(),
            tid,
            pc,
            cfa: physical.cfa,
            registers: physical.registers.clone(),
            function: None,
            file: None,
            line: None,
            inlined: false,
            guessed: physical.guessed,
            lookup_pc: physical.lookup_pc,
            scope: None,
        };
        let described = self
            .module_at(physical.lookup_pc)
            .and_then(|(number, module, address)| {
                let debug = module.object.debug()?;
                let function = debug.function_at(address)?;
                Some((
                    number,
                    debug,
                    function.die,
                    blocks_at(debug, function.die, address),
                ))
            });
        let Some((module, debug, function, blocks)) = described else {
            let mut frame = plain(frames);
            frame.function = self
                .function_at(physical.lookup_pc)
                .map(|function| function.name);
            if let Some((file, line)) = self.line_at(physical.lookup_pc) {
                (frame.file, frame.line) = (Some(file), Some(line));
            }
            return frames.push(frame);
        };
        let mut place = self.line_at(physical.lookup_pc);
        let mut end = blocks.len();
        // Innermost inlined call first; each is placed where the one inside it was called.
        loop {
            let start = blocks[..end]
                .iter()
                .rposition(|block| block.inlined.is_some())
                .unwrap_or(0);
            let mut frame = plain(frames);
            let owner = blocks.get(start).map_or(function, |block| block.die);
            frame.function = self.function_name(module, owner);
            (frame.file, frame.line) = place
                .take()
                .map_or((None, None), |(file, line)| (Some(file), Some(line)));
            frame.scope = Some(FrameScope {
                module,
                function,
                blocks: blocks[start..end].to_vec(),
            });
            let call = blocks.get(start).and_then(|block| block.inlined);
            frame.inlined = call.is_some();
            frames.push(frame);
            let Some(call) = call else { return };
            place = call_place(debug, function, call.file, call.line);
            end = start;
        }
    }

    /// The frame that names belong to unless one is chosen: the innermost whose source is there to be read; on another
    /// machine, the innermost of an object that brings its debug information along; else the innermost with any.
    pub fn default_frame<'f>(&self, frames: &'f [Frame]) -> Option<&'f Frame> {
        let readable = |frame: &&Frame| {
            frame.has_source()
                && frame
                    .file
                    .as_deref()
                    .is_some_and(|file| std::path::Path::new(file).is_file())
        };
        let own = |frame: &&Frame| {
            frame
                .scope
                .as_ref()
                .and_then(|scope| self.modules().get(scope.module))
                .is_some_and(|module| module.object.has_own_debug())
        };
        frames
            .iter()
            .find(readable)
            .or_else(|| frames.iter().find(own))
            .or_else(|| frames.iter().find(|frame| frame.has_source()))
            .or(frames.first())
    }

    /// Whether a frame is of a file that brings its debug information along: what a library keeps for itself in its
    /// frames, known only by a separate debug file or from the toolchain's own sources, is nobody's question.
    pub(crate) fn is_own(&self, frame: &Frame) -> bool {
        let file = frame.file.as_deref().unwrap_or_default();
        let scope = frame
            .scope
            .as_ref()
            .filter(|_| !file.starts_with(TOOLCHAIN));
        scope
            .and_then(|scope| self.modules().get(scope.module))
            .is_some_and(|module| module.object.has_own_debug())
    }

    fn is_main(&self, pc: u64) -> bool {
        let Some((_, module, address)) = self.module_at(pc) else {
            return false;
        };
        // A function with debug information is known by that; there may be a great many symbols.
        if let Some(debug) = module.object.debug()
            && let Some(function) = debug.function_at(address)
            && let Some(name) = debug.name_of(function.die)
        {
            return name == "main" && debug.prefix_of(function.die).is_empty();
        }
        module
            .object
            .symbols()
            .at(address)
            .is_some_and(|symbol| &*symbol.name == "main")
    }
}

impl Frame {
    /// Whether `name` is the last path segment of the frame's function, generics aside.
    pub fn is_called(&self, name: &str) -> bool {
        self.function.as_deref().is_some_and(|function| {
            let last = last_segment(function);
            last == name || last.split('<').next() == Some(name) || function == name
        })
    }

    /// How `frame(...)` names it: by function where it is the innermost of that name, else by number.
    pub fn name_among(&self, frames: &[Frame]) -> String {
        let last = self.function.as_deref().map_or("", last_segment);
        let plain = last.split('<').next().unwrap_or(last);
        let sayable = !plain.is_empty() && plain.chars().all(|c| c.is_alphanumeric() || c == '_');
        let innermost = frames
            .iter()
            .find(|other| other.scope.is_some() && other.is_called(plain));
        match innermost {
            Some(first) if sayable && first.index == self.index => plain.to_owned(),
            _ => self.index.to_string(),
        }
    }

    /// Why its locals are not known, where the file that describes them is not there.
    pub fn trouble(&self, program: &Program) -> Option<String> {
        program.trouble_at(self.lookup_pc)
    }

    pub fn has_source(&self) -> bool {
        self.scope.is_some() && self.file.is_some()
    }
}

fn call_place(
    debug: &DebugInfo,
    function: DieOffset,
    file: u64,
    line: u32,
) -> Option<(String, u32)> {
    let table = debug.lines(debug.unit_index_of(function)?)?;
    Some((table.file(file)?.to_owned(), line))
}
