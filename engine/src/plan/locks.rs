//! Locks on files: given up where the process had none then, taken where it had one.

use sls_keeper::{Arg, Want};
use sls_record::{File, Lock, LockKind, Process};

use super::files::name_once;
use super::{Steps, int};

const F_OFD_SETLK: i32 = 37;

/// Adds the steps. Last of all that is done to descriptors: closing one gives up the process's locks
/// on its file.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process, is_kept: impl Fn(i32) -> bool) {
    for file in &to.files {
        let was = from.files.iter().find(|f| f.fd == file.fd && is_kept(f.fd));
        let was = was.map_or(&[][..], |f| &f.locks);
        for lock in was.iter().filter(|lock| !file.locks.contains(lock)) {
            set(steps, file, lock, false);
        }
    }
    for file in &to.files {
        // Also those that are there: what went before may have cost them.
        for lock in &file.locks {
            set(steps, file, lock, true);
        }
    }
}

fn set(steps: &mut Steps, file: &File, lock: &Lock, take: bool) {
    let name = format!("lock on {} ({})", file.target, file.fd);
    let what = if take { "take it" } else { "give it up" };
    let command = match lock.kind {
        LockKind::Flock => {
            let operation = match (take, lock.write) {
                (false, _) => libc::LOCK_UN,
                (true, true) => libc::LOCK_EX | libc::LOCK_NB,
                (true, false) => libc::LOCK_SH | libc::LOCK_NB,
            };
            let args = vec![int(file.fd), int(operation)];
            return steps.call(what, libc::SYS_flock, args, Want::Report(name));
        }
        LockKind::Posix => libc::F_SETLK,
        LockKind::OpenFile => F_OFD_SETLK,
        LockKind::Lease => {
            if take {
                name_once(steps, format!("lease on {} ({})", file.target, file.fd));
            }
            return;
        }
    };
    let range = range(lock, take);
    let args = vec![int(file.fd), int(command), Arg::Bytes(range)];
    steps.call(what, libc::SYS_fcntl, args, Want::Report(name));
}

/// struct flock.
fn range(lock: &Lock, take: bool) -> Vec<u8> {
    let kind = match (take, lock.write) {
        (false, _) => libc::F_UNLCK,
        (true, true) => libc::F_WRLCK,
        (true, false) => libc::F_RDLCK,
    };
    let len = lock.end.map_or(0, |end| end - lock.start + 1);
    let mut out = Vec::with_capacity(32);
    out.extend(i16::try_from(kind).unwrap_or_default().to_le_bytes());
    out.extend(
        i16::try_from(libc::SEEK_SET)
            .unwrap_or_default()
            .to_le_bytes(),
    );
    out.extend([0; 4]);
    out.extend(lock.start.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend([0; 8]); // l_pid, which OFD locks want to be 0.
    out
}
