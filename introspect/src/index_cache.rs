//! Indexes on disk, by build id: what takes seconds to gather of a large file is read in a fraction of one.
//!
//! A cache is done without wherever it cannot be had: no folder, no room, another's file, another version, damage. Of a
//! file, little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `slsindex` |
//! | 4 | version |
//! | 4 | units of the file |
//! | 8 | checksum (CRC-64/NVME) of the sections it was gathered from |
//! | each column | 8 bytes: how many; then as many numbers, of one width |
//! | 8 | checksum of all before |

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crc_fast::{CrcAlgorithm, Digest};

use crate::debug_info::{DieOffset, Dwarf};
use crate::index::{FunctionRange, Kind, NameIndex, Named};

const MAGIC: &[u8; 8] = b"slsindex";
/// Also of how names are found: what is gathered differently is another version.
const VERSION: u32 = 2;
/// All files together; the ones that were not used for longest go.
const LIMIT: u64 = 1 << 30;
/// Debug information that is gathered as quickly as it would be read is not kept.
const LEAST: usize = 4 << 20;
const HEAD: usize = 24;
const ENDING: &str = "index";

/// A folder of indexes.
#[derive(Debug, Clone)]
pub struct IndexCache {
    folder: PathBuf,
    least: usize,
    limit: u64,
}

/// Which file's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    build_id: String,
    /// dwz and objcopy change the one without the other.
    content: u64,
    units: usize,
}

impl Key {
    /// None for what has no build id.
    pub fn new(build_id: &[u8], files: &[&Dwarf], units: usize) -> Option<Self> {
        if build_id.is_empty() {
            return None;
        }
        let mut sum = Digest::new(CrcAlgorithm::Crc64Nvme);
        for dwarf in files {
            for section in sections(dwarf) {
                sum.update(&(section.len() as u64).to_le_bytes());
                sum.update(section);
            }
        }
        Some(Self {
            build_id: build_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            content: sum.finalize(),
            units,
        })
    }

    fn head(&self) -> [u8; HEAD] {
        let units = u32::try_from(self.units).unwrap_or(u32::MAX);
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[12..16].copy_from_slice(&units.to_le_bytes());
        head[16..].copy_from_slice(&self.content.to_le_bytes());
        head
    }
}

/// All that names, scopes and code are gathered from.
fn sections(dwarf: &Dwarf) -> [&[u8]; 9] {
    use gimli::Section;
    [
        dwarf.debug_info.reader().bytes(),
        dwarf.debug_types.reader().bytes(),
        dwarf.debug_abbrev.reader().bytes(),
        dwarf.debug_str.reader().bytes(),
        dwarf.debug_line_str.reader().bytes(),
        dwarf.debug_str_offsets.reader().bytes(),
        dwarf.debug_addr.reader().bytes(),
        dwarf.ranges.debug_ranges().reader().bytes(),
        dwarf.ranges.debug_rnglists().reader().bytes(),
    ]
}

impl IndexCache {
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            least: LEAST,
            limit: LIMIT,
        }
    }

    /// `$XDG_CACHE_HOME/sls`, else /var/cache/sls for root, else `~/.cache/sls`.
    pub fn of_user() -> Option<Self> {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let folder = match absolute("XDG_CACHE_HOME") {
            Some(folder) => folder.join("sls"),
            None if own_uid()? == 0 => "/var/cache/sls".into(),
            None => absolute("HOME")?.join(".cache/sls"),
        };
        Some(Self::new(folder))
    }

    /// The same, which keeps the indexes of small files too, and no more bytes than `limit`.
    #[must_use]
    pub fn of_everything(mut self, limit: u64) -> Self {
        (self.least, self.limit) = (0, limit);
        self
    }

    pub(crate) fn is_worth_it(&self, bytes: usize) -> bool {
        bytes >= self.least
    }

    pub(crate) fn load(&self, key: &Key) -> Option<NameIndex> {
        let mut file = File::options()
            .read(true)
            .custom_flags(NOFOLLOW)
            .open(self.path(key))
            .ok()?;
        let about = file.metadata().ok()?;
        if !about.is_file() || about.uid() != own_uid()? || about.len() > self.limit {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).ok()?);
        Read::by_ref(&mut file)
            .take(about.len())
            .read_to_end(&mut bytes)
            .ok()?;
        let index = decode(&bytes, key)?;
        // When it was used last; one that may not be touched goes earlier, that is all.
        file.set_modified(SystemTime::now()).unwrap_or_default();
        Some(index)
    }

    /// Whether it is kept now.
    pub(crate) fn save(&self, key: &Key, index: &NameIndex) -> bool {
        let bytes = encode(index, key);
        if bytes.len() as u64 > self.limit / 2 {
            return false;
        }
        self.write(key, &bytes).is_ok()
    }

    fn write(&self, key: &Key, bytes: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        if Some(fs::metadata(&self.folder)?.uid()) != own_uid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.make_room(bytes.len() as u64)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let part = self
            .folder
            .join(format!("{}-{count}.part", std::process::id()));
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| fs::rename(&part, self.path(key)));
        if written.is_err() {
            fs::remove_file(&part)?;
        }
        written
    }

    /// Removes what was not used for longest, and what others left half written.
    fn make_room(&self, wanted: u64) -> io::Result<()> {
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Ok(about) = path.symlink_metadata() else {
                continue;
            };
            let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let ending = path.extension().and_then(|ending| ending.to_str());
            let is_old = used.elapsed().is_ok_and(|age| age.as_secs() > 3600);
            match ending {
                Some(ENDING) => kept.push((used, about.len(), path)),
                Some("part") if is_old => fs::remove_file(path)?,
                _ => {}
            }
        }
        kept.sort();
        let mut sum: u64 = wanted + kept.iter().map(|one| one.1).sum::<u64>();
        for (_, length, path) in kept {
            if sum <= self.limit {
                break;
            }
            fs::remove_file(path)?;
            sum -= length;
        }
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name = format!("{}-{:016x}.{ENDING}", key.build_id, key.content);
        self.folder.join(name)
    }
}

/// `O_NOFOLLOW` of x86-64.
const NOFOLLOW: i32 = 0o400_000;

fn own_uid() -> Option<u32> {
    Some(fs::metadata(Path::new("/proc/self")).ok()?.uid())
}

fn encode(index: &NameIndex, key: &Key) -> Vec<u8> {
    let mut out = Columns(key.head().to_vec());
    out.bytes(index.text.as_bytes());
    out.u32s(index.ends.iter().copied());
    out.u64s(index.hashes.iter().copied());
    out.bytes(&index.flags);
    out.u32s(index.until.iter().copied());
    let named = || index.named.iter();
    out.u64s(named().map(|one| one.die.0 as u64));
    out.u32s(named().map(|one| u32::try_from(one.unit).unwrap_or(u32::MAX)));
    out.u32s(named().map(|one| one.scope));
    out.bytes(&named().map(|one| kind_of(one.kind).0).collect::<Vec<_>>());
    out.u64s(named().filter_map(|one| kind_of(one.kind).1));
    out.u32s(index.scopes.iter().map(|one| one.0));
    out.u32s(index.scopes.iter().map(|one| one.1));
    out.u64s(index.scope_of.iter().map(|one| one.0.0 as u64));
    out.u32s(index.scope_of.iter().map(|one| one.1));
    let functions = || index.functions.iter();
    out.u64s(functions().map(|one| one.start));
    out.u64s(functions().map(|one| one.end));
    out.u64s(functions().map(|one| one.die.0 as u64));
    out.u32s(functions().map(|one| u32::try_from(one.unit).unwrap_or(u32::MAX)));
    out.u64s(index.inlined.iter().map(|one| one.0.0 as u64));
    out.u64s(index.inlined.iter().map(|one| one.1));
    out.u64s(index.vtables.iter().map(|one| one.0));
    out.u64s(index.vtables.iter().map(|one| one.1.0 as u64));
    let sum = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &out.0);
    out.0.extend(sum.to_le_bytes());
    out.0
}

fn decode(bytes: &[u8], key: &Key) -> Option<NameIndex> {
    let (content, sum) = bytes.split_last_chunk::<8>()?;
    let columns = content.strip_prefix(&key.head()[..])?;
    if crc_fast::checksum(CrcAlgorithm::Crc64Nvme, content) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = Rest(columns);
    let mut index = NameIndex {
        text: String::from_utf8(rest.bytes()?.to_vec()).ok()?,
        ends: rest.u32s()?,
        hashes: rest.u64s()?,
        flags: rest.bytes()?.to_vec(),
        until: rest.u32s()?,
        ..NameIndex::default()
    };
    let (dies, units, scopes) = (rest.dies()?, rest.u32s()?, rest.u32s()?);
    let kinds = rest.bytes()?.to_vec();
    let mut of = rest.dies()?.into_iter();
    let same = [units.len(), scopes.len(), kinds.len()] == [dies.len(); 3];
    let columns = dies
        .into_iter()
        .zip(units)
        .zip(scopes.into_iter().zip(kinds));
    for ((die, unit), (scope, kind)) in columns {
        let kind = match kind {
            0 | 1 => Kind::Variable {
                external: kind == 1,
            },
            2 => Kind::Type,
            3 => Kind::Function,
            4 => Kind::Enumerator { of: of.next()? },
            5 => Kind::Gone,
            _ => return None,
        };
        let unit = unit as usize;
        index.named.push(Named {
            die,
            kind,
            unit,
            scope,
        });
    }
    index.scopes = pairs(rest.u32s()?, rest.u32s()?)?;
    index.scope_of = pairs(rest.dies()?, rest.u32s()?)?;
    let code: Vec<(u64, u64)> = pairs(rest.u64s()?, rest.u64s()?)?;
    let of: Vec<(DieOffset, u32)> = pairs(rest.dies()?, rest.u32s()?)?;
    for ((start, end), (die, unit)) in pairs(code, of)? {
        let unit = unit as usize;
        index.functions.push(FunctionRange {
            start,
            end,
            die,
            unit,
        });
    }
    index.inlined = pairs(rest.dies()?, rest.u64s()?)?;
    index.vtables = pairs(rest.u64s()?, rest.dies()?)?;
    (same && rest.0.is_empty() && index.is_sound(key.units)).then_some(index)
}

fn kind_of(kind: Kind) -> (u8, Option<u64>) {
    match kind {
        Kind::Variable { external } => (u8::from(external), None),
        Kind::Type => (2, None),
        Kind::Function => (3, None),
        Kind::Gone => (5, None),
        Kind::Enumerator { of } => (4, Some(of.0 as u64)),
    }
}

fn pairs<A, B>(a: Vec<A>, b: Vec<B>) -> Option<Vec<(A, B)>> {
    (a.len() == b.len()).then(|| a.into_iter().zip(b).collect())
}

struct Columns(Vec<u8>);

impl Columns {
    fn bytes(&mut self, all: &[u8]) {
        self.0.extend((all.len() as u64).to_le_bytes());
        self.0.extend(all);
    }

    fn u32s(&mut self, all: impl Iterator<Item = u32>) {
        self.column(all.map(u32::to_le_bytes));
    }

    fn u64s(&mut self, all: impl Iterator<Item = u64>) {
        self.column(all.map(u64::to_le_bytes));
    }

    fn column<const N: usize>(&mut self, all: impl Iterator<Item = [u8; N]>) {
        let at = self.0.len();
        self.0.extend([0; 8]);
        let mut count = 0u64;
        for one in all {
            self.0.extend(one);
            count += 1;
        }
        self.0[at..at + 8].copy_from_slice(&count.to_le_bytes());
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn column(&mut self, width: usize) -> Option<&'a [u8]> {
        let (count, rest) = self.0.split_first_chunk::<8>()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let (column, rest) = rest.split_at_checked(count.checked_mul(width)?)?;
        self.0 = rest;
        Some(column)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        self.column(1)
    }

    fn u32s(&mut self) -> Option<Vec<u32>> {
        let all = self.column(4)?.as_chunks::<4>().0;
        Some(all.iter().map(|one| u32::from_le_bytes(*one)).collect())
    }

    fn u64s(&mut self) -> Option<Vec<u64>> {
        let all = self.column(8)?.as_chunks::<8>().0;
        Some(all.iter().map(|one| u64::from_le_bytes(*one)).collect())
    }

    fn dies(&mut self) -> Option<Vec<DieOffset>> {
        let all = self.u64s()?.into_iter();
        all.map(|die| usize::try_from(die).ok().map(DieOffset))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::Gathered;

    const UNITS: usize = 3;

    fn key() -> Key {
        Key {
            build_id: "abcd".to_owned(),
            content: 7,
            units: UNITS,
        }
    }

    fn cache(folder: &Path) -> IndexCache {
        IndexCache::new(folder.join("sls")).of_everything(1 << 20)
    }

    fn index_of(names: &[String]) -> NameIndex {
        let mut found = Gathered {
            scopes: vec![(0, 0)],
            ..Gathered::default()
        };
        for (at, name) in (0u32..).zip(names) {
            let die = DieOffset(at as usize * 8);
            let kind = match at % 5 {
                0 => Kind::Type,
                3 => Kind::Gone,
                1 => Kind::Function,
                2 => Kind::Enumerator { of: DieOffset(4) },
                _ => Kind::Variable { external: true },
            };
            let (unit, scope) = (at as usize % UNITS, at / 2);
            let named = Named {
                die,
                kind,
                unit,
                scope,
            };
            found.names.push((name.into(), u8::from(at % 3 == 0)));
            found.named.push((at, named));
            found.scopes.push((at / 3, at));
            found.scope_of.push((die, at));
            found.inlined.push((die, at.into()));
            found.vtables.push((at.into(), die));
            let (start, end) = (u64::from(at) * 16, u64::from(at) * 16 + 9);
            found.functions.push(FunctionRange {
                start,
                end,
                die,
                unit,
            });
        }
        NameIndex::assemble(&[found])
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_gathered(names in prop::collection::vec("[a-c]{0,3}", 0..40)) {
            let index = index_of(&names);
            prop_assert!(index.is_sound(UNITS));
            for name in &names {
                let count = names.iter().filter(|other| *other == name).count();
                prop_assert_eq!(index.lookup(name).len(), count);
            }
            prop_assert!(index.lookup("d").is_empty());
            prop_assert_eq!(decode(&encode(&index, &key()), &key()), Some(index));
        }

        /// A damaged file is none, or one that says the same.
        #[test]
        fn damage_is_seen(
            names in prop::collection::vec("[a-c]{0,3}", 0..40),
            at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>(),
        ) {
            let mut bytes = encode(&index_of(&names), &key());
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            prop_assert_eq!(decode(&bytes, &key()), None);
        }

        /// Somebody who writes a right checksum over wrong numbers crashes nobody.
        #[test]
        fn wrong_numbers_are_seen(
            names in prop::collection::vec("[a-c]{1,3}", 1..40),
            at in any::<prop::sample::Index>(), value in any::<u8>(),
        ) {
            let mut bytes = encode(&index_of(&names), &key());
            bytes.truncate(bytes.len() - 8);
            let at = at.index(bytes.len());
            bytes[at] = value;
            let sum = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes);
            bytes.extend(sum.to_le_bytes());
            if let Some(index) = decode(&bytes, &key()) {
                for name in names.iter().chain([&"x".to_owned()]) {
                    for named in index.lookup(name) {
                        prop_assert!(index.path_of(named).len() <= index.scopes.len());
                    }
                }
                prop_assert!(index.names().count() <= names.len());
                index.function_at(20);
                index.prefix_of(DieOffset(8));
            }
        }
    }

    #[test]
    fn files_are_kept_found_and_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let index = index_of(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(cache.load(&key()), None);
        assert!(cache.save(&key(), &index));
        assert_eq!(cache.load(&key()).as_ref(), Some(&index));
        // Another file of that build id, as dwz makes it.
        let other = Key {
            content: 8,
            ..key()
        };
        assert_eq!(cache.load(&other), None);
        let units = Key { units: 2, ..key() };
        assert_eq!(cache.load(&units), None);
        // The one that was used last stays.
        let length = fs::metadata(cache.path(&key())).unwrap().len();
        let old = File::open(cache.path(&key())).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let small = cache.clone().of_everything(length * 2 - 1);
        assert!(!small.save(&other, &index), "it takes more than half");
        let small = cache.clone().of_everything(length * 2 + 1);
        assert!(small.save(&other, &index));
        assert!(small.save(&units, &index), "of the name of the first");
        let left = fs::read_dir(folder.path().join("sls")).unwrap().count();
        assert_eq!(left, 2);
    }

    #[test]
    fn a_folder_that_is_none_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sls"), "a file").unwrap();
        let cache = cache(folder.path());
        assert!(!cache.save(&key(), &index_of(&["a".to_owned()])));
        assert_eq!(cache.load(&key()), None);
        // Nor is what is no file read.
        fs::remove_file(folder.path().join("sls")).unwrap();
        fs::create_dir_all(cache.path(&key())).unwrap();
        assert_eq!(cache.load(&key()), None);
        assert!(!cache.save(&key(), &index_of(&["a".to_owned()])));
        assert_eq!(fs::read_dir(folder.path().join("sls")).unwrap().count(), 1);
    }
}
