//! Who a process is, what it may do and how it is scheduled, as the kernel tells by its number.

use sls_record::{Attributes, Capabilities, Scheduling};
use sls_sys::procfs::Status;
use sls_sys::running;

/// What cannot be read stays empty, and is then left as it is.
pub fn of_process(pid: i32, status: &Status) -> Attributes {
    let [inheritable, permitted, effective, bounding, ambient] = status.capabilities;
    Attributes {
        uids: status.uids,
        gids: status.gids,
        groups: status.groups.clone(),
        capabilities: Capabilities {
            inheritable,
            permitted,
            effective,
            bounding,
            ambient,
        },
        no_new_privs: status.no_new_privs,
        seccomp: status.seccomp,
        limits: running::limits(pid).unwrap_or_default(),
        oom_score_adj: running::oom_score_adj(pid).unwrap_or_default(),
        personality: running::personality(pid).unwrap_or_default(),
    }
}

/// Of a thread that has ended since: nothing.
pub fn of_thread(tid: i32) -> Scheduling {
    let s = running::scheduling(tid).unwrap_or_default();
    Scheduling {
        policy: s.policy,
        flags: s.flags,
        nice: s.nice,
        priority: s.priority,
        deadline: s.deadline,
        affinity: s.affinity,
    }
}
