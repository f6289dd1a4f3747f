//! Writing where a userfaultfd of the target's own brings the pages.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sls_sys::uffd::Own;
use sls_sys::{RemoteMemory, fd};

/// The userfaultfds that the target has open.
pub fn own(pid: i32, pidfd: &OwnedFd) -> io::Result<Vec<Own>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let is_own = fs::read_link(entry.path()).is_ok_and(|l| l.as_os_str() == Own::LINK);
        let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
        if let (true, Some(number)) = (is_own, number) {
            found.push(Own::new(fd::pidfd_getfd(pidfd.as_fd(), number)?));
        }
    }
    Ok(found)
}

/// Whole pages, one at a time, each in the way that its state allows.
pub fn write(memory: &RemoteMemory, own: &[Own], mut address: u64, data: &[u8]) -> io::Result<()> {
    for page in data.as_chunks::<4096>().0 {
        let brought = own.iter().any(|uffd| uffd.bring(address, page).is_ok());
        if !brought {
            write_there(memory, own, address, page)?;
        }
        address += page.len() as u64;
    }
    Ok(())
}

/// A page that is there: one that is protected is opened for the moment.
fn write_there(memory: &RemoteMemory, own: &[Own], address: u64, page: &[u8]) -> io::Result<()> {
    let written = memory.write_at(address, page);
    let protected = written
        .as_ref()
        .is_err_and(|e| e.raw_os_error() == Some(libc::EIO));
    match own
        .iter()
        .find(|uffd| protected && uffd.open(address).is_ok())
    {
        Some(uffd) => {
            let written = memory.write_at(address, page);
            uffd.protect(address)?;
            written
        }
        None => written,
    }
}
