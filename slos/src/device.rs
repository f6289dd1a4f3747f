//! What a store on a device or in one file lies on: blocks that keep what was flushed.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// The whole OS surface of a store that is no folder, so that tests can cut, tear and fail it.
///
/// What is written may be lost, in any order and part by part, until a flush has returned.
pub trait Device: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// All that was written before lasts once this returns. After an error nobody knows what does:
    /// it is not to be tried again.
    fn flush(&self) -> io::Result<()>;
}

/// A plain file or a block device.
pub struct FileDevice {
    file: Flocked,
    size: u64,
}

enum Flocked {
    Owned(Flock<File>),
    Shared(File),
}

impl FileDevice {
    /// For one writer: `WouldBlock` when another process has it, `ResourceBusy` when a block device is
    /// mounted or otherwise in use.
    pub fn open(path: &Path) -> io::Result<FileDevice> {
        // The kernel refuses O_EXCL of a block device that is in use.
        let exclusive = if is_block(path)? { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(exclusive)
            .open(path)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| io::Error::from(errno))?;
        FileDevice::of(Flocked::Owned(lock))
    }

    /// For a look, beside whoever writes to it.
    pub fn read_only(path: &Path) -> io::Result<FileDevice> {
        FileDevice::of(Flocked::Shared(File::open(path)?))
    }

    /// For one of many readers; `WouldBlock` when another process writes to it.
    pub fn open_to_read(path: &Path) -> io::Result<FileDevice> {
        let lock = Flock::lock(File::open(path)?, FlockArg::LockSharedNonblock);
        let lock = lock.map_err(|(_, errno)| io::Error::from(errno))?;
        FileDevice::of(Flocked::Owned(lock))
    }

    /// What lies behind so many bytes of a plain file is gone for good.
    pub fn cut(&self, bytes: u64) -> io::Result<()> {
        self.file.get().set_len(bytes)?;
        self.file.get().sync_all()
    }

    fn of(file: Flocked) -> io::Result<FileDevice> {
        let kind = file.get().metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a plain file nor a block device",
            ));
        }
        // A block device has no length of its own, but an end.
        let size = (&mut file.get()).seek(SeekFrom::End(0))?;
        Ok(FileDevice { file, size })
    }
}

impl Flocked {
    fn get(&self) -> &File {
        match self {
            Self::Owned(file) => file,
            Self::Shared(file) => file,
        }
    }
}

impl Device for FileDevice {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.get().read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.get().write_all_at(bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.get().sync_data()
    }
}

/// Is it a block device?
pub fn is_block(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.file_type().is_block_device())
}
