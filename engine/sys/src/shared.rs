//! Memory shared between slsd and its keeper: one memfd, mapped in both.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes before the content: the words, on a cache line of their own.
const HEAD: usize = 64;

/// A mapped memfd of fixed length; pages come as they are touched. It holds two words for what is too
/// urgent for a message, and content.
#[derive(Debug)]
pub struct Board {
    fd: OwnedFd,
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to the value and lives as long; who reads and writes when is agreed
// by messages between the two processes, each access goes through &self or &mut self here.
unsafe impl Send for Board {}

impl Board {
    /// A new one of `len` bytes.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let fd = memfd_create("sls-board", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&fd, i64::try_from(len).map_err(io::Error::other)?)?;
        Self::map(fd, len)
    }

    /// Maps one that another process made.
    ///
    /// # Errors
    /// Not a descriptor that can be mapped.
    pub fn map(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let length = std::num::NonZeroUsize::new(len)
            .filter(|len| len.get() > HEAD)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        // SAFETY: a fresh mapping at an address of the kernel's choosing.
        let base = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &fd,
                0,
            )
        }?;
        Ok(Self {
            fd,
            base: base.as_ptr().cast(),
            len,
        })
    }

    /// Descriptor, to be passed on.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a board has a length.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words; both processes may read and change them at any time.
    #[must_use]
    pub fn words(&self) -> &[AtomicU32; 2] {
        // SAFETY: a mapping is page-aligned and longer than the words, lives as long as the value,
        // and the words are only ever used as atomics, which are valid whatever they hold.
        unsafe { &*self.base.cast() }
    }

    /// Copies `bytes` to `offset` of the content.
    ///
    /// # Errors
    /// They do not fit.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(room) = self.part(offset, bytes.len()) else {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        };
        // SAFETY: `part` found that so many bytes of the mapping begin there.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), room, bytes.len()) };
        Ok(())
    }

    /// Copies `n` bytes of content out, none where there are not so many: the other side may be
    /// hostile to a reader in place.
    #[must_use]
    pub fn get(&self, offset: usize, n: usize) -> Vec<u8> {
        let Some(from) = self.part(offset, n) else {
            return Vec::new();
        };
        let mut out = vec![0; n];
        // SAFETY: `part` found that so many bytes of the mapping begin there.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), n) };
        out
    }

    fn part(&self, offset: usize, n: usize) -> Option<*mut u8> {
        let first = HEAD.checked_add(offset)?;
        let end = first.checked_add(n)?;
        // SAFETY: the mapping is `len` bytes long.
        (end <= self.len).then(|| unsafe { self.base.add(first) })
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(base) = std::ptr::NonNull::new(self.base) {
            // SAFETY: the mapping was made by `map` with this length and is not used after.
            let done = unsafe { nix::sys::mman::munmap(base.cast(), self.len) };
            debug_assert!(done.is_ok());
        }
    }
}
