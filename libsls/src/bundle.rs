//! Where the files lie that a bundle brings along: what its processes had mapped, and the debug files of that.
//!
//! They are in a folder of the partition that was made of it: `mapped/` holds files by what tells one from
//! another in a record, `debug/` is laid out as `/usr/lib/debug` is.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sls_record::Mapping;

/// Is it the name of a bundle, rather than of a store that is written to?
#[must_use]
pub fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sls")
}

/// The folder of debug files.
pub const DEBUG: &str = "debug";

/// Where the copy of a mapped file is within the folder. Files with one inode and one time of change are one.
#[must_use]
pub fn mapped_name(mapping: &Mapping) -> PathBuf {
    let Mapping {
        dev,
        inode,
        file_mtime_ns,
        ..
    } = mapping;
    format!("mapped/{dev:x}-{inode:x}-{file_mtime_ns}").into()
}

/// The copy of a mapped file, if there is one.
#[must_use]
pub fn mapped(folder: &Path, mapping: &Mapping) -> PathBuf {
    folder.join(mapped_name(mapping))
}

/// A root for whoever looks for debug files.
#[must_use]
pub fn debug_root(folder: &Path) -> PathBuf {
    folder.join(DEBUG)
}

/// The path of a mapped file without the kernel's mark.
#[must_use]
pub fn path_of(mapping: &Mapping) -> &str {
    let path = &mapping.path;
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Opens a mapped file where it was.
///
/// # Errors
/// It is gone, is no plain file, or is not the one that was mapped.
pub fn open_as_mapped(mapping: &Mapping) -> Result<File, String> {
    let path = path_of(mapping);
    let file = introspect::regular::open(path.as_ref()).map_err(|e| format!("{path}: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("{path}: {e}"))?;
    let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    if meta.ino() != mapping.inode || mapping.file_mtime_ns != 0 && mtime != mapping.file_mtime_ns {
        return Err(format!("{path} was changed since"));
    }
    Ok(file)
}
