//! What this kernel and this user can do, probed once by trying, passed on as a value.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::{pagemap, uffd};

/// Capabilities of the machine. Each can be masked to force its fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // One independent yes or no each.
pub struct Probe {
    /// userfaultfd can be created at all.
    pub userfaultfd: bool,
    /// UFFD_FEATURE_WP_ASYNC, Linux 6.7.
    pub wp_async: bool,
    /// PAGEMAP_SCAN, Linux 6.7.
    pub pagemap_scan: bool,
    /// /proc/TID/sched tells when a thread fell asleep.
    pub sched_debug: bool,
    /// Effective user is root.
    pub root: bool,
    /// PTRACE_O_SUSPEND_SECCOMP is ours to use (CAP_SYS_ADMIN).
    pub suspend_seccomp: bool,
    /// kernel.yama.ptrace_scope, 0 without Yama.
    pub ptrace_scope: u8,
}

impl Probe {
    /// Tries everything on this process itself.
    #[must_use]
    pub fn run() -> Self {
        let fd = own_userfaultfd();
        let userfaultfd = fd.is_ok();
        let wp_async = fd.and_then(uffd::WriteProtect::new).is_ok();
        // SAFETY: takes nothing, cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        let pid = std::process::id().cast_signed();
        Self {
            userfaultfd,
            wp_async,
            pagemap_scan: try_scan().is_ok(),
            sched_debug: crate::procfs::last_ran_ns(pid, pid).is_some(),
            root,
            suspend_seccomp: root && has_sys_admin(),
            ptrace_scope: std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
                .ok()
                .and_then(|s| s.trim().parse().ok())
                .unwrap_or(0),
        }
    }

    /// Takes away what `names` lists, separated by commas: `wp_async`, `pagemap_scan`,
    /// `suspend_seccomp`, `sched_debug`. Tests force each fallback this way.
    ///
    /// # Errors
    /// The first name that is none of these.
    pub fn mask(mut self, names: &str) -> Result<Self, String> {
        for name in names.split(',').filter(|n| !n.is_empty()) {
            match name {
                "wp_async" => self.wp_async = false,
                "pagemap_scan" => self.pagemap_scan = false,
                "suspend_seccomp" => self.suspend_seccomp = false,
                "sched_debug" => self.sched_debug = false,
                other => return Err(format!("no capability is called {other:?}")),
            }
        }
        Ok(self)
    }

    /// Can writes be tracked by the kernel, or must pages be compared by content?
    #[must_use]
    pub fn tracks_writes(&self) -> bool {
        self.wp_async && self.pagemap_scan
    }
}

fn own_userfaultfd() -> io::Result<OwnedFd> {
    // SAFETY: plain flags go in, a descriptor or -1 comes out.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, uffd::CREATE_FLAGS) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just returned to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn try_scan() -> io::Result<()> {
    let page = Box::new([1u8; 8192]);
    let at = page.as_ptr() as u64 & !(crate::PAGE - 1);
    let map = File::open("/proc/self/pagemap")?;
    let mut seen = false;
    pagemap::scan(
        &map,
        (at, at + crate::PAGE),
        pagemap::Look::Populated,
        pagemap::Of::Anonymous,
        &mut pagemap::Regions::default(),
        |_| seen = true,
    )?;
    if seen {
        Ok(())
    } else {
        Err(io::Error::other("PAGEMAP_SCAN saw nothing"))
    }
}

fn has_sys_admin() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| {
            let line = s
                .lines()
                .find_map(|l| l.strip_prefix("CapEff:"))?
                .trim()
                .to_owned();
            u64::from_str_radix(&line, 16).ok()
        })
        .is_some_and(|caps| caps & CAP_SYS_ADMIN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_takes_away_what_it_names() {
        let p = Probe::run().mask("wp_async,sched_debug").unwrap();
        assert!(!p.wp_async && !p.tracks_writes() && !p.sched_debug);
        assert!(p.mask("no_such").is_err());
    }
}
