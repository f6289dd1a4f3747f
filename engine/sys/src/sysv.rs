//! System V shared memory: segments as the kernel lists them, made under the number they had, and
//! removed.
#![allow(unsafe_code)]

use std::{fs, io};

/// Marked in the rights of a segment: it goes with the last that has it attached.
const SHM_DEST: u32 = 0o1000;
const RIGHTS: u32 = 0o777;
const NEXT_ID: &str = "/proc/sys/kernel/shm_next_id";

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Number.
    pub id: i32,
    /// Key, 0 for none.
    pub key: i32,
    /// Bytes.
    pub size: u64,
    /// Rights.
    pub mode: u32,
    /// It goes with the last that has it attached.
    pub removed: bool,
    /// Times it is attached.
    pub attached: u64,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Every segment of our namespace.
///
/// # Errors
/// The kernel has no System V shared memory.
pub fn segments() -> io::Result<Vec<Segment>> {
    let text = crate::procfs::read_text("/proc/sysvipc/shm")?;
    Ok(text.lines().skip(1).filter_map(segment).collect())
}

/// Key, number, rights (octal), size, creator, last, attached, user, group and more.
fn segment(line: &str) -> Option<Segment> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    let id = |at: usize| u32::try_from(number(at)?).ok();
    let mode = u32::from_str_radix(words.get(2)?, 8).ok()?;
    Some(Segment {
        // A key is a bit pattern, which is shown as a signed number.
        key: words.first()?.parse().ok()?,
        id: words.get(1)?.parse().ok()?,
        size: number(3)?,
        mode: mode & RIGHTS,
        removed: mode & SHM_DEST != 0,
        attached: number(6)?,
        uid: id(7)?,
        gid: id(8)?,
    })
}

/// Makes a segment as it was, with nothing in it. When its number was taken meanwhile none is made.
///
/// # Errors
/// EEXIST: its key is another's. EBUSY: so is its number.
pub fn make(was: &Segment) -> io::Result<()> {
    fs::write(NEXT_ID, was.id.to_string())?;
    let rights = was.mode.cast_signed() | libc::IPC_CREAT | libc::IPC_EXCL;
    // SAFETY: plain integers.
    let id = unsafe { libc::shmget(was.key, crate::size(was.size), rights) };
    if id < 0 {
        // What was said of the next number stays so: the kernel takes no word back.
        return Err(io::Error::last_os_error());
    }
    let owned = if id == was.id {
        give(was)
    } else {
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    };
    owned.or_else(|error| remove(id).and(Err(error)))
}

fn give(to: &Segment) -> io::Result<()> {
    // SAFETY: plain numbers may be all zero.
    let mut all: libc::shmid_ds = unsafe { std::mem::zeroed() };
    all.shm_perm.uid = to.uid;
    all.shm_perm.gid = to.gid;
    all.shm_perm.mode = u16::try_from(to.mode & RIGHTS).unwrap_or(0);
    // SAFETY: `all` is a shmid_ds, of which IPC_SET reads owner and rights.
    let ret = unsafe { libc::shmctl(to.id, libc::IPC_SET, &raw mut all) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Marks a segment as removed: it goes with the last that has it attached.
///
/// # Errors
/// EINVAL: there is none.
pub fn remove(id: i32) -> io::Result<()> {
    // SAFETY: IPC_RMID takes no buffer.
    let ret = unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_as_the_kernel_lists_it() {
        let line =
            "-559038737      32771  1640                 5000 12 13      2  99 98  0 0 1 2 3 0 0";
        let expected = Segment {
            id: 32771,
            key: -559_038_737,
            size: 5000,
            mode: 0o640,
            removed: true,
            attached: 2,
            uid: 99,
            gid: 98,
        };
        assert_eq!(segment(line), Some(expected));
        assert_eq!(segment("  key shmid"), None);
    }
}
