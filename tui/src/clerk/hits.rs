//! Where the main thread stood at each checkpoint.

use crate::access::{Access, AccessError};
use crate::turn::{Guarded, Turn};

/// Frames looked through for one with source.
const FRAMES: usize = 24;

/// A line of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub file: String,
    pub line: u32,
}

pub fn hits(
    access: &mut Access,
    turn: &Turn,
    epochs: &[u64],
) -> Result<Vec<(u64, Option<Hit>)>, AccessError> {
    let mut found = Vec::with_capacity(epochs.len());
    for &epoch in epochs {
        turn.check()?;
        let hit = match access.view(epoch) {
            Err(error) if error.is_hangup() => return Err(error),
            // One that is gone meanwhile stood nowhere.
            Err(_) => None,
            Ok(view) => {
                let program = access.origin.shelf.of(&*view).program;
                let view = Guarded { view: &*view, turn };
                let main = introspect::View::threads(&view)
                    .first()
                    .map(|thread| thread.tid);
                let frames = main.map(|tid| program.backtrace(&view, tid, FRAMES));
                let frames = frames.unwrap_or_default();
                program.default_frame(&frames).and_then(|frame| {
                    Some(Hit {
                        file: frame.file.clone()?,
                        line: frame.line?,
                    })
                })
            }
        };
        turn.check()?;
        found.push((epoch, hit));
    }
    Ok(found)
}
