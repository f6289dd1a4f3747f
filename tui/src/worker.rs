//! Answers questions off the drawing thread, with a connection of its own. The newest question cancels the others.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use introspect::disassembly::{Instruction, Syntax, disassemble, extent_of};
use introspect::{Frame, Program, View};

use crate::access::{Access, AccessError, Origin};
use crate::data::{FrameKey, FrameRow, Look, Question, Source, Thread};
use crate::roots::{Moment, roots};
use crate::source::Sources;
use crate::telescope::memory;
use crate::turn::{Guarded, Newest, Turn};
use crate::update::Event;

/// Frames of a thread whose stack is shown.
const FRAMES: usize = 200;
/// Frames of the others, to see where they are.
const NEAR_FRAMES: usize = 12;
/// Threads whose place is looked up.
const PLACES: usize = 64;
/// Instructions shown where nothing says how far a function goes.
const ALONE: usize = 64;
/// Bytes disassembled of a function that is longer, around the place in it.
const CODE: u64 = 16 << 10;

/// The thread that answers.
pub struct Worker {
    questions: Sender<(u64, Question)>,
    newest: Newest,
    /// Not joined at the end: it may be waiting for the daemon, and holds nothing that outlives the program.
    _thread: JoinHandle<()>,
}

impl Worker {
    /// Starts it; answers go to `events`.
    pub fn start(origin: Origin, events: Sender<Event>) -> Self {
        let (questions, incoming) = std::sync::mpsc::channel();
        let newest = Newest::default();
        let watched = newest.clone();
        let thread = guarded(events.clone(), move || {
            serve(origin, &incoming, &events, &watched);
        });
        Self {
            questions,
            newest,
            _thread: thread,
        }
    }

    /// Asks; whatever is under way is given up.
    pub fn ask(&self, number: u64, question: Question) {
        self.newest.set(number);
        // A worker that is gone has said so by a lost connection.
        let _ = self.questions.send((number, question));
    }
}

/// A thread whose panic ends the program in good order.
pub fn guarded(events: Sender<Event>, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if let Err(panic) = result {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            // Nobody listens when the program is ending already.
            let _ = events.send(Event::Failed(format!("a fault in this program: {text}")));
        }
    })
}

fn serve(
    origin: Origin,
    incoming: &Receiver<(u64, Question)>,
    events: &Sender<Event>,
    newest: &Newest,
) {
    let mut access = Access::new(origin);
    let mut sources = Sources::default();
    while let Ok((number, question)) = incoming.recv() {
        let turn = newest.turn(number);
        let look = access.retried(|access| look(access, &mut sources, &turn, &question));
        let look = match look {
            Err(AccessError::Cancelled(_)) => continue,
            other => other.map(Box::new).map_err(|error| error.to_string()),
        };
        if events.send(Event::Looked { number, look }).is_err() {
            return;
        }
    }
}

fn look(
    access: &mut Access,
    sources: &mut Sources,
    turn: &Turn,
    question: &Question,
) -> Result<Look, AccessError> {
    turn.check()?;
    let view = access.view(question.epoch)?;
    let base = question.base.map(|epoch| access.view(epoch)).transpose();
    // A base that is not kept any more is no reason to show nothing.
    let base = match base {
        Err(error) if error.is_hangup() => return Err(error),
        other => other.ok().flatten(),
    };
    turn.check()?;
    let known = access.origin.shelf.of(&*view);
    turn.check()?;
    let program = &*known.program;
    let now = Guarded { view: &*view, turn };
    let then = base.as_deref().map(|view| Guarded { view, turn });
    let mut look = Look::empty(question.clone());
    look.names = known.names;
    let frames = stack(program, &now, question, &mut look);
    let frame = look.frame.and_then(|index| frames.get(index));
    threads(program, &now, &frames, &mut look);
    turn.check()?;
    look.source = frame.and_then(|frame| source_of(sources, frame));
    if let Some(syntax) = question.assembly {
        look.assembly = assembly(program, &now, frame, syntax);
    }
    let then = then
        .as_ref()
        .map(|view| Moment::base(program, view, look.tid, frame));
    let now = Moment {
        view: &now,
        tid: look.tid,
        frame: frame.cloned(),
    };
    roots(
        program,
        &known.globals,
        &now,
        then.as_ref(),
        turn,
        &mut look,
    );
    turn.check()?;
    look.memory = memory(program, &now, then.as_ref(), &look, turn);
    turn.check()?;
    look.notes = access.origin.shelf.programs.troubles();
    Ok(look)
}

fn source_of(sources: &mut Sources, frame: &Frame) -> Option<Source> {
    let path = frame.file.clone()?;
    Some(Source {
        line: frame.line?,
        text: sources.text(&path),
        path,
    })
}

/// The function around a frame's place, or what follows where none is known.
fn assembly(
    program: &Program,
    view: &dyn View,
    frame: Option<&Frame>,
    syntax: Syntax,
) -> Result<Vec<Instruction>, String> {
    let frame = frame.ok_or("no frame is selected")?;
    let function = program
        .function_at(frame.pc)
        .filter(|function| function.end - function.start > 1);
    let range = match function {
        // Of a giant from its beginning on, so that no instruction is cut, and no further than is looked at.
        Some(function) => {
            let end = function.end.min(frame.pc.saturating_add(CODE));
            (function.start, end)
        }
        None => extent_of(view, frame.pc, ALONE).map_err(|why| format!("no code: {why}"))?,
    };
    disassemble(program, view, range, syntax).map_err(|why| format!("no code: {why}"))
}

/// The selected thread's frames, noted in the look, and those of others that are open.
fn stack(program: &Program, view: &dyn View, question: &Question, look: &mut Look) -> Vec<Frame> {
    let threads = view.threads();
    let chosen = threads
        .iter()
        .find(|thread| Some(thread.tid) == question.tid)
        .or(threads.first());
    look.tid = chosen.map_or(0, |thread| thread.tid);
    let frames = program.backtrace(view, look.tid, FRAMES);
    let same = |key: &FrameKey| {
        frames
            .iter()
            .position(|frame| frame.function == key.function && frame.cfa == key.cfa)
    };
    look.frame = question.frame.as_ref().and_then(same).or_else(|| {
        let default = program.default_frame(&frames)?;
        frames.iter().position(|frame| frame.index == default.index)
    });
    look.frames = frames.iter().map(row).collect();
    for thread in &threads {
        if thread.tid != look.tid && question.stacks.contains(&thread.tid) {
            let frames = program.backtrace(view, thread.tid, FRAMES);
            look.stacks
                .insert(thread.tid, frames.iter().map(row).collect());
        }
    }
    look.threads = threads
        .into_iter()
        .map(|thread| Thread {
            tid: thread.tid,
            name: thread.name,
            place: None,
        })
        .collect();
    frames
}

fn row(frame: &Frame) -> FrameRow {
    FrameRow {
        key: FrameKey {
            function: frame.function.clone(),
            cfa: frame.cfa,
            index: frame.index,
        },
        pc: frame.pc,
        file: frame.file.clone(),
        line: frame.line,
        inlined: frame.inlined,
        guessed: frame.guessed,
    }
}

/// Where each thread is.
fn threads(program: &Program, view: &dyn View, selected: &[Frame], look: &mut Look) {
    let mut places: HashMap<u32, String> = HashMap::new();
    for thread in look.threads.iter().take(PLACES) {
        let near;
        let frames = if thread.tid == look.tid {
            selected
        } else {
            near = program.backtrace(view, thread.tid, NEAR_FRAMES);
            &near
        };
        if let Some(frame) = program.default_frame(frames) {
            let place = frame
                .function
                .clone()
                .unwrap_or_else(|| format!("{:#x}", frame.pc));
            places.insert(thread.tid, place);
        }
    }
    for thread in &mut look.threads {
        thread.place = places.remove(&thread.tid);
    }
}
