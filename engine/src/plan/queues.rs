//! POSIX message queues: opened by name. One that is gone is made again, and is empty.

use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use sls_keeper::{Arg, Want};
use sls_record::{File, FileKind, MessageQueue};
use sls_sys::mqueue;

use super::files::name_once;
use super::opening::DELETED;
use super::{Steps, int, path};

/// Opens it, saved as 0. `is_apart`: among the queues of a namespace of their own, where it is not.
/// Err: why it cannot be had.
pub fn open(
    steps: &mut Steps,
    what: &str,
    (file, queue): (&File, &MessageQueue),
    flags: i32,
    is_apart: bool,
) -> Result<(), String> {
    let named = file.target.strip_suffix(DELETED);
    let name = match named {
        // Nobody has a name like that; it is taken away at once.
        Some(_) => format!("sls-{}-{}", file.inode, file.fd),
        None => file.target.trim_start_matches('/').to_owned(),
    };
    let flags = flags & (libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let waited = queue.waiting;
    let is = (named.is_none() && !is_apart).then(|| mqueue::open(&name).ok());
    if let Some(is) = is.flatten() {
        let inode = fstat(&is).map_err(|e| e.to_string())?.st_ino;
        if inode != file.inode {
            return Err("another message queue has its name".to_owned());
        }
        let waits = mqueue::read(is.as_fd()).map_err(|e| e.to_string())?.waiting;
        stays(steps, &name, waits, waited);
        let args = vec![path(&name), int(flags), 0.into(), 0.into()];
        steps.call(what, libc::SYS_mq_open, args, Want::Save(0));
        return Ok(());
    }
    if waited > 0 {
        let line = format!("message queue {name}: it is made again, without the messages");
        name_once(steps, line);
    }
    let attributes = mqueue::attributes(queue.capacity, queue.longest);
    let args = vec![
        path(&name),
        int(flags | libc::O_CREAT),
        u64::from(queue.mode).into(),
        Arg::Bytes(attributes),
    ];
    steps.call(what, libc::SYS_mq_open, args, Want::Save(0));
    // Whatever its umask is.
    let args = vec![Arg::Saved(0), u64::from(queue.mode).into()];
    steps.call(what, libc::SYS_fchmod, args, Want::Success);
    let args = vec![
        Arg::Saved(0),
        u64::from(queue.uid).into(),
        u64::from(queue.gid).into(),
    ];
    let want = Want::Report(format!("owner of message queue {name}"));
    steps.call(what, libc::SYS_fchown, args, want);
    if named.is_some() {
        let args = vec![path(&name)];
        steps.call(what, libc::SYS_mq_unlink, args, Want::Success);
    }
    Ok(())
}

/// Names those that stay open, and in which another number of messages waits now.
pub fn kept(steps: &mut Steps, kept: &[&File], now: &[File]) {
    let waiting = |file: &File| match &file.kind {
        FileKind::MessageQueue(queue) => Some(queue.waiting),
        _ => None,
    };
    for file in kept {
        let now = now.iter().find(|now| now.fd == file.fd).and_then(waiting);
        if let (Some(now), Some(then)) = (now, waiting(file)) {
            stays(steps, file.target.trim_start_matches('/'), now, then);
        }
    }
}

fn stays(steps: &mut Steps, name: &str, now: u32, then: u32) {
    if now != then {
        let line = format!(
            "message queue {name}: what was sent and received since stays so ({then} messages waited then, {now} now)"
        );
        name_once(steps, line);
    }
}
