//! The write-protect userfaultfd of a tracee.
//!
//! The descriptor is made inside the tracee by injection and taken over, so it belongs to the
//! tracee's address space. Registration goes through the `userfaultfd` crate; the WP_ASYNC
//! handshake is a raw ioctl because the crate does not know the feature (Linux 6.7).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use userfaultfd::{RegisterMode, Uffd};

/// Flags to create it with: USER_MODE_ONLY needs no privilege and still sees kernel-mode writes,
/// because in WP_ASYNC mode the kernel resolves the fault itself.
pub const CREATE_FLAGS: u64 = 0o2000000 | 0o4000 | 1; // O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY

const UFFD_API: u64 = 0xAA;
const PAGEFAULT_FLAG_WP: u64 = 1;
const WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const WP_ASYNC: u64 = 1 << 15;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

nix::ioctl_readwrite!(uffdio_api, 0xAA, 0x3F, UffdioApi);

/// Asks a fresh userfaultfd for features, by the raw call: the crate's own handshake knows no WP_ASYNC, and
/// makes its descriptor itself.
pub(crate) fn shake_hands(fd: &OwnedFd, features: u64) -> io::Result<()> {
    let mut api = UffdioApi {
        api: UFFD_API,
        features,
        ioctls: 0,
    };
    // SAFETY: `api` is the structure UFFDIO_API takes and outlives the call.
    unsafe { uffdio_api(fd.as_raw_fd(), &raw mut api) }?;
    Ok(())
}

/// A handshaken userfaultfd in WP_ASYNC mode.
#[derive(Debug)]
pub struct WriteProtect {
    uffd: Uffd,
}

impl WriteProtect {
    /// Takes over a fresh descriptor and asks for WP_ASYNC.
    ///
    /// # Errors
    /// EINVAL: the kernel has no WP_ASYNC (before 6.7).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        shake_hands(&fd, WP_ASYNC | WP_HUGETLBFS_SHMEM | PAGEFAULT_FLAG_WP)?;
        // SAFETY: the descriptor is owned here and given away whole.
        let uffd = unsafe { <Uffd as std::os::fd::FromRawFd>::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self { uffd })
    }

    /// Registers `[start, end)` for write protection. The range may span several mappings.
    ///
    /// # Errors
    /// EBUSY: the target has a userfaultfd of its own there. ENOMEM: the address space is gone.
    /// EINVAL: a mapping of a kind that cannot be registered.
    pub fn register(&self, (start, end): (u64, u64)) -> io::Result<()> {
        self.uffd
            .register_with_mode(
                start as *mut libc::c_void,
                crate::size(end - start),
                RegisterMode::WRITE_PROTECT,
            )
            .map(|_| ())
            .map_err(system_error)
    }

    /// Registers a range that nobody tracked, and takes off whatever protection marks its pages
    /// still carry: mremap can leave a mapping unregistered with marks that then outlive writes
    /// (seen on 6.18), and a marked page counts as clean.
    ///
    /// # Errors
    /// As [`WriteProtect::register`].
    pub fn adopt(&self, (start, end): (u64, u64)) -> io::Result<()> {
        self.register((start, end))?;
        self.uffd
            .remove_write_protection(start as *mut libc::c_void, crate::size(end - start), false)
            .map_err(system_error)
    }
}

/// A userfaultfd that a program made for itself.
#[derive(Debug)]
pub struct Own {
    uffd: Uffd,
}

impl Own {
    /// What the kernel calls such a descriptor.
    pub const LINK: &'static str = "anon_inode:[userfaultfd]";

    /// A duplicate of the program's descriptor.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        // SAFETY: the descriptor is owned here and given away whole.
        let uffd = unsafe { <Uffd as std::os::fd::FromRawFd>::from_raw_fd(fd.into_raw_fd()) };
        Self { uffd }
    }

    /// Brings a page that is missing, which no plain write can do in a range where a userfaultfd
    /// brings them. Wakes nobody.
    ///
    /// # Errors
    /// EEXIST: the page is there. ENOENT: nobody brings pages there.
    pub fn bring(&self, address: u64, page: &[u8; 4096]) -> io::Result<()> {
        let from = page.as_ptr().cast();
        // SAFETY: the kernel reads one page from `page`, and writes to another address space.
        let brought = unsafe {
            self.uffd
                .copy(from, address as *mut libc::c_void, page.len(), false)
        };
        brought.map(|_| ()).map_err(system_error)
    }

    /// Takes the protection off a page. Wakes nobody.
    ///
    /// # Errors
    /// ENOENT: no userfaultfd protects pages there.
    pub fn open(&self, address: u64) -> io::Result<()> {
        let at = address as *mut libc::c_void;
        let opened = self.uffd.remove_write_protection(at, 4096, false);
        opened.map_err(system_error)
    }

    /// Protects a page.
    ///
    /// # Errors
    /// As [`Own::open`].
    pub fn protect(&self, address: u64) -> io::Result<()> {
        let at = address as *mut libc::c_void;
        self.uffd.write_protect(at, 4096).map_err(system_error)
    }
}

/// Does the program's userfaultfd want to be told when memory goes or moves, or of forks? Then
/// whoever unmaps, in the target's own name too, waits until the program has read the message.
///
/// # Errors
/// ENOENT: it is closed.
pub fn is_told(pid: i32, fd: i32) -> io::Result<bool> {
    const EVENTS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6; // FORK, REMAP, REMOVE, UNMAP
    let text = crate::procfs::read_text(format!("/proc/{pid}/fdinfo/{fd}"))?;
    // "API:\taa:10:5d": version, features, calls.
    let features = text.lines().find_map(|line| {
        let (_, rest) = line.strip_prefix("API:")?.split_once(':')?;
        u64::from_str_radix(rest.split_once(':')?.0, 16).ok()
    });
    Ok(features.is_none_or(|f| f & EVENTS != 0))
}

fn system_error(error: userfaultfd::Error) -> io::Error {
    match error {
        userfaultfd::Error::SystemError(errno) => io::Error::from_raw_os_error(errno as i32),
        other => io::Error::other(other),
    }
}
