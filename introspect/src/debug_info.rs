//! DWARF of one object: units parsed on first use, each kept.

use std::sync::{Arc, OnceLock};

use gimli::{DebugInfoOffset, Reader, SectionId, UnitOffset, UnitSectionOffset};

use crate::index::NameIndex;
use crate::lines::LineTable;
use crate::object_file::Slice;

pub type Dwarf = gimli::Dwarf<Slice>;
pub type Unit = gimli::Unit<Slice>;
pub type Entry<'a> = gimli::DebuggingInformationEntry<'a, 'a, Slice>;
pub type Attribute = gimli::AttributeValue<Slice>;

/// Offset of a DIE in `.debug_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DieOffset(pub usize);

pub struct DebugInfo {
    pub dwarf: Dwarf,
    pub(crate) sections: gimli::DwarfSections<Slice>,
    units: Vec<UnitSlot>,
    ranges: OnceLock<Vec<UnitRange>>,
    index: OnceLock<NameIndex>,
}

struct UnitSlot {
    header: gimli::UnitHeader<Slice>,
    start: usize,
    unit: OnceLock<Option<Arc<Unit>>>,
    lines: OnceLock<LineTable>,
}

#[derive(Clone, Copy)]
struct UnitRange {
    start: u64,
    end: u64,
    unit: usize,
}

impl DebugInfo {
    /// None when not even the first unit header can be read.
    pub fn load(mut section: impl FnMut(SectionId) -> Slice) -> Option<Self> {
        let sections = gimli::DwarfSections::load(|id| Ok::<_, gimli::Error>(section(id))).ok()?;
        let dwarf = sections.borrow(Slice::clone);
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        // A damaged header ends the list: where the next one starts is not known then.
        while let Ok(Some(header)) = headers.next() {
            if let UnitSectionOffset::DebugInfoOffset(offset) = header.offset() {
                units.push(UnitSlot {
                    header,
                    start: offset.0,
                    unit: OnceLock::new(),
                    lines: OnceLock::new(),
                });
            }
        }
        (!units.is_empty()).then(|| Self {
            dwarf,
            sections,
            units,
            ranges: OnceLock::new(),
            index: OnceLock::new(),
        })
    }

    pub fn unit_count(&self) -> usize {
        self.units.len()
    }

    /// The unit, parsed; None when it is damaged.
    pub fn unit(&self, index: usize) -> Option<&Arc<Unit>> {
        let slot = self.units.get(index)?;
        slot.unit
            .get_or_init(|| self.dwarf.unit(slot.header.clone()).ok().map(Arc::new))
            .as_ref()
    }

    pub fn lines(&self, index: usize) -> Option<&LineTable> {
        let slot = self.units.get(index)?;
        let unit = self.unit(index)?;
        Some(
            slot.lines
                .get_or_init(|| LineTable::parse(&self.dwarf, unit)),
        )
    }

    pub fn unit_index_of(&self, die: DieOffset) -> Option<usize> {
        self.units
            .partition_point(|slot| slot.start <= die.0)
            .checked_sub(1)
    }

    /// The unit that holds a DIE, and the DIE's offset in it.
    pub fn locate(&self, die: DieOffset) -> Option<(&Arc<Unit>, UnitOffset)> {
        let index = self.unit_index_of(die)?;
        let unit = self.unit(index)?;
        let offset = DebugInfoOffset(die.0).to_unit_offset(&unit.header)?;
        Some((unit, offset))
    }

    /// The unit whose code covers a file address.
    pub fn unit_at(&self, address: u64) -> Option<usize> {
        let ranges = self.ranges.get_or_init(|| self.collect_ranges());
        let after = ranges.partition_point(|range| range.start <= address);
        // Ranges of different units do not overlap in sound files; look back a little for those that do.
        ranges[..after]
            .iter()
            .rev()
            .take(16)
            .find(|range| address < range.end)
            .map(|range| range.unit)
    }

    pub fn index(&self) -> &NameIndex {
        self.index.get_or_init(|| NameIndex::build(self))
    }

    /// A reference attribute as an offset into `.debug_info`.
    pub fn reference(&self, unit: &Unit, value: &Attribute) -> Option<DieOffset> {
        match value {
            Attribute::UnitRef(offset) => offset
                .to_debug_info_offset(&unit.header)
                .map(|offset| DieOffset(offset.0)),
            Attribute::DebugInfoRef(offset) => Some(DieOffset(offset.0)),
            Attribute::DebugTypesRef(signature) => self.index().type_unit(signature.0),
            _ => None,
        }
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
        let text = self.dwarf.attr_string(unit, value).ok()?;
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
        let (origin_unit, origin) = self.locate(self.origin(unit, entry)?)?;
        let origin_entry = origin_unit.entry(origin).ok()?;
        self.string_attr(origin_unit, &origin_entry, gimli::DW_AT_name)
            .or_else(|| {
                let (unit, offset) = self.locate(self.origin(origin_unit, &origin_entry)?)?;
                self.string_attr(unit, &unit.entry(offset).ok()?, gimli::DW_AT_name)
            })
    }

    /// Target of `DW_AT_abstract_origin` or `DW_AT_specification`.
    pub fn origin(&self, unit: &Unit, entry: &Entry<'_>) -> Option<DieOffset> {
        [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification]
            .into_iter()
            .find_map(|name| self.reference_attr(unit, entry, name))
    }

    fn collect_ranges(&self) -> Vec<UnitRange> {
        let mut all = Vec::new();
        for index in 0..self.units.len() {
            let Some(unit) = self.unit(index) else {
                continue;
            };
            let Ok(mut ranges) = self.dwarf.unit_ranges(unit) else {
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
            if all.len() == before {
                let functions = self.index().function_ranges(index);
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
