//! Who a process is, what it may do and how it is scheduled, as the kernel tells by its number.

use sls_record::{Attributes, Capabilities, Controlling, Layout, Scheduling};
use sls_sys::procfs::{self, Status};
use sls_sys::{running, terminals};

/// What is read while the process runs, and was read before for one that has ended meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    pub exe: String,
    pub auxv: Vec<(u64, u64)>,
    pub layout: Layout,
    pub exit_signal: i32,
    pub terminal: Option<Controlling>,
    limits: Vec<(u64, u64)>,
    oom_score_adj: i32,
    personality: u32,
}

impl Outside {
    /// None: it has ended, and tells no more. What else cannot be read stays empty, and is then left
    /// as it is.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = procfs::stat(pid).ok()?;
        let mut read = Self {
            auxv: procfs::auxv(pid).unwrap_or_default(),
            layout: layout(stat.layout),
            exit_signal: stat.exit_signal,
            terminal: terminals::path(stat.terminal).map(|path| Controlling {
                path,
                foreground: stat.foreground,
            }),
            limits: running::limits(pid).unwrap_or_default(),
            oom_score_adj: running::oom_score_adj(pid).unwrap_or_default(),
            personality: running::personality(pid).unwrap_or_default(),
            ..Self::default()
        };
        // Last: one that ends has lost its program some time before it is dead.
        read.exe = procfs::link(pid, "exe");
        (!read.exe.is_empty()).then_some(read)
    }
}

fn layout(l: procfs::Layout) -> Layout {
    Layout {
        start_code: l.start_code,
        end_code: l.end_code,
        start_data: l.start_data,
        end_data: l.end_data,
        start_brk: l.start_brk,
        start_stack: l.start_stack,
        arg_start: l.arg_start,
        arg_end: l.arg_end,
        env_start: l.env_start,
        env_end: l.env_end,
    }
}

/// As its status and what is told of it besides have it.
pub fn of_process(status: &Status, outside: &Outside) -> Attributes {
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
        limits: outside.limits.clone(),
        oom_score_adj: outside.oom_score_adj,
        personality: outside.personality,
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
