//! Names to objects: locals, then globals, enumerators, functions and bare symbols.

use crate::debug_info::DieOffset;
use crate::decode::Object;
use crate::frames::Frame;
use crate::index::{Kind, NameIndex, Named};
use crate::lines::path_ends_with;
use crate::location::Place;
use crate::program::Program;
use crate::scopes::{Variable, variables_of};
use crate::storage::Storage;
use crate::type_reader::enumerator_value;
use crate::types::{Language, Shape, Ty, Type};
use crate::view::View;

use super::ExprError;
use super::parser::Path;

/// Suggestions offered for a name that is not there.
const NEAR_LIMIT: usize = 5;
/// Names compared for suggestions.
const NEAR_SCAN: usize = 200_000;

/// Where names are looked up.
pub struct Names<'a> {
    pub program: &'a Program,
    pub view: &'a dyn View,
    pub tid: Option<u32>,
}

/// One meaning of a global name.
struct Candidate {
    module: usize,
    named: Named,
    /// The namespaces and types around it.
    scope: Vec<String>,
}

impl Names<'_> {
    /// A local of the frame, the innermost block's first.
    pub fn local(&self, frame: &Frame, name: &str) -> Option<Object> {
        let scope = frame.scope.as_ref()?;
        let debug = self.program.modules()[scope.module].object.debug()?;
        let found = scope
            .blocks
            .iter()
            .rev()
            .flat_map(|block| variables_of(debug, block.die))
            .find(|variable| variable.name == name)?;
        Some(self.variable(scope.module, found.die, Some(frame)))
    }

    /// Arguments in order, then locals from the innermost block outwards.
    pub fn locals(&self, frame: &Frame) -> Vec<(Variable, Object)> {
        let Some(scope) = frame.scope.as_ref() else {
            return Vec::new();
        };
        let Some(debug) = self.program.modules()[scope.module].object.debug() else {
            return Vec::new();
        };
        let all: Vec<Variable> = scope
            .blocks
            .iter()
            .rev()
            .flat_map(|block| variables_of(debug, block.die))
            .collect();
        let (arguments, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|variable| variable.argument);
        let each = arguments.into_iter().chain(rest);
        each.map(|variable| {
            let object = self.variable(scope.module, variable.die, Some(frame));
            (variable, object)
        })
        .collect()
    }

    /// Whether some function declares a local of this name; if none does, no stack need be read to resolve it.
    /// System libraries with separate debug files are not asked: they are large, and never the default frame's.
    pub fn may_be_local(&self, name: &str) -> bool {
        let system = |path: &str| path.starts_with("/usr/lib") || path.starts_with("/lib");
        let asked = self
            .program
            .modules()
            .iter()
            .filter(|module| !system(&module.object.path) || module.object.has_own_debug());
        asked
            .filter_map(|module| module.object.debug())
            .any(|debug| {
                self.program
                    .index_for(debug)
                    .is_none_or(|index| index.is_local_name(name) || index.is_member_of_this(name))
            })
    }

    pub fn variable(&self, module: usize, die: DieOffset, frame: Option<&Frame>) -> Object {
        let ty = self.type_of(module, die);
        let place = Place {
            thread: self.tid,
            ..Place::new(self.program, self.view, module, frame)
        };
        let storage = place.variable(die, self.program.size_of(&ty));
        Object::new(ty, storage)
    }

    fn type_of(&self, module: usize, die: DieOffset) -> Ty {
        let find = || {
            let debug = self.program.modules()[module].object.debug()?;
            let mut die = die;
            for _ in 0..4 {
                let (unit, offset) = debug.locate(die)?;
                let entry = unit.entry(offset).ok()?;
                match debug.reference_attr(unit, &entry, gimli::DW_AT_type) {
                    Some(die) => {
                        return Some(Ty::Die {
                            object: module,
                            die,
                        });
                    }
                    None => die = debug.origin(unit, &entry)?,
                }
            }
            None
        };
        find().unwrap_or(Ty::Void)
    }

    /// A global, static, enumerator, function or symbol.
    pub fn global(
        &self,
        path: &Path,
        column: usize,
        frame: Option<&Frame>,
    ) -> Result<Object, ExprError> {
        let home = frame
            .and_then(|frame| frame.scope.as_ref())
            .map(|scope| (scope.module, scope.function));
        let order = home
            .map(|(module, _)| module)
            .into_iter()
            .chain(0..self.program.modules().len());
        if let Some(candidates) = home.and_then(|home| self.at_home(home, path)) {
            return self.choose(candidates, path, column, None);
        }
        for module in order {
            let mut candidates = self.candidates(module, path);
            let is_gone = |candidate: &Candidate| candidate.named.kind == Kind::Gone;
            if candidates.iter().all(is_gone) {
                // Of several that are nowhere one says so; what has an address is not nowhere.
                candidates.truncate(usize::from(self.symbol(path).is_none()));
            }
            if !candidates.is_empty() {
                return self.choose(candidates, path, column, home);
            }
        }
        self.symbol(path)
            .ok_or_else(|| self.unknown(path, column, frame))
    }

    /// Variables of that path in the frame's own unit, which are meant before all others: to find them, no other
    /// unit of a large program needs to be read.
    fn at_home(&self, home: (usize, DieOffset), path: &Path) -> Option<Vec<Candidate>> {
        let (module, function) = home;
        let debug = self.program.modules()[module].object.debug()?;
        if path.file.is_some() || self.program.index_for(debug).is_some() {
            return None;
        }
        let names = debug.names_in_unit(debug.unit_index_of(function)?)?;
        let mut found = self.candidates_in(names, module, path);
        found.retain(|candidate| {
            matches!(candidate.named.kind, Kind::Variable { .. })
                && candidate.scope.len() + 1 == path.segments.len()
        });
        (!found.is_empty()).then_some(found)
    }

    fn candidates(&self, module: usize, path: &Path) -> Vec<Candidate> {
        let debug = self.program.modules()[module].object.debug();
        debug.map_or_else(Vec::new, |debug| {
            self.candidates_in(debug.index(), module, path)
        })
    }

    fn candidates_in(&self, index: &NameIndex, module: usize, path: &Path) -> Vec<Candidate> {
        let Some((last, wanted)) = path.segments.split_last() else {
            return Vec::new();
        };
        let in_file = |named: &Named| {
            path.file.as_deref().is_none_or(|file| {
                self.unit_name(module, named.unit)
                    .is_some_and(|name| path_ends_with(&name, file))
            })
        };
        let candidate = |named: &Named| {
            let scope = index.path_of(named);
            let within = scope.len().checked_sub(wanted.len())?;
            let mut suffix = scope[within..].iter().zip(wanted);
            let fits = named.kind != Kind::Type
                && suffix.all(|(a, b)| same_segment(a, b))
                && in_file(named);
            fits.then(|| Candidate {
                module,
                named: *named,
                scope: scope.into_iter().map(str::to_owned).collect(),
            })
        };
        index.lookup(last).iter().filter_map(candidate).collect()
    }

    /// Variables before enumerators before functions; of several, the one in the frame's unit, else the only one there is.
    fn choose(
        &self,
        candidates: Vec<Candidate>,
        path: &Path,
        column: usize,
        home: Option<(usize, DieOffset)>,
    ) -> Result<Object, ExprError> {
        let rank = |candidate: &Candidate| match candidate.named.kind {
            Kind::Variable { .. } => 0,
            Kind::Enumerator { .. } => 1,
            Kind::Gone => 3,
            _ => 2,
        };
        let best = candidates.iter().map(rank).min().unwrap_or(2);
        let mut left: Vec<Candidate> = candidates
            .into_iter()
            .filter(|candidate| rank(candidate) == best)
            .collect();
        // A path written in full is not made ambiguous by longer ones that end in it.
        let exact = |candidate: &Candidate| candidate.scope.len() + 1 == path.segments.len();
        if left.iter().any(exact) {
            left.retain(exact);
        }
        if left.len() > 1
            && path.file.is_none()
            && let Some((module, function)) = home
            && let Some(unit) = self.program.modules()[module]
                .object
                .debug()
                .and_then(|debug| debug.unit_index_of(function))
            && left
                .iter()
                .any(|candidate| candidate.module == module && candidate.named.unit == unit)
        {
            left.retain(|candidate| candidate.module == module && candidate.named.unit == unit);
        }
        let mut objects: Vec<(Object, &Candidate)> = Vec::new();
        for candidate in &left {
            let object = self.object_of(candidate, column)?;
            // Inline variables and templates have a DIE in each unit, for one object.
            let same = |(known, other): &(Object, &Candidate)| {
                known.storage.address().is_some()
                    && known.storage.address() == object.storage.address()
                    || best > 0 && self.value_eq(other, candidate)
            };
            if !objects.iter().any(same) {
                objects.push((object, candidate));
            }
        }
        if let [(object, _)] = objects.as_slice() {
            return Ok(object.clone());
        }
        let external: Vec<&(Object, &Candidate)> = objects
            .iter()
            .filter(|(_, candidate)| candidate.named.kind == Kind::Variable { external: true })
            .collect();
        if let [(object, _)] = external.as_slice() {
            return Ok(object.clone());
        }
        let near = objects
            .iter()
            .map(|(_, candidate)| self.spelled(candidate, path))
            .take(20)
            .collect();
        Err(ExprError {
            column,
            message: format!("`{}` is ambiguous", path.segments.join("::")),
            near,
        })
    }

    /// Enumerators repeated by each unit that includes the header.
    fn value_eq(&self, a: &Candidate, b: &Candidate) -> bool {
        a.module == b.module
            && self.enumerator_number(a).is_some()
            && self.enumerator_number(a) == self.enumerator_number(b)
    }

    fn enumerator_number(&self, candidate: &Candidate) -> Option<i128> {
        let debug = self.program.modules()[candidate.module].object.debug()?;
        let (unit, offset) = debug.locate(candidate.named.die)?;
        let entry = unit.entry(offset).ok()?;
        Some(enumerator_value(
            &entry.attr_value(gimli::DW_AT_const_value).ok()??,
            4,
        ))
    }

    fn object_of(&self, candidate: &Candidate, column: usize) -> Result<Object, ExprError> {
        match candidate.named.kind {
            Kind::Enumerator { of } => {
                let ty = Ty::Die {
                    object: candidate.module,
                    die: of,
                };
                let number = self
                    .enumerator_number(candidate)
                    .ok_or_else(|| ExprError::at(column, "damaged debug information"))?;
                let size = usize::try_from(self.program.size_of(&ty).unwrap_or(4))
                    .unwrap_or(4)
                    .min(16);
                Ok(Object::new(
                    ty,
                    Storage::bytes(number.cast_unsigned().to_le_bytes()[..size].to_vec()),
                ))
            }
            Kind::Function => {
                let module = &self.program.modules()[candidate.module];
                let start = module.object.debug().and_then(|debug| {
                    let ranges = debug.ranges_of(candidate.named.die);
                    ranges.first().map(|range| range.0)
                });
                let start =
                    start.ok_or_else(|| ExprError::at(column, "the function has no code"))?;
                Ok(Object::new(
                    self.function_type(candidate),
                    Storage::Memory(start.wrapping_add(module.bias)),
                ))
            }
            _ => Ok(self.variable(candidate.module, candidate.named.die, None)),
        }
    }

    fn function_type(&self, candidate: &Candidate) -> Ty {
        let returns = self.type_of(candidate.module, candidate.named.die);
        let parameters = self.program.modules()[candidate.module]
            .object
            .debug()
            .map(|debug| variables_of(debug, candidate.named.die))
            .unwrap_or_default();
        let takes = parameters
            .iter()
            .filter(|variable| variable.argument)
            .map(|variable| self.type_of(candidate.module, variable.die))
            .collect();
        Type::made("", 1, Shape::Function { returns, takes })
    }

    /// Data without debug information has an address, and no type to be read by.
    fn symbol(&self, path: &Path) -> Option<Object> {
        let [name] = path.segments.as_slice() else {
            return None;
        };
        let (address, _) = self
            .program
            .symbol_named(name)
            .filter(|_| path.file.is_none())?;
        let shape = Shape::Opaque { word: "" };
        let ty = Ty::Made(std::sync::Arc::new(Type {
            name: "<no debug info>".into(),
            size: None,
            language: Language::C,
            shape,
        }));
        Some(Object::new(ty, Storage::Memory(address)))
    }

    /// How to write the candidate so that it is meant alone.
    fn spelled(&self, candidate: &Candidate, path: &Path) -> String {
        let name = path.segments.last().map_or("", String::as_str);
        let scope = candidate.scope.join("::");
        if !scope.is_empty() {
            return format!("{scope}::{name}");
        }
        let unit = self
            .unit_name(candidate.module, candidate.named.unit)
            .unwrap_or_default();
        format!("{}::{name}", unit.rsplit('/').next().unwrap_or(&unit))
    }

    fn unit_name(&self, module: usize, unit: usize) -> Option<String> {
        Self::unit_name_of(self.program, module, unit)
    }

    /// The source file a unit was compiled from, as its compiler was given it.
    pub fn unit_name_of(program: &Program, module: usize, unit: usize) -> Option<String> {
        let debug = program.modules()[module].object.debug()?;
        let name = debug.unit(unit)?.name.clone()?;
        let name = gimli::Reader::to_string_lossy(&name).ok()?.into_owned();
        // rustc appends the codegen unit: `src/main.rs/@/abc.cgu-0`.
        Some(name.split("/@/").next().unwrap_or(&name).to_owned())
    }

    fn unknown(&self, path: &Path, column: usize, frame: Option<&Frame>) -> ExprError {
        let name = path.segments.last().map_or("", String::as_str);
        let locals = frame.map(|frame| self.locals(frame)).unwrap_or_default();
        let locals = locals.into_iter().map(|(variable, _)| variable.name);
        let globals = self
            .program
            .modules()
            .iter()
            .filter_map(|module| module.object.debug())
            .flat_map(|debug| {
                debug
                    .index()
                    .names()
                    .filter(|(_, all)| {
                        all.iter()
                            .any(|named| matches!(named.kind, Kind::Variable { .. }))
                    })
                    .map(|(name, _)| name.to_owned())
            });
        let near = nearest(name, locals.chain(globals).take(NEAR_SCAN));
        let mut message = format!("no symbol `{}`", path.segments.join("::"));
        // It may be where nobody can look.
        if let Some(trouble) = self.program.troubles().first() {
            message += &format!(" ({trouble})");
        }
        ExprError {
            column,
            message,
            near,
        }
    }
}

/// Segments agree, generic arguments aside where the question has none.
fn same_segment(known: &str, wanted: &str) -> bool {
    known == wanted || !wanted.contains('<') && known.split('<').next() == Some(wanted)
}

/// The names closest to one that is not there, best first.
pub fn nearest(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let allowed = name.chars().count().div_ceil(3).max(1);
    let mut scored: Vec<(usize, String)> = known
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= allowed)
        .map(|candidate| (distance(name, &candidate), candidate))
        .filter(|(score, _)| *score <= allowed)
        .collect();
    scored.sort();
    scored.dedup();
    scored
        .into_iter()
        .take(NEAR_LIMIT)
        .map(|(_, candidate)| candidate)
        .collect()
}

/// Levenshtein distance, case aside.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_close_and_ordered() {
        let known = ["counter", "counted", "encounter", "x"].map(String::from);
        assert_eq!(nearest("conter", known.into_iter()), ["counter", "counted"]);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
