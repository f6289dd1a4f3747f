//! What is named in a file's DWARF, gathered in one pass over all its DIEs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian};

use crate::debug_info::{DieOffset, SUPPLEMENT};
use crate::object_file::Slice;
use crate::supplement::{Imports, Supplement};
use crate::unit::{Part, headers, is_skeleton};

type Borrowed<'a> = EndianSlice<'a, LittleEndian>;
type BorrowedEntry<'a> = gimli::DebuggingInformationEntry<'a, 'a, Borrowed<'a>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Variable {
        external: bool,
    },
    Type,
    Function,
    /// The DIE is the enumerator; the enumeration is its parent.
    Enumerator {
        of: DieOffset,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub die: DieOffset,
    pub kind: Kind,
    pub unit: usize,
    scope: u32,
}

/// Code of a function that is not inlined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionRange {
    pub start: u64,
    pub end: u64,
    pub die: DieOffset,
    unit: usize,
}

#[derive(Default)]
pub struct NameIndex {
    named: HashMap<Arc<str>, Vec<Named>>,
    scopes: Vec<(u32, Arc<str>)>,
    scope_of: Vec<(DieOffset, u32)>,
    functions: Vec<FunctionRange>,
    /// Functions that were inlined, and where that code is entered.
    inlined: Vec<(DieOffset, u64)>,
    local_names: HashSet<Arc<str>>,
    member_names: HashSet<Arc<str>>,
    vtables: HashMap<u64, DieOffset>,
}

/// The scope of everything that is in none.
const GLOBAL: u32 = 0;

impl NameIndex {
    /// Of a linked file, and of what it imports of the common file that dwz made.
    pub(crate) fn build(
        linked: &Part,
        supplement: Option<&Supplement>,
        imports: &Imports,
        of_signature: OfSignature<'_>,
    ) -> Self {
        let mut builder = Builder::default();
        // What stands in the common file is completed in the other, never the other way round.
        if let Some(supplement) = supplement {
            builder.part(supplement.part(), &|_| None, |_, start| {
                imports.importer(start)
            });
        }
        builder.part(linked, of_signature, |number, start| {
            Some(imports.importer(start).unwrap_or(number))
        });
        builder.finish()
    }

    /// Of a file that was split off unit number `unit`.
    pub(crate) fn of_split(part: &Part, unit: usize, of_signature: OfSignature<'_>) -> Self {
        let mut builder = Builder::default();
        builder.part(part, of_signature, |_, _| Some(unit));
        builder.finish()
    }

    /// All of them as one.
    pub(crate) fn merged<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut whole = Self::default();
        whole.scopes.push((GLOBAL, "".into()));
        for one in all {
            whole.add(one);
        }
        whole.sort();
        whole
    }

    fn add(&mut self, other: &Self) {
        // Scope 0 is the same everywhere; the others move behind those that are there.
        let Ok(behind) = u32::try_from(self.scopes.len() - 1) else {
            return;
        };
        let moved = |scope: u32| match scope {
            GLOBAL => GLOBAL,
            scope => scope.saturating_add(behind),
        };
        let scopes = other.scopes.iter().skip(1);
        self.scopes
            .extend(scopes.map(|(parent, name)| (moved(*parent), Arc::clone(name))));
        for (name, entries) in &other.named {
            let known = self.named.entry(Arc::clone(name)).or_default();
            known.extend(entries.iter().map(|named| Named {
                scope: moved(named.scope),
                ..*named
            }));
        }
        let scope_of = other.scope_of.iter();
        self.scope_of
            .extend(scope_of.map(|(die, scope)| (*die, moved(*scope))));
        self.functions.extend(&other.functions);
        self.local_names.extend(other.local_names.iter().cloned());
        self.member_names.extend(other.member_names.iter().cloned());
        self.vtables.extend(&other.vtables);
        self.inlined.extend(&other.inlined);
    }

    fn sort(&mut self) {
        self.functions
            .sort_by_key(|function| (function.start, function.end));
        self.scope_of.sort_by_key(|pair| pair.0);
    }

    /// Everything whose last path segment is `name`.
    pub fn lookup(&self, name: &str) -> &[Named] {
        self.named.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn names(&self) -> impl Iterator<Item = (&str, &[Named])> {
        self.named
            .iter()
            .map(|(name, entries)| (&**name, entries.as_slice()))
    }

    /// Namespaces and types around an entry, outermost first.
    pub fn path_of(&self, named: &Named) -> Vec<&str> {
        self.scope_path(named.scope)
    }

    /// The qualified prefix of a DIE: `std::`, or nothing.
    pub fn prefix_of(&self, die: DieOffset) -> String {
        let Ok(at) = self.scope_of.binary_search_by_key(&die, |pair| pair.0) else {
            return String::new();
        };
        self.scope_path(self.scope_of[at].1)
            .iter()
            .map(|segment| format!("{segment}::"))
            .collect()
    }

    pub fn function_at(&self, address: u64) -> Option<&FunctionRange> {
        let after = self
            .functions
            .partition_point(|function| function.start <= address);
        self.functions[..after]
            .iter()
            .rev()
            .take(16)
            .find(|function| address < function.end)
    }

    /// Where the code of inlined calls is entered, with the function that each is of.
    pub fn inlined(&self) -> &[(DieOffset, u64)] {
        &self.inlined
    }

    pub(crate) fn function_ranges(&self, unit: usize) -> impl Iterator<Item = (u64, u64)> {
        self.functions
            .iter()
            .filter(move |function| function.unit == unit)
            .map(|function| (function.start, function.end))
    }

    /// Address ranges of a function, lowest first: several when the compiler split it.
    pub fn ranges_of(&self, die: DieOffset) -> Vec<(u64, u64)> {
        self.functions
            .iter()
            .filter(|function| function.die == die)
            .map(|function| (function.start, function.end))
            .collect()
    }

    /// Whether some function has a local or parameter of this name. If not, no frame needs to be looked at to resolve it.
    pub fn is_local_name(&self, name: &str) -> bool {
        self.local_names.contains(name)
    }

    /// Whether a bare name may be a member of C++'s `this`.
    pub fn is_member_of_this(&self, name: &str) -> bool {
        self.local_names.contains("this") && self.member_names.contains(name)
    }

    /// The concrete type whose Rust vtable stands at a file address.
    pub fn vtable_type(&self, address: u64) -> Option<DieOffset> {
        self.vtables.get(&address).copied()
    }

    fn scope_path(&self, mut scope: u32) -> Vec<&str> {
        let mut path = Vec::new();
        while scope != GLOBAL {
            let (parent, name) = &self.scopes[scope as usize];
            path.push(&**name);
            scope = *parent;
        }
        path.reverse();
        path
    }
}

#[derive(Default)]
struct Builder {
    index: NameIndex,
    /// Declarations that a definition elsewhere may complete: the scope and the name it then has.
    declared: HashMap<DieOffset, (u32, Arc<str>)>,
    strings: HashSet<Arc<str>>,
}

/// What encloses the DIEs at a depth.
#[derive(Clone, Copy)]
struct Level {
    scope: u32,
    in_function: bool,
    parent: DieOffset,
}

/// The unit being walked.
struct Walk<'a> {
    dwarf: &'a gimli::Dwarf<Borrowed<'a>>,
    unit: &'a gimli::Unit<Borrowed<'a>>,
    number: usize,
    part: usize,
    start: usize,
    of_signature: OfSignature<'a>,
}

impl Walk<'_> {
    /// The DIE that an attribute refers to.
    fn referred(&self, entry: &BorrowedEntry<'_>, name: gimli::DwAt) -> Option<DieOffset> {
        match entry.attr_value(name).ok()?? {
            gimli::AttributeValue::UnitRef(offset) => {
                Some(DieOffset(self.start.saturating_add(offset.0)))
            }
            gimli::AttributeValue::DebugInfoRef(offset) => DieOffset::in_info(self.part, offset.0),
            gimli::AttributeValue::DebugInfoRefSup(offset) => {
                DieOffset::in_info(SUPPLEMENT, offset.0)
            }
            _ => None,
        }
    }
}

/// The name of the type that a type unit is there for.
pub(crate) type OfSignature<'a> = &'a dyn Fn(u64) -> Option<String>;

impl Builder {
    /// Walks the units that `number` gives a number, in order.
    fn part(
        &mut self,
        part: &Part,
        of_signature: OfSignature<'_>,
        number: impl Fn(usize, DieOffset) -> Option<usize>,
    ) {
        if self.index.scopes.is_empty() {
            self.index.scopes.push((GLOBAL, "".into()));
        }
        // Slices that count no references are a good deal faster to walk.
        #[expect(
            deprecated,
            reason = "a row of a package has no sections of its own to borrow from"
        )]
        let dwarf = part.dwarf.borrow(borrowed);
        for (at, (start, header)) in headers(&dwarf, part.number).enumerate() {
            let Some(number) = number(at, start) else {
                continue;
            };
            let Ok(mut unit) = dwarf.unit(header) else {
                continue;
            };
            match part.skeleton() {
                Some(skeleton) => {
                    unit.low_pc = skeleton.low_pc;
                    unit.addr_base = skeleton.addr_base;
                    if unit.header.version() < 5 {
                        unit.rnglists_base = skeleton.rnglists_base;
                    }
                }
                // What a skeleton repeats of its unit is in the unit too.
                None if is_skeleton(&unit) => continue,
                None => {}
            }
            self.unit(&Walk {
                dwarf: &dwarf,
                unit: &unit,
                number,
                part: part.number,
                start: start.0,
                of_signature,
            });
        }
    }

    fn finish(mut self) -> NameIndex {
        self.index.sort();
        self.index
    }

    fn unit(&mut self, walk: &Walk<'_>) {
        let root = Level {
            scope: GLOBAL,
            in_function: false,
            parent: DieOffset(walk.start),
        };
        let mut levels = vec![root];
        let mut depth = 0isize;
        let mut cursor = walk.unit.entries();
        while let Ok(Some((delta, entry))) = cursor.next_dfs() {
            depth += delta;
            let Ok(level) = usize::try_from(depth) else {
                return;
            };
            levels.truncate(level + 1);
            let Some(here) = levels.get(level).copied() else {
                return;
            };
            let inside = self.entry(walk, entry, here);
            levels.push(inside);
        }
    }

    /// Notes one DIE and says what its children are in.
    fn entry(&mut self, walk: &Walk<'_>, entry: &BorrowedEntry<'_>, here: Level) -> Level {
        let die = DieOffset(walk.start.saturating_add(entry.offset().0));
        let mut inside = Level {
            parent: die,
            ..here
        };
        match entry.tag() {
            gimli::DW_TAG_namespace => {
                let name = self
                    .name(walk, entry)
                    .unwrap_or_else(|| self.intern("(anonymous namespace)"));
                inside.scope = self.scope(here.scope, name);
            }
            gimli::DW_TAG_structure_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_base_type
            | gimli::DW_TAG_typedef
            | gimli::DW_TAG_unspecified_type => {
                let (scope, name) = match self.type_name(walk, entry, here) {
                    Some((scope, name)) => (scope, Some(name)),
                    None => (here.scope, None),
                };
                self.index.scope_of.push((die, scope));
                if let Some(name) = name {
                    // One with a signature is defined in a type unit.
                    let is_elsewhere = signature(entry).is_some();
                    if has_flag(entry, gimli::DW_AT_declaration) {
                        self.declared.insert(die, (scope, Arc::clone(&name)));
                    } else if !is_elsewhere {
                        let kind = Kind::Type;
                        let unit = walk.number;
                        self.add(
                            &name,
                            Named {
                                die,
                                kind,
                                unit,
                                scope,
                            },
                        );
                    }
                    if entry.has_children() {
                        inside.scope = self.scope(scope, name);
                    }
                }
                // Enumerators of a plain enum belong to the scope around it.
                if entry.tag() == gimli::DW_TAG_enumeration_type
                    && !has_flag(entry, gimli::DW_AT_enum_class)
                {
                    inside.scope = scope;
                }
            }
            gimli::DW_TAG_enumerator => {
                if let Some(name) = self.name(walk, entry) {
                    self.add(
                        &name,
                        Named {
                            die,
                            kind: Kind::Enumerator { of: here.parent },
                            unit: walk.number,
                            scope: here.scope,
                        },
                    );
                }
            }
            gimli::DW_TAG_subprogram => {
                self.function(walk, entry, die, here);
                inside.in_function = true;
            }
            gimli::DW_TAG_inlined_subroutine => {
                self.inlined(walk, entry);
                inside.in_function = true;
            }
            gimli::DW_TAG_lexical_block => inside.in_function = true,
            gimli::DW_TAG_formal_parameter => self.local(walk, entry),
            gimli::DW_TAG_variable | gimli::DW_TAG_member => self.variable(walk, entry, die, here),
            _ => {}
        }
        inside
    }

    fn inlined(&mut self, walk: &Walk<'_>, entry: &BorrowedEntry<'_>) {
        let Some(origin) = walk.referred(entry, gimli::DW_AT_abstract_origin) else {
            return;
        };
        let Ok(mut ranges) = walk.dwarf.die_ranges(walk.unit, entry) else {
            return;
        };
        // GCC says by DW_AT_entry_pc where it is entered, which is where its lowest range begins but for
        // code that was moved away.
        let mut lowest = None;
        while let Ok(Some(range)) = ranges.next() {
            if range.begin != 0 && range.begin < range.end {
                lowest = Some(lowest.map_or(range.begin, |low: u64| low.min(range.begin)));
            }
        }
        let entry_pc = entry.attr_value(gimli::DW_AT_entry_pc).ok().flatten();
        let entry_pc = entry_pc.and_then(|value| walk.dwarf.attr_address(walk.unit, value).ok()?);
        if let Some(at) = entry_pc.or(lowest) {
            self.index.inlined.push((origin, at));
        }
    }

    fn function(
        &mut self,
        walk: &Walk<'_>,
        entry: &BorrowedEntry<'_>,
        die: DieOffset,
        here: Level,
    ) {
        let Some((scope, name)) = self.declared_name(walk, entry, here) else {
            return;
        };
        self.declared.insert(die, (scope, Arc::clone(&name)));
        self.index.scope_of.push((die, scope));
        let Ok(mut ranges) = walk.dwarf.die_ranges(walk.unit, entry) else {
            return;
        };
        let mut has_code = false;
        while let Ok(Some(range)) = ranges.next() {
            if range.begin != 0 && range.begin < range.end {
                has_code = true;
                self.index.functions.push(FunctionRange {
                    start: range.begin,
                    end: range.end,
                    die,
                    unit: walk.number,
                });
            }
        }
        if has_code {
            self.add(
                &name,
                Named {
                    die,
                    kind: Kind::Function,
                    unit: walk.number,
                    scope,
                },
            );
        }
    }

    fn local(&mut self, walk: &Walk<'_>, entry: &BorrowedEntry<'_>) {
        if let Some(name) = self.name(walk, entry) {
            self.index.local_names.insert(name);
        }
    }

    fn variable(
        &mut self,
        walk: &Walk<'_>,
        entry: &BorrowedEntry<'_>,
        die: DieOffset,
        here: Level,
    ) {
        let specified = entry
            .attr_value(gimli::DW_AT_specification)
            .ok()
            .flatten()
            .is_some();
        if here.in_function && !specified {
            return self.local(walk, entry);
        }
        let Some((scope, name)) = self.declared_name(walk, entry, here) else {
            return;
        };
        if entry.tag() == gimli::DW_TAG_member {
            self.index.member_names.insert(Arc::clone(&name));
        }
        if let Some(address) = self.vtable(walk, entry) {
            self.index.vtables.insert(address.0, address.1);
            return;
        }
        let has = |name| entry.attr_value(name).ok().flatten().is_some();
        if has(gimli::DW_AT_location) || has(gimli::DW_AT_const_value) {
            let external = has_flag(entry, gimli::DW_AT_external) || specified;
            self.add(
                &name,
                Named {
                    die,
                    kind: Kind::Variable { external },
                    unit: walk.number,
                    scope,
                },
            );
            self.index.scope_of.push((die, scope));
        } else if has_flag(entry, gimli::DW_AT_declaration) {
            self.declared.insert(die, (scope, name));
        }
    }

    /// rustc describes each vtable as a variable whose type names the concrete type it serves.
    fn vtable(&self, walk: &Walk<'_>, entry: &BorrowedEntry<'_>) -> Option<(u64, DieOffset)> {
        let name = walk
            .dwarf
            .attr_string(walk.unit, entry.attr_value(gimli::DW_AT_name).ok()??)
            .ok()?;
        if !name.slice().ends_with(b"{vtable}") {
            return None;
        }
        let gimli::AttributeValue::Exprloc(location) =
            entry.attr_value(gimli::DW_AT_location).ok()??
        else {
            return None;
        };
        let gimli::AttributeValue::UnitRef(of) = entry.attr_value(gimli::DW_AT_type).ok()?? else {
            return None;
        };
        let table = walk.unit.entry(of).ok()?;
        let gimli::AttributeValue::UnitRef(concrete) =
            table.attr_value(gimli::DW_AT_containing_type).ok()??
        else {
            return None;
        };
        let mut operations = location.operations(walk.unit.encoding());
        let address = match operations.next().ok()?? {
            gimli::Operation::Address { address } => address,
            gimli::Operation::AddressIndex { index } => {
                walk.dwarf.address(walk.unit, index).ok()?
            }
            _ => return None,
        };
        Some((address, DieOffset(walk.start.saturating_add(concrete.0))))
    }

    /// Name and scope, taken from the declaration that this DIE completes, if it completes one.
    fn declared_name(
        &mut self,
        walk: &Walk<'_>,
        entry: &BorrowedEntry<'_>,
        here: Level,
    ) -> Option<(u32, Arc<str>)> {
        for attribute in [gimli::DW_AT_specification, gimli::DW_AT_abstract_origin] {
            let Some(target) = walk.referred(entry, attribute) else {
                continue;
            };
            if let Some(known) = self.declared.get(&target) {
                return Some(known.clone());
            }
            // The origin may stand further on in the file.
            if let Some(gimli::AttributeValue::UnitRef(offset)) =
                entry.attr_value(attribute).ok().flatten()
                && let Ok(origin) = walk.unit.entry(offset)
                && let Some(name) = self.name(walk, &origin)
            {
                return Some((here.scope, name));
            }
        }
        Some((here.scope, self.name(walk, entry)?))
    }

    /// As [`Builder::declared_name`]; a type that is in a type unit may have its name only there.
    fn type_name(
        &mut self,
        walk: &Walk<'_>,
        entry: &BorrowedEntry<'_>,
        here: Level,
    ) -> Option<(u32, Arc<str>)> {
        if let Some(found) = self.declared_name(walk, entry, here) {
            return Some(found);
        }
        let name = (walk.of_signature)(signature(entry)?)?;
        Some((here.scope, self.intern(&name)))
    }

    fn name(&mut self, walk: &Walk<'_>, entry: &BorrowedEntry<'_>) -> Option<Arc<str>> {
        let text = walk
            .dwarf
            .attr_string(walk.unit, entry.attr_value(gimli::DW_AT_name).ok()??)
            .ok()?;
        Some(self.intern(&text.to_string_lossy()))
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return Arc::clone(known);
        }
        let fresh: Arc<str> = text.into();
        self.strings.insert(Arc::clone(&fresh));
        fresh
    }

    fn scope(&mut self, parent: u32, name: Arc<str>) -> u32 {
        let Ok(number) = u32::try_from(self.index.scopes.len()) else {
            return GLOBAL;
        };
        self.index.scopes.push((parent, name));
        number
    }

    fn add(&mut self, name: &Arc<str>, named: Named) {
        self.index
            .named
            .entry(Arc::clone(name))
            .or_default()
            .push(named);
    }
}

fn signature(entry: &BorrowedEntry<'_>) -> Option<u64> {
    match entry.attr_value(gimli::DW_AT_signature).ok()?? {
        gimli::AttributeValue::DebugTypesRef(signature) => Some(signature.0),
        _ => None,
    }
}

fn borrowed(section: &Slice) -> Borrowed<'_> {
    EndianSlice::new(section.bytes(), LittleEndian)
}

fn has_flag(entry: &BorrowedEntry<'_>, name: gimli::DwAt) -> bool {
    matches!(
        entry.attr_value(name),
        Ok(Some(gimli::AttributeValue::Flag(true)))
    )
}
