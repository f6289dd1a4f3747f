//! What several files have in common, moved to one by dwz: partial units, and the strings and types in them.
//!
//! `.gnu_debugaltlink` (dwz(1)), and `.debug_sup` of DWARF 5, 7.3.6.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use gimli::{Reader, SectionId};

use crate::debug_info::SUPPLEMENT;
use crate::finder::{Finder, by_build_id};
use crate::object_file::{build_id_of, debug_sup_of, sections_named};
use crate::types::Language;
use crate::unit::{Attribute, DieOffset, Dwarf, Part, Unit};

/// Imports of one unit, and importers followed upwards.
const IMPORT_LIMIT: usize = 1 << 20;

/// Why it is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupplementError {
    #[error(
        "{of}: types and names that dwz moved to {name} are not known, it is not there (looked for {places}); install the package that it is in"
    )]
    Missing {
        of: String,
        name: String,
        places: String,
    },
    #[error(
        "{of}: types and names that dwz moved are not known, {path} is of another build; install the one of the same version"
    )]
    OtherBuild { of: String, path: String },
    #[error(
        "{of}: types and names that dwz moved are not known, {path} is damaged; install its package again"
    )]
    Damaged { of: String, path: String },
}

/// The name of the common file as an object gives it, and what says that it is the right one.
pub struct Link {
    pub name: String,
    pub id: Vec<u8>,
}

/// The common file.
pub struct Supplement {
    pub path: PathBuf,
    /// Where it is found below a root.
    pub place: PathBuf,
    part: Part,
}

impl Supplement {
    /// Looks for the file that the debug information at `of` names.
    pub fn find(of: &str, link: &Link, finder: &Finder) -> Result<Self, SupplementError> {
        let places = finder.supplement_places(of, &link.name, &link.id);
        let mut other = None;
        for path in &places {
            let Ok(bytes) = crate::regular::share(path) else {
                continue;
            };
            if !is_it(&bytes, &link.id) {
                other = other.or(Some(path));
                continue;
            }
            return Self::parse(path.clone(), &link.id, bytes).ok_or_else(|| {
                SupplementError::Damaged {
                    of: of.to_owned(),
                    path: path.display().to_string(),
                }
            });
        }
        let of = of.to_owned();
        Err(match other {
            Some(path) => SupplementError::OtherBuild {
                of,
                path: path.display().to_string(),
            },
            None => {
                let texts = places.iter().map(|place| place.display().to_string());
                SupplementError::Missing {
                    of,
                    name: link.name.clone(),
                    places: texts.collect::<Vec<_>>().join(", "),
                }
            }
        })
    }

    fn parse(path: PathBuf, id: &[u8], bytes: Arc<[u8]>) -> Option<Self> {
        let mut section = sections_named(bytes, |id: SectionId| Some(id.name()))?;
        let dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(section(id))).ok()?;
        let part = Part::new(SUPPLEMENT, dwarf, None);
        let place = by_build_id(id)?;
        (part.len() > 0).then_some(Self { path, place, part })
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    pub fn sections(&self) -> Arc<Dwarf> {
        Arc::clone(&self.part.dwarf)
    }
}

fn is_it(image: &[u8], id: &[u8]) -> bool {
    build_id_of(image).is_some_and(|own| own == id)
        || debug_sup_of(image).is_some_and(|(is_common, link)| is_common && link.id == id)
}

/// Which partial units are imported, and by which unit of the linked file. In the common file are those of other
/// programs too.
#[derive(Default)]
pub struct Imports {
    importers: HashMap<DieOffset, usize>,
}

impl Imports {
    pub fn collect(linked: &Part, supplement: Option<&Supplement>) -> Self {
        let mut found = Self::default();
        let mut pending = Vec::new();
        for number in 0..linked.len() {
            let unit = linked.unit(number);
            // What a partial unit imports is imported by whoever imports that.
            let whole = unit.filter(|unit| Language::of_unit(unit).is_some());
            let targets = whole.map(|unit| imported(unit)).unwrap_or_default();
            pending.extend(targets.into_iter().map(|target| (target, number)));
        }
        pending.reverse();
        for _ in 0..IMPORT_LIMIT {
            let Some((target, number)) = pending.pop() else {
                break;
            };
            let part = match target.part() {
                SUPPLEMENT => supplement.map(Supplement::part),
                _ => Some(linked),
            };
            let Some((unit, _)) = part.and_then(|part| part.locate(target)) else {
                continue;
            };
            let Some(start) = unit.start() else { continue };
            if let Entry::Vacant(entry) = found.importers.entry(start) {
                entry.insert(number);
                let targets = imported(unit).into_iter();
                pending.extend(targets.map(|target| (target, number)));
            }
        }
        found
    }

    /// The number of the first unit that imports the one which begins at `start`; None where none does.
    pub fn importer(&self, start: DieOffset) -> Option<usize> {
        self.importers.get(&start).copied()
    }
}

/// The units that one imports: dwz puts that before all else.
fn imported(unit: &Unit) -> Vec<DieOffset> {
    let mut targets = Vec::new();
    let mut cursor = unit.entries();
    if !matches!(cursor.next_dfs(), Ok(Some((_, root))) if root.has_children()) {
        return targets;
    }
    while let Ok(Some((_, entry))) = cursor.next_dfs() {
        if entry.tag() != gimli::DW_TAG_imported_unit {
            break;
        }
        let target = match entry.attr_value(gimli::DW_AT_import) {
            Ok(Some(Attribute::DebugInfoRef(offset))) => DieOffset::in_info(unit.part, offset.0),
            Ok(Some(Attribute::DebugInfoRefSup(offset))) => {
                DieOffset::in_info(SUPPLEMENT, offset.0)
            }
            _ => None,
        };
        targets.extend(target);
    }
    targets
}

/// The content of `.debug_sup`: whether the file is the common one, or the name of that; and the checksum.
pub fn parse_debug_sup(mut bytes: crate::object_file::Slice) -> gimli::Result<(bool, Link)> {
    bytes.read_u16()?;
    let is_common = bytes.read_u8()? != 0;
    let name = bytes.read_null_terminated_slice()?;
    let length = bytes.read_uleb128()?;
    let length = usize::try_from(length).map_err(|_| gimli::Error::UnsupportedOffset)?;
    let id = bytes.split(length)?;
    let name = name.to_string_lossy()?.into_owned();
    Ok((
        is_common,
        Link {
            name,
            id: id.bytes().to_vec(),
        },
    ))
}
