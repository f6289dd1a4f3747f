//! The variables of a program that live outside any function.

use std::collections::BTreeMap;

use crate::debug_info::DieOffset;
use crate::decode::{Decoder, Limits};
use crate::expr::Local;
use crate::expr::names::Names;
use crate::index::Kind;
use crate::program::Program;
use crate::view::View;

/// Where rustc's own sources are, as compiled in: nobody's program.
pub(crate) const TOOLCHAIN: &str = "/rustc/";

/// A variable with a name, of a file that brings its debug information along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// An expression that names it: `counter`, `zoo::population`, `file.c::hidden`.
    pub path: String,
    /// Source file of its unit, as the compiler was given it.
    pub unit: String,
    pub(crate) module: usize,
    pub(crate) die: DieOffset,
}

impl Global {
    /// Whether a toolchain's library brought it in rather than the program.
    pub fn is_toolchain(&self) -> bool {
        self.unit.starts_with(TOOLCHAIN)
    }
}

impl Program {
    /// Every global, in order of path.
    pub fn globals(&self) -> Vec<Global> {
        let mut all: BTreeMap<String, Vec<(usize, DieOffset, String)>> = BTreeMap::new();
        for (number, module) in self
            .modules()
            .iter()
            .enumerate()
            .filter(|(_, module)| module.object.has_own_debug())
        {
            let Some(debug) = module.object.debug() else {
                continue;
            };
            let index = debug.index();
            for (name, entries) in index.names() {
                for named in entries
                    .iter()
                    .filter(|named| matches!(named.kind, Kind::Variable { .. }))
                {
                    let mut path = index.path_of(named).join("::");
                    path = if path.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{path}::{name}")
                    };
                    let unit = Names::unit_name_of(self, number, named.unit).unwrap_or_default();
                    all.entry(path).or_default().push((number, named.die, unit));
                }
            }
        }
        all.into_iter()
            .flat_map(|(path, entries)| told_apart(&path, entries))
            .collect()
    }

    /// The value of a global, as [`Program::locals`] gives those of a frame.
    pub fn global(&self, view: &dyn View, global: &Global, limits: Limits) -> Local {
        let names = Names {
            program: self,
            view,
            tid: None,
        };
        let object = names.variable(global.module, global.die, None);
        let value = Decoder::new(self, view, None, limits).value(&object);
        Local::new(self, global.path.clone(), &object, value, false)
    }
}

/// Statics of one name are told apart by their files.
fn told_apart(path: &str, entries: Vec<(usize, DieOffset, String)>) -> Vec<Global> {
    let alone = entries.len() == 1;
    let each = entries.into_iter().map(|(module, die, unit)| {
        let file = unit.rsplit('/').next().unwrap_or(&unit);
        let path = if alone {
            path.to_owned()
        } else {
            format!("{file}::{path}")
        };
        Global {
            path,
            unit,
            module,
            die,
        }
    });
    each.collect()
}
