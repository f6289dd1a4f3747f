//! What this machine supports, with the remedy where it does not.

use libsls::protocol::CheckRow;
use sls_engine::Probe;

fn row(name: &str, ok: bool, effect: &str, remedy: &str) -> CheckRow {
    CheckRow {
        name: name.to_owned(),
        ok,
        effect: effect.to_owned(),
        remedy: (!ok).then(|| remedy.to_owned()),
    }
}

/// One row a capability.
pub fn rows(probe: &Probe) -> Vec<CheckRow> {
    let scope = probe.root || probe.ptrace_scope == 0;
    vec![
        row(
            "userfaultfd",
            probe.userfaultfd,
            "writes can be tracked at all",
            "a kernel with CONFIG_USERFAULTFD, and a seccomp policy that lets it through",
        ),
        row(
            "asynchronous write protection (WP_ASYNC)",
            probe.wp_async,
            "changed pages are found without stopping the target; else every page is compared by content",
            "Linux 6.7 or newer",
        ),
        row(
            "PAGEMAP_SCAN",
            probe.pagemap_scan,
            "changed pages are found in one walk; else every page is compared by content",
            "Linux 6.7 or newer",
        ),
        row(
            "scheduler statistics (/proc/TID/sched)",
            probe.sched_debug,
            "a timeout that a stop interrupts ends on time at the first stop too",
            "a kernel with CONFIG_SCHED_DEBUG",
        ),
        row(
            "suspending seccomp",
            probe.suspend_seccomp,
            "targets under a seccomp filter are tracked by the kernel; else by content",
            "run slsd as root (CAP_SYS_ADMIN)",
        ),
        row(
            "root",
            probe.root,
            "processes of every user can be attached to, ended threads made again under their ids",
            "run slsd as root, or attach to this user's own processes only",
        ),
        row(
            "ptrace between own processes",
            scope,
            "running processes can be attached to",
            "sysctl kernel.yama.ptrace_scope=0",
        ),
    ]
}
