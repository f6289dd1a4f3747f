//! Units with the sections they are read by, and one numbering for the DIEs of all files that an object's DWARF is in.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use gimli::{DebugInfoOffset, DebugTypesOffset, UnitOffset, UnitSectionOffset, UnitType};

use crate::declared::Containers;
use crate::object_file::Slice;

pub type Dwarf = gimli::Dwarf<Slice>;
pub type Entry<'a> = gimli::DebuggingInformationEntry<'a, 'a, Slice>;
pub type Attribute = gimli::AttributeValue<Slice>;

/// A DIE: the number of its [`Part`] from bit 40 on, below that its offset in `.debug_info`, or with bit 39 set in `.debug_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DieOffset(pub usize);

const PART_SHIFT: u32 = 40;
const TYPES: usize = 1 << (PART_SHIFT - 1);

impl DieOffset {
    /// None where no section is as long.
    pub fn in_info(part: usize, offset: usize) -> Option<Self> {
        (offset < TYPES).then_some(Self(part << PART_SHIFT | offset))
    }

    /// Where a unit begins.
    pub fn of_unit(part: usize, offset: UnitSectionOffset) -> Option<Self> {
        match offset {
            UnitSectionOffset::DebugInfoOffset(offset) => Self::in_info(part, offset.0),
            UnitSectionOffset::DebugTypesOffset(offset) => {
                Self::in_info(part, offset.0).map(|die| Self(die.0 | TYPES))
            }
        }
    }

    pub fn part(self) -> usize {
        self.0 >> PART_SHIFT
    }

    fn in_section(self) -> usize {
        self.0 & (TYPES - 1)
    }

    fn is_in_types(self) -> bool {
        self.0 & TYPES != 0
    }
}

/// A unit that knows its sections.
pub struct Unit {
    unit: gimli::Unit<Slice>,
    pub dwarf: Arc<Dwarf>,
    pub part: usize,
}

impl Deref for Unit {
    type Target = gimli::Unit<Slice>;

    fn deref(&self) -> &Self::Target {
        &self.unit
    }
}

impl Unit {
    pub fn die(&self, offset: UnitOffset) -> Option<DieOffset> {
        let header = &self.unit.header;
        let place = match header.offset() {
            UnitSectionOffset::DebugInfoOffset(_) => {
                UnitSectionOffset::DebugInfoOffset(offset.to_debug_info_offset(header)?)
            }
            UnitSectionOffset::DebugTypesOffset(_) => {
                UnitSectionOffset::DebugTypesOffset(offset.to_debug_types_offset(header)?)
            }
        };
        DieOffset::of_unit(self.part, place)
    }

    /// Where it begins.
    pub fn start(&self) -> Option<DieOffset> {
        DieOffset::of_unit(self.part, self.unit.header.offset())
    }

    fn offset_of(&self, die: DieOffset) -> Option<UnitOffset> {
        let header = &self.unit.header;
        match header.offset() {
            UnitSectionOffset::DebugInfoOffset(_) => {
                DebugInfoOffset(die.in_section()).to_unit_offset(header)
            }
            UnitSectionOffset::DebugTypesOffset(_) => {
                DebugTypesOffset(die.in_section()).to_unit_offset(header)
            }
        }
    }

    /// The first DIE, of the unit itself.
    pub fn root(&self) -> Option<Entry<'_>> {
        let mut cursor = self.unit.entries();
        cursor.next_dfs().ok()??;
        cursor.current().cloned()
    }
}

/// The units of one file, or of one row of a package.
pub struct Part {
    pub number: usize,
    pub dwarf: Arc<Dwarf>,
    units: Vec<Slot>,
    types: OnceLock<HashMap<u64, DieOffset>>,
    /// What the unit of a split file leaves to the file that is linked.
    skeleton: Option<Arc<Unit>>,
}

struct Slot {
    header: gimli::UnitHeader<Slice>,
    start: DieOffset,
    unit: OnceLock<Option<Arc<Unit>>>,
    containers: OnceLock<Containers>,
}

impl Part {
    pub fn new(number: usize, dwarf: Dwarf, skeleton: Option<Arc<Unit>>) -> Self {
        let units = headers(&dwarf, number)
            .map(|(start, header)| Slot {
                header,
                start,
                unit: OnceLock::new(),
                containers: OnceLock::new(),
            })
            .collect();
        Self {
            number,
            dwarf: Arc::new(dwarf),
            units,
            types: OnceLock::new(),
            skeleton,
        }
    }

    pub fn len(&self) -> usize {
        self.units.len()
    }

    pub fn skeleton(&self) -> Option<&Arc<Unit>> {
        self.skeleton.as_ref()
    }

    /// The unit, parsed; None when it is damaged.
    pub fn unit(&self, index: usize) -> Option<&Arc<Unit>> {
        let slot = self.units.get(index)?;
        slot.unit
            .get_or_init(|| self.parse(slot).map(Arc::new))
            .as_ref()
    }

    fn parse(&self, slot: &Slot) -> Option<Unit> {
        let mut unit = self.dwarf.unit(slot.header.clone()).ok()?;
        if let Some(skeleton) = &self.skeleton {
            unit.copy_relocated_attributes(skeleton);
        }
        Some(Unit {
            unit,
            dwarf: Arc::clone(&self.dwarf),
            part: self.number,
        })
    }

    pub fn index_of(&self, die: DieOffset) -> Option<usize> {
        self.units
            .partition_point(|slot| slot.start <= die)
            .checked_sub(1)
            .filter(|index| self.units[*index].start.is_in_types() == die.is_in_types())
    }

    pub fn start_of(&self, index: usize) -> Option<DieOffset> {
        self.units.get(index).map(|slot| slot.start)
    }

    /// Bytes of a unit.
    pub fn length_of(&self, index: usize) -> usize {
        let slot = self.units.get(index);
        slot.map_or(0, |slot| slot.header.length_including_self())
    }

    /// What holds a DIE of it, of its unit.
    pub fn containers_of(&self, die: DieOffset) -> Option<&Containers> {
        let index = self.index_of(die)?;
        let unit = self.unit(index)?;
        let slot = self.units.get(index)?;
        Some(slot.containers.get_or_init(|| Containers::collect(unit)))
    }

    pub fn locate(&self, die: DieOffset) -> Option<(&Arc<Unit>, UnitOffset)> {
        let unit = self.unit(self.index_of(die)?)?;
        Some((unit, unit.offset_of(die)?))
    }

    /// The type that a type unit is there for.
    pub fn type_unit(&self, signature: u64) -> Option<DieOffset> {
        let collect = || {
            let all = self
                .units
                .iter()
                .filter_map(|slot| match slot.header.type_() {
                    UnitType::Type {
                        type_signature,
                        type_offset,
                    }
                    | UnitType::SplitType {
                        type_signature,
                        type_offset,
                    } => Some((
                        type_signature.0,
                        DieOffset(slot.start.0.saturating_add(type_offset.0)),
                    )),
                    _ => None,
                });
            all.collect()
        };
        self.types.get_or_init(collect).get(&signature).copied()
    }
}

/// Headers of all units with where they begin, ascending. A damaged one ends its section: where the next one starts
/// is not known then.
pub fn headers<R: gimli::Reader<Offset = usize>>(
    dwarf: &gimli::Dwarf<R>,
    part: usize,
) -> impl Iterator<Item = (DieOffset, gimli::UnitHeader<R>)> + use<R> {
    let (mut info, mut types) = (dwarf.units(), dwarf.type_units());
    let info = std::iter::from_fn(move || info.next().ok().flatten());
    let types = std::iter::from_fn(move || types.next().ok().flatten());
    info.chain(types)
        .map_while(move |header| Some((DieOffset::of_unit(part, header.offset())?, header)))
}

/// The header of the unit that begins at `start`.
pub fn header_at<R: gimli::Reader<Offset = usize>>(
    dwarf: &gimli::Dwarf<R>,
    start: DieOffset,
) -> Option<gimli::UnitHeader<R>> {
    if start.is_in_types() {
        let mut types = headers(dwarf, start.part());
        return types.find(|(at, _)| *at == start).map(|(_, header)| header);
    }
    let offset = DebugInfoOffset(start.in_section());
    dwarf.debug_info.header_from_offset(offset).ok()
}

/// Whether the unit only says where the rest of it is.
pub fn is_skeleton<R: gimli::Reader>(unit: &gimli::Unit<R>) -> bool {
    unit.dwo_id.is_some() && unit.dwo_name().is_ok_and(|name| name.is_some())
}
