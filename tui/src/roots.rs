//! Variables and memory of a checkpoint, and what they were at the base.

use introspect::{
    Answer, Context, ExprError, Frame, FrameSelector, Global, Limits, Local, Program, Unavailable,
    Value, View,
};

use crate::data::{EXPANDED_ELEMENTS, Look, MemoryAt, Question, Root, SUMMARY_ELEMENTS};
use crate::turn::Turn;

/// Globals shown; any other can be watched by its name.
const GLOBALS: usize = 500;
/// Frames of a base in which the selected one is looked for.
const FRAMES: usize = 200;
/// A frame no stack has: names of locals mean nothing there, those of globals do.
const NO_FRAME: usize = usize::MAX;

/// One checkpoint with the frame whose names count.
pub struct Moment<'a> {
    pub view: &'a dyn View,
    pub tid: u32,
    pub frame: Option<Frame>,
}

impl<'a> Moment<'a> {
    /// The base, with the same call on its stack as `frame`, if it is there.
    pub fn base(program: &Program, view: &'a dyn View, tid: u32, frame: Option<&Frame>) -> Self {
        let frame = frame.and_then(|now| {
            let stack = program.backtrace(view, tid, FRAMES);
            stack.into_iter().find(|then| {
                (&then.function, then.cfa, then.inlined) == (&now.function, now.cfa, now.inlined)
            })
        });
        Self { view, tid, frame }
    }

    pub fn evaluate(
        &self,
        program: &Program,
        expr: &str,
        elements: usize,
    ) -> Result<Answer, ExprError> {
        let index = self.frame.as_ref().map_or(NO_FRAME, |frame| frame.index);
        let context = Context {
            tid: Some(self.tid),
            frame: FrameSelector::Index(index),
            limits: Limits { elements },
        };
        program.evaluate(self.view, &context, expr)
    }

    fn locals(&self, program: &Program, elements: usize) -> Vec<Local> {
        let limits = Limits { elements };
        self.frame
            .as_ref()
            .map(|frame| program.locals(self.view, frame, limits))
            .unwrap_or_default()
    }
}

/// Fills in locals, globals, watched expressions and followed pointers.
pub fn roots(
    program: &Program,
    globals: &[Global],
    now: &Moment<'_>,
    then: Option<&Moment<'_>>,
    turn: &Turn,
    look: &mut Look,
) {
    let question = look.question.clone();
    look.locals = locals(program, now, then, &question);
    let hidden: Vec<String> = look.locals.iter().map(|root| root.path.clone()).collect();
    look.global_count = globals.len();
    if question.globals {
        for global in globals.iter().take(GLOBALS) {
            if turn.is_over() {
                return;
            }
            look.globals
                .push(global_root(program, global, &hidden, now, then, &question));
        }
    }
    for expr in &question.watches {
        let path = as_operand(expr);
        look.watches
            .push(answer_root(program, &path, now, then, &question));
    }
    for path in &question.follow {
        if turn.is_over() {
            return;
        }
        let target = format!("(*{path})");
        let root = answer_root(program, &target, now, then, &question);
        look.followed.insert(path.clone(), root);
    }
    for (path, _) in &question.open {
        let first = now.evaluate(program, &format!("{path}[0..1]"), 1);
        if first.is_ok_and(|first| matches!(first.value, Value::Sequence { .. })) {
            look.sliced.insert(path.clone());
        }
    }
    for stretch in &question.stretches {
        // A large one only has others in it.
        if stretch.to - stretch.from > EXPANDED_ELEMENTS as u64 {
            continue;
        }
        if turn.is_over() {
            return;
        }
        let path = stretch.path();
        let elements = usize::try_from(stretch.to - stretch.from).unwrap_or(EXPANDED_ELEMENTS);
        let root = evaluated(program, &path, now, then, elements.min(EXPANDED_ELEMENTS));
        look.stretches.insert(path, root);
    }
}

fn locals(
    program: &Program,
    now: &Moment<'_>,
    then: Option<&Moment<'_>>,
    question: &Question,
) -> Vec<Root> {
    let most = question
        .open
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(SUMMARY_ELEMENTS);
    let old = then
        .map(|then| then.locals(program, most))
        .unwrap_or_default();
    let mut roots: Vec<Root> = Vec::new();
    for local in now.locals(program, most) {
        let same = |other: &&Local| other.name == local.name && other.address == local.address;
        let old = old.iter().find(same).map(|local| local.value.clone());
        // An outer block's variable of the same name has no expression that means it.
        let hidden = roots.iter().any(|root| root.path == local.name);
        let path = if hidden {
            format!("{} (outer block)", local.name)
        } else {
            local.name.clone()
        };
        roots.push(root(path, local, old));
    }
    roots
}

fn root(path: String, local: Local, old: Option<Value>) -> Root {
    Root {
        path,
        type_name: local.type_name,
        value: local.value,
        address: local.address,
        old,
    }
}

fn global_root(
    program: &Program,
    global: &Global,
    hidden: &[String],
    now: &Moment<'_>,
    then: Option<&Moment<'_>>,
    question: &Question,
) -> Root {
    let path = if hidden.contains(&global.path) {
        let file = global.unit.rsplit('/').next().unwrap_or(&global.unit);
        format!("{file}::{}", global.path)
    } else {
        global.path.clone()
    };
    let limits = Limits {
        elements: elements(question, &path),
    };
    let old = then.map(|then| program.global(then.view, global, limits).value);
    root(path, program.global(now.view, global, limits), old)
}

fn answer_root(
    program: &Program,
    path: &str,
    now: &Moment<'_>,
    then: Option<&Moment<'_>>,
    question: &Question,
) -> Root {
    let elements = if question
        .follow
        .iter()
        .any(|pointer| path == format!("(*{pointer})"))
    {
        elements(question, path).max(EXPANDED_ELEMENTS)
    } else {
        elements(question, path)
    };
    evaluated(program, path, now, then, elements)
}

fn evaluated(
    program: &Program,
    path: &str,
    now: &Moment<'_>,
    then: Option<&Moment<'_>>,
    elements: usize,
) -> Root {
    let old = then.and_then(|then| then.evaluate(program, path, elements).ok());
    let old = old.map(|answer| answer.value);
    match now.evaluate(program, path, elements) {
        Ok(answer) => Root {
            path: path.to_owned(),
            type_name: answer.type_name,
            value: answer.value,
            address: answer.address,
            old,
        },
        Err(error) => Root {
            path: path.to_owned(),
            type_name: String::new(),
            value: Value::Unavailable(Unavailable::because(error.to_string())),
            address: None,
            old: None,
        },
    }
}

/// How many elements to decode of a root: more where it or something in it is open.
fn elements(question: &Question, path: &str) -> usize {
    let inside = |open: &str| {
        open.strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let open = question.open.iter().filter(|(open, _)| inside(open));
    open.map(|(_, count)| *count)
        .max()
        .unwrap_or(SUMMARY_ELEMENTS)
}

/// An expression to which a member can be appended.
fn as_operand(expr: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_.:[]$".contains(c);
    if expr.chars().all(plain) {
        expr.to_owned()
    } else {
        format!("({expr})")
    }
}

/// Where the memory pane begins.
pub fn memory_start(program: &Program, now: &Moment<'_>, at: &MemoryAt) -> Result<u64, String> {
    match at {
        MemoryAt::Address(address) => Ok(*address),
        MemoryAt::Stack => now
            .frame
            .as_ref()
            .map(|frame| frame.registers.sp())
            .ok_or_else(|| "no frame is selected, and so no stack".to_owned()),
        MemoryAt::Variable(path) => now
            .evaluate(program, path, 1)
            .map_err(|error| format!("{path}: {error}"))?
            .address
            .ok_or_else(|| format!("{path} is not in memory: a register or nothing holds it")),
    }
}
