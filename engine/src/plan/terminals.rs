//! Modes of terminals that are still open, and who is in their foreground.

use std::collections::BTreeSet;

use sls_keeper::{Arg, Want};
use sls_record::{FileKind, Process, Terminal};

use super::files::{Table, name_once};
use super::{Steps, int};

/// Of struct termios2; see `sls_sys::terminals`.
const SET_MODES: u64 = 0x402c_542b;
const SIGTTOU: u32 = 22;

/// Puts modes back, a terminal once; names what the process may not change.
pub fn steps(
    steps: &mut Steps,
    (from, to): (&Process, &Process),
    (old, new): (&Table<'_>, &Table<'_>),
    kept: impl Fn(i32) -> bool,
) {
    let mut done = BTreeSet::new();
    for (&fd, file) in new.iter().filter(|(fd, _)| kept(**fd)) {
        let terminal = |kind| match kind {
            &FileKind::Device {
                terminal: Some(ref terminal),
            } => Some(&**terminal),
            _ => None,
        };
        let was = old.get(&fd).and_then(|f| terminal(&f.kind));
        let (Some(was), Some(is)) = (was, terminal(&file.kind)) else {
            continue;
        };
        if was.modes == is.modes || !done.insert(name(&file.target, is)) {
            continue;
        }
        let what = format!("modes of terminal {}", name(&file.target, is));
        if may_change(from, &name(&file.target, is)) {
            let args = vec![int(fd), SET_MODES.into(), Arg::Bytes(is.modes.clone())];
            steps.call(&*what, libc::SYS_ioctl, args, Want::Report(what.clone()));
        } else {
            name_once(steps, what);
        }
    }
    if let (Some(was), Some(is)) = (&from.terminal, &to.terminal)
        && was != is
        && to.sid == to.pid
    {
        let (group, path) = (is.foreground, &is.path);
        name_once(
            steps,
            format!("process group {group} in the foreground of {path}"),
        );
    }
}

/// Master and slave are one terminal.
fn name(target: &str, terminal: &Terminal) -> String {
    match terminal.master {
        Some(number) => format!("/dev/pts/{number}"),
        None => target.to_owned(),
    }
}

/// One in the background of its terminal would be stopped for it.
fn may_change(process: &Process, path: &str) -> bool {
    let own = process.terminal.as_ref().filter(|t| t.path == path);
    let ignores = process.signals.ignored >> (SIGTTOU - 1) & 1 == 1;
    ignores || own.is_none_or(|t| t.foreground == process.pgid)
}
