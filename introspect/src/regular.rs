//! Regular files only: a device or a pipe at a mapped file's path would be read for ever.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Opens it if it is a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Looked at first: opening alone may wait, or do something to a device.
    if std::fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    let message = format!("{} is no regular file", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Its bytes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    all_of(open(path)?)
}

/// Longest file that is shared.
const LIMIT: u64 = 8 << 30;

/// Its bytes, to be shared, as many as it says to have: what debug information names may be anything, /proc/kmsg for
/// example, whose bytes do not end.
pub fn share(path: &Path) -> io::Result<Arc<[u8]>> {
    shared(open(path)?)
}

/// The bytes of one that is open, from its beginning: read to where they stay, since a copy of a large file costs
/// more than to read it. Made shorter meanwhile, what is left of it.
pub fn shared(file: File) -> io::Result<Arc<[u8]>> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length as u64 > LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut whole: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    let Some(bytes) = Arc::get_mut(&mut whole) else {
        return Ok(whole);
    };
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => return Ok(bytes[..filled].into()),
            Ok(some) => filled += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// The bytes of one that is open, from where it stands.
fn all_of(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}
