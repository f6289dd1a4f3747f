//! What the kernel lets be read of, or compared with, a running process by its number alone.
#![allow(unsafe_code)]

use std::io;

use crate::size;

fn done(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Number of RLIMIT_* there are.
const LIMITS: u32 = 16;

/// Soft and hard resource limits of a process, by RLIMIT_* number.
///
/// # Errors
/// EPERM: another user's. ESRCH: it is gone.
pub fn limits(pid: i32) -> io::Result<Vec<(u64, u64)>> {
    (0..LIMITS)
        .map(|which| {
            let mut limit = [0u64; 2];
            // SAFETY: a null new limit, and room for the two words of a struct rlimit64.
            done(unsafe {
                libc::syscall(
                    libc::SYS_prlimit64,
                    pid,
                    which,
                    std::ptr::null::<u64>(),
                    limit.as_mut_ptr(),
                )
            })?;
            Ok((limit[0], limit[1]))
        })
        .collect()
}

/// How a thread is scheduled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Of the real-time policies.
    pub priority: u32,
    /// SCHED_DEADLINE: runtime, deadline, period, ns.
    pub deadline: (u64, u64, u64),
    /// CPUs it may run on, as the kernel's mask.
    pub affinity: Vec<u8>,
}

/// struct sched_attr as of its first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SCHED_ATTR_BYTES: u32 = 48;
/// CPUs the mask has room for: 8192, the most a kernel is built for.
const MASK_BYTES: usize = 1024;

/// Scheduling of a thread.
///
/// # Errors
/// ESRCH: it is gone.
pub fn scheduling(tid: i32) -> io::Result<Scheduling> {
    let mut attr = SchedAttr::default();
    // SAFETY: `attr` is as long as the size that is told.
    done(unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            tid,
            &raw mut attr,
            SCHED_ATTR_BYTES,
            0,
        )
    })?;
    let mut affinity = vec![0u8; MASK_BYTES];
    // SAFETY: the mask is as long as the size that is told.
    let len = done(unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            tid,
            affinity.len(),
            affinity.as_mut_ptr(),
        )
    })?;
    affinity.truncate(size(len.cast_unsigned()));
    Ok(Scheduling {
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        deadline: (attr.runtime, attr.deadline, attr.period),
        affinity,
    })
}

/// struct sched_attr for sched_setattr(2).
#[must_use]
pub fn sched_attr(s: &Scheduling) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(SCHED_ATTR_BYTES.into()));
    out.extend(SCHED_ATTR_BYTES.to_le_bytes());
    out.extend(s.policy.to_le_bytes());
    out.extend(s.flags.to_le_bytes());
    out.extend(s.nice.to_le_bytes());
    out.extend(s.priority.to_le_bytes());
    for ns in [s.deadline.0, s.deadline.1, s.deadline.2] {
        out.extend(ns.to_le_bytes());
    }
    out
}

fn number(pid: i32, name: &str, radix: u32) -> io::Result<i64> {
    let text = crate::procfs::read_text(format!("/proc/{pid}/{name}"))?;
    i64::from_str_radix(text.trim(), radix).map_err(io::Error::other)
}

/// /proc/PID/oom_score_adj.
///
/// # Errors
/// It is gone.
pub fn oom_score_adj(pid: i32) -> io::Result<i32> {
    let value = number(pid, "oom_score_adj", 10)?;
    i32::try_from(value).map_err(io::Error::other)
}

/// personality(2).
///
/// # Errors
/// It is gone, or not ours to look at.
pub fn personality(pid: i32) -> io::Result<u32> {
    let value = number(pid, "personality", 16)?;
    u32::try_from(value).map_err(io::Error::other)
}

/// What kcmp(2) says of the open file descriptions of two descriptors, each of a process: an order
/// that means nothing but equality.
///
/// # Errors
/// EBADF: no such descriptor. EPERM, ESRCH, ENOSYS.
pub fn compare_files(a: (i32, i32), b: (i32, i32)) -> io::Result<std::cmp::Ordering> {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: plain integers.
    match done(unsafe { libc::syscall(libc::SYS_kcmp, a.0, b.0, KCMP_FILE, a.1, b.1) })? {
        0 => Ok(std::cmp::Ordering::Equal),
        1 => Ok(std::cmp::Ordering::Less),
        _ => Ok(std::cmp::Ordering::Greater),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsRawFd;

    #[test]
    fn own() {
        let pid = std::process::id().cast_signed();
        let limits = limits(pid).unwrap();
        assert_eq!(limits.len(), 16);
        assert!(limits.iter().all(|(soft, hard)| soft <= hard));
        let scheduling = scheduling(pid).unwrap();
        assert!(scheduling.affinity.iter().any(|&b| b != 0));
        assert_eq!(sched_attr(&scheduling).len(), 48);
        assert_eq!(personality(pid).unwrap() & 0xff, 0);
        oom_score_adj(pid).unwrap();
    }

    #[test]
    fn a_duplicate_is_the_same_description() {
        let pid = std::process::id().cast_signed();
        let one = fs::File::open("/dev/null").unwrap();
        let same = one.try_clone().unwrap();
        let other = fs::File::open("/dev/null").unwrap();
        let compare = |a: &fs::File, b: &fs::File| {
            compare_files((pid, a.as_raw_fd()), (pid, b.as_raw_fd())).unwrap()
        };
        assert!(compare(&one, &same).is_eq());
        assert!(compare(&one, &other).is_ne());
    }
}
