//! One pass over the DIEs of units, which gathers what is named in them. Every unit can be walked by itself, by any
//! thread: what it completes of another is looked up there.

use std::borrow::Cow;

use fnv::FnvHashMap;
use gimli::{AttributeValue, DebugStrOffset, EndianSlice, LittleEndian, UnitOffset};

use crate::debug_info::{DieOffset, SUPPLEMENT};
use crate::index::{FunctionRange, GLOBAL, Gathered, Kind, NameIndex, Named, OF_LOCAL, OF_MEMBER};
use crate::object_file::Slice;
use crate::unit::{Part, header_at, is_skeleton};

type Borrowed<'a> = EndianSlice<'a, LittleEndian>;
type Value<'a> = AttributeValue<Borrowed<'a>>;
type Dwarf<'a> = gimli::Dwarf<Borrowed<'a>>;
type Raw<'u, 'a> = gimli::EntriesRaw<'u, 'u, Borrowed<'a>>;

/// A unit that is to be walked: which of its part's, and the number it has for those who ask.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub part: &'a Part,
    pub unit: usize,
    pub number: usize,
}

/// What is known outside the units that are walked.
pub(crate) trait Elsewhere: Sync {
    /// The name of the type that a type unit is there for.
    fn of_signature(&self, part: usize, signature: u64) -> Option<String>;

    /// The scopes around what a DIE declares or defines, outermost first, and its name.
    fn declared(&self, die: DieOffset) -> Option<(Vec<String>, String)>;
}

/// Walks units, in their order, by as many threads as there are processors.
pub(crate) fn gather(jobs: &[Job<'_>], elsewhere: &dyn Elsewhere) -> NameIndex {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunks = evenly(jobs, threads);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = chunks
            .iter()
            .skip(1)
            .map(|chunk| scope.spawn(|| walk(chunk, elsewhere)))
            .collect();
        let first = chunks.first().map(|chunk| walk(chunk, elsewhere));
        let rest = workers.into_iter().filter_map(|worker| worker.join().ok());
        first.into_iter().chain(rest).collect::<Vec<_>>()
    });
    NameIndex::assemble(&parts)
}

/// Walks one after the other.
pub(crate) fn gather_here(jobs: &[Job<'_>], elsewhere: &dyn Elsewhere) -> NameIndex {
    NameIndex::assemble(&[walk(jobs, elsewhere)])
}

/// Runs of about as many bytes each.
fn evenly<'j, 'a>(jobs: &'j [Job<'a>], pieces: usize) -> Vec<&'j [Job<'a>]> {
    let length = |job: &Job<'_>| job.part.length_of(job.unit);
    let whole: usize = jobs.iter().map(length).sum();
    let each = whole / pieces.max(1) + 1;
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, job) in jobs.iter().enumerate() {
        bytes += length(job);
        if bytes >= each {
            chunks.push(&jobs[start..=at]);
            (start, bytes) = (at + 1, 0);
        }
    }
    chunks.push(&jobs[start..]);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

fn walk<'a>(jobs: &[Job<'a>], elsewhere: &dyn Elsewhere) -> Gathered<'a> {
    let mut gatherer = Gatherer::default();
    gatherer.found.scopes.push((GLOBAL, GLOBAL));
    let mut of_part: Option<(usize, Dwarf<'a>)> = None;
    for job in jobs {
        if of_part
            .as_ref()
            .is_none_or(|(part, _)| *part != job.part.number)
        {
            // Slices that count no references are a good deal faster to walk.
            #[expect(
                deprecated,
                reason = "a row of a package has no sections of its own to borrow from"
            )]
            let dwarf = job.part.dwarf.borrow(borrowed);
            of_part = Some((job.part.number, dwarf));
            gatherer.by_offset.clear();
        }
        if let Some((_, dwarf)) = &of_part {
            gatherer.job(dwarf, job, elsewhere);
        }
    }
    gatherer.found
}

#[derive(Default)]
struct Gatherer<'a> {
    found: Gathered<'a>,
    /// Declarations that a definition may complete: the scope and the name it then has. Of this unit, and those that
    /// were looked up in others.
    declared: FnvHashMap<DieOffset, (u32, u32)>,
    numbers: FnvHashMap<Cow<'a, str>, u32>,
    /// Names by where they are in `.debug_str`: most occur many times, and are long.
    by_offset: FnvHashMap<usize, u32>,
}

/// What encloses the DIEs at a depth.
#[derive(Clone, Copy)]
struct Level {
    scope: u32,
    in_function: bool,
    parent: DieOffset,
}

/// The unit being walked.
struct Walk<'w, 'a> {
    dwarf: &'w Dwarf<'a>,
    unit: &'w gimli::Unit<Borrowed<'a>>,
    number: usize,
    part: usize,
    start: usize,
    elsewhere: &'w dyn Elsewhere,
}

/// The attributes of a DIE that are of interest here.
#[derive(Default)]
struct Facts<'a> {
    name: Option<Value<'a>>,
    specification: Option<Value<'a>>,
    abstract_origin: Option<Value<'a>>,
    signature: Option<u64>,
    low_pc: Option<Value<'a>>,
    high_pc: Option<Value<'a>>,
    ranges: Option<Value<'a>>,
    entry_pc: Option<Value<'a>>,
    location: Option<Value<'a>>,
    ty: Option<Value<'a>>,
    has_value: bool,
    declaration: bool,
    external: bool,
    enum_class: bool,
}

impl<'a> Facts<'a> {
    fn read(raw: &mut Raw<'_, 'a>, abbreviation: &gimli::Abbreviation) -> gimli::Result<Self> {
        let mut facts = Self::default();
        for spec in abbreviation.attributes() {
            let slot = match spec.name() {
                gimli::DW_AT_name => &mut facts.name,
                gimli::DW_AT_specification => &mut facts.specification,
                gimli::DW_AT_abstract_origin => &mut facts.abstract_origin,
                gimli::DW_AT_low_pc => &mut facts.low_pc,
                gimli::DW_AT_high_pc => &mut facts.high_pc,
                gimli::DW_AT_ranges => &mut facts.ranges,
                gimli::DW_AT_entry_pc => &mut facts.entry_pc,
                gimli::DW_AT_location => &mut facts.location,
                gimli::DW_AT_type => &mut facts.ty,
                gimli::DW_AT_signature => {
                    if let AttributeValue::DebugTypesRef(signature) =
                        raw.read_attribute(*spec)?.value()
                    {
                        facts.signature = Some(signature.0);
                    }
                    continue;
                }
                gimli::DW_AT_declaration | gimli::DW_AT_external | gimli::DW_AT_enum_class => {
                    let value = raw.read_attribute(*spec)?.value();
                    let is_set = value == AttributeValue::Flag(true);
                    match spec.name() {
                        gimli::DW_AT_declaration => facts.declaration = is_set,
                        gimli::DW_AT_external => facts.external = is_set,
                        _ => facts.enum_class = is_set,
                    }
                    continue;
                }
                name => {
                    facts.has_value |= name == gimli::DW_AT_const_value;
                    raw.skip_attributes(std::slice::from_ref(spec))?;
                    continue;
                }
            };
            *slot = Some(raw.read_attribute(*spec)?.value());
        }
        Ok(facts)
    }
}

impl<'a> Walk<'_, 'a> {
    fn die(&self, offset: UnitOffset) -> DieOffset {
        DieOffset(self.start.saturating_add(offset.0))
    }

    /// The DIE that an attribute refers to.
    fn referred(&self, value: Option<&Value<'a>>) -> Option<DieOffset> {
        match value? {
            AttributeValue::UnitRef(offset) => Some(self.die(*offset)),
            AttributeValue::DebugInfoRef(offset) => DieOffset::in_info(self.part, offset.0),
            AttributeValue::DebugInfoRefSup(offset) => DieOffset::in_info(SUPPLEMENT, offset.0),
            _ => None,
        }
    }

    fn address(&self, value: Option<&Value<'a>>) -> Option<u64> {
        self.dwarf.attr_address(self.unit, *value?).ok().flatten()
    }

    /// The code of a DIE, without what the linker dropped.
    fn code(&self, facts: &Facts<'a>) -> Vec<(u64, u64)> {
        let mut code = Vec::new();
        if let Some(low) = self.address(facts.low_pc.as_ref())
            && let Some(high) = &facts.high_pc
        {
            let high = match high.udata_value() {
                Some(length) => Some(low.wrapping_add(length)),
                None => self.address(Some(high)),
            };
            code.extend(high.map(|high| (low, high)));
        } else if let Some(ranges) = &facts.ranges
            && let Ok(Some(mut ranges)) = self.dwarf.attr_ranges(self.unit, *ranges)
        {
            while let Ok(Some(range)) = ranges.next() {
                code.push((range.begin, range.end));
            }
        }
        code.retain(|(begin, end)| *begin != 0 && begin < end);
        code
    }
}

impl<'a> Gatherer<'a> {
    fn job(&mut self, dwarf: &Dwarf<'a>, job: &Job<'a>, elsewhere: &dyn Elsewhere) {
        let Some(start) = job.part.start_of(job.unit) else {
            return;
        };
        let header = header_at(dwarf, start);
        let Some(mut unit) = header.and_then(|header| dwarf.unit(header).ok()) else {
            return;
        };
        match job.part.skeleton() {
            Some(skeleton) => {
                unit.low_pc = skeleton.low_pc;
                unit.addr_base = skeleton.addr_base;
                if unit.header.version() < 5 {
                    unit.rnglists_base = skeleton.rnglists_base;
                }
            }
            // What a skeleton repeats of its unit is in the unit too.
            None if is_skeleton(&unit) => return,
            None => {}
        }
        let walk = Walk {
            dwarf,
            unit: &unit,
            number: job.number,
            part: job.part.number,
            start: start.0,
            elsewhere,
        };
        // Damage ends the unit where it is met; what came before is kept.
        self.unit(&walk).unwrap_or_default();
    }

    fn unit(&mut self, walk: &Walk<'_, 'a>) -> gimli::Result<()> {
        let root = Level {
            scope: GLOBAL,
            in_function: false,
            parent: DieOffset(walk.start),
        };
        let mut levels = vec![root];
        let mut raw = walk.unit.entries_raw(None)?;
        while !raw.is_empty() {
            let die = walk.die(raw.next_offset());
            let depth = usize::try_from(raw.next_depth()).unwrap_or(usize::MAX);
            let Some(abbreviation) = raw.read_abbreviation()? else {
                continue;
            };
            levels.truncate(depth.saturating_add(1));
            let Some(here) = levels.get(depth).copied() else {
                return Ok(());
            };
            let inside = match abbreviation.tag() {
                gimli::DW_TAG_lexical_block => {
                    raw.skip_attributes(abbreviation.attributes())?;
                    Level {
                        in_function: true,
                        parent: die,
                        ..here
                    }
                }
                tag if is_wanted(tag) => {
                    let facts = Facts::read(&mut raw, abbreviation)?;
                    self.entry(walk, tag, abbreviation.has_children(), &facts, (die, here))
                }
                _ => {
                    raw.skip_attributes(abbreviation.attributes())?;
                    Level {
                        parent: die,
                        ..here
                    }
                }
            };
            if abbreviation.has_children() {
                levels.push(inside);
            }
        }
        Ok(())
    }

    /// Notes one DIE and says what its children are in.
    fn entry(
        &mut self,
        walk: &Walk<'_, 'a>,
        tag: gimli::DwTag,
        has_children: bool,
        facts: &Facts<'a>,
        (die, here): (DieOffset, Level),
    ) -> Level {
        let mut inside = Level {
            parent: die,
            ..here
        };
        match tag {
            gimli::DW_TAG_namespace => {
                let name = self.name(walk, facts);
                let name = name.unwrap_or_else(|| self.intern("(anonymous namespace)".into()));
                inside.scope = self.scope(here.scope, name);
            }
            gimli::DW_TAG_enumerator => {
                if let Some(name) = self.name(walk, facts) {
                    let kind = Kind::Enumerator { of: here.parent };
                    self.add(walk, name, die, kind, here.scope);
                }
            }
            gimli::DW_TAG_subprogram => {
                self.function(walk, facts, die, here);
                inside.in_function = true;
            }
            gimli::DW_TAG_inlined_subroutine => {
                self.inlined(walk, facts);
                inside.in_function = true;
            }
            gimli::DW_TAG_formal_parameter => self.flag(walk, facts, OF_LOCAL),
            gimli::DW_TAG_variable | gimli::DW_TAG_member => {
                self.variable(walk, tag, facts, die, here);
            }
            _ => {
                let of_enumerators = tag == gimli::DW_TAG_enumeration_type && !facts.enum_class;
                let (scope, own) = self.named_type(walk, facts, has_children, (die, here));
                // Enumerators of a plain enum belong to the scope around it.
                inside.scope = if of_enumerators { scope } else { own };
            }
        }
        inside
    }

    /// Notes a type and says which scope it is in, and which one its members are in.
    fn named_type(
        &mut self,
        walk: &Walk<'_, 'a>,
        facts: &Facts<'a>,
        has_children: bool,
        (die, here): (DieOffset, Level),
    ) -> (u32, u32) {
        let Some((scope, name)) = self.type_name(walk, facts, here) else {
            self.found.scope_of.push((die, here.scope));
            return (here.scope, here.scope);
        };
        self.found.scope_of.push((die, scope));
        if facts.declaration {
            self.declared.insert(die, (scope, name));
        } else if facts.signature.is_none() {
            // One with a signature is defined in a type unit.
            self.add(walk, name, die, Kind::Type, scope);
        }
        let own = if has_children {
            self.scope(scope, name)
        } else {
            here.scope
        };
        (scope, own)
    }

    fn inlined(&mut self, walk: &Walk<'_, 'a>, facts: &Facts<'a>) {
        let Some(origin) = walk.referred(facts.abstract_origin.as_ref()) else {
            return;
        };
        // GCC says by DW_AT_entry_pc where it is entered, which is where its lowest range begins but for
        // code that was moved away.
        let entered = walk.address(facts.entry_pc.as_ref());
        let lowest = || walk.code(facts).into_iter().map(|range| range.0).min();
        if let Some(at) = entered.or_else(lowest) {
            self.found.inlined.push((origin, at));
        }
    }

    fn function(&mut self, walk: &Walk<'_, 'a>, facts: &Facts<'a>, die: DieOffset, here: Level) {
        let Some((scope, name)) = self.declared_name(walk, facts, here) else {
            return;
        };
        self.declared.insert(die, (scope, name));
        self.found.scope_of.push((die, scope));
        let code = walk.code(facts);
        let unit = walk.number;
        let ranges = code.iter().map(|&(start, end)| FunctionRange {
            start,
            end,
            die,
            unit,
        });
        self.found.functions.extend(ranges);
        if !code.is_empty() {
            self.add(walk, name, die, Kind::Function, scope);
        }
    }

    fn flag(&mut self, walk: &Walk<'_, 'a>, facts: &Facts<'a>, flag: u8) {
        if let Some(name) = self.name(walk, facts) {
            self.found.names[name as usize].1 |= flag;
        }
    }

    fn variable(
        &mut self,
        walk: &Walk<'_, 'a>,
        tag: gimli::DwTag,
        facts: &Facts<'a>,
        die: DieOffset,
        here: Level,
    ) {
        let specified = facts.specification.is_some();
        if here.in_function && !specified {
            return self.flag(walk, facts, OF_LOCAL);
        }
        let Some((scope, name)) = self.declared_name(walk, facts, here) else {
            return;
        };
        if tag == gimli::DW_TAG_member {
            self.found.names[name as usize].1 |= OF_MEMBER;
        }
        if let Some(vtable) = self.vtable(walk, facts, name) {
            return self.found.vtables.push(vtable);
        }
        if facts.location.is_some() || facts.has_value {
            let external = facts.external || specified;
            self.add(walk, name, die, Kind::Variable { external }, scope);
            self.found.scope_of.push((die, scope));
        } else if facts.declaration {
            self.declared.insert(die, (scope, name));
        } else if tag == gimli::DW_TAG_variable && !here.in_function {
            self.add(walk, name, die, Kind::Gone, scope);
        }
    }

    /// rustc describes each vtable as a variable whose type names the concrete type it serves.
    fn vtable(
        &self,
        walk: &Walk<'_, 'a>,
        facts: &Facts<'a>,
        name: u32,
    ) -> Option<(u64, DieOffset)> {
        if !self.found.names[name as usize].0.ends_with("{vtable}") {
            return None;
        }
        let Some(AttributeValue::Exprloc(location)) = facts.location else {
            return None;
        };
        let Some(AttributeValue::UnitRef(of)) = facts.ty else {
            return None;
        };
        let table = walk.unit.entry(of).ok()?;
        let AttributeValue::UnitRef(concrete) =
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
        Some((address, walk.die(concrete)))
    }

    /// Scope and name, taken from the declaration that this DIE completes, if it completes one.
    fn declared_name(
        &mut self,
        walk: &Walk<'_, 'a>,
        facts: &Facts<'a>,
        here: Level,
    ) -> Option<(u32, u32)> {
        for origin in [&facts.specification, &facts.abstract_origin] {
            let Some(target) = walk.referred(origin.as_ref()) else {
                continue;
            };
            if let Some(known) = self.declared.get(&target) {
                return Some(*known);
            }
            // It is in another unit, or further on in this one.
            if let Some((path, name)) = walk.elsewhere.declared(target) {
                let name = self.intern(name.into());
                let mut scope = GLOBAL;
                for segment in path {
                    let segment = self.intern(segment.into());
                    scope = self.scope(scope, segment);
                }
                self.declared.insert(target, (scope, name));
                return Some((scope, name));
            }
        }
        Some((here.scope, self.name(walk, facts)?))
    }

    /// As [`Gatherer::declared_name`]; a type that is in a type unit may have its name only there.
    fn type_name(
        &mut self,
        walk: &Walk<'_, 'a>,
        facts: &Facts<'a>,
        here: Level,
    ) -> Option<(u32, u32)> {
        if let Some(found) = self.declared_name(walk, facts, here) {
            return Some(found);
        }
        let name = walk.elsewhere.of_signature(walk.part, facts.signature?)?;
        Some((here.scope, self.intern(name.into())))
    }

    fn name(&mut self, walk: &Walk<'_, 'a>, facts: &Facts<'a>) -> Option<u32> {
        let value = facts.name?;
        let offset = match &value {
            AttributeValue::DebugStrRef(DebugStrOffset(offset)) => Some(*offset),
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let found = walk.dwarf.string_offset(walk.unit, *index);
                found.ok().map(|offset| offset.0)
            }
            _ => None,
        };
        if let Some(known) = offset.and_then(|offset| self.by_offset.get(&offset)) {
            return Some(*known);
        }
        let text = walk.dwarf.attr_string(walk.unit, value).ok()?;
        let name = self.intern(String::from_utf8_lossy(text.slice()));
        if let Some(offset) = offset {
            self.by_offset.insert(offset, name);
        }
        Some(name)
    }

    fn intern(&mut self, text: Cow<'a, str>) -> u32 {
        if let Some(known) = self.numbers.get(&text) {
            return *known;
        }
        let Ok(number) = u32::try_from(self.found.names.len()) else {
            return 0;
        };
        self.found.names.push((text.clone(), 0));
        self.numbers.insert(text, number);
        number
    }

    fn scope(&mut self, parent: u32, name: u32) -> u32 {
        let Ok(number) = u32::try_from(self.found.scopes.len()) else {
            return GLOBAL;
        };
        self.found.scopes.push((parent, name));
        number
    }

    fn add(&mut self, walk: &Walk<'_, 'a>, name: u32, die: DieOffset, kind: Kind, scope: u32) {
        let unit = walk.number;
        let named = Named {
            die,
            kind,
            unit,
            scope,
        };
        self.found.named.push((name, named));
    }
}

fn is_wanted(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_namespace
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_base_type
            | gimli::DW_TAG_typedef
            | gimli::DW_TAG_unspecified_type
            | gimli::DW_TAG_enumerator
            | gimli::DW_TAG_subprogram
            | gimli::DW_TAG_inlined_subroutine
            | gimli::DW_TAG_formal_parameter
            | gimli::DW_TAG_variable
            | gimli::DW_TAG_member
    )
}

fn borrowed(section: &Slice) -> Borrowed<'_> {
    EndianSlice::new(section.bytes(), LittleEndian)
}
