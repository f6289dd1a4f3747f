//! DWARF of one object: units parsed on first use, each kept. It may be in several files: see [`crate::split`] and
//! [`crate::supplement`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gimli::{Reader, Section, SectionId, UnitOffset};

use crate::declared::Containers;
use crate::gather::{Job, gather, gather_here};
use crate::index::{FunctionRange, NameIndex};
use crate::index_cache::{IndexCache, Key};
use crate::lines::LineTable;
use crate::object_file::Slice;
use crate::split::{Beside, Package, Split, SplitError};
use crate::supplement::{Imports, Supplement, SupplementError};
use crate::types::Language;
pub use crate::unit::{Attribute, DieOffset, Dwarf, Entry, Unit};
use crate::unit::{Part, is_skeleton};

/// The file with the code, or its debug file.
pub(crate) const LINKED: usize = 0;
/// What several files have in common.
pub(crate) const SUPPLEMENT: usize = 1;
/// From here on split units by the number of their skeleton, then type units by their row in the package.
const FIRST_SPLIT: usize = 2;

/// Bytes of `.debug_info` whose names are gathered without asking whether that can wait.
const LARGE: usize = 2 << 20;

/// Origins followed before a chain of them counts as damaged.
const ORIGINS: usize = 4;

pub struct DebugInfo {
    linked: Part,
    supplement: Option<Result<Supplement, SupplementError>>,
    slots: Vec<Slot>,
    beside: Beside,
    has_skeletons: OnceLock<bool>,
    package: OnceLock<Option<Package>>,
    ranges: OnceLock<Vec<UnitRange>>,
    /// Of what is not split.
    linked_index: OnceLock<NameIndex>,
    /// Of the common file's units, one by one.
    common: Vec<OnceLock<NameIndex>>,
    whole_index: OnceLock<NameIndex>,
    imports: OnceLock<Imports>,
    troubles: Mutex<BTreeSet<String>>,
}

/// What belongs to a unit of the linked file.
#[derive(Default)]
struct Slot {
    lines: OnceLock<LineTable>,
    body: OnceLock<Body>,
    /// What is named in it, where it is not split.
    names: OnceLock<NameIndex>,
}

/// Where a unit's DIEs are.
enum Body {
    Here,
    Split(Box<Split>),
    Missing(SplitError),
}

#[derive(Clone, Copy)]
struct UnitRange {
    start: u64,
    end: u64,
    unit: usize,
}

impl DebugInfo {
    /// None when not even the first unit header can be read.
    pub fn load(
        mut section: impl FnMut(SectionId) -> Slice,
        beside: Beside,
        supplement: Option<Result<Supplement, SupplementError>>,
    ) -> Option<Self> {
        let mut dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(section(id))).ok()?;
        if let Some(Ok(supplement)) = &supplement {
            dwarf.sup = Some(supplement.sections());
        }
        let linked = Part::new(LINKED, dwarf, None);
        let slots: Vec<Slot> = (0..linked.len()).map(|_| Slot::default()).collect();
        let troubles = match &supplement {
            Some(Err(why)) => BTreeSet::from([why.to_string()]),
            _ => BTreeSet::new(),
        };
        let units_in_common = match &supplement {
            Some(Ok(supplement)) => supplement.part().len(),
            _ => 0,
        };
        (!slots.is_empty()).then(|| Self {
            linked,
            common: (0..units_in_common).map(|_| OnceLock::new()).collect(),
            supplement,
            slots,
            beside,
            has_skeletons: OnceLock::new(),
            package: OnceLock::new(),
            ranges: OnceLock::new(),
            linked_index: OnceLock::new(),
            whole_index: OnceLock::new(),
            imports: OnceLock::new(),
            troubles: Mutex::new(troubles),
        })
    }

    pub fn unit_count(&self) -> usize {
        self.slots.len()
    }

    /// The unit with its DIEs, parsed; None when it is damaged, or the file that it was split into is not there.
    pub fn unit(&self, index: usize) -> Option<&Arc<Unit>> {
        match self.body(index)? {
            Body::Here => self.linked.unit(index),
            Body::Split(split) => split.part.unit(split.unit),
            Body::Missing(_) => None,
        }
    }

    /// What of it is in the linked file: its lines and ranges are, wherever its DIEs may be.
    pub(crate) fn linked_unit(&self, index: usize) -> Option<&Arc<Unit>> {
        self.linked.unit(index)
    }

    pub fn lines(&self, index: usize) -> Option<&LineTable> {
        let slot = self.slots.get(index)?;
        let unit = self.linked_unit(index)?;
        Some(
            slot.lines
                .get_or_init(|| LineTable::parse(&unit.dwarf, unit)),
        )
    }

    /// The number of the unit that a DIE is in, or that the file of the DIE was split from.
    pub fn unit_index_of(&self, die: DieOffset) -> Option<usize> {
        match die.part() {
            LINKED => self.linked.index_of(die),
            SUPPLEMENT => None,
            part => Some(part - FIRST_SPLIT).filter(|unit| *unit < self.slots.len()),
        }
    }

    /// The unit that holds a DIE, and the DIE's offset in it.
    pub fn locate(&self, die: DieOffset) -> Option<(&Arc<Unit>, UnitOffset)> {
        self.part(die.part())?.locate(die)
    }

    fn part(&self, number: usize) -> Option<&Part> {
        match number {
            LINKED => Some(&self.linked),
            SUPPLEMENT => self.supplement().map(Supplement::part),
            number => match self.body(number - FIRST_SPLIT) {
                Some(Body::Split(split)) => Some(&split.part),
                Some(_) => None,
                None => self.packaged_type(number - FIRST_SPLIT - self.slots.len()),
            },
        }
    }

    pub(crate) fn supplement(&self) -> Option<&Supplement> {
        self.supplement.as_ref()?.as_ref().ok()
    }

    fn package(&self) -> Option<&Package> {
        self.package.get_or_init(|| self.beside.package()).as_ref()
    }

    fn packaged_type(&self, row: usize) -> Option<&Part> {
        let number = FIRST_SPLIT + self.slots.len() + row;
        self.package()?.type_part(row, number, &self.linked.dwarf)
    }

    /// Finds what was split off when the unit is asked for, and not before.
    fn body(&self, index: usize) -> Option<&Body> {
        let slot = self.slots.get(index)?;
        Some(slot.body.get_or_init(|| self.find_body(index)))
    }

    fn find_body(&self, index: usize) -> Body {
        let Some(skeleton) = self.skeleton(index) else {
            return Body::Here;
        };
        match Split::find(skeleton, FIRST_SPLIT + index, &self.beside, self.package()) {
            Ok(split) => Body::Split(Box::new(split)),
            Err(why) => {
                self.lock_troubles().insert(why.to_string());
                Body::Missing(why)
            }
        }
    }

    fn skeleton(&self, index: usize) -> Option<&Arc<Unit>> {
        self.linked.unit(index).filter(|unit| is_skeleton(unit))
    }

    fn has_skeletons(&self) -> bool {
        let any = || (0..self.slots.len()).any(|unit| self.skeleton(unit).is_some());
        *self.has_skeletons.get_or_init(any)
    }

    /// What was met so far that keeps parts of the program unknown, a sentence each.
    pub fn troubles(&self) -> Vec<String> {
        self.lock_troubles().iter().cloned().collect()
    }

    /// Why what is at a file address is not known in full.
    pub fn trouble_at(&self, address: u64) -> Option<String> {
        match self.body(self.unit_at(address)?)? {
            Body::Missing(why) => Some(why.to_string()),
            _ => None,
        }
    }

    fn lock_troubles(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit whose code covers a file address.
    pub fn unit_at(&self, address: u64) -> Option<usize> {
        self.units_at(address).next()
    }

    /// Ranges of different units do not overlap in sound files; this looks back a little for those that do.
    fn units_at(&self, address: u64) -> impl Iterator<Item = usize> {
        let ranges = self.ranges.get_or_init(|| self.collect_ranges());
        let after = ranges.partition_point(|range| range.start <= address);
        let before = ranges[..after].iter().rev().take(16);
        before
            .filter(move |range| address < range.end)
            .map(|range| range.unit)
    }

    /// Everything that has a name, in all files: to build it they are all read.
    pub fn index(&self) -> &NameIndex {
        if !self.has_skeletons() {
            return self.linked_index();
        }
        self.whole_index.get_or_init(|| self.gather())
    }

    /// Everything that has a name, if that is known already: to learn it of a large file takes a while.
    pub fn index_at_hand(&self) -> Option<&NameIndex> {
        if self.has_skeletons() {
            return self.whole_index.get();
        }
        if self.linked_index.get().is_none() && !self.is_large() {
            return Some(self.linked_index());
        }
        self.linked_index.get()
    }

    fn is_large(&self) -> bool {
        self.linked.dwarf.debug_info.reader().len() > LARGE
    }

    fn linked_index(&self) -> &NameIndex {
        self.linked_index.get_or_init(|| {
            self.kept_index().unwrap_or_else(|| {
                let index = gather(&self.jobs(), self);
                if let Some((cache, key)) = self.cache() {
                    cache.save(&key, &index);
                }
                index
            })
        })
    }

    /// From the cache.
    fn kept_index(&self) -> Option<NameIndex> {
        let (cache, key) = self.cache()?;
        cache.load(&key)
    }

    /// Where an index of it may be kept: not where a file that belongs to it is not there.
    fn cache(&self) -> Option<(&IndexCache, Key)> {
        let cache = self.beside.finder.index_cache()?;
        let worth = cache.is_worth_it(self.linked.dwarf.debug_info.reader().len());
        if !worth || self.has_skeletons() || matches!(self.supplement, Some(Err(_))) {
            return None;
        }
        let linked = [&*self.linked.dwarf];
        let common = self.supplement().map(|common| &*common.part().dwarf);
        let files: Vec<&Dwarf> = linked.into_iter().chain(common).collect();
        let key = Key::new(self.beside.build_id.as_deref()?, &files, self.slots.len())?;
        Some((cache, key))
    }

    /// The units of the linked file, and those of the common file that it imports. What stands in the common file is
    /// completed in the other, never the other way round.
    fn jobs(&self) -> Vec<Job<'_>> {
        let common = (0..self.common.len()).filter_map(|unit| self.common_job(unit));
        let linked = (0..self.linked.len()).map(|unit| self.linked_job(unit));
        common.chain(linked).collect()
    }

    fn linked_job(&self, unit: usize) -> Job<'_> {
        let start = self.linked.start_of(unit);
        let importer = start.and_then(|start| self.imports().importer(start));
        Job {
            part: &self.linked,
            unit,
            number: importer.unwrap_or(unit),
        }
    }

    fn common_job(&self, unit: usize) -> Option<Job<'_>> {
        let part = self.supplement()?.part();
        let number = self.imports().importer(part.start_of(unit)?)?;
        Some(Job { part, unit, number })
    }

    /// What is named in one unit of the linked file.
    pub(crate) fn names_of_unit(&self, unit: usize) -> Option<&NameIndex> {
        let slot = self.slots.get(unit)?;
        let walk = || gather_here(&[self.linked_job(unit)], self);
        Some(slot.names.get_or_init(walk))
    }

    fn names_of_common(&self, unit: usize) -> Option<&NameIndex> {
        let job = self.common_job(unit)?;
        Some(
            self.common
                .get(unit)?
                .get_or_init(|| gather_here(&[job], self)),
        )
    }

    /// The names that a unit brings along itself, wherever its DIEs are.
    pub fn names_in_unit(&self, unit: usize) -> Option<&NameIndex> {
        match self.skeleton(unit) {
            Some(_) => self.split_index(unit),
            None => self.names_of_unit(unit),
        }
    }

    /// The names of one unit that was split off.
    fn split_index(&self, unit: usize) -> Option<&NameIndex> {
        match self.body(unit)? {
            Body::Split(split) => {
                Some(split.index.get_or_init(|| self.names_in(&split.part, unit)))
            }
            _ => None,
        }
    }

    fn names_in(&self, part: &Part, number: usize) -> NameIndex {
        let jobs = (0..part.len()).map(|unit| Job { part, unit, number });
        gather_here(&jobs.collect::<Vec<_>>(), self)
    }

    pub(crate) fn type_unit_name(&self, part: usize, signature: u64) -> Option<String> {
        let (unit, offset) = self.locate(self.type_unit(part, signature)?)?;
        self.string_attr(unit, &unit.entry(offset).ok()?, gimli::DW_AT_name)
    }

    /// The names around a DIE: those of its file.
    fn index_of(&self, die: DieOffset) -> Option<&NameIndex> {
        match die.part() {
            LINKED => self.names_of_unit(self.linked.index_of(die)?),
            SUPPLEMENT => self.names_of_common(self.supplement()?.part().index_of(die)?),
            part if part - FIRST_SPLIT < self.slots.len() => self.split_index(part - FIRST_SPLIT),
            _ => Some(self.index()),
        }
    }

    /// All files are read by as many threads as there are processors.
    fn gather(&self) -> NameIndex {
        let next = AtomicUsize::new(0);
        let work = || {
            while self.slots.len() > next.load(Ordering::Relaxed) {
                self.split_index(next.fetch_add(1, Ordering::Relaxed));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(self.slots.len()) {
                scope.spawn(work);
            }
            work();
        });
        let split = (0..self.slots.len()).filter_map(|unit| self.split_index(unit));
        let rows = self.package().map_or(0, Package::type_count);
        let types: Vec<NameIndex> = (0..rows)
            .filter_map(|row| self.packaged_type(row))
            .map(|part| self.names_in(part, usize::MAX))
            .collect();
        let all = [self.linked_index()].into_iter().chain(split).chain(&types);
        NameIndex::assemble(&all.map(NameIndex::gathered).collect::<Vec<_>>())
    }

    pub fn function_at(&self, address: u64) -> Option<&FunctionRange> {
        self.units_at(address)
            .find_map(|unit| self.names_in_unit(unit)?.function_at(address))
    }

    /// Address ranges of a function, lowest first: several when the compiler split it.
    pub fn ranges_of(&self, die: DieOffset) -> Vec<(u64, u64)> {
        let names = self.index_of(die);
        names.map(|names| names.ranges_of(die)).unwrap_or_default()
    }

    pub(crate) fn containers_of(&self, die: DieOffset) -> Option<&Containers> {
        self.part(die.part())?.containers_of(die)
    }

    /// The qualified prefix of a DIE: `std::`, or nothing.
    pub fn prefix_of(&self, die: DieOffset) -> String {
        self.index_of(die)
            .map(|index| index.prefix_of(die))
            .unwrap_or_default()
    }

    fn imports(&self) -> &Imports {
        self.imports
            .get_or_init(|| Imports::collect(&self.linked, self.supplement()))
    }

    /// The unit's language; a partial unit has that of the units that import it.
    pub(crate) fn language_of(&self, unit: &Unit) -> Language {
        let importer = || {
            let number = self.imports().importer(unit.start()?)?;
            Language::of_unit(self.linked.unit(number)?)
        };
        Language::of_unit(unit)
            .or_else(importer)
            .unwrap_or(Language::Other)
    }

    /// A reference attribute as a DIE.
    pub fn reference(&self, unit: &Unit, value: &Attribute) -> Option<DieOffset> {
        match value {
            Attribute::UnitRef(offset) => unit.die(*offset),
            Attribute::DebugInfoRef(offset) => DieOffset::in_info(unit.part, offset.0),
            Attribute::DebugInfoRefSup(offset) => DieOffset::in_info(SUPPLEMENT, offset.0),
            Attribute::DebugTypesRef(signature) => self.type_unit(unit.part, signature.0),
            _ => None,
        }
    }

    /// A type unit, of the same file or of the package.
    fn type_unit(&self, part: usize, signature: u64) -> Option<DieOffset> {
        if let Some(found) = self.part(part)?.type_unit(signature) {
            return Some(found);
        }
        let row = self.package()?.type_row(signature)?;
        self.packaged_type(row)?.type_unit(signature)
    }

    pub fn reference_attr(
        &self,
        unit: &Unit,
        entry: &Entry<'_>,
        name: gimli::DwAt,
    ) -> Option<DieOffset> {
        self.reference(unit, &entry.attr_value(name).ok()??)
    }

    pub fn string(&self, unit: &Unit, value: Attribute) -> Option<String> {
        let text = unit.dwarf.attr_string(unit, value).ok()?;
        text.to_string_lossy()
            .ok()
            .map(std::borrow::Cow::into_owned)
    }

    pub fn string_attr(&self, unit: &Unit, entry: &Entry<'_>, name: gimli::DwAt) -> Option<String> {
        self.string(unit, entry.attr_value(name).ok()??)
    }

    /// The DIE's own name, or that of the DIE it completes or is a copy of.
    pub fn name(&self, unit: &Unit, entry: &Entry<'_>) -> Option<String> {
        if let Some(name) = self.string_attr(unit, entry, gimli::DW_AT_name) {
            return Some(name);
        }
        let mut die = self.origin(unit, entry)?;
        for _ in 0..ORIGINS {
            let (unit, offset) = self.locate(die)?;
            let entry = unit.entry(offset).ok()?;
            if let Some(name) = self.string_attr(unit, &entry, gimli::DW_AT_name) {
                return Some(name);
            }
            die = self.origin(unit, &entry)?;
        }
        None
    }

    /// See [`DebugInfo::name`].
    pub fn name_of(&self, die: DieOffset) -> Option<String> {
        let (unit, offset) = self.locate(die)?;
        self.name(unit, &unit.entry(offset).ok()?)
    }

    /// Target of `DW_AT_abstract_origin` or `DW_AT_specification`.
    pub fn origin(&self, unit: &Unit, entry: &Entry<'_>) -> Option<DieOffset> {
        [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification]
            .into_iter()
            .find_map(|name| self.reference_attr(unit, entry, name))
    }

    /// The other files that it is in, each with where it is found below a root, and for each that is not there a sentence.
    pub(crate) fn files(&self) -> (BTreeSet<(PathBuf, PathBuf)>, Vec<String>) {
        let mut found = BTreeSet::new();
        found.extend(
            self.supplement()
                .map(|file| (file.path.clone(), file.place.clone())),
        );
        for unit in 0..self.slots.len() {
            // One at a time, and not kept: all together they may be as large as the program's whole build.
            if let Some(skeleton) = self.skeleton(unit) {
                match Split::find(skeleton, FIRST_SPLIT + unit, &self.beside, self.package()) {
                    Ok(split) => drop(found.insert((split.path, split.place))),
                    Err(why) => drop(self.lock_troubles().insert(why.to_string())),
                }
            }
        }
        (found, self.troubles())
    }

    fn collect_ranges(&self) -> Vec<UnitRange> {
        let mut all = Vec::new();
        for index in 0..self.slots.len() {
            let Some(unit) = self.linked_unit(index) else {
                continue;
            };
            let Ok(mut ranges) = unit.dwarf.unit_ranges(unit) else {
                continue;
            };
            let before = all.len();
            while let Ok(Some(range)) = ranges.next() {
                // Linkers leave 0 for functions they dropped.
                if range.begin != 0 && range.begin < range.end {
                    all.push(UnitRange {
                        start: range.begin,
                        end: range.end,
                        unit: index,
                    });
                }
            }
            if all.len() == before && !is_skeleton(unit) {
                let names = self.names_of_unit(index);
                let functions = names.into_iter().flat_map(NameIndex::functions);
                all.extend(functions.map(|(start, end)| UnitRange {
                    start,
                    end,
                    unit: index,
                }));
            }
        }
        all.sort_by_key(|range| (range.start, range.end));
        all
    }
}

/// An unsigned attribute, whichever constant form it has.
pub fn unsigned(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name).ok()??.udata_value()
}

pub fn flag(entry: &Entry<'_>, name: gimli::DwAt) -> bool {
    matches!(entry.attr_value(name), Ok(Some(Attribute::Flag(true))))
}
