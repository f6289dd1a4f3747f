//! Protection keys of memory, pkeys(7). What each lets a thread do is in its registers.

use sls_keeper::Want;
use sls_record::{Mapping, Process};

use super::Steps;
use super::mappings::is_fixed;

/// Of a process made anew, which has none: those that some memory has, and all before them.
pub fn allot(steps: &mut Steps, to: &Process) {
    let highest = to.mappings.iter().filter(|m| has_own(m)).map(|m| m.key);
    for key in 1..=highest.max().unwrap_or(0) {
        let want = Want::Report(format!("protection key {key}"));
        let args = vec![0.into(), 0.into()];
        steps.call("allot a key", libc::SYS_pkey_alloc, args, want);
    }
}

/// Gives memory its key, once it has its rights.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) {
    for map in to.mappings.iter().filter(|m| !is_fixed(m)) {
        // What was mapped anew meanwhile has none, whatever it had: so it is given in any case.
        if has_own(map) {
            call(steps, (map.start, map.end), map);
            continue;
        }
        for was in from.mappings.iter().filter(|was| has_own(was)) {
            let part = (was.start.max(map.start), was.end.min(map.end));
            if part.0 < part.1 {
                call(steps, part, map);
            }
        }
    }
}

/// A key that the program has given it: to what can only be executed the kernel gives one by itself.
fn has_own(map: &Mapping) -> bool {
    map.key != 0 && (map.perms.read || map.perms.write || !map.perms.exec)
}

fn call(steps: &mut Steps, (start, end): (u64, u64), map: &Mapping) {
    let key = map.key;
    let args = vec![
        start.into(),
        (end - start).into(),
        map.perms.prot().into(),
        u64::from(key).into(),
    ];
    let name = format!(
        "protection key {key} of memory {start:#x}-{end:#x} {}",
        map.path
    );
    let what = "give memory its key";
    steps.call(what, libc::SYS_pkey_mprotect, args, Want::Report(name));
}
