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
        let mut api = UffdioApi {
            api: UFFD_API,
            features: WP_ASYNC | WP_HUGETLBFS_SHMEM | PAGEFAULT_FLAG_WP,
            ioctls: 0,
        };
        // SAFETY: `api` is the structure UFFDIO_API takes and outlives the call.
        unsafe { uffdio_api(fd.as_raw_fd(), &raw mut api) }?;
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

fn system_error(error: userfaultfd::Error) -> io::Error {
    match error {
        userfaultfd::Error::SystemError(errno) => io::Error::from_raw_os_error(errno as i32),
        other => io::Error::other(other),
    }
}
