//! What was received, as gdb's client keeps it: `BUILD-ID/debuginfo`, an empty file without rights where no server had it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::transfer::TransferError;

/// After that the servers are asked again for what none of them had.
const NOWHERE: Duration = Duration::from_secs(600);
/// After that a server that did not answer is asked again.
const AWAY: Duration = Duration::from_secs(60);

pub struct Cache {
    folder: PathBuf,
}

pub enum Kept {
    File(PathBuf),
    /// No server has it.
    Nowhere,
}

impl Cache {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// `$DEBUGINFOD_CACHE_PATH`, else `debuginfod_client` where the user's caches are.
    pub fn folder_of_user() -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(folder) = set("DEBUGINFOD_CACHE_PATH") {
            return Some(folder.into());
        }
        let caches = set("XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| Some(Path::new(&set("HOME")?).join(".cache")))?;
        Some(caches.join("debuginfod_client"))
    }

    pub fn kept(&self, id: &str) -> Option<Kept> {
        let path = self.path(id);
        let about = fs::metadata(&path).ok()?;
        if about.len() > 0 {
            return Some(Kept::File(path));
        }
        is_younger(&about, NOWHERE).then_some(Kept::Nowhere)
    }

    /// Keeps what `fetch` writes, if it succeeds.
    pub fn receive(
        &self,
        id: &str,
        fetch: impl FnOnce(&mut File) -> Result<(), TransferError>,
    ) -> Result<PathBuf, TransferError> {
        let path = self.path(id);
        let folder = path.parent().unwrap_or(&self.folder);
        let keep = |source| TransferError::Keep {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(keep)?;
        let mut part = tempfile::NamedTempFile::new_in(folder).map_err(keep)?;
        fetch(part.as_file_mut())?;
        part.persist(&path).map_err(|error| keep(error.error))?;
        Ok(path)
    }

    pub fn note_nowhere(&self, id: &str) {
        self.note(&self.path(id)).unwrap_or_default();
    }

    /// It costs its time once, whoever asks next.
    pub fn note_away(&self, server: &str) {
        self.note(&self.away(server)).unwrap_or_default();
    }

    pub fn is_away(&self, server: &str) -> bool {
        fs::metadata(self.away(server)).is_ok_and(|about| is_younger(&about, AWAY))
    }

    /// An empty file of now; where none can be made, it is asked again, that is all.
    fn note(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        if fs::metadata(path).is_ok_and(|about| about.len() == 0) {
            fs::remove_file(path)?;
        }
        let file = File::options().write(true).create_new(true).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o0))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id).join("debuginfo")
    }

    fn away(&self, server: &str) -> PathBuf {
        let name = server.chars().map(|one| match one {
            '/' | ':' => '_',
            one => one,
        });
        self.folder
            .join(format!("away-{}", name.collect::<String>()))
    }
}

fn is_younger(about: &fs::Metadata, age: Duration) -> bool {
    let made = std::time::UNIX_EPOCH + Duration::from_secs(about.mtime().try_into().unwrap_or(0));
    made.elapsed().is_ok_and(|past| past < age)
}
