//! A tree to an answer, over a view.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::decode::{Decoder, Limits, Object, Presentation};
use crate::frames::Frame;
use crate::program::Program;
use crate::registers;
use crate::storage::Storage;
use crate::types::{Encoding, Flavour, Language, Shape, Ty, Type};
use crate::value::Value;
use crate::view::{Unavailable, View};

use super::ExprError;
use super::arithmetic::{Number, Rank, binary, compare, truth};
use super::names::{Names, nearest};
use super::parser::{Kind, Node, Path, Selector, TypeSpec, Unary, parse};

/// Frames looked through for a selected one.
const FRAME_LIMIT: usize = 2_000;
/// Smart pointers and typedefs followed to reach a member.
const FOLLOW_LIMIT: usize = 8;

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
    /// None for the main thread.
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
        let node = parse(expr, &|name| !self.types_named(name).is_empty())?;
        let evaluator = Evaluator::new(self, view, context);
        let object = evaluator.eval(&node)?;
        let frame = evaluator.used_frame();
        let decoder = Decoder::new(self, view, frame.as_ref(), context.limits);
        let value = decoder.value(&object);
        let type_name = self.type_name(&object.ty);
        let text = answer_text(&value, &type_name);
        Ok(Answer {
            expr: expr.to_owned(),
            type_name,
            value,
            text,
            address: object.storage.address(),
        })
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
            let type_name = self.type_name(&object.ty);
            let text = answer_text(&value, &type_name);
            Local {
                name: variable.name,
                text,
                type_name,
                value,
                arg: variable.argument,
                address: object.storage.address(),
            }
        });
        each.collect()
    }

    /// The frame that `context` selects, of its thread's whole backtrace.
    pub fn select_frame(&self, view: &dyn View, context: &Context) -> Result<Frame> {
        Evaluator::new(self, view, context).selected(1)
    }
}

/// gdb prints the type before a pointer that stands alone.
fn answer_text(value: &Value, type_name: &str) -> String {
    match value {
        Value::Pointer { .. } => format!("({type_name}) {}", value.to_text()),
        _ => value.to_text(),
    }
}

struct Evaluator<'a> {
    program: &'a Program,
    view: &'a dyn View,
    context: Context,
    frames: Rc<OnceCell<Vec<Frame>>>,
}

type Result<T> = std::result::Result<T, ExprError>;

impl<'a> Evaluator<'a> {
    fn new(program: &'a Program, view: &'a dyn View, context: &Context) -> Self {
        Self {
            program,
            view,
            context: context.clone(),
            frames: Rc::default(),
        }
    }

    fn decoder(&self) -> Decoder<'a> {
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
    fn used_frame(&self) -> Option<Frame> {
        self.frames
            .get()
            .and_then(|frames| self.pick(frames).cloned())
    }

    fn frames(&self) -> &[Frame] {
        self.frames.get_or_init(|| {
            let threads = self.view.threads();
            let thread = match self.context.tid {
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

    fn eval(&self, node: &Node) -> Result<Object> {
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
            Kind::InFrame(selector, inner) => self.in_frame(selector, inner),
            Kind::InThread(tid, inner) => {
                let context = Context {
                    tid: Some(*tid),
                    ..self.context.clone()
                };
                let there = Self {
                    context,
                    frames: Rc::default(),
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
            ..*self
        };
        there.selected(inner.column)?;
        there.eval(inner)
    }

    fn name(&self, path: &Path, column: usize) -> Result<Object> {
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

    fn unary(&self, operator: Unary, inner: &Node, column: usize) -> Result<Object> {
        let object = self.eval(inner)?;
        match operator {
            Unary::Deref => self.deref(&object, column),
            Unary::AddressOf => match object.storage.address() {
                Some(address) if object.bits.is_none() => Ok(Object::new(
                    Type::pointer_to(object.ty.clone()),
                    Storage::bytes(address.to_le_bytes().to_vec()),
                )),
                _ => Err(ExprError::at(column, "it has no address")),
            },
            Unary::Not => match self.condition(&object) {
                Ok(value) => {
                    Ok(truth(!value.ok_or_else(|| {
                        ExprError::at(column, "it is not a truth value")
                    })?))
                }
                Err(why) => Ok(missing_bool(why)),
            },
            Unary::Minus | Unary::Complement => {
                let number = match self.number(&object, column)? {
                    Ok(number) => number,
                    Err(why) => return Ok(Object::new(object.ty, Storage::Missing(why))),
                };
                match (number, operator) {
                    (Number::Integer { value, rank }, Unary::Minus) => {
                        Ok(Number::integer(value.wrapping_neg(), rank).object())
                    }
                    (Number::Integer { value, rank }, _) => {
                        Ok(Number::integer(!value, rank).object())
                    }
                    (Number::Float(value), Unary::Minus) => Ok(Number::Float(-value).object()),
                    _ => Err(ExprError::at(column, "`~` wants an integer")),
                }
            }
        }
    }

    /// `*p`: raw pointers, references, arrays, smart pointers.
    fn deref(&self, object: &Object, column: usize) -> Result<Object> {
        let decoder = self.decoder();
        let ty = self.program.strip(&object.ty);
        match &ty.shape {
            Shape::Pointer { to, flavour } if *flavour != Flavour::Member => {
                if matches!(to, Ty::Void) {
                    return Err(ExprError::at(
                        column,
                        "a `void *` must be cast before it is followed",
                    ));
                }
                let frame = self.used_frame();
                let decoder =
                    Decoder::new(self.program, self.view, frame.as_ref(), self.context.limits);
                Ok(decoder
                    .pointee(object)
                    .unwrap_or_else(|why| Object::new(to.clone(), Storage::Missing(why))))
            }
            Shape::Array { of, .. } => Ok(Object::new(of.clone(), object.storage.clone())),
            Shape::Function { .. } => Ok(object.clone()),
            _ => match decoder.present(object) {
                Ok(Some(Presentation::Content(inner))) => Ok(inner),
                Ok(Some(Presentation::Nothing)) => Err(ExprError::at(column, "it is empty")),
                Err(why) => Ok(Object::new(object.ty.clone(), Storage::Missing(why))),
                _ => Err(ExprError::at(
                    column,
                    format!(
                        "`{}` cannot be followed",
                        self.program.type_name(&object.ty)
                    ),
                )),
            },
        }
    }

    /// `a.b` and `a->b` alike: pointers and smart pointers are followed.
    fn member(&self, object: &Object, name: &str, column: usize) -> Result<Object> {
        let decoder = self.decoder();
        let mut current = object.clone();
        for _ in 0..FOLLOW_LIMIT {
            if let Some(found) = decoder.find_member(&current, name) {
                return Ok(found);
            }
            let pointer = matches!(self.program.strip(&current.ty).shape, Shape::Pointer { .. });
            let inner = match decoder.present(&current) {
                Ok(Some(Presentation::Content(inner))) => inner,
                Ok(Some(Presentation::Pairs { .. })) => {
                    return self.entry(
                        &current,
                        &Value::Text {
                            text: name.into(),
                            len: name.len() as u64,
                        },
                        column,
                    );
                }
                _ if pointer => self.deref(&current, column)?,
                // The one field of a tuple struct or variant: `friend.Some.name`.
                _ => match decoder.only_field(&current) {
                    Some(field) => field,
                    None => break,
                },
            };
            current = inner;
        }
        let message = format!(
            "`{}` has no member `{name}`",
            self.program.type_name(&object.ty)
        );
        Err(ExprError {
            column,
            message,
            near: nearest(name, decoder.member_names(&current.ty).into_iter()),
        })
    }

    fn index(&self, of: &Node, index: &Node, column: usize) -> Result<Object> {
        let object = self.eval(of)?;
        let key = self.eval(index)?;
        let object = self.through(&object, column)?;
        if let Ok(Some(Presentation::Pairs { .. })) = self.decoder().present(&object) {
            return self.entry(&object, &self.decoder().value(&key), column);
        }
        let position = match self.number(&key, index.column)? {
            Ok(Number::Integer { value, .. }) => value,
            Ok(Number::Float(_)) => {
                return Err(ExprError::at(index.column, "an index must be an integer"));
            }
            Err(why) => return Ok(Object::new(Type::int(), Storage::Missing(why))),
        };
        self.element(&object, position, column)
    }

    /// References and smart pointers to containers stand for the container.
    fn through(&self, object: &Object, column: usize) -> Result<Object> {
        let mut current = object.clone();
        for _ in 0..FOLLOW_LIMIT {
            let follow = match &self.program.strip(&current.ty).shape {
                Shape::Pointer { flavour, .. } => {
                    matches!(flavour, Flavour::Reference | Flavour::Owned)
                }
                _ => matches!(
                    self.decoder().present(&current),
                    Ok(Some(Presentation::Content(_)))
                ),
            };
            if !follow {
                break;
            }
            current = self.deref(&current, column)?;
        }
        Ok(current)
    }

    fn element(&self, object: &Object, position: i128, column: usize) -> Result<Object> {
        let outside = |len: u64| {
            ExprError::at(
                column,
                format!("index {position} is outside: the length is {len}"),
            )
        };
        let unsigned = u64::try_from(position);
        let ty = self.program.strip(&object.ty);
        match &ty.shape {
            Shape::Pointer { to, .. } => self.offset_by(object, to, position, column),
            Shape::Array { of, count } => {
                let stride = self.stride(of, column)?;
                let index = unsigned.map_err(|_| outside(count.unwrap_or(0)))?;
                // Flexible arrays and `T x[0]` have no length to check.
                match count {
                    Some(count) if index >= *count && *count > 1 => Err(outside(*count)),
                    _ => Ok(Object::new(
                        of.clone(),
                        object.storage.at(index.wrapping_mul(stride)),
                    )),
                }
            }
            _ => {
                let wanted = usize::try_from(position)
                    .unwrap_or(usize::MAX)
                    .saturating_add(1)
                    .min(1 << 20);
                let decoder =
                    Decoder::new(self.program, self.view, None, Limits { elements: wanted });
                let presented = decoder
                    .present(object)
                    .map_err(|why| ExprError::at(column, why.to_string()))?;
                match presented {
                    Some(Presentation::Run {
                        of,
                        at,
                        stride,
                        len,
                    }) => {
                        let index = unsigned
                            .ok()
                            .filter(|index| *index < len)
                            .ok_or_else(|| outside(len))?;
                        Ok(Object::new(of, at.at(index.wrapping_mul(stride))))
                    }
                    Some(Presentation::List { items, len }) => usize::try_from(position)
                        .ok()
                        .and_then(|index| items.into_iter().nth(index))
                        .ok_or_else(|| outside(len)),
                    Some(Presentation::Text { at, len }) => {
                        let index = unsigned
                            .ok()
                            .filter(|index| *index < len)
                            .ok_or_else(|| outside(len))?;
                        Ok(Object::new(Type::char(), at.at(index)))
                    }
                    _ => match decoder.find_member(object, &position.to_string()) {
                        Some(member) => Ok(member),
                        None => Err(ExprError::at(
                            column,
                            format!("`{}` cannot be indexed", self.program.type_name(&object.ty)),
                        )),
                    },
                }
            }
        }
    }

    /// The value of a map's key.
    fn entry(&self, object: &Object, key: &Value, column: usize) -> Result<Object> {
        let decoder = Decoder::new(self.program, self.view, None, Limits { elements: 1 << 20 });
        let Ok(Some(Presentation::Pairs { entries, .. })) = decoder.present(object) else {
            return Err(ExprError::at(column, "it is not a map"));
        };
        let found = entries
            .into_iter()
            .find(|(known, _)| same(&decoder.value(known), key));
        found
            .map(|(_, value)| value)
            .ok_or_else(|| ExprError::at(column, format!("no key {}", key.to_text())))
    }

    fn offset_by(&self, pointer: &Object, to: &Ty, by: i128, column: usize) -> Result<Object> {
        let stride = self.stride(to, column)?;
        match self.decoder().address_in(pointer) {
            Ok(base) => {
                let distance =
                    i64::try_from(by).map_err(|_| ExprError::at(column, "an index too large"))?;
                let address = base.wrapping_add_signed(distance.wrapping_mul(stride.cast_signed()));
                Ok(Object::new(to.clone(), Storage::Memory(address)))
            }
            Err(why) => Ok(Object::new(to.clone(), Storage::Missing(why))),
        }
    }

    fn stride(&self, of: &Ty, column: usize) -> Result<u64> {
        // gdb steps `void *` by bytes.
        if matches!(of, Ty::Void) {
            return Ok(1);
        }
        self.program
            .size_of(of)
            .ok_or_else(|| ExprError::at(column, "an incomplete type"))
    }

    fn slice(
        &self,
        of: &Node,
        low: Option<&Node>,
        high: Option<&Node>,
        column: usize,
    ) -> Result<Object> {
        let object = self.through(&self.eval(of)?, column)?;
        let bound = |node: Option<&Node>| node.map(|node| self.position(node)).transpose();
        let low = bound(low)?.unwrap_or(0);
        // Pointers and flexible arrays have no length to check.
        let open = match &self.program.strip(&object.ty).shape {
            Shape::Pointer { .. } => true,
            Shape::Array { count, .. } => count.is_none_or(|count| count <= 1),
            _ => false,
        };
        let high = match bound(high)? {
            Some(high) => high,
            None if open => {
                return Err(ExprError::at(
                    column,
                    "a slice of something without a length needs an end",
                ));
            }
            None => self.len(&object, column)?,
        };
        let count = high
            .checked_sub(low)
            .ok_or_else(|| ExprError::at(column, "a slice ends before it starts"))?;
        if !open && high > self.len(&object, column)? {
            return Err(ExprError::at(
                column,
                format!(
                    "the slice is outside: the length is {}",
                    self.len(&object, column)?
                ),
            ));
        }
        let first = match (count, self.element(&object, low.into(), column)) {
            (0, Err(_)) => Object::new(Type::int(), Storage::bytes(Vec::new())),
            (_, first) => first?,
        };
        if let Ok(Some(Presentation::List { .. })) = self.decoder().present(&object) {
            return Err(ExprError::at(
                column,
                "this container's elements do not lie side by side: index them one by one",
            ));
        }
        let shape = Shape::Array {
            of: first.ty,
            count: Some(count),
        };
        let ty = Ty::Made(std::sync::Arc::new(Type {
            name: String::new(),
            size: None,
            language: Language::C,
            shape,
        }));
        Ok(Object::new(ty, first.storage))
    }

    fn position(&self, node: &Node) -> Result<u64> {
        match self.number(&self.eval(node)?, node.column)? {
            Ok(Number::Integer { value, .. }) => {
                u64::try_from(value).map_err(|_| ExprError::at(node.column, "a negative index"))
            }
            _ => Err(ExprError::at(node.column, "an index must be an integer")),
        }
    }

    fn len(&self, object: &Object, column: usize) -> Result<u64> {
        let object = self.through(object, column)?;
        let ty = self.program.strip(&object.ty);
        if let Shape::Array {
            count: Some(count), ..
        } = &ty.shape
        {
            return Ok(*count);
        }
        let small = Decoder::new(self.program, self.view, None, Limits { elements: 0 });
        match small.present(&object) {
            Ok(Some(
                Presentation::Text { len, .. }
                | Presentation::Run { len, .. }
                | Presentation::List { len, .. }
                | Presentation::Pairs { len, .. },
            )) => Ok(len),
            _ => match small.value(&object) {
                Value::Text { len, .. } | Value::Sequence { len, .. } | Value::Map { len, .. } => {
                    Ok(len)
                }
                Value::Unavailable(why) => Err(ExprError::at(column, why.to_string())),
                _ => Err(ExprError::at(
                    column,
                    format!("`{}` has no length", self.program.type_name(&object.ty)),
                )),
            },
        }
    }

    fn binary(
        &self,
        operator: &'static str,
        left: &Node,
        right: &Node,
        column: usize,
    ) -> Result<Object> {
        let a = self.eval(left)?;
        if matches!(operator, "&&" | "||") {
            return self.logical(operator, &a, left, right);
        }
        let b = self.eval(right)?;
        if let Some(result) = self.pointer_arithmetic(operator, &a, &b, column)? {
            return Ok(result);
        }
        match (self.number(&a, left.column), self.number(&b, right.column)) {
            (Ok(Ok(a)), Ok(Ok(b))) => {
                binary(operator, a, b).map_err(|why| ExprError::at(column, why))
            }
            (Ok(Err(why)), _) | (_, Ok(Err(why))) => {
                Ok(Object::new(Type::int(), Storage::Missing(why)))
            }
            (Err(error), _) | (_, Err(error)) => {
                self.compare_values(operator, &a, &b).unwrap_or(Err(error))
            }
        }
    }

    fn logical(&self, operator: &str, a: &Object, left: &Node, right: &Node) -> Result<Object> {
        let truth_of = |object: &Object, node: &Node| match self.condition(object) {
            Ok(Some(value)) => Ok(Ok(value)),
            Ok(None) => Err(ExprError::at(node.column, "it is not a truth value")),
            Err(why) => Ok(Err(why)),
        };
        let first = match truth_of(a, left)? {
            Ok(value) => value,
            Err(why) => return Ok(missing_bool(why)),
        };
        if first == (operator == "||") {
            return Ok(truth(first));
        }
        match truth_of(&self.eval(right)?, right)? {
            Ok(value) => Ok(truth(value)),
            Err(why) => Ok(missing_bool(why)),
        }
    }

    fn condition(&self, object: &Object) -> std::result::Result<Option<bool>, Unavailable> {
        if let Ok(Ok(number)) = self.number(object, 1) {
            return Ok(Some(match number {
                Number::Integer { value, .. } => value != 0,
                Number::Float(value) => value != 0.0,
            }));
        }
        match self.decoder().value(object) {
            Value::Unavailable(why) => Err(why),
            value => Ok(value.truth()),
        }
    }

    /// Strings, variants and whole structs compare by what they show.
    fn compare_values(&self, operator: &str, a: &Object, b: &Object) -> Option<Result<Object>> {
        let decoder = self.decoder();
        let (a, b) = (decoder.value(a), decoder.value(b));
        if let Value::Unavailable(why) = [&a, &b]
            .into_iter()
            .find(|value| matches!(value, Value::Unavailable(_)))
            .unwrap_or(&Value::Null)
        {
            return Some(Ok(missing_bool(why.clone())));
        }
        match (operator, &a, &b) {
            ("==", ..) => Some(Ok(truth(same(&a, &b)))),
            ("!=", ..) => Some(Ok(truth(!same(&a, &b)))),
            (_, Value::Text { text: a, .. }, Value::Text { text: b, .. }) => {
                compare(operator, a, b).map(|result| Ok(truth(result)))
            }
            _ => None,
        }
    }

    /// `p + n`, `n + p`, `p - n`, `p - q`; None where neither side is a pointer.
    fn pointer_arithmetic(
        &self,
        operator: &str,
        a: &Object,
        b: &Object,
        column: usize,
    ) -> Result<Option<Object>> {
        let (left, right) = (self.decayed(a), self.decayed(b));
        let (pointer, to, other, flip) = match (&left, &right, operator) {
            (Some((p, to)), None, "+" | "-") => (p, to, b, operator == "-"),
            (None, Some((p, to)), "+") => (p, to, a, false),
            (Some((p, to)), Some((q, _)), "-") => {
                let stride = i128::from(self.stride(to, column)?.max(1));
                let decoder = self.decoder();
                return Ok(Some(match (decoder.address_in(p), decoder.address_in(q)) {
                    (Ok(p), Ok(q)) => {
                        Number::integer((i128::from(p) - i128::from(q)) / stride, Rank::Long)
                            .object()
                    }
                    (Err(why), _) | (_, Err(why)) => {
                        Object::new(Type::long(), Storage::Missing(why))
                    }
                }));
            }
            _ => return Ok(None),
        };
        let by = match self.number(other, column)? {
            Ok(Number::Integer { value, .. }) => {
                if flip {
                    value.wrapping_neg()
                } else {
                    value
                }
            }
            Ok(Number::Float(_)) => {
                return Err(ExprError::at(column, "a pointer moves by integers"));
            }
            Err(why) => return Ok(Some(Object::new(pointer.ty.clone(), Storage::Missing(why)))),
        };
        let moved = self.offset_by(pointer, to, by, column)?;
        let storage = match moved.storage {
            Storage::Memory(address) => Storage::bytes(address.to_le_bytes().to_vec()),
            other => other,
        };
        Ok(Some(Object::new(Type::pointer_to(to.clone()), storage)))
    }

    /// A pointer, or an array as the pointer it decays to, and the target's type.
    fn decayed(&self, object: &Object) -> Option<(Object, Ty)> {
        match &self.program.strip(&object.ty).shape {
            Shape::Pointer {
                to,
                flavour: Flavour::Raw,
            } => Some((object.clone(), to.clone())),
            Shape::Array { of, .. } => {
                let address = object.storage.address()?;
                Some((
                    Object::new(
                        Type::pointer_to(of.clone()),
                        Storage::bytes(address.to_le_bytes().to_vec()),
                    ),
                    of.clone(),
                ))
            }
            _ => None,
        }
    }

    /// The object as a number: Ok(Err) when it is one but cannot be read, Err when it is none.
    fn number(
        &self,
        object: &Object,
        column: usize,
    ) -> Result<std::result::Result<Number, Unavailable>> {
        let ty = self.program.strip(&object.ty);
        let decoder = self.decoder();
        let size = ty.size.unwrap_or(0);
        match &ty.shape {
            Shape::Base(Encoding::Float) => Ok(match decoder.value(object) {
                Value::Float(value) => Ok(Number::Float(value)),
                Value::Unavailable(why) => Err(why),
                _ => Err(Unavailable::because("unsupported float")),
            }),
            Shape::Base(encoding) => {
                let signed =
                    *encoding == Encoding::Signed || *encoding == Encoding::Char && size == 1;
                // A bit field narrower than int promotes to int.
                let width = object.bits.map_or(size, |bits| bits.len.div_ceil(8));
                let rank = if object.bits.is_some_and(|bits| bits.len < 32) {
                    Rank::Int
                } else {
                    Rank::of(width, signed)
                };
                Ok(decoder
                    .integer(object, &ty, signed)
                    .map(|value| Number::integer(value, rank)))
            }
            Shape::Enum { signed, .. } => Ok(decoder
                .integer(object, &ty, *signed)
                .map(|value| Number::integer(value, Rank::of(size, *signed)))),
            Shape::Pointer {
                flavour: Flavour::Raw,
                ..
            } => Ok(decoder
                .address_in(object)
                .map(|address| Number::integer(address.into(), Rank::UnsignedLong))),
            Shape::Function { .. } => {
                let address = object
                    .storage
                    .address()
                    .ok_or_else(|| ExprError::at(column, "it has no address"))?;
                Ok(Ok(Number::integer(address.into(), Rank::UnsignedLong)))
            }
            _ => {
                let through = self.through(object, column)?;
                let inner = self.program.strip(&through.ty);
                let progress =
                    inner.is_integer() || matches!(inner.shape, Shape::Base(Encoding::Float));
                if progress && !std::sync::Arc::ptr_eq(&inner, &ty) {
                    return self.number(&through, column);
                }
                match &object.storage {
                    Storage::Missing(why) => Ok(Err(why.clone())),
                    _ => Err(ExprError::at(
                        column,
                        format!("`{}` is not a number", self.program.type_name(&object.ty)),
                    )),
                }
            }
        }
    }

    fn cast(&self, spec: &TypeSpec, object: &Object, column: usize) -> Result<Object> {
        let mut ty = self.type_spec(spec, column)?;
        for _ in 0..spec.pointers {
            ty = Type::pointer_to(ty);
        }
        if let Some(count) = spec.count {
            let shape = Shape::Array {
                of: ty,
                count: Some(count),
            };
            let ty = Ty::Made(std::sync::Arc::new(Type {
                name: String::new(),
                size: None,
                language: Language::C,
                shape,
            }));
            return Ok(Object::new(ty, object.storage.clone()));
        }
        let target = self.program.strip(&ty);
        let object = match self.decayed(object) {
            Some((pointer, _)) => pointer,
            None => object.clone(),
        };
        match &target.shape {
            Shape::Base(encoding) => {
                self.convert(&object, ty, target.size.unwrap_or(4), *encoding, column)
            }
            Shape::Pointer { .. } | Shape::Enum { .. } => self.convert(
                &object,
                ty,
                target.size.unwrap_or(8),
                Encoding::Unsigned,
                column,
            ),
            // Anything else reads the same bytes by another type.
            _ => Ok(Object::new(ty, object.storage)),
        }
    }

    fn convert(
        &self,
        object: &Object,
        ty: Ty,
        size: u64,
        encoding: Encoding,
        column: usize,
    ) -> Result<Object> {
        // Data without debug information: the cast says how to read it.
        if let Shape::Opaque { .. } = self.program.strip(&object.ty).shape {
            return Ok(Object::new(ty, object.storage.clone()));
        }
        let number = match self.number(object, column)? {
            Ok(number) => number,
            Err(why) => return Ok(Object::new(ty, Storage::Missing(why))),
        };
        let bytes = match (encoding, number) {
            (Encoding::Float, number) => {
                let value = match number {
                    Number::Integer { value, .. } => value as f64,
                    Number::Float(value) => value,
                };
                match size {
                    #[expect(clippy::cast_possible_truncation, reason = "a cast to float rounds")]
                    4 => (value as f32).to_le_bytes().to_vec(),
                    8 => value.to_le_bytes().to_vec(),
                    _ => return Err(ExprError::at(column, "unsupported float")),
                }
            }
            (Encoding::Bool, Number::Integer { value, .. }) => vec![u8::from(value != 0)],
            (Encoding::Bool, Number::Float(value)) => vec![u8::from(value != 0.0)],
            (_, Number::Integer { value, .. }) => cut(value, size),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a cast to an integer cuts the fraction off"
            )]
            (_, Number::Float(value)) => cut(value as i128, size),
        };
        Ok(Object::new(ty, Storage::bytes(bytes)))
    }

    fn type_spec(&self, spec: &TypeSpec, column: usize) -> Result<Ty> {
        if let Some(basic) = basic_type(&spec.name) {
            return Ok(basic);
        }
        let found = self.program.types_named(&spec.name);
        // Several units describe one type; a struct wins over a declaration.
        found
            .into_iter()
            .next()
            .ok_or_else(|| ExprError::at(column, format!("no type `{}`", spec.name)))
    }
}

fn cut(value: i128, size: u64) -> Vec<u8> {
    value.cast_unsigned().to_le_bytes()[..usize::try_from(size).unwrap_or(16).min(16)].to_vec()
}

fn missing_bool(why: Unavailable) -> Object {
    Object::new(Type::bool(), Storage::Missing(why))
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

/// Values agree: text by content, numbers by value, unit variants and enumerators also with their name as text.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Text { text: a, .. }, Value::Text { text: b, .. }) => a == b,
        (Value::Variant { name, fields: None }, Value::Text { text, .. })
        | (Value::Text { text, .. }, Value::Variant { name, fields: None }) => name == text,
        (Value::Enumerator { names, .. }, Value::Text { text, .. })
        | (Value::Text { text, .. }, Value::Enumerator { names, .. }) => {
            matches!(names.as_slice(), [only] if only == text)
        }
        (Value::Char(code), Value::Text { text, .. })
        | (Value::Text { text, .. }, Value::Char(code)) => {
            text.chars().eq([crate::value::character(*code)])
        }
        _ => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(value) => Some((*value).into()),
        Value::Signed(number) | Value::Enumerator { number, .. } => Some(*number),
        Value::Unsigned(number) => i128::try_from(*number).ok(),
        Value::Char(code) => Some((*code).into()),
        Value::Pointer { address, .. } => Some((*address).into()),
        _ => None,
    }
}

/// Types every expression knows, whether the program's debug information has them or not.
fn basic_type(name: &str) -> Option<Ty> {
    let base = |size, encoding| Some(Type::made(name, size, Shape::Base(encoding)));
    match name {
        "void" => Some(Ty::Void),
        "char" => base(1, Encoding::Char),
        "bool" | "_Bool" => base(1, Encoding::Bool),
        "signed char" | "i8" | "int8_t" => base(1, Encoding::Signed),
        "unsigned char" | "u8" | "uint8_t" => base(1, Encoding::Unsigned),
        "short" | "short int" | "i16" | "int16_t" => base(2, Encoding::Signed),
        "unsigned short" | "u16" | "uint16_t" => base(2, Encoding::Unsigned),
        "int" | "signed" | "signed int" | "i32" | "int32_t" => base(4, Encoding::Signed),
        "unsigned" | "unsigned int" | "u32" | "uint32_t" => base(4, Encoding::Unsigned),
        "long" | "long int" | "long long" | "i64" | "isize" | "int64_t" | "ssize_t" => {
            base(8, Encoding::Signed)
        }
        "unsigned long" | "long unsigned int" | "unsigned long long" | "u64" | "usize"
        | "size_t" | "uint64_t" | "uintptr_t" => base(8, Encoding::Unsigned),
        "i128" | "__int128" => base(16, Encoding::Signed),
        "u128" | "unsigned __int128" => base(16, Encoding::Unsigned),
        "float" | "f32" => base(4, Encoding::Float),
        "double" | "f64" => base(8, Encoding::Float),
        "long double" => base(16, Encoding::Float),
        _ => None,
    }
}
