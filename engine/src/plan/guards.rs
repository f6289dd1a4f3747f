//! Guards of memory: pages that nobody may touch, madvise(MADV_GUARD_INSTALL) of Linux 6.13.

use sls_keeper::{Arg, Want};
use sls_record::Process;

use super::Steps;
use crate::ranges::{Range, gaps};

const MADV_GUARD_INSTALL: u64 = 102;
const MADV_GUARD_REMOVE: u64 = 103;

/// Takes away those that were not there, before anything is written where they are.
pub fn remove(steps: &mut Steps, from: &Process, to: &Process) {
    for &guard in &from.guards {
        for part in gaps(guard, &to.guards) {
            call(steps, part, MADV_GUARD_REMOVE);
        }
    }
}

/// Puts them where they were: what was mapped anew meanwhile has none.
pub fn install(steps: &mut Steps, to: &Process) {
    for &guard in &to.guards {
        call(steps, guard, MADV_GUARD_INSTALL);
    }
}

fn call(steps: &mut Steps, (start, end): Range, advice: u64) {
    let args = vec![start.into(), (end - start).into(), Arg::Value(advice)];
    let want = Want::Report(format!("guards of memory {start:#x}-{end:#x}"));
    steps.call("guard memory, or no more", libc::SYS_madvise, args, want);
}
