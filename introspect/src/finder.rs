//! Where ELF files and their separate debug files are found.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::index_cache::IndexCache;
use crate::object_file::{ObjectFile, build_id_of, separate_of};

/// Looks files up and keeps the parsed ones, keyed by path and build id. Clones share the cache.
#[derive(Clone)]
pub struct Finder {
    debug_roots: Arc<[PathBuf]>,
    indexes: Option<IndexCache>,
    source: Option<Arc<dyn Source>>,
    cache: Arc<Mutex<HashMap<Key, Arc<ObjectFile>>>>,
}

/// Where debug files may be had that are not on this machine.
pub trait Source: Send + Sync {
    /// The file of a build id, once it is here; None where it cannot be had.
    fn debug_file(&self, build_id: &[u8]) -> Option<PathBuf>;

    /// What kept it from having files so far, a sentence each.
    fn troubles(&self) -> Vec<String>;
}

/// That of this process.
static SOURCE: OnceLock<Arc<dyn Source>> = OnceLock::new();

/// Gives every [`Finder::default`] of this process a source to ask when a file is nowhere else. The first one stays.
pub fn ask_for_debug_files(source: Arc<dyn Source>) {
    SOURCE.get_or_init(|| source);
}

type Key = (String, Option<Vec<u8>>, u64);

impl Default for Finder {
    /// Looks where the system's debug files are, and keeps indexes for the user.
    fn default() -> Self {
        Self {
            indexes: IndexCache::of_user(),
            source: SOURCE.get().cloned(),
            ..Self::new([PathBuf::from("/usr/lib/debug")])
        }
    }
}

impl Finder {
    /// `debug_roots` are directories that hold `.build-id/xx/yyyy.debug`.
    pub fn new(debug_roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            debug_roots: debug_roots.into_iter().collect(),
            indexes: None,
            source: None,
            cache: Arc::default(),
        }
    }

    /// The same, which keeps what takes long to gather of a file.
    #[must_use]
    pub fn with_indexes(mut self, indexes: IndexCache) -> Self {
        self.indexes = Some(indexes);
        self
    }

    /// The same, which asks a source for files that are nowhere else.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Source>) -> Self {
        self.source = Some(source);
        self
    }

    /// What kept the source from having files so far.
    pub fn troubles(&self) -> Vec<String> {
        let source = self.source.as_ref();
        source.map(|source| source.troubles()).unwrap_or_default()
    }

    pub(crate) fn index_cache(&self) -> Option<&IndexCache> {
        self.indexes.as_ref()
    }

    /// The same, which looks under other roots as well. Files that were parsed are shared by all that
    /// have the same roots.
    pub(crate) fn with_roots(&self, more: Vec<PathBuf>) -> Self {
        if more.is_empty() {
            return self.clone();
        }
        Self {
            debug_roots: more
                .into_iter()
                .chain(self.debug_roots.iter().cloned())
                .collect(),
            indexes: self.indexes.clone(),
            source: self.source.clone(),
            cache: Arc::default(),
        }
    }

    /// The separate debug file of the ELF file `image` at `path`, and where under a root it is found by
    /// whoever looks for it.
    pub fn separate(&self, path: &str, image: &[u8]) -> Option<(PathBuf, PathBuf)> {
        let (id, link) = separate_of(image)?;
        let link = link.as_ref().map(|(name, crc)| (&name[..], *crc));
        let (found, bytes) = self.find(path, id.as_deref(), link)?;
        let by_id = id.filter(|id| build_id_of(&bytes).as_ref() == Some(id));
        let place = match by_id.and_then(|id| by_build_id(&id)) {
            Some(place) => place,
            None => {
                let folder = Path::new(path).parent()?.strip_prefix("/").ok()?;
                folder.join(std::str::from_utf8(link?.0).ok()?)
            }
        };
        Some((found, place))
    }

    /// Parses `bytes`, or gives the object already parsed from the same file.
    pub fn object(&self, path: &str, bytes: Arc<[u8]>) -> Option<Arc<ObjectFile>> {
        let key = (path.to_owned(), build_id_of(&bytes), bytes.len() as u64);
        let has_id = key.1.is_some();
        if has_id && let Some(known) = self.lock().get(&key) {
            return Some(Arc::clone(known));
        }
        // The object keeps a finder for its debug file; one with a cache of its own, or the two would hold each other for ever.
        let own = Self {
            debug_roots: Arc::clone(&self.debug_roots),
            indexes: self.indexes.clone(),
            source: self.source.clone(),
            cache: Arc::default(),
        };
        let object = Arc::new(ObjectFile::parse(path, bytes, &own).ok()?);
        // Without a build id nothing says that two files of one name are the same.
        if has_id {
            self.lock().insert(key, Arc::clone(&object));
        }
        Some(object)
    }

    /// The bytes of the separate debug file.
    pub(crate) fn debug_file(
        &self,
        path: &str,
        build_id: Option<&[u8]>,
        link: Option<(&[u8], u32)>,
    ) -> Option<(PathBuf, Arc<[u8]>)> {
        self.find(path, build_id, link)
    }

    /// Where a file that is known by its path may be: there, or below a root.
    pub(crate) fn places(&self, path: &str) -> Vec<PathBuf> {
        let below = below_root(Path::new(path));
        let roots = self.debug_roots.iter();
        let under = below
            .into_iter()
            .flat_map(|below| roots.clone().map(move |root| root.join(&below)));
        [PathBuf::from(path)].into_iter().chain(under).collect()
    }

    /// Where the common file that dwz made may be, which the debug information at `of` calls `name`.
    pub(crate) fn supplement_places(&self, of: &str, name: &str, id: &[u8]) -> Vec<PathBuf> {
        let folder = Path::new(of).parent().unwrap_or(Path::new("/"));
        let by_id = by_build_id(id).into_iter();
        let by_id = by_id.flat_map(|place| self.debug_roots.iter().map(move |r| r.join(&place)));
        [folder.join(name)].into_iter().chain(by_id).collect()
    }

    /// By build id, else by debuglink beside the file, in `.debug/` and under the roots.
    fn find(
        &self,
        path: &str,
        build_id: Option<&[u8]>,
        link: Option<(&[u8], u32)>,
    ) -> Option<(PathBuf, Arc<[u8]>)> {
        let by_id = build_id.and_then(|id| {
            let name = by_build_id(id)?;
            self.debug_roots.iter().find_map(|root| {
                let at = root.join(&name);
                let bytes = crate::regular::share(&at).ok()?;
                (build_id_of(&bytes).as_deref() == Some(id)).then_some((at, bytes))
            })
        });
        by_id
            .or_else(|| self.by_link(Path::new(path), link?))
            .or_else(|| self.by_source(build_id?))
    }

    fn by_source(&self, id: &[u8]) -> Option<(PathBuf, Arc<[u8]>)> {
        let path = self.source.as_ref()?.debug_file(id)?;
        let bytes = crate::regular::share(&path).ok()?;
        (build_id_of(&bytes).as_deref() == Some(id)).then_some((path, bytes))
    }

    fn by_link(&self, path: &Path, (name, crc): (&[u8], u32)) -> Option<(PathBuf, Arc<[u8]>)> {
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.contains('/'))?;
        let folder = path.parent()?;
        let beside = [folder.join(name), folder.join(".debug").join(name)];
        let under = self.debug_roots.iter().map(|root| {
            root.join(folder.strip_prefix("/").unwrap_or(folder))
                .join(name)
        });
        beside
            .into_iter()
            .chain(under)
            .filter(|candidate| candidate != path)
            .find_map(|candidate| {
                let bytes = crate::regular::share(&candidate).ok()?;
                (crc32(&bytes) == crc).then_some((candidate, bytes))
            })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<ObjectFile>>> {
        self.cache
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The path without its `/`, and without steps back.
pub(crate) fn below_root(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for part in path.strip_prefix("/").ok()?.components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => drop(below.pop()),
            _ => {}
        }
    }
    (!below.as_os_str().is_empty()).then_some(below)
}

pub(crate) fn by_build_id(id: &[u8]) -> Option<PathBuf> {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = format!(".build-id/{}/{}.debug", hex.get(..2)?, hex.get(2..)?);
    Some(place.into())
}

/// CRC-32 (IEEE, reflected) as `.gnu_debuglink` wants it.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    const fn table() -> [u32; 256] {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    0xedb8_8320 ^ (value >> 1)
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index as usize] = value;
            index += 1;
        }
        table
    }
    !bytes.iter().fold(!0u32, |crc, byte| {
        TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_matches_the_check_value() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
