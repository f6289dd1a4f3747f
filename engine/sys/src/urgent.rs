//! First turn on the CPU while a target stands still.
#![allow(unsafe_code)]

/// This thread runs before all ordinary ones until the value is dropped: SCHED_FIFO at its lowest
/// priority. Without the privilege it changes nothing, and the stop takes as long as the load makes
/// it.
#[derive(Debug)]
#[must_use = "it lasts as long as the value"]
pub struct Urgent(());

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
