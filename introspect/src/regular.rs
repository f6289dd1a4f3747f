//! Regular files only: a device or a pipe at a mapped file's path would be read for ever.

use std::fs::File;
use std::io;
use std::path::Path;

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

/// Longest file that is read because another names it.
const NAMED_LIMIT: u64 = 8 << 30;

/// Its bytes, as many as it says to have: what debug information names may be anything, /proc/kmsg for example, whose
/// bytes do not end.
pub fn read_sized(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > NAMED_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, length), &mut bytes)?;
    Ok(bytes)
}

/// The bytes of one that is open, from where it stands.
pub fn all_of(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}
