//! Members to complete an expression with.

use introspect::{Context, Limits, Value};

use crate::access::{Access, AccessError};
use crate::query::Standpoint;
use crate::turn::{Guarded, Turn};

/// Pointers followed to reach members.
const DEREFERENCES: usize = 2;

/// The members of what an expression means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    pub of: String,
    pub names: Vec<String>,
}

pub fn members(
    access: &mut Access,
    turn: &Turn,
    expr: &str,
    from: &Standpoint,
) -> Result<Members, AccessError> {
    let view = access.view(from.epoch)?;
    let program = access.origin.shelf.of(&*view).program;
    let view = Guarded { view: &*view, turn };
    let context = Context {
        limits: Limits { elements: 1 },
        ..from.context()
    };
    let mut target = expr.to_owned();
    let mut names = Vec::new();
    for _ in 0..=DEREFERENCES {
        match program
            .evaluate(&view, &context, &target)
            .map(|answer| answer.value)
        {
            Ok(Value::Struct(members)) => {
                names = members.into_iter().map(|(name, _)| name).collect();
                break;
            }
            Ok(Value::Pointer { .. }) => target = format!("(*{target})"),
            _ => break,
        }
    }
    Ok(Members {
        of: expr.to_owned(),
        names,
    })
}
