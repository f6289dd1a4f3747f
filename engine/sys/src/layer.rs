//! A layer over everything that is mounted: who is in its mount namespace reads what was there, and writes
//! to memory that goes with the namespace. (overlayfs)
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The layer is kept here until it is the root; nobody looks for files of the old /proc then.
const SCAFFOLD: &str = "/proc";
/// Filesystems that hold no files of anybody's: they stay what they are.
const NO_FILES: [&str; 18] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// One of /proc/self/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u64,
    at: PathBuf,
    kind: String,
    writable: bool,
}

/// Covers everything; this process must be in a mount namespace of its own, which nobody else uses yet. Gives
/// what can be read only from now on, since it takes no layer.
///
/// # Errors
/// The kernel has no overlayfs, or not over the root's filesystem.
pub fn cover() -> io::Result<Vec<String>> {
    let mounts = visible(parse(&fs::read_to_string("/proc/self/mountinfo")?));
    let scaffold = Path::new(SCAFFOLD);
    mount(
        "none",
        Path::new("/"),
        "",
        libc::MS_REC | libc::MS_PRIVATE,
        "",
    )?;
    mount("tmpfs", scaffold, "tmpfs", 0, "mode=0755")?;
    let root = scaffold.join("root");
    fs::create_dir(&root)?;
    lay(Path::new("/"), &root, 0)?;
    let mut read_only = Vec::new();
    for (number, other) in (1..).zip(&mounts) {
        if other.at == Path::new("/") || other.kind == "proc" {
            continue;
        }
        let to = root.join(other.at.strip_prefix("/").unwrap_or(&other.at));
        let is_plain = NO_FILES.contains(&&*other.kind) || !other.writable;
        let is_laid = !is_plain && other.at.is_dir() && lay(&other.at, &to, number).is_ok();
        if is_laid {
            continue;
        }
        // What cannot be mounted there is not there: nothing of it is written to.
        if mount_as(&other.at, &to, "", libc::MS_BIND, "").is_err() {
            continue;
        }
        if !is_plain {
            let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            mount("none", &to, "", flags, "")?;
            read_only.push(other.at.display().to_string());
        }
    }
    become_root(&root)?;
    Ok(read_only)
}

/// A layer over one filesystem, whose part is in the scaffold.
fn lay(lower: &Path, at: &Path, number: u32) -> io::Result<()> {
    let part = |what: &str| Path::new(SCAFFOLD).join(format!("{what}{number}"));
    let (upper, work) = (part("upper"), part("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let meta = fs::metadata(lower)?;
    // The root of the layer has the rights of the upper one.
    fs::set_permissions(&upper, meta.permissions())?;
    std::os::unix::fs::chown(&upper, Some(owner(&meta).0), Some(owner(&meta).1))?;
    let escaped = lower
        .display()
        .to_string()
        .replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,");
    let options = format!(
        "lowerdir={escaped},upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    mount("overlay", at, "overlay", 0, &options)
}

fn owner(meta: &fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (meta.uid(), meta.gid())
}

/// The old root is gone, but for what lies under the layer.
fn become_root(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    // SAFETY: strings that end in null. "." twice: the old root is mounted over the new one, pivot_root(2).
    done(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: a string that ends in null.
    done(unsafe { libc::c_long::from(libc::umount2(c".".as_ptr(), libc::MNT_DETACH)) })?;
    std::env::set_current_dir("/")
}

fn mount(
    source: &str,
    at: &Path,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    mount_as(Path::new(source), at, kind, flags, options)
}

fn mount_as(
    source: &Path,
    at: &Path,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let text = |bytes: &Path| CString::new(bytes.as_os_str().to_owned().into_vec());
    let (source, at) = (text(source)?, text(at)?);
    let (kind, options) = (CString::new(kind)?, CString::new(options)?);
    // SAFETY: strings that end in null, alive for the call.
    done(unsafe {
        libc::c_long::from(libc::mount(
            source.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        ))
    })
}

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Those that can be seen where they are, those above before those below.
fn visible(mut all: Vec<Mount>) -> Vec<Mount> {
    all.retain(|mount| seen_at(&mount.at).is_ok_and(|id| id == mount.id));
    all.sort_by_key(|mount| mount.at.components().count());
    all
}

/// The number of the mount that one finds at a path.
fn seen_at(path: &Path) -> io::Result<u64> {
    let options = fs::File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .clone();
    let file = options.open(path)?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id = id.and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("no mnt_id in fdinfo"))
}

fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let id = fields.next()?.parse().ok()?;
        let mut fields = fields.skip(3);
        let (at, options) = (fields.next()?, fields.next()?);
        let mut after = after.split(' ');
        let (kind, super_options) = (after.next()?, after.nth(1)?);
        let is_writable = |options: &str| options.split(',').any(|option| option == "rw");
        Some(Mount {
            id,
            at: unescaped(at),
            kind: kind.to_owned(),
            writable: is_writable(options) && is_writable(super_options),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Blanks and such are written as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let number = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        match number {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_proc_has_them() {
        let text = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
25 27 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=4k
28 27 0:25 / /mnt/a\\040b ro,nosuid shared:1 master:2 - tmpfs none rw
30 27 0:27 / /dev/shm rw,relatime - tmpfs tmpfs ro
31 27 0:28 / /dev rw - devtmpfs dev rw
";
        let all = parse(text);
        let at = |n: usize| all[n].at.to_str().unwrap();
        assert_eq!((at(0), at(2)), ("/", "/mnt/a b"));
        assert_eq!(
            all.iter().map(|m| m.writable).collect::<Vec<_>>(),
            [true, true, false, false, true]
        );
        assert_eq!(
            all.iter().map(|m| m.id).collect::<Vec<_>>(),
            [27, 25, 28, 30, 31]
        );
        assert_eq!((&*all[0].kind, &*all[4].kind), ("ext4", "devtmpfs"));
    }

    #[test]
    fn what_hides_another_mount_is_seen() {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let seen = visible(parse(&text));
        let mut places: Vec<&Path> = seen.iter().map(|m| &*m.at).collect();
        assert_eq!(places.first(), Some(&Path::new("/")));
        let all = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), all, "one mount at each place");
    }
}
