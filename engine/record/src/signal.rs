//! Signals and timers.

use serde::{Deserialize, Serialize};

/// siginfo_t of a pending signal, the kernel's 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigInfo(pub Vec<u8>);

impl SigInfo {
    /// Signal number, 0 when the bytes are too few to hold one.
    #[must_use]
    pub fn signo(&self) -> i32 {
        match self.0.first_chunk::<4>() {
            Some(b) => i32::from_le_bytes(*b),
            None => 0,
        }
    }

    /// It as a signal mask.
    #[must_use]
    pub fn bit(&self) -> u64 {
        let number = self.signo().cast_unsigned();
        1u64.checked_shl(number.wrapping_sub(1)).unwrap_or(0)
    }
}

/// Action of one signal, as rt_sigaction(2) gives it to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigAction {
    /// Signal number.
    pub signo: i32,
    /// Handler address, 0 default, 1 ignore.
    pub handler: u64,
    /// SA_* flags.
    pub flags: u64,
    /// Trampoline.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

/// Signal state of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// Actions that are not the default.
    pub actions: Vec<SigAction>,
    /// Ignored signals, as a mask.
    pub ignored: u64,
    /// Caught signals, as a mask.
    pub caught: u64,
    /// Pending for the whole process.
    pub pending: Vec<SigInfo>,
    /// When `actions` and the timers were read, ns since 1970; earlier than the checkpoint by up
    /// to a second in periodic checkpoints whose masks did not change (docs/limits.md).
    pub as_of_ns: u64,
}

/// sigaltstack(2) of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStack {
    /// Base address.
    pub sp: u64,
    /// SS_* flags.
    pub flags: u32,
    /// Bytes.
    pub size: u64,
}

/// setitimer(2) of a process, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimer {
    /// ITIMER_REAL 0, VIRTUAL 1, PROF 2.
    pub which: u32,
    /// Remaining ns; 0 has rung, and goes on by its period once its signal is taken.
    pub value_ns: u64,
    /// Period ns, 0 for one shot.
    pub interval_ns: u64,
}

/// timer_create(2) timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimer {
    /// Id the program knows it by.
    pub id: i32,
    /// Clock.
    pub clock: i32,
    /// SIGEV_*: 0 signal, 1 none, 4 thread id.
    pub notify: i32,
    /// Signal.
    pub signo: i32,
    /// sigval.
    pub value: u64,
    /// Thread for SIGEV_THREAD_ID.
    pub tid: i32,
    /// Remaining ns, 0 disarmed.
    pub value_ns: u64,
    /// Period ns.
    pub interval_ns: u64,
}
