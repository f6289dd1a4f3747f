//! Paths of files that the kernel tells of by handle only (fdinfo of inotify).
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// MAX_HANDLE_SZ.
const MOST: usize = 128;

/// struct file_handle with room for any handle.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    handle: [u8; MOST],
}

/// The path of a file by its handle, on a filesystem by its device. As root only.
///
/// # Errors
/// EPERM: not root. ESTALE: it has been removed.
pub fn path(device: u64, kind: i32, handle: &[u8]) -> io::Result<PathBuf> {
    let mount = mount(device)?;
    let mut all = Handle {
        bytes: 0,
        kind,
        handle: [0; MOST],
    };
    let room = all.handle.get_mut(..handle.len());
    let room = room.ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(handle);
    all.bytes = u32::try_from(handle.len()).map_err(io::Error::other)?;
    // SAFETY: `all` is a file_handle with its bytes behind it, as many as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut all,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor to us and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Where a filesystem is mounted.
fn mount(device: u64) -> io::Result<File> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let number = format!("{major}:{minor}");
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let place = |line: &str| {
        let mut words = line.split(' ').skip(2);
        let found = words.next()? == number;
        let (root, at) = (words.next()?, words.next()?);
        // One that shows all of it, so that what lies anywhere in it has a path.
        (found && root == "/").then(|| at.to_owned())
    };
    let place = text.lines().find_map(place);
    File::open(place.ok_or(io::ErrorKind::NotFound)?)
}
