//! Memory that is locked (mlock): once it holds what it is to hold.

use sls_keeper::Want;
use sls_record::{Mapping, Process};

use super::Steps;
use super::mappings::is_fixed;

/// Adds the steps.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) {
    let was = |m: &Mapping| -> Vec<(u64, u64)> {
        let locked = from.mappings.iter().filter(|was| was.locked);
        let shared = locked.map(|was| (was.start.max(m.start), was.end.min(m.end)));
        shared.filter(|part| part.0 < part.1).collect()
    };
    for map in to.mappings.iter().filter(|m| !is_fixed(m)) {
        // What was mapped anew meanwhile is not locked, whatever it was: so it is locked in any case.
        if map.locked {
            call(steps, libc::SYS_mlock, (map.start, map.end), map);
        } else {
            for part in was(map) {
                call(steps, libc::SYS_munlock, part, map);
            }
        }
    }
}

fn call(steps: &mut Steps, nr: i64, (start, end): (u64, u64), map: &Mapping) {
    let args = vec![start.into(), (end - start).into()];
    let name = format!("locked memory {start:#x}-{end:#x} {}", map.path);
    steps.call("lock or unlock it", nr, args, Want::Report(name));
}
