//! Writing a bundle.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libsls::protocol::{Bundled, Failure};
use slos::{Device, Epoch, FileDevice, Partition, Store};

use super::files::{Mapped, Wanted, put};
use super::{Failed, NAME};
use crate::names;
use crate::part::Part;
use crate::registry::Refusal;
use crate::transfer::{KEPT, kept, moved, outward};

/// Slots are as small as the longest piece of a log allows, so that little of the file is empty.
const SLOT: u64 = 1 << 20;
/// What is there besides pages and files.
const MORE: u64 = 64 << 20;

/// Writes the checkpoints from `first` to `last` to a new file, which takes the place of `file` when it is whole.
pub fn pack(
    part: &Part,
    (first, last): (Option<u64>, Option<u64>),
    file: &Path,
    name: Option<&str>,
) -> Result<Bundled, Refusal> {
    let name = name.map_or_else(|| part.name.clone(), libsls::partition_name);
    names::partition(&name)?;
    if !file.is_absolute() {
        let message = format!("{} is no absolute path", file.display());
        return Err(Refusal::new(Failure::Usage, message));
    }
    let range = (Epoch(first.unwrap_or(1)), Epoch(last.unwrap_or(u64::MAX)));
    refuse_other(file)?;
    let (files, left_out) = mapped(&part.history, range)?.files(part.brought().as_deref());
    let half = Half::begin(file)?;
    let space = files.iter().map(|file| file.bytes).sum::<u64>() + 2 * part.bytes() + MORE;
    let failed = |error: io::Error| Refusal::other(format!("write {}: {error}", file.display()));
    let fill = || -> Result<Bundled, Refusal> {
        let store = half.format(space).map_err(failed)?;
        let (there, _) = kept(&store, &name)?;
        let taken = there.take_over(&part.history, range, |_| {});
        let taken = taken.map_err(|error| outward(&error, file, &name))?;
        put_all(&store, &files).map_err(|e| Refusal::other(format!("{}: {e}", file.display())))?;
        Ok(Bundled {
            moved: moved(&name, &taken),
            ..Bundled::default()
        })
    };
    let done = fill()?;
    let bytes = half.end(file).map_err(failed)?;
    Ok(Bundled {
        bytes,
        files: files.iter().map(|f| f.path.display().to_string()).collect(),
        left_out,
        ..done
    })
}

fn put_all(store: &Store, files: &[Wanted]) -> Result<(), Failed> {
    let there = store
        .add_partition(NAME, KEPT)
        .map_err(slos::CommitError::from)?;
    files.iter().try_for_each(|file| put(&there, file))
}

/// What its checkpoints had mapped.
fn mapped(history: &Partition, (first, last): (Epoch, Epoch)) -> Result<Mapped, Refusal> {
    let mut mapped = Mapped::default();
    for info in history.history().map_err(Refusal::other)? {
        // Thinned meanwhile, it is in no bundle.
        if (first..=last).contains(&info.epoch)
            && let Ok(record) = history.record(info.epoch)
        {
            let record = libsls::record::decode(&record);
            let record = record.map_err(|e| Refusal::other(format!("{}: {e}", info.epoch)))?;
            let processes = record.processes.iter();
            let all = processes.flat_map(|process| &process.mappings);
            all.for_each(|mapping| mapped.add(mapping));
        }
    }
    Ok(mapped)
}

/// What is neither a bundle nor empty is nobody's to replace.
fn refuse_other(file: &Path) -> Result<(), Refusal> {
    let shown = file.display();
    match FileDevice::read_only(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(there) if file.is_file() && is_ours(&there).unwrap_or(false) => Ok(()),
        Ok(_) => Err(Refusal::new(
            Failure::Exists,
            format!("{shown} is there already, and is no bundle; remove it, or take another name"),
        )),
        Err(error) => Err(Refusal::other(format!("{shown}: {error}"))),
    }
}

/// A bundle, or one that did not come as far as that.
fn is_ours(there: &FileDevice) -> io::Result<bool> {
    let mut start = [0; 4096];
    let some = usize::try_from(there.size()?).map_or(start.len(), |size| size.min(start.len()));
    there.read_at(&mut start[..some], 0)?;
    Ok(start.iter().all(|&byte| byte == 0) || slos::holds_store(there)?)
}

/// A bundle that is being written, beside where it comes to be. It is removed when it does not come that far.
struct Half(PathBuf);

impl Half {
    fn begin(file: &Path) -> Result<Half, Refusal> {
        let mut name = file.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        refuse_other(&path)?;
        let mut how = File::options();
        how.read(true).write(true).create(true).truncate(false);
        let made = how.mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path);
        // The lock of somebody who is at it already is not to be run over.
        let free = made.and_then(|_| FileDevice::open(&path));
        match free {
            Ok(_) => Ok(Half(path)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Refusal::other(
                format!("{} is being written already", file.display()),
            )),
            Err(error) => Err(Refusal::other(format!("write {}: {error}", path.display()))),
        }
    }

    /// An empty store. Its bytes are holes until they are written.
    fn format(&self, bytes: u64) -> io::Result<Store> {
        let file = File::options().write(true).open(&self.0)?;
        file.set_len(0)?;
        file.set_len(bytes)?;
        let device = FileDevice::open(&self.0)?;
        slos::format_device_in_slots(&device, SLOT)?;
        let opened = Store::open_device(Arc::new(device), &self.0);
        Ok(opened.map_err(io::Error::other)?.0)
    }

    /// No longer than it must be, it lasts and has its name; its bytes.
    fn end(self, file: &Path) -> io::Result<u64> {
        let device = FileDevice::open(&self.0)?;
        let bytes = slos::shrink(&device)?;
        device.cut(bytes)?;
        device.flush()?;
        fs::rename(&self.0, file)?;
        let folder = file.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()?;
        Ok(bytes)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // After its end it has another name.
        let _ = fs::remove_file(&self.0);
    }
}
