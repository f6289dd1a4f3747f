//! inotify: an instance made again with its watches under the numbers they had.

use std::os::unix::fs::MetadataExt;

use sls_keeper::{Arg, Want};
use sls_record::{File, Watch};

use super::files::{name_once, set_flags};
use super::{Steps, int, path};

/// The path is that of the watched itself, were it a symbolic link.
const DONT_FOLLOW: u32 = libc::IN_DONT_FOLLOW;
/// Numbers count up: so many are used up at most to come to those that were.
const MOST: i32 = 2048;
/// What fits one injected call's argument area, and the events of so many used numbers.
const CHUNK: usize = 4096;
const EVENT: usize = 16;

/// Adds the watches to a new instance under its number, which does not wait. `sure`: whoever adds
/// them may do so.
pub fn watch(steps: &mut Steps, file: &File, watches: &[Watch], waiting: u32, sure: bool) {
    let fd = file.fd;
    if waiting > 0 {
        let line = format!("inotify {fd}: {waiting} bytes of events that waited to be read");
        name_once(steps, line);
    }
    let (mut next, mut used) = (1, 0);
    for watch in watches {
        let gap = watch.number - next;
        let target = match found(watch) {
            Ok(target) if (0..=MOST - used).contains(&gap) => target,
            Ok(target) => {
                name(steps, fd, &target, "its number is too high to be had again");
                continue;
            }
            Err((what, why)) => {
                name(steps, fd, &what, why);
                continue;
            }
        };
        for number in next..watch.number {
            add(steps, file, (&target, watch.mask), number, sure);
            let args = vec![int(fd), int(number)];
            let fine = Want::Or(vec![libc::EINVAL]);
            steps.call("use up a number", libc::SYS_inotify_rm_watch, args, fine);
        }
        used += gap;
        add(steps, file, (&target, watch.mask), watch.number, sure);
        next = watch.number + 1;
    }
    if used > 0 {
        // Each removal is an event of its own.
        let reads = sls_sys::size(used.unsigned_abs().into()) * EVENT / CHUNK + 2;
        for _ in 0..reads {
            let args = vec![int(fd), Arg::Bytes(vec![0; CHUNK]), (CHUNK as u64).into()];
            let want = Want::Or(vec![libc::EAGAIN]);
            steps.call("take what that has told", libc::SYS_read, args, want);
        }
    }
    set_flags(steps, file);
}

/// Where it is, if that is what was watched; else what it was, and why not.
fn found(watch: &Watch) -> Result<String, (String, &'static str)> {
    let Some(path) = &watch.path else {
        let what = format!("inode {}", watch.inode);
        return Err((what, "where it was could not be told"));
    };
    match std::fs::symlink_metadata(path) {
        Ok(meta) if (meta.dev(), meta.ino()) == (watch.dev, watch.inode) => Ok(path.clone()),
        Ok(_) => Err((path.clone(), "another has its name")),
        Err(_) => Err((path.clone(), "it is gone")),
    }
}

fn name(steps: &mut Steps, fd: i32, what: &str, why: &str) {
    let line = format!("inotify {fd}: the watch of {what}: {why}");
    name_once(steps, line);
}

fn add(steps: &mut Steps, file: &File, (target, mask): (&str, u32), number: i32, sure: bool) {
    let mask = Arg::Value(u64::from(mask | DONT_FOLLOW));
    let args = vec![int(file.fd), path(target), mask];
    let want = if sure {
        Want::Exactly(u64::from(number.unsigned_abs()))
    } else {
        Want::Report(format!("inotify {}: the watch of {target}", file.fd))
    };
    steps.call(
        format!("watch {target}"),
        libc::SYS_inotify_add_watch,
        args,
        want,
    );
}
