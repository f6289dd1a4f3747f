//! A running program's files: which are mapped where, and what their debug information says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::debug_info::{DebugInfo, DieOffset};
use crate::finder::Finder;
use crate::index::{Kind, NameIndex};
use crate::lines::{LineTable, path_ends_with};
use crate::object_file::{ObjectFile, build_id_of};
use crate::symbols::demangle;
use crate::type_reader::read_type;
use crate::types::{Language, Shape, Ty, Type};
use crate::view::{Mapping, View, ViewExt};

/// Aliases followed before a chain of typedefs counts as damaged.
const ALIAS_LIMIT: usize = 32;
/// Parameters written of a function's type.
const PARAMETER_LIMIT: usize = 32;
/// Types compared for a suggestion.
const TYPE_SCAN: usize = 200_000;
/// Largest vDSO we take from memory.
const VDSO_LIMIT: u64 = 1 << 20;

/// All loaded objects of a set of mappings. Good for every view that [`Program::matches`].
pub struct Program {
    modules: Vec<Module>,
    loaded_from: Vec<Mapping>,
    types: Mutex<HashMap<(usize, DieOffset), Arc<Type>>>,
    questions: AtomicUsize,
}

/// One object and where it is.
pub struct Module {
    pub object: Arc<ObjectFile>,
    /// Added to the file's addresses it gives the program's.
    pub bias: u64,
    ranges: Vec<(u64, u64)>,
}

/// A function's place in the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionAt {
    pub name: String,
    pub start: u64,
    pub end: u64,
}

impl Program {
    pub fn load(view: &dyn View, finder: &Finder) -> Self {
        let mappings = view.mappings();
        let finder = &finder.with_roots(view.debug_roots());
        let mut modules = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for mapping in &mappings {
            if !mapping.perms.execute
                || seen.contains(&mapping.path.as_str())
                || mapping.path.is_empty()
            {
                continue;
            }
            seen.push(&mapping.path);
            modules.extend(load_module(view, finder, mapping, &mappings));
        }
        Self {
            modules,
            loaded_from: image_mappings(&mappings),
            types: Mutex::default(),
            questions: AtomicUsize::new(0),
        }
    }

    /// Whether this program is also that of `view`: the same files, mapped at the same places.
    pub fn matches(&self, view: &dyn View) -> bool {
        image_mappings(&view.mappings()) == self.loaded_from
    }

    /// Whether it knows all files of `view`, where they are there; it may know more.
    pub fn covers(&self, view: &dyn View) -> bool {
        image_mappings(&view.mappings())
            .iter()
            .all(|mapping| self.loaded_from.contains(mapping))
    }

    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The names of a file; None where they are not known and the question can be answered by a look at more of the
    /// program's state instead. Only the first that comes is: whoever goes on asking has them gathered.
    pub(crate) fn index_for<'d>(&self, debug: &'d DebugInfo) -> Option<&'d NameIndex> {
        debug.index_at_hand().or_else(|| {
            let is_first = self.questions.load(Ordering::Relaxed) <= 1;
            (!is_first).then(|| debug.index())
        })
    }

    /// One more expression is evaluated.
    pub(crate) fn count_question(&self) {
        self.questions.fetch_add(1, Ordering::Relaxed);
    }

    /// What was met so far that keeps parts of the program unknown: debug files that are missing or of another build, a
    /// sentence each.
    pub fn troubles(&self) -> Vec<String> {
        let all = self.modules.iter();
        all.flat_map(|module| module.object.troubles()).collect()
    }

    /// Why a code address is not known in full, though its file has debug information.
    pub fn trouble_at(&self, pc: u64) -> Option<String> {
        let (_, module, address) = self.module_at(pc)?;
        module.object.debug()?.trouble_at(address)
    }

    /// The module around an address, its number, and the address as its file counts.
    pub fn module_at(&self, address: u64) -> Option<(usize, &Module, u64)> {
        let covers = |module: &Module| {
            module
                .ranges
                .iter()
                .any(|(start, end)| (*start..*end).contains(&address))
        };
        let number = self.modules.iter().position(covers)?;
        let module = &self.modules[number];
        Some((number, module, address.wrapping_sub(module.bias)))
    }

    /// File and line of a code address.
    pub fn line_at(&self, pc: u64) -> Option<(String, u32)> {
        let (_, module, address) = self.module_at(pc)?;
        let debug = module.object.debug()?;
        let (file, line) = debug.lines(debug.unit_at(address)?)?.at(address)?;
        Some((file.to_owned(), line))
    }

    /// The addresses around `pc` that belong to its line, for stepping.
    pub fn line_extent(&self, pc: u64) -> Option<(u64, u64)> {
        let (_, module, address) = self.module_at(pc)?;
        let debug = module.object.debug()?;
        let (start, end) = debug.lines(debug.unit_at(address)?)?.extent_at(address)?;
        Some((
            start.wrapping_add(module.bias),
            end.wrapping_add(module.bias),
        ))
    }

    /// Code addresses where a line's statements begin.
    pub fn addresses_of_line(&self, file: &str, line: u32) -> Vec<u64> {
        let mut found = Vec::new();
        for module in &self.modules {
            let Some(debug) = module.object.debug() else {
                continue;
            };
            let tables = (0..debug.unit_count()).filter_map(|unit| debug.lines(unit));
            found.extend(
                tables
                    .flat_map(|table| table.addresses(file, line))
                    .map(|address| address.wrapping_add(module.bias)),
            );
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Paths, as compiled in, of source files that end in `file`.
    pub fn sources_named(&self, file: &str) -> Vec<String> {
        let mut found: Vec<String> = self
            .line_tables()
            .flat_map(|table| table.files())
            .filter(|known| path_ends_with(known, file))
            .cloned()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Lines of a source file that have code, ascending: where a breakpoint may stand.
    pub fn lines_of(&self, file: &str) -> Vec<u32> {
        let mut lines: Vec<u32> = self
            .line_tables()
            .flat_map(|table| table.lines_of(file))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    fn line_tables(&self) -> impl Iterator<Item = &LineTable> {
        let all = self
            .modules
            .iter()
            .filter_map(|module| module.object.debug());
        all.flat_map(|debug| (0..debug.unit_count()).filter_map(|unit| debug.lines(unit)))
    }

    /// The function that holds a code address, by DWARF, else by symbol.
    pub fn function_at(&self, pc: u64) -> Option<FunctionAt> {
        let (number, module, address) = self.module_at(pc)?;
        if let Some(debug) = module.object.debug()
            && let Some(range) = debug.function_at(address)
            && let Some(name) = self.function_name(number, range.die)
        {
            return Some(FunctionAt {
                name,
                start: range.start.wrapping_add(module.bias),
                end: range.end.wrapping_add(module.bias),
            });
        }
        let symbol = module.object.symbols().at(address)?;
        let start = symbol.address.wrapping_add(module.bias);
        Some(FunctionAt {
            name: demangle(&symbol.name),
            start,
            end: start.wrapping_add(symbol.size.max(1)),
        })
    }

    /// Every function of this name (a suffix of path segments), by DWARF, else by symbol.
    pub fn functions_named(&self, name: &str) -> Vec<FunctionAt> {
        let last = name.rsplit("::").next().unwrap_or(name);
        let mut found = Vec::new();
        for (number, module) in self.modules.iter().enumerate() {
            if let Some(debug) = module.object.debug() {
                for named in debug
                    .index()
                    .lookup(last)
                    .iter()
                    .filter(|named| named.kind == Kind::Function)
                {
                    let Some(full) = self.function_name(number, named.die) else {
                        continue;
                    };
                    if full == name || full.ends_with(&format!("::{name}")) {
                        let ranges = debug.ranges_of(named.die);
                        found.extend(ranges.iter().take(1).map(|(start, end)| FunctionAt {
                            name: full.clone(),
                            start: start.wrapping_add(module.bias),
                            end: end.wrapping_add(module.bias),
                        }));
                    }
                }
            }
        }
        if found.is_empty() {
            found.extend(self.symbol_named(name).map(|(start, size)| FunctionAt {
                name: name.into(),
                start,
                end: start.wrapping_add(size),
            }));
        }
        found
    }

    /// Address and size of an ELF symbol, the main program's first.
    pub fn symbol_named(&self, name: &str) -> Option<(u64, u64)> {
        self.modules.iter().find_map(|module| {
            let symbol = module.object.symbols().named(name)?;
            Some((symbol.address.wrapping_add(module.bias), symbol.size))
        })
    }

    /// Name and offset of the symbol an address is in, for `<name+8>`.
    pub fn symbol_at(&self, address: u64) -> Option<(String, u64)> {
        let (_, module, address) = self.module_at(address)?;
        let symbol = module.object.symbols().at(address)?;
        Some((demangle(&symbol.name), address - symbol.address))
    }

    /// Qualified name of a function's DIE.
    pub(crate) fn function_name(&self, module: usize, die: DieOffset) -> Option<String> {
        let debug = self.modules.get(module)?.object.debug()?;
        let mut die = die;
        for _ in 0..4 {
            let (unit, offset) = debug.locate(die)?;
            let entry = unit.entry(offset).ok()?;
            match debug.origin(unit, &entry) {
                Some(origin) => die = origin,
                None => {
                    let name = debug.string_attr(unit, &entry, gimli::DW_AT_name)?;
                    return Some(format!("{}{name}", debug.prefix_of(die)));
                }
            }
        }
        None
    }

    /// The type behind a reference; damaged ones read as opaque.
    pub fn resolve(&self, ty: &Ty) -> Arc<Type> {
        match ty {
            Ty::Void => Arc::new(opaque("void")),
            Ty::Made(made) => Arc::clone(made),
            Ty::Die { object, die } => {
                if let Some(known) = self.cached((*object, *die)) {
                    return known;
                }
                let read = self
                    .modules
                    .get(*object)
                    .and_then(|module| read_type(*object, module.object.debug()?, *die));
                let read = Arc::new(read.unwrap_or_else(|| opaque("?")));
                self.lock_types().insert((*object, *die), Arc::clone(&read));
                read
            }
        }
    }

    /// The type under typedefs and qualifiers, completed by a definition elsewhere if need be.
    pub fn strip(&self, ty: &Ty) -> Arc<Type> {
        let mut current = self.resolve(ty);
        for _ in 0..ALIAS_LIMIT {
            let next = match &current.shape {
                Shape::Alias(of) | Shape::Qualified { of, .. } => self.resolve(of),
                Shape::Opaque { word } if !word.is_empty() && !current.name.is_empty() => {
                    return self.definition(&current).unwrap_or(current);
                }
                _ => return current,
            };
            current = next;
        }
        Arc::new(opaque("?"))
    }

    /// A struct defined in another unit or library than the one that declares it.
    fn definition(&self, declared: &Type) -> Option<Arc<Type>> {
        self.types_named(&declared.name)
            .into_iter()
            .map(|ty| self.resolve(&ty))
            .find(|found| {
                found.name == declared.name
                    && found.language == declared.language
                    && matches!(found.shape, Shape::Struct(_) | Shape::Enum { .. })
            })
    }

    /// Types whose qualified name is `name` or ends in it.
    pub fn types_named(&self, name: &str) -> Vec<Ty> {
        let last = last_segment(name);
        let mut found = Vec::new();
        for (object, module) in self.modules.iter().enumerate() {
            let Some(debug) = module.object.debug() else {
                continue;
            };
            for named in debug
                .index()
                .lookup(last)
                .iter()
                .filter(|named| named.kind == Kind::Type)
            {
                let full = format!("{}{last}", debug.prefix_of(named.die));
                if full == name || full.ends_with(&format!("::{name}")) {
                    found.push(Ty::Die {
                        object,
                        die: named.die,
                    });
                }
            }
        }
        found
    }

    /// The last segments of all types' names, as far as it takes to suggest one.
    pub(crate) fn type_names(&self) -> impl Iterator<Item = String> + '_ {
        let debugs = self.modules.iter().filter_map(|m| m.object.debug());
        let named = debugs.flat_map(|debug| debug.index().names());
        named
            .filter(|(_, all)| all.iter().any(|named| named.kind == Kind::Type))
            .map(|(name, _)| name.to_owned())
            .take(TYPE_SCAN)
    }

    pub fn size_of(&self, ty: &Ty) -> Option<u64> {
        let mut ty = self.strip(ty);
        let mut elements = 1u64;
        for _ in 0..ALIAS_LIMIT {
            let next = match &ty.shape {
                Shape::Array { of, count } if ty.size.is_none() => {
                    elements = elements.checked_mul((*count)?)?;
                    self.strip(of)
                }
                _ => return ty.size?.checked_mul(elements),
            };
            ty = next;
        }
        None
    }

    /// How the language writes the type: `struct node *`, `int [3]`, `&str`.
    pub fn type_name(&self, ty: &Ty) -> String {
        self.declare(ty, String::new(), 0)
    }

    fn declare(&self, ty: &Ty, around: String, depth: usize) -> String {
        if depth > ALIAS_LIMIT {
            return "?".into();
        }
        if matches!(ty, Ty::Void) {
            return spaced("void", &around);
        }
        let ty = self.resolve(ty);
        match &ty.shape {
            Shape::Pointer { to, flavour } if ty.name.is_empty() => {
                let mark = if *flavour == crate::types::Flavour::Reference {
                    "&"
                } else {
                    "*"
                };
                let inner = self.strip_names_only(to);
                let nested = matches!(inner.shape, Shape::Array { .. } | Shape::Function { .. });
                let around = if nested {
                    format!("({mark}{around})")
                } else {
                    format!("{mark}{around}")
                };
                self.declare(to, around, depth + 1)
            }
            Shape::Array { of, count } if ty.name.is_empty() => {
                let count = count.map(|count| count.to_string()).unwrap_or_default();
                if ty.language == Language::Rust {
                    return spaced(
                        &format!("[{}; {count}]", self.declare(of, String::new(), depth + 1)),
                        &around,
                    );
                }
                self.declare(of, format!("{around}[{count}]"), depth + 1)
            }
            Shape::Function { returns, takes } if ty.name.is_empty() => {
                let takes: Vec<String> = takes
                    .iter()
                    .take(PARAMETER_LIMIT)
                    // A function type that takes itself would be written for ever.
                    .map(|taken| self.declare(taken, String::new(), depth + ALIAS_LIMIT / 3))
                    .collect();
                let takes = if takes.is_empty() {
                    "void".into()
                } else {
                    takes.join(", ")
                };
                self.declare(returns, format!("{around}({takes})"), depth + 1)
            }
            Shape::Qualified { word, of } => match &self.resolve(of).shape {
                Shape::Pointer { .. } => self.declare(of, spaced_front(word, &around), depth + 1),
                _ => {
                    let inner = self.declare(of, around, depth + 1);
                    // `const` first, as gdb writes it, whichever way round the compiler did.
                    match inner.strip_prefix("const ") {
                        Some(rest) if *word == "volatile" => format!("const volatile {rest}"),
                        // Of an array, gcc qualifies both the array and its elements.
                        _ if self.has_elements_qualified(of, word) => inner,
                        _ => format!("{word} {inner}"),
                    }
                }
            },
            _ => spaced(&tagged(&ty), &around),
        }
    }

    /// Whether `ty` is an array of elements that are `word` themselves.
    fn has_elements_qualified(&self, ty: &Ty, word: &str) -> bool {
        match &self.resolve(ty).shape {
            Shape::Array { of, .. } => matches!(
                &self.resolve(of).shape,
                Shape::Qualified { word: inner, .. } if *inner == word
            ),
            _ => false,
        }
    }

    fn strip_names_only(&self, ty: &Ty) -> Arc<Type> {
        match ty {
            Ty::Void => Arc::new(opaque("void")),
            other => self.resolve(other),
        }
    }

    fn cached(&self, key: (usize, DieOffset)) -> Option<Arc<Type>> {
        self.lock_types().get(&key).cloned()
    }

    fn lock_types(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, DieOffset), Arc<Type>>> {
        self.types
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The last segment of a path, not looking inside generic arguments.
pub fn last_segment(path: &str) -> &str {
    let mut depth = 0usize;
    let mut start = 0;
    let bytes = path.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && index > 0 && bytes[index - 1] == b':' => start = index + 1,
            _ => {}
        }
    }
    path.get(start..).unwrap_or(path)
}

fn tagged(ty: &Type) -> String {
    let word = match &ty.shape {
        Shape::Struct(shape) => shape.word,
        Shape::Enum { .. } => "enum",
        Shape::Opaque { word } => word,
        _ => "",
    };
    match (ty.name.is_empty(), word) {
        (true, "") => "?".into(),
        (true, word) => format!("{word} {{...}}"),
        (false, "") => ty.name.clone(),
        (false, word) if ty.language == Language::C => format!("{word} {}", ty.name),
        (false, _) => ty.name.clone(),
    }
}

fn spaced(name: &str, around: &str) -> String {
    if around.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {around}")
    }
}

fn spaced_front(word: &str, around: &str) -> String {
    if around.is_empty() {
        format!(" {word}")
    } else {
        format!(" {word} {around}")
    }
}

fn opaque(name: &str) -> Type {
    Type {
        name: name.into(),
        size: None,
        language: Language::C,
        shape: Shape::Opaque { word: "" },
    }
}

/// What decides which files are where: executable mappings with a name.
fn image_mappings(mappings: &[Mapping]) -> Vec<Mapping> {
    mappings
        .iter()
        .filter(|mapping| mapping.perms.execute && !mapping.path.is_empty())
        .cloned()
        .collect()
}

fn load_module(
    view: &dyn View,
    finder: &Finder,
    code: &Mapping,
    all: &[Mapping],
) -> Option<Module> {
    let (path, bytes) = match code.file_path() {
        Some(path) => (path.to_owned(), view.open_file(code).ok()?),
        None if code.path == "[vdso]" => {
            let len = usize::try_from((code.end - code.start).min(VDSO_LIMIT)).ok()?;
            (
                code.path.clone(),
                view.read_vec(code.start, len).ok()?.into(),
            )
        }
        None => return None,
    };
    let of_file: Vec<&Mapping> = all
        .iter()
        .filter(|mapping| mapping.path == code.path)
        .collect();
    if !same_build(view, &of_file, &bytes) {
        return None;
    }
    let object = finder.object(&path, bytes)?;
    let bias = object.segments.iter().find_map(|segment| {
        let first = segment.offset & !0xfff;
        let last = segment.offset.checked_add(segment.file_len)?;
        let inside = segment.executable && (first..last).contains(&code.offset);
        inside.then(|| {
            code.start
                .wrapping_sub(segment.address & !0xfff)
                .wrapping_sub(code.offset - first)
        })
    })?;
    let ranges = object.segments.iter().map(|segment| {
        let start = segment.address.wrapping_add(bias);
        (start & !0xfff, start.saturating_add(segment.memory_len))
    });
    Some(Module {
        ranges: ranges.collect(),
        bias,
        object,
    })
}

/// Whether the file still is what was mapped: its build id against the one in memory, where both can be had.
fn same_build(view: &dyn View, mappings: &[&Mapping], bytes: &[u8]) -> bool {
    let Some(first) = mappings.iter().find(|mapping| mapping.offset == 0) else {
        return true;
    };
    // A note may be there and hold nothing.
    let Some(of_file) = build_id_of(bytes).filter(|id| !id.is_empty()) else {
        return true;
    };
    let Some(header) = bytes.get(..64) else {
        return false;
    };
    let Ok(mapped) = view.read_vec(first.start, 64) else {
        return true;
    };
    if mapped != header {
        return false;
    }
    // The note is near the start of every linked file; find it in the file, compare the same bytes in memory.
    let Some(at) = bytes
        .windows(of_file.len())
        .take(1 << 16)
        .position(|window| window == of_file)
    else {
        return true;
    };
    if at as u64 + of_file.len() as u64 > first.end - first.start {
        return true;
    }
    view.read_vec(first.start + at as u64, of_file.len())
        .map_or(true, |mapped| mapped == of_file)
}

#[cfg(test)]
mod tests {
    use super::last_segment;

    #[test]
    fn last_segments_respect_generics() {
        assert_eq!(last_segment("a::b::c"), "c");
        assert_eq!(last_segment("a::Vec<b::C, d::E>"), "Vec<b::C, d::E>");
        assert_eq!(last_segment("x"), "x");
        assert_eq!(last_segment("<a::B as c::D>::{vtable}"), "{vtable}");
    }
}
