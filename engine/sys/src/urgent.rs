//! First turn on the CPU while a target stands still.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write;

/// This thread runs before all ordinary ones until the value is dropped: SCHED_FIFO at its lowest
/// priority. Without the privilege it changes nothing, and the stop takes as long as the load makes
/// it.
#[derive(Debug)]
#[must_use = "it lasts as long as the value"]
pub struct Urgent(());

/// Idle CPUs wait for work without sleeping until the value is dropped (the kernel's PM QoS for CPU
/// latency): on a virtual machine waking one up takes as long as scanning 64 MiB. Root only;
/// without it a stop takes that much longer.
#[derive(Debug)]
#[must_use = "it lasts as long as the value"]
pub struct Awake(#[allow(dead_code, reason = "closing it ends the request")] Option<File>);

impl Awake {
    /// Begins.
    pub fn begin() -> Self {
        let mut file = OpenOptions::new()
            .write(true)
            .open("/dev/cpu_dma_latency")
            .ok();
        let asked = file.as_mut().map(|f| f.write_all(&0i32.to_le_bytes()));
        // A kernel that does not take it is as good as one that has no such file.
        drop(asked);
        Self(file)
    }
}

fn schedule(policy: libc::c_int, priority: libc::c_int) {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `param` outlives the call; thread 0 is the calling one. EPERM is as good as not asked.
    unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
}

impl Urgent {
    /// Begins.
    pub fn begin() -> Self {
        schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1);
        Self(())
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        schedule(libc::SCHED_OTHER, 0);
    }
}
