//! A tree to an answer, over a view.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::decode::{Decoder, Limits, Object};
use crate::frames::Frame;
use crate::parts::Parts;
use crate::program::Program;
use crate::registers;
use crate::storage::Storage;
use crate::types::{Encoding, Flavour, Language, Shape, Ty, Type};
use crate::value::Value;
use crate::view::View;

use super::ExprError;
use super::arithmetic::{Number, Rank, truth};
use super::names::{Names, nearest};
use super::parser::{Kind, Node, Path, Selector, parse};

/// Frames looked through for a selected one.
const FRAME_LIMIT: usize = 2_000;

/// Which frame names belong to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FrameSelector {
    /// The innermost that has source.
    #[default]
    Default,
    Index(usize),
    /// The innermost with debug info whose last path segment is this.
    Function(String),
}

/// Where an expression is evaluated.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// None for the view's selected one.
    pub tid: Option<u32>,
    pub frame: FrameSelector,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub expr: String,
    pub type_name: String,
    pub value: Value,
    pub text: String,
    /// Where the value lies, if it lies in memory.
    pub address: Option<u64>,
}

/// An object in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    pub address: u64,
    pub len: u64,
    pub type_name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    pub name: String,
    pub type_name: String,
    pub value: Value,
    pub text: String,
    pub arg: bool,
    pub address: Option<u64>,
}

impl Program {
    pub fn evaluate(&self, view: &dyn View, context: &Context, expr: &str) -> Result<Answer> {
        self.with_object(view, context, expr, |decoder, object| {
            let value = decoder.value(object);
            let type_name = self.type_name(&object.ty);
            let text = answer_text(&value, &type_name);
            Answer {
                expr: expr.to_owned(),
                type_name,
                value,
                text,
                address: object.storage.address(),
            }
        })
    }

    /// What an expression stands for, before it is read, and how to read it.
    pub(crate) fn with_object<T>(
        &self,
        view: &dyn View,
        context: &Context,
        expr: &str,
        look: impl FnOnce(&Decoder<'_>, &Object) -> T,
    ) -> Result<T> {
        self.count_question();
        let node = self.parsed(expr)?;
        let evaluator = Evaluator::new(self, view, context);
        let object = evaluator.eval(&node)?;
        let frame = evaluator.used_frame();
        let decoder = Decoder::new(self, view, frame.as_ref(), context.limits);
        Ok(look(&decoder, &object))
    }

    /// Where the object lies that an expression means, and how long it is: what it points at, of a pointer.
    pub fn extent(&self, view: &dyn View, context: &Context, expr: &str) -> Result<Extent> {
        let found = self.with_object(view, context, expr, |decoder, object| {
            let (address, ty) = match Parts::of(decoder, object) {
                Ok(Parts::Pointer(pointer)) => (Some(pointer.address), pointer.to),
                _ if matches!(self.strip(&object.ty).shape, Shape::Pointer { .. }) => {
                    (decoder.address_in(object).ok(), Ty::Void)
                }
                _ => (object.storage.address(), object.ty.clone()),
            };
            let (ty, len) = match ty {
                Ty::Void => ("?".to_owned(), 1),
                ty => (self.type_name(&ty), self.size_of(&ty).unwrap_or(1).max(1)),
            };
            address.map(|address| Extent {
                address,
                len,
                type_name: ty,
            })
        })?;
        found.ok_or_else(|| ExprError::at(1, "it is not in memory"))
    }

    /// Is it an expression at all? What its names stand for, only a frame tells.
    pub fn check(&self, expr: &str) -> Result<()> {
        self.parsed(expr).map(drop)
    }

    fn parsed(&self, expr: &str) -> Result<Node> {
        parse(expr, &|name| !self.types_named(name).is_empty())
    }

    /// Where an object itself lies, also of a pointer, and how long it is.
    pub fn place_of(&self, view: &dyn View, context: &Context, expr: &str) -> Result<Extent> {
        let found = self.with_object(view, context, expr, |_, object| {
            Some(Extent {
                address: object.storage.address()?,
                len: self.size_of(&object.ty)?,
                type_name: self.type_name(&object.ty),
            })
        })?;
        found.ok_or_else(|| ExprError::at(1, "it is not in memory"))
    }

    /// Arguments and locals of a frame.
    pub fn locals(&self, view: &dyn View, frame: &Frame, limits: Limits) -> Vec<Local> {
        let names = Names {
            program: self,
            view,
            tid: Some(frame.tid),
        };
        let each = names.locals(frame).into_iter().map(|(variable, object)| {
            let value = Decoder::new(self, view, Some(frame), limits).value(&object);
            Local::new(self, variable.name, &object, value, variable.argument)
        });
        each.collect()
    }

    /// The frame that `context` selects, of its thread's whole backtrace.
    pub fn select_frame(&self, view: &dyn View, context: &Context) -> Result<Frame> {
        Evaluator::new(self, view, context).selected(1)
    }
}

impl Local {
    pub(crate) fn new(
        program: &Program,
        name: String,
        object: &Object,
        value: Value,
        arg: bool,
    ) -> Self {
        let type_name = program.type_name(&object.ty);
        let text = answer_text(&value, &type_name);
        Self {
            name,
            text,
            type_name,
            value,
            arg,
            address: object.storage.address(),
        }
    }
}

/// gdb prints the type before a pointer that stands alone.
pub(crate) fn answer_text(value: &Value, type_name: &str) -> String {
    match value {
        Value::Pointer { .. } => format!("({type_name}) {}", value.to_text()),
        _ => value.to_text(),
    }
}

pub(super) struct Evaluator<'a> {
    pub(super) program: &'a Program,
    pub(super) view: &'a dyn View,
    pub(super) context: Context,
    frames: Rc<OnceCell<Vec<Frame>>>,
    /// Names of elements, the innermost last.
    bound: Rc<Vec<(String, Object)>>,
}

pub(super) type Result<T> = std::result::Result<T, ExprError>;

impl<'a> Evaluator<'a> {
    fn new(program: &'a Program, view: &'a dyn View, context: &Context) -> Self {
        Self {
            program,
            view,
            context: context.clone(),
            frames: Rc::default(),
            bound: Rc::default(),
        }
    }

    /// The same place, with names for an element.
    pub(super) fn with_names(&self, names: impl IntoIterator<Item = (String, Object)>) -> Self {
        let mut bound = (*self.bound).clone();
        bound.extend(names);
        Self {
            context: self.context.clone(),
            frames: Rc::clone(&self.frames),
            bound: Rc::new(bound),
            ..*self
        }
    }

    pub(super) fn decoder(&self) -> Decoder<'a> {
        Decoder::new(self.program, self.view, None, self.context.limits)
    }

    fn names(&self) -> Names<'a> {
        Names {
            program: self.program,
            view: self.view,
            tid: self.context.tid,
        }
    }

    /// The selected frame if it has been looked at: values optimized away may need it.
    pub(super) fn used_frame(&self) -> Option<Frame> {
        self.frames
            .get()
            .and_then(|frames| self.pick(frames).cloned())
    }

    fn frames(&self) -> &[Frame] {
        self.frames.get_or_init(|| {
            let threads = self.view.threads();
            let thread = match self.context.tid.or_else(|| self.view.selected()) {
                Some(tid) => threads.into_iter().find(|thread| thread.tid == tid),
                None => threads.into_iter().next(),
            };
            thread
                .map(|thread| {
                    self.program
                        .unwind(self.view, thread.tid, thread.registers, FRAME_LIMIT)
                })
                .unwrap_or_default()
        })
    }

    fn pick<'f>(&self, frames: &'f [Frame]) -> Option<&'f Frame> {
        match &self.context.frame {
            FrameSelector::Default => self.program.default_frame(frames),
            FrameSelector::Index(index) => frames.get(*index),
            FrameSelector::Function(name) => frames
                .iter()
                .find(|frame| frame.scope.is_some() && frame.is_called(name)),
        }
    }

    fn selected(&self, column: usize) -> Result<Frame> {
        let frames = self.frames();
        if frames.is_empty() {
            let what = self
                .context
                .tid
                .map_or("no threads".into(), |tid| format!("no thread {tid}"));
            return Err(ExprError::at(column, what));
        }
        self.pick(frames)
            .cloned()
            .ok_or_else(|| match &self.context.frame {
                FrameSelector::Function(name) => {
                    let known = frames
                        .iter()
                        .filter_map(|frame| frame.function.as_deref())
                        .map(|name| crate::program::last_segment(name).to_owned());
                    ExprError {
                        column,
                        message: format!("no frame of `{name}` on the stack"),
                        near: nearest(name, known),
                    }
                }
                FrameSelector::Index(index) => ExprError::at(
                    column,
                    format!("no frame {index}: the stack has {}", frames.len()),
                ),
                FrameSelector::Default => ExprError::at(column, "no frame"),
            })
    }

    pub(super) fn eval(&self, node: &Node) -> Result<Object> {
        let column = node.column;
        match &node.kind {
            Kind::Integer {
                value,
                unsigned,
                long,
            } => Ok(literal(*value, *unsigned, *long).object()),
            Kind::Float(value) => Ok(Number::Float(*value).object()),
            Kind::Char(value) => Ok(Number::integer(u32::from(*value).into(), Rank::Int).object()),
            Kind::Text(text) => Ok(text_object(text)),
            Kind::Bool(value) => Ok(truth(*value)),
            Kind::Null => Ok(Object::new(
                Type::pointer_to(Ty::Void),
                Storage::bytes(vec![0; 8]),
            )),
            Kind::Name(path) => self.name(path, column),
            Kind::Register(name) => self.register(name, column),
            Kind::Unary(operator, inner) => self.unary(*operator, inner, column),
            Kind::Binary(operator, left, right) => self.binary(operator, left, right, column),
            Kind::Member(of, name) => self.member(&self.eval(of)?, name, column),
            Kind::Index(of, index) => self.index(of, index, column),
            Kind::Slice(of, low, high) => self.slice(of, low.as_deref(), high.as_deref(), column),
            Kind::Cast(spec, inner) => self.cast(spec, &self.eval(inner)?, column),
            Kind::Len(inner) => {
                let len = self.len(&self.eval(inner)?, column)?;
                Ok(Number::integer(len.into(), Rank::UnsignedLong).object())
            }
            Kind::SizeOf(inner) => {
                let size = self
                    .program
                    .size_of(&self.eval(inner)?.ty)
                    .ok_or_else(|| ExprError::at(column, "an incomplete type"))?;
                Ok(Number::integer(size.into(), Rank::UnsignedLong).object())
            }
            Kind::Over(over) => self.over(over, column),
            Kind::InFrame(selector, inner) => self.in_frame(selector, inner),
            Kind::InThread(tid, inner) => {
                let context = Context {
                    tid: Some(*tid),
                    ..self.context.clone()
                };
                let there = Self {
                    context,
                    frames: Rc::default(),
                    bound: Rc::clone(&self.bound),
                    ..*self
                };
                there.selected(column)?;
                there.eval(inner)
            }
        }
    }

    fn in_frame(&self, selector: &Selector, inner: &Node) -> Result<Object> {
        let frame = match selector {
            Selector::Index(index) => FrameSelector::Index(*index),
            Selector::Function(name) => FrameSelector::Function(name.clone()),
        };
        let context = Context {
            frame,
            ..self.context.clone()
        };
        let there = Self {
            context,
            frames: Rc::clone(&self.frames),
            bound: Rc::clone(&self.bound),
            ..*self
        };
        there.selected(inner.column)?;
        there.eval(inner)
    }

    fn name(&self, path: &Path, column: usize) -> Result<Object> {
        if let ([name], None) = (path.segments.as_slice(), &path.file)
            && let Some((_, object)) = self.bound.iter().rev().find(|(known, _)| known == name)
        {
            return Ok(object.clone());
        }
        let names = self.names();
        let chosen = self.context.frame != FrameSelector::Default;
        let mut frame = None;
        if let ([name], None) = (path.segments.as_slice(), &path.file)
            && (chosen || names.may_be_local(name))
        {
            let selected = if chosen {
                Some(self.selected(column)?)
            } else {
                self.selected(column).ok()
            };
            if let Some(found) = selected
                .as_ref()
                .and_then(|frame| self.in_scope(frame, name))
            {
                return Ok(found);
            }
            frame = selected;
        }
        match names.global(path, column, frame.as_ref()) {
            // Two statics of one name: the frame's unit decides, which costs a look at the stack.
            Err(error) if frame.is_none() && error.message.ends_with("ambiguous") => {
                match self.selected(column) {
                    Ok(frame) => names.global(path, column, Some(&frame)),
                    Err(_) => Err(error),
                }
            }
            other => other,
        }
    }

    /// A local, or a member of C++'s `this`.
    fn in_scope(&self, frame: &Frame, name: &str) -> Option<Object> {
        let names = self.names();
        if let Some(local) = names.local(frame, name) {
            return Some(local);
        }
        let this = names.local(frame, "this")?;
        let decoder = Decoder::new(self.program, self.view, Some(frame), self.context.limits);
        decoder.find_member(&decoder.pointee(&this).ok()?, name)
    }

    fn register(&self, name: &str, column: usize) -> Result<Object> {
        let number = registers::number_of(name).ok_or_else(|| {
            let known = registers::NAMES.iter().map(|name| (*name).to_owned());
            ExprError {
                column,
                message: format!("no register `${name}`"),
                near: nearest(name, known),
            }
        })?;
        let wide = number > registers::RIP && number < registers::RFLAGS;
        let ty = match number {
            registers::RIP => Type::made(
                "void (*)()",
                8,
                Shape::Pointer {
                    to: function_type(),
                    flavour: Flavour::Raw,
                },
            ),
            registers::RSP | registers::RBP => Type::pointer_to(Ty::Void),
            _ if wide => Type::made("unsigned __int128", 16, Shape::Base(Encoding::Unsigned)),
            _ => Type::long(),
        };
        // Frame 0 unless a frame is chosen: the machine's own registers.
        let frame = match self.context.frame {
            FrameSelector::Default => self
                .frames()
                .first()
                .cloned()
                .ok_or_else(|| ExprError::at(column, "no threads"))?,
            _ => self.selected(column)?,
        };
        let storage = frame
            .registers
            .bytes(number)
            .map_or_else(|| Storage::missing("not saved"), Storage::bytes);
        Ok(Object::new(ty, storage))
    }
}

fn function_type() -> Ty {
    Type::made(
        "",
        1,
        Shape::Function {
            returns: Ty::Void,
            takes: Vec::new(),
        },
    )
}

fn literal(value: u128, unsigned: bool, long: bool) -> Number {
    let signed = i128::try_from(value).unwrap_or(i128::MAX);
    let rank = match (unsigned, long) {
        (false, false) if signed <= i32::MAX.into() => Rank::Int,
        (true, false) if signed <= u32::MAX.into() => Rank::Unsigned,
        (false, _) if signed <= i64::MAX.into() => Rank::Long,
        _ if signed <= u64::MAX.into() => Rank::UnsignedLong,
        _ => Rank::Wide,
    };
    Number::integer(signed, rank)
}

/// A literal is an array of its bytes and a NUL, as in C.
fn text_object(text: &str) -> Object {
    let bytes: Vec<u8> = text.bytes().chain([0]).collect();
    let shape = Shape::Array {
        of: Type::char(),
        count: Some(bytes.len() as u64),
    };
    let ty = Ty::Made(std::sync::Arc::new(Type {
        name: String::new(),
        size: None,
        language: Language::C,
        shape,
    }));
    Object::new(ty, Storage::bytes(bytes))
}
