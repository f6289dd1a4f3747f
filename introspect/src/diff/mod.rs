//! What differs between two views, by name: globals, locals of the program's own frames that both have, and what their pointers
//! reach.
//!
//! Objects are compared part by part, by type and never by bytes, so padding and spare room are no difference. Where no
//! page under an object was touched and it holds no address, it is not even read.

mod heap;
mod walk;

use crate::expr::names::Names;
use crate::frames::Frame;
use crate::parts::Trail;
use crate::program::Program;
use crate::touched::{Overlay, Touched};
use crate::value::Value;
use crate::view::View;

use walk::{Frames, Walk};

/// Frames of a thread that are compared.
const FRAME_LIMIT: usize = 200;
/// Elements of a container that are compared.
const ELEMENT_LIMIT: usize = 1 << 17;

/// One part that differs; None where there is nothing on that side.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// An expression that names it: `pk.grid[1][2].y`, `m["k7"]`, `frame(main).total`, `*list->next`. An element of a
    /// set is named by its value, `s{5}`.
    pub path: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

/// What differs, and whether that is all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    pub changes: Vec<Change>,
    /// So much was there to compare that a part was left out.
    pub cut: bool,
}

/// Compares two views of one program; they differ only at `touched` addresses, and in registers.
pub fn diff(program: &Program, old: &dyn View, new: &dyn View, touched: &Touched) -> Difference {
    let overlay = Overlay { old, new, touched };
    let mut walk = Walk::new(program, old, &overlay, touched, ELEMENT_LIMIT);
    globals(program, old, &overlay, &mut walk);
    let main = old.threads().first().map(|thread| thread.tid);
    for thread in old.threads() {
        let prefix = if Some(thread.tid) == main {
            String::new()
        } else {
            format!("thread({}).", thread.tid)
        };
        let before = program.backtrace(old, thread.tid, FRAME_LIMIT);
        let after = program.backtrace(&overlay, thread.tid, FRAME_LIMIT);
        for (a, b) in common(&before, &after) {
            if !program.is_own(b) {
                continue;
            }
            let frame = b.name_among(&after);
            let root = format!("{prefix}frame({frame})");
            locals(program, (old, a), (&overlay, b), &root, &mut walk);
        }
    }
    walk.finish()
}

fn globals(program: &Program, old: &dyn View, new: &dyn View, walk: &mut Walk<'_>) {
    let names = |view| Names {
        program,
        view,
        tid: None,
    };
    for global in program.globals() {
        if global.is_toolchain() {
            continue;
        }
        let before = names(old).variable(global.module, global.die, None);
        let after = names(new).variable(global.module, global.die, None);
        walk.root(
            &Trail::root(global.path),
            &before,
            &after,
            Frames::default(),
        );
    }
}

/// Blocks come and go with the pc: a variable is compared with what the same declaration means on the other side.
fn locals(
    program: &Program,
    (old, a): (&dyn View, &Frame),
    (new, b): (&dyn View, &Frame),
    root: &str,
    walk: &mut Walk<'_>,
) {
    let names = |view, frame: &Frame| Names {
        program,
        view,
        tid: Some(frame.tid),
    };
    let after = names(new, b).locals(b);
    for (variable, before) in names(old, a).locals(a) {
        if let Some((_, after)) = after.iter().find(|(other, _)| other.die == variable.die) {
            let trail = Trail::root(format!("{root}.{}", variable.name));
            let frames = Frames {
                old: Some(a),
                new: Some(b),
            };
            walk.root(&trail, &before, after, frames);
        }
    }
}

/// Frames of the same call in both stacks, counted from the outermost.
fn common<'f>(before: &'f [Frame], after: &'f [Frame]) -> Vec<(&'f Frame, &'f Frame)> {
    let same = |(a, b): &(&Frame, &Frame)| {
        a.function == b.function && a.cfa == b.cfa && a.inlined == b.inlined
    };
    before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take_while(same)
        .collect()
}
