//! Errors of expressions, with the place marked.

use introspect::{BisectError, ExprError, PredicateError};

/// Longest part of an expression that is shown around the place.
const WIDTH: usize = 100;

/// An error that may be about a place in an expression.
pub trait Explain: std::error::Error + Send + Sync + 'static {
    fn of_expression(&self) -> Option<&ExprError>;
}

impl Explain for ExprError {
    fn of_expression(&self) -> Option<&ExprError> {
        Some(self)
    }
}

impl Explain for PredicateError {
    fn of_expression(&self) -> Option<&ExprError> {
        match self {
            Self::Expr { error, .. } => Some(error),
            Self::Untold { .. } => None,
        }
    }
}

impl Explain for BisectError {
    fn of_expression(&self) -> Option<&ExprError> {
        match self {
            Self::Predicate(error) => error.of_expression(),
            _ => None,
        }
    }
}

/// The error, and below it the expression with a caret under the column.
pub fn explained(expr: &str, error: impl Explain) -> anyhow::Error {
    match error.of_expression().map(|error| mark(expr, error.column)) {
        Some(mark) => anyhow::Error::msg(format!("{error}\n{mark}")),
        None => error.into(),
    }
}

/// A line of text, with a caret under a column, which counts from 1.
pub fn mark(expr: &str, column: usize) -> String {
    let at = column.saturating_sub(1);
    let start = at.saturating_sub(WIDTH * 2 / 3);
    let line: String = expr
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .skip(start)
        .take(WIDTH)
        .collect();
    format!("  {line}\n  {}^", " ".repeat(at - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_is_under_the_column() {
        assert_eq!(mark("a + conter", 5), "  a + conter\n      ^");
        let long = format!("{}x", " ".repeat(500));
        let shown = mark(&long, 501);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0].find('x'), lines[1].find('^'));
    }
}
