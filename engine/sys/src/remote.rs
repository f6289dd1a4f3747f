//! Memory of another process: scattered copies by process_vm_readv, single ones through
//! /proc/PID/mem, which also reads PROT_NONE pages and writes read-only private ones.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// Runs of at most this many iovecs go into one call (IOV_MAX).
const MAX_VECTORS: usize = 1024;

/// A remote range and the local place its bytes go to.
#[derive(Debug, Clone, Copy)]
pub struct Copy {
    /// Address in the other process.
    pub remote: u64,
    /// Local destination.
    pub local: *mut u8,
    /// Bytes.
    pub len: usize,
}

/// An open /proc/PID/mem with the pid it belongs to.
#[derive(Debug)]
pub struct RemoteMemory {
    pid: i32,
    mem: File,
}

impl RemoteMemory {
    /// Opens the memory of `pid`; the descriptor stays with today's address space over an exec.
    ///
    /// # Errors
    /// EACCES: not ours to look at. ENOENT: no such process.
    pub fn open(pid: i32) -> io::Result<Self> {
        let mem = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        Ok(Self { pid, mem })
    }

    /// Process this memory belongs to.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// EIO where nothing is mapped.
    pub fn read_at(&self, address: u64, buf: &mut [u8]) -> io::Result<()> {
        self.mem.read_exact_at(buf, address)
    }

    /// Writes all of `buf`, also into read-only private mappings.
    ///
    /// # Errors
    /// EIO where nothing is mapped or a shared mapping is read-only.
    pub fn write_at(&self, address: u64, buf: &[u8]) -> io::Result<()> {
        self.mem.write_all_at(buf, address)
    }

    /// Writes as much of `pieces`, one behind the other, as can be written by process_vm_writev:
    /// much cheaper than [`RemoteMemory::write_at`], but only into what the program itself may write.
    /// Bytes written.
    ///
    /// # Errors
    /// EFAULT: not even the first. ESRCH, EPERM.
    pub fn write(&self, address: u64, pieces: &[&[u8]]) -> io::Result<usize> {
        let local: Vec<libc::iovec> = pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            })
            .collect();
        let remote = libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: pieces.iter().map(|piece| piece.len()).sum(),
        };
        // SAFETY: the iovecs live until the call returns; local ones are slices, only read; the
        // remote one is checked by the kernel.
        let n = unsafe {
            libc::process_vm_writev(
                self.pid,
                local.as_ptr(),
                local.len() as libc::c_ulong,
                &raw const remote,
                1,
                0,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Waits until pages are there that somebody brings by a userfaultfd; through /proc/PID/mem they
    /// cannot be waited for. Whether they can be read.
    #[must_use]
    pub fn await_pages(&self, address: u64, len: usize) -> bool {
        let mut bytes = vec![0u8; len];
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: len,
        };
        let remote = libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: len,
        };
        // SAFETY: both iovecs live until the call returns; the local one is `bytes`, the remote one is
        // checked by the kernel.
        let n = unsafe {
            libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0)
        };
        usize::try_from(n) == Ok(len)
    }

    /// Reads one u64.
    ///
    /// # Errors
    /// As [`RemoteMemory::read_at`].
    pub fn read_u64(&self, address: u64) -> io::Result<u64> {
        let mut b = [0; 8];
        self.read_at(address, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Copies every page it can; what process_vm_readv refuses (PROT_NONE) is tried through
    /// /proc/PID/mem. Calls `lost` with the address of each page that is no longer there.
    ///
    /// # Safety
    /// Every `local` must be valid for writes of its `len` bytes for the time of the call, and no
    /// two may overlap.
    ///
    /// # Errors
    /// The process is gone or no longer ours to read.
    pub unsafe fn copy(&self, ranges: &[Copy], mut lost: impl FnMut(u64)) -> io::Result<()> {
        let mut at = 0;
        while at < ranges.len() {
            let batch = &ranges[at..ranges.len().min(at + MAX_VECTORS)];
            // SAFETY: passed on from the caller.
            let whole = match unsafe { self.copy_batch(batch) } {
                // A process that is about to exit: its memory is still there through the
                // descriptor, unless it has ended altogether.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                    self.read_at(batch[0].remote, &mut [0]).map_err(|_| error)?;
                    0
                }
                other => other?,
            };
            at += whole;
            if whole < batch.len() {
                let range = ranges[at];
                // SAFETY: `local` is valid for `len` bytes, by the caller's promise.
                let buf = unsafe { std::slice::from_raw_parts_mut(range.local, range.len) };
                self.read_pages(range.remote, buf, &mut lost);
                at += 1;
            }
        }
        Ok(())
    }

    /// Number of leading ranges that were copied whole.
    unsafe fn copy_batch(&self, ranges: &[Copy]) -> io::Result<usize> {
        let local: Vec<libc::iovec> = ranges
            .iter()
            .map(|r| libc::iovec {
                iov_base: r.local.cast(),
                iov_len: r.len,
            })
            .collect();
        let remote: Vec<libc::iovec> = ranges
            .iter()
            .map(|r| libc::iovec {
                iov_base: r.remote as *mut libc::c_void,
                iov_len: r.len,
            })
            .collect();
        // SAFETY: the iovecs live until the call returns; local ones are valid by the caller's
        // promise, remote ones are checked by the kernel.
        let n = unsafe {
            libc::process_vm_readv(
                self.pid,
                local.as_ptr(),
                local.len() as libc::c_ulong,
                remote.as_ptr(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        let Ok(mut left) = usize::try_from(n) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EFAULT) => Ok(0),
                _ => Err(error),
            };
        };
        let mut whole = 0;
        for range in ranges {
            if left < range.len {
                break;
            }
            left -= range.len;
            whole += 1;
        }
        Ok(whole)
    }

    /// Page by page, so that one hole does not hide its neighbours.
    fn read_pages(&self, address: u64, buf: &mut [u8], lost: &mut impl FnMut(u64)) {
        let page = crate::size(crate::PAGE);
        let mut at = address;
        for chunk in buf.chunks_mut(page) {
            if self.read_at(at, chunk).is_err() {
                lost(at);
            }
            at += page as u64;
        }
    }
}
