//! The files of a bundle: which they are, and how they go in and come out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use introspect::{Finder, ObjectFile};
use libsls::bundle;
use libsls::record::{Backing, Mapping};
use slos::{Base, Draft, Epoch, PAGE, PageIndex, Partition, ReadError, SpaceDelta, SpaceId};

/// The partition they are in; no history can be called so.
pub const NAME: &str = ".files";

/// Bytes of a piece.
const PIECE: u64 = 4 << 20;
/// A file without code is data: it is taken along up to this.
const LARGEST_DATA: u64 = 64 << 20;
/// What all files of a bundle may have together: they are kept in memory where it is opened.
const MOST: u64 = 8 << 30;
const SPACE: SpaceId = SpaceId(0);

/// A piece of a file: where it begins, how long the file is, its place in the folder, and its path where it came from.
type Piece = (u64, u64, String, String);

/// Why files cannot be put into a bundle, or be had from it.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{path} was changed while it was read")]
    Changed { path: String },
    #[error("a piece of a file that is none: {0}")]
    Piece(String),
    #[error("its files take more than {} GiB", MOST >> 30)]
    TooMuch,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] slos::CommitError),
}

/// A file that goes along.
pub struct Wanted {
    /// In the folder.
    pub place: PathBuf,
    pub path: PathBuf,
    pub bytes: u64,
}

/// What checkpoints had mapped, each once.
#[derive(Default)]
pub struct Mapped {
    /// By the place in the folder; whether any of it is code.
    found: BTreeMap<PathBuf, (Mapping, bool)>,
}

impl Mapped {
    pub fn add(&mut self, mapping: &Mapping) {
        // Device nodes, memfds and shared memory have a path too, but no file behind it.
        if mapping.backing != Backing::File || !mapping.path.starts_with('/') {
            return;
        }
        let place = bundle::mapped_name(mapping);
        let entry = self.found.entry(place);
        let code = &mut entry.or_insert_with(|| (mapping.clone(), false)).1;
        *code |= mapping.perms.exec;
    }

    /// The files themselves and the debug files of those that have code, from where they are or from the
    /// folder `brought`; and what is left out, with the reason.
    pub fn files(&self, brought: Option<&Path>) -> (Vec<Wanted>, Vec<String>) {
        let roots = brought.map(bundle::debug_root).into_iter();
        let finder = Finder::new(roots.chain(["/usr/lib/debug".into()]));
        let mut list = List::default();
        for (place, (mapping, code)) in &self.found {
            let (path, file) = match open(mapping, brought) {
                Ok(opened) => opened,
                Err(why) => {
                    list.left_out.push(why);
                    continue;
                }
            };
            let most = if *code { MOST } else { LARGEST_DATA };
            if !list.add(place.clone(), path, most) || !code {
                continue;
            }
            let Ok(image) = introspect::regular::shared(file) else {
                continue;
            };
            let path = bundle::path_of(mapping);
            if let Some((path, place)) = finder.separate(path, &image) {
                list.add(Path::new(bundle::DEBUG).join(place), path, MOST);
            }
            list.add_companions(path, image, &finder);
        }
        (list.wanted, list.left_out)
    }
}

/// What goes along, and what does not.
#[derive(Default)]
struct List {
    wanted: Vec<Wanted>,
    left_out: Vec<String>,
    places: BTreeSet<PathBuf>,
    total: u64,
}

impl List {
    /// Whether there is room for it.
    fn add(&mut self, place: PathBuf, path: PathBuf, most: u64) -> bool {
        // Two programs may have one debug file, by a link.
        if self.places.contains(&place) {
            return true;
        }
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        if bytes > most.min(MOST - self.total) {
            self.left_out.push(too_long(&path, bytes));
            return false;
        }
        self.total += bytes;
        self.places.insert(place.clone());
        self.wanted.push(Wanted { place, path, bytes });
        true
    }

    /// What was split off its debug information, packaged, or is shared with others.
    fn add_companions(&mut self, path: &str, image: Arc<[u8]>, finder: &Finder) {
        let Ok(object) = ObjectFile::parse(path, image, finder) else {
            return;
        };
        let (found, missing) = object.companions();
        for (path, place) in found {
            self.add(Path::new(bundle::DEBUG).join(place), path, MOST);
        }
        self.left_out.extend(missing);
    }
}

fn too_long(path: &Path, bytes: u64) -> String {
    let (path, long) = (path.display(), bytes >> 20);
    format!("{path}: {long} MiB are more than there is room for")
}

fn open(mapping: &Mapping, brought: Option<&Path>) -> Result<(PathBuf, File), String> {
    let copy = brought.map(|folder| bundle::mapped(folder, mapping));
    if let Some(copy) = copy.filter(|copy| copy.is_file())
        && let Ok(file) = File::open(&copy)
    {
        return Ok((copy, file));
    }
    let file = bundle::open_as_mapped(mapping)?;
    Ok((bundle::path_of(mapping).into(), file))
}

/// Adds a file, piece by piece.
pub fn put(to: &Partition, wanted: &Wanted) -> Result<(), Failed> {
    let path = wanted.path.display().to_string();
    let failed = |source| Failed::File {
        path: path.clone(),
        source,
    };
    let place = wanted.place.to_string_lossy().into_owned();
    let file = introspect::regular::open(&wanted.path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        let some = PIECE.min(wanted.bytes - at);
        let length = usize::try_from(some).map_err(|_| Failed::TooMuch)?;
        bytes.clear();
        bytes.resize(length.next_multiple_of(PAGE), 0);
        let read = file.read_exact_at(&mut bytes[..length], at);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Failed::Changed { path: path.clone() },
            _ => failed(error),
        })?;
        let piece: Piece = (at, wanted.bytes, place.clone(), path.clone());
        put_piece(to, &piece, &bytes)?;
        at += some;
        if at == wanted.bytes {
            return Ok(());
        }
    }
}

fn put_piece(to: &Partition, piece: &Piece, bytes: &[u8]) -> Result<(), Failed> {
    let record = postcard::to_stdvec(piece).map_err(|e| Failed::Piece(e.to_string()))?;
    let pages = (0..).map(PageIndex).zip(bytes.chunks_exact(PAGE));
    to.commit(&Draft {
        parent: None,
        branch: "files".into(),
        name: None,
        time_ns: 0,
        stop_us: 0,
        record: &record,
        spaces: vec![SpaceDelta {
            space: SPACE,
            base: Base::Empty,
            dropped: Vec::new(),
            pages: pages.collect(),
        }],
        meta: Vec::new(),
    })?;
    Ok(())
}

/// Writes all files into a new folder. What they say of themselves may be made up.
pub fn unpack(from: &Partition, folder: &Path) -> Result<(), Failed> {
    let mut total = 0u64;
    for info in from.history()? {
        let record = from.record(info.epoch)?;
        let read: Result<Piece, _> = postcard::from_bytes(&record);
        let piece = read.map_err(|e| Failed::Piece(e.to_string()))?;
        total = total.saturating_add(PIECE.min(piece.1.saturating_sub(piece.0)));
        if total > MOST {
            return Err(Failed::TooMuch);
        }
        take_piece(from, info.epoch, &piece, folder)?;
    }
    Ok(())
}

fn take_piece(
    from: &Partition,
    epoch: Epoch,
    (at, length, place, _): &Piece,
    folder: &Path,
) -> Result<(), Failed> {
    let none = || Failed::Piece(place.clone());
    if !is_inside(Path::new(place)) || at % PIECE != 0 || at > length || *length > MOST {
        return Err(none());
    }
    let path = folder.join(place);
    let failed = |source| Failed::File {
        path: path.display().to_string(),
        source,
    };
    make_parents(&path).map_err(failed)?;
    let mut how = File::options();
    how.write(true).create(true).mode(0o600);
    let file = how.custom_flags(libc::O_NOFOLLOW).open(&path);
    let file = file.map_err(failed)?;
    if *at == 0 {
        // What is zero in it is a hole, in memory too.
        file.set_len(*length).map_err(failed)?;
    }
    let left = usize::try_from(PIECE.min(length - at)).map_err(|_| none())?;
    let pages = from.page_map(epoch, SPACE)?;
    let pages: Vec<_> = pages
        .into_iter()
        .filter(|page| page.0 < PIECE / PAGE as u64)
        .collect();
    for some in pages.chunks(256) {
        let mut bytes = vec![0; some.len() * PAGE];
        from.read_pages(epoch, SPACE, some, &mut bytes)?;
        for (page, bytes) in some.iter().zip(bytes.chunks_exact(PAGE)) {
            let start = usize::try_from(page.0).map_err(|_| none())? * PAGE;
            let there = left.saturating_sub(start).min(PAGE);
            if bytes[..there].iter().any(|&byte| byte != 0) {
                let at = at + start as u64;
                file.write_all_at(&bytes[..there], at).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Does a path lead to nowhere but below the folder that it is joined to?
fn is_inside(place: &Path) -> bool {
    let mut parts = place.components();
    place.as_os_str().len() <= 1024 && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn make_parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true).mode(0o700).create(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slos::{Options, Settings, Store};

    fn partition(folder: &Path) -> anyhow::Result<Partition> {
        let store = Store::create(&folder.join("store"), Options::default())?;
        Ok(store.add_partition(NAME, Settings::default())?)
    }

    #[test]
    fn files_come_out_as_they_went_in() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let part = partition(folder.path())?;
        let mut noise = vec![0; 3 * 4096 + 17];
        noise
            .iter_mut()
            .zip(0u32..)
            .for_each(|(byte, n)| *byte = (n * n / 7).to_le_bytes()[0]);
        let mut long = vec![0; usize::try_from(PIECE)? + 5000];
        long[usize::try_from(PIECE)? + 4999] = 9;
        let contents = [Vec::new(), vec![1], noise, long, vec![0; 4096]];
        for (n, content) in contents.iter().enumerate() {
            let path = folder.path().join(n.to_string());
            fs::write(&path, content)?;
            put(
                &part,
                &Wanted {
                    place: format!("mapped/{n}").into(),
                    path,
                    bytes: content.len() as u64,
                },
            )?;
        }
        let out = folder.path().join("out");
        unpack(&part, &out)?;
        for (n, content) in contents.iter().enumerate() {
            assert!(
                fs::read(out.join(format!("mapped/{n}")))? == *content,
                "{n}"
            );
        }
        Ok(())
    }

    #[test]
    fn nothing_leads_out_of_the_folder() -> anyhow::Result<()> {
        for piece in [
            (0, 1, "../x"),
            (0, 1, "/tmp/x"),
            (0, 1, "a/../../x"),
            (0, u64::MAX, "huge"),
            (PIECE, 1, "behind"),
            (1, 2, "askew"),
        ] {
            let folder = tempfile::tempdir()?;
            let part = partition(folder.path())?;
            let (at, length, place) = piece;
            put_piece(
                &part,
                &(at, length, place.into(), String::new()),
                &[7; PAGE],
            )?;
            let out = folder.path().join("in/out");
            let refused = unpack(&part, &out);
            assert!(matches!(refused, Err(Failed::Piece(_))), "{piece:?}");
            assert!(!folder.path().join("in/x").exists() && !folder.path().join("x").exists());
        }
        Ok(())
    }

    #[test]
    fn a_file_that_gets_shorter_is_told() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let part = partition(folder.path())?;
        let path = folder.path().join("short");
        fs::write(&path, "abc")?;
        let wanted = Wanted {
            place: "mapped/1".into(),
            path,
            bytes: 4,
        };
        assert!(matches!(put(&part, &wanted), Err(Failed::Changed { .. })));
        Ok(())
    }
}
