//! Split DWARF: units whose DIEs the compiler left in a file of their own (`.dwo`), or that were gathered in a package (`.dwp`).
//!
//! DWARF 5, 7.3 and appendix F; before that GCC's extension, <https://gcc.gnu.org/wiki/DebugFission>.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gimli::{DwoId, SectionId};

use crate::finder::{Finder, below_root};
use crate::index::NameIndex;
use crate::object_file::{Slice, empty, sections_named};
use crate::unit::{Dwarf, Part, Unit};

/// Why the rest of a unit is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error(
        "{name} is not there: looked for {places}; put it back, or dwp's package beside the program"
    )]
    Missing { name: String, places: String },
    #[error(
        "{path} is of another build ({found:#018x}, wanted {wanted:#018x}); build the program again, or keep the two together"
    )]
    OtherBuild {
        path: String,
        found: u64,
        wanted: u64,
    },
    #[error("{path} is damaged: its unit cannot be read; compile that source again")]
    Damaged { path: String },
}

/// A unit that was found.
pub struct Split {
    pub part: Part,
    /// Which of the part's units it is; the others are type units.
    pub unit: usize,
    pub path: PathBuf,
    /// Where it is found below a root.
    pub place: PathBuf,
    pub index: OnceLock<NameIndex>,
}

/// Where the files beside an object are looked for.
pub struct Beside {
    pub finder: Finder,
    /// The object's own path, and that of its debug file if it has one.
    pub paths: Vec<String>,
    pub build_id: Option<Vec<u8>>,
}

/// A `.dwp`.
pub struct Package {
    pub path: PathBuf,
    place: PathBuf,
    package: gimli::DwarfPackage<Slice>,
    types: Vec<OnceLock<Option<Box<Part>>>>,
}

impl Beside {
    /// The package; None where there is none.
    pub fn package(&self) -> Option<Package> {
        let names: Vec<String> = self
            .paths
            .iter()
            .map(|path| format!("{path}.dwp"))
            .collect();
        let place = below_root(Path::new(names.first()?))?;
        let mut candidates = names.iter().flat_map(|name| self.finder.places(name));
        candidates.find_map(|path| {
            let bytes = crate::regular::share(&path).ok()?;
            Package::parse(path, place.clone(), bytes)
        })
    }

    /// Every place where a `.dwo` may be, likeliest first.
    pub fn dwo_places(&self, skeleton: &Unit) -> (String, Vec<PathBuf>) {
        let text = |bytes: &Slice| {
            let text = gimli::Reader::to_string_lossy(bytes).ok()?;
            Some(text.into_owned())
        };
        let name = skeleton.dwo_name().ok().flatten();
        let name = name.and_then(|name| skeleton.dwarf.attr_string(skeleton, name).ok());
        let name = name.as_ref().and_then(text).unwrap_or_default();
        let folder = skeleton
            .comp_dir
            .as_ref()
            .and_then(text)
            .unwrap_or_default();
        let compiled = Path::new(&folder).join(&name);
        let mut candidates = vec![compiled.clone()];
        // A program that was moved with its files.
        let last = compiled.file_name().map(PathBuf::from).unwrap_or_default();
        for path in &self.paths {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
            candidates.extend([folder.join(&name), folder.join(&last)]);
        }
        let absolute = candidates.iter().filter(|path| path.is_absolute());
        let places = absolute.filter_map(|path| Some(self.finder.places(path.to_str()?)));
        let mut seen = HashSet::new();
        let places = places.flatten().filter(|place| seen.insert(place.clone()));
        let places = places.collect();
        (name, places)
    }
}

impl Split {
    /// The rest of `skeleton`, in the package or in a file of its own, as part `number`.
    pub fn find(
        skeleton: &Arc<Unit>,
        number: usize,
        beside: &Beside,
        package: Option<&Package>,
    ) -> Result<Self, SplitError> {
        if let Some(package) = package
            && let Some(found) = package.unit(skeleton, number)
        {
            return found;
        }
        let (name, places) = beside.dwo_places(skeleton);
        let place = places.first().and_then(|first| below_root(first));
        let place = place.unwrap_or_else(|| PathBuf::from(&name));
        let mut failed = None;
        for path in &places {
            let Ok(bytes) = crate::regular::share(path) else {
                continue;
            };
            match Self::of_file(skeleton, number, (path.clone(), place.clone()), bytes) {
                Ok(found) => return Ok(found),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        let texts = places.iter().map(|place| place.display().to_string());
        let texts = package
            .map(|package| package.path.display().to_string())
            .into_iter()
            .chain(texts);
        Err(failed.unwrap_or_else(|| SplitError::Missing {
            name,
            places: texts.collect::<Vec<_>>().join(", "),
        }))
    }

    fn of_file(
        skeleton: &Arc<Unit>,
        number: usize,
        at: (PathBuf, PathBuf),
        bytes: Arc<[u8]>,
    ) -> Result<Self, SplitError> {
        let mut section = sections_named(bytes, SectionId::dwo_name);
        let dwarf = section.as_mut().and_then(|section| {
            let mut dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(section(id))).ok()?;
            dwarf.make_dwo(&skeleton.dwarf);
            Some(dwarf)
        });
        let dwarf = dwarf.ok_or_else(|| SplitError::Damaged {
            path: at.0.display().to_string(),
        })?;
        Self::in_sections(skeleton, number, at, dwarf)
    }

    fn in_sections(
        skeleton: &Arc<Unit>,
        number: usize,
        (path, place): (PathBuf, PathBuf),
        dwarf: Dwarf,
    ) -> Result<Self, SplitError> {
        let part = Part::new(number, dwarf, Some(Arc::clone(skeleton)));
        let DwoId(wanted) = skeleton.dwo_id.unwrap_or(DwoId(0));
        let ids = (0..part.len()).map(|at| part.unit(at).and_then(|unit| unit.dwo_id));
        let ids: Vec<Option<u64>> = ids.map(|id| Some(id?.0)).collect();
        if let Some(unit) = ids.iter().position(|id| *id == Some(wanted)) {
            return Ok(Self {
                part,
                unit,
                path,
                place,
                index: OnceLock::new(),
            });
        }
        let path = path.display().to_string();
        Err(match ids.into_iter().flatten().next() {
            Some(found) => SplitError::OtherBuild {
                path,
                found,
                wanted,
            },
            None => SplitError::Damaged { path },
        })
    }
}

impl Package {
    fn parse(path: PathBuf, place: PathBuf, bytes: Arc<[u8]>) -> Option<Self> {
        // A row takes at least a word in the file: more were made up.
        let most = bytes.len() / 4;
        let mut section = sections_named(bytes, SectionId::dwo_name)?;
        let package =
            gimli::DwarfPackage::load(|id| Ok::<_, gimli::Error>(section(id)), empty()).ok()?;
        let rows = usize::try_from(package.tu_index.unit_count()).ok()?;
        let types = (0..rows.min(most)).map(|_| OnceLock::new()).collect();
        Some(Self {
            path,
            place,
            package,
            types,
        })
    }

    /// None where it does not know the unit.
    fn unit(&self, skeleton: &Arc<Unit>, number: usize) -> Option<Result<Split, SplitError>> {
        let sections = self.package.find_cu(skeleton.dwo_id?, &skeleton.dwarf);
        let found = match sections {
            Ok(dwarf) => {
                let at = (self.path.clone(), self.place.clone());
                Split::in_sections(skeleton, number, at, dwarf?)
            }
            Err(_) => Err(SplitError::Damaged {
                path: self.path.display().to_string(),
            }),
        };
        Some(found)
    }

    pub fn type_count(&self) -> usize {
        self.types.len()
    }

    /// The row, from 0, of a type unit.
    pub fn type_row(&self, signature: u64) -> Option<usize> {
        usize::try_from(self.package.tu_index.find(signature)?)
            .ok()?
            .checked_sub(1)
    }

    /// A type unit, as part `number`.
    pub fn type_part(&self, row: usize, number: usize, linked: &Dwarf) -> Option<&Part> {
        let find = || {
            let index = u32::try_from(row).ok()?.checked_add(1)?;
            let dwarf = self.package.tu_sections(index, linked).ok()?;
            Some(Box::new(Part::new(number, dwarf, None)))
        };
        self.types.get(row)?.get_or_init(find).as_deref()
    }
}
