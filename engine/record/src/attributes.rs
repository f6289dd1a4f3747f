//! Who a process is and what it may do: what neither its memory nor its descriptors hold.

use serde::{Deserialize, Serialize};

/// Where the parts of a program lie that only the kernel keeps track of (`prctl(PR_SET_MM_MAP)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are the kernel's own.
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

/// Credentials, limits and the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Real, effective, saved, file system user.
    pub uids: [u32; 4],
    /// Real, effective, saved, file system group.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Most restrictive seccomp mode of any thread: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Soft and hard resource limits, by RLIMIT_* number.
    pub limits: Vec<(u64, u64)>,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: i32,
    /// personality(2).
    pub personality: u32,
}

/// What prctl(2) tells of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conduct {
    /// PR_SET_DUMPABLE.
    pub dumpable: u32,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// PR_SET_SECUREBITS.
    pub securebits: u32,
    /// PR_SET_THP_DISABLE.
    pub no_huge_pages: bool,
}

/// Seccomp filters that some threads have, or that they have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// The threads.
    pub tids: Vec<i32>,
    /// In the order in which they were set.
    pub programs: Vec<Filter>,
}

/// One seccomp filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// SECCOMP_FILTER_FLAG_LOG.
    pub log: bool,
    /// Instructions, struct sock_filter (8 bytes) each.
    #[serde(with = "serde_bytes")]
    pub code: Vec<u8>,
}

/// Capability sets, as masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// How a thread is scheduled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Priority of the real-time policies.
    pub priority: u32,
    /// Runtime, deadline and period of SCHED_DEADLINE, ns.
    pub deadline: (u64, u64, u64),
    /// CPUs it may run on, as the kernel's mask.
    #[serde(with = "serde_bytes")]
    pub affinity: Vec<u8>,
}
