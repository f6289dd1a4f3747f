//! Expressions: see `docs/expressions.md` for the grammar.

mod access;
mod arithmetic;
mod evaluate;
mod lexer;
pub(crate) mod names;
mod operate;
mod over;
mod parser;
mod tree;

pub(crate) use evaluate::answer_text;
pub use evaluate::{Answer, Context, Extent, FrameSelector, Local};

/// Why an expression has no answer. A value that is merely unavailable is an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}{}", hint(.near))]
pub struct ExprError {
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// Names that were perhaps meant, or the candidates of an ambiguous one.
    pub near: Vec<String>,
}

impl ExprError {
    pub(crate) fn at(column: usize, message: impl Into<String>) -> Self {
        Self {
            column,
            message: message.into(),
            near: Vec::new(),
        }
    }
}

fn hint(near: &[String]) -> String {
    if near.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", near.join(", "))
    }
}
