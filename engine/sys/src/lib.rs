//! All process-related kernel ABI, each call behind a safe function that names its act and subject.
//!
//! Facts and traps the calls rest on are in the comments beside them, with the kernel version they
//! need. Nothing here keeps policy: what to stop, copy or put back is the engine's.

pub mod batch;
pub mod births;
pub mod blocking;
pub mod channel;
pub mod connections;
pub mod cpus;
pub mod descriptors;
pub mod fault;
pub mod fd;
pub mod filters;
pub mod frame;
pub mod handles;
pub mod layer;
pub mod messages;
pub mod missing;
pub mod mqueue;
pub mod namespace;
pub mod pagemap;
pub mod pipes;
pub mod probe;
pub mod procfs;
pub mod ptrace;
pub mod remote;
pub mod repair;
pub mod running;
pub mod shared;
pub mod skeleton;
pub mod smaps;
pub mod sockets;
pub mod sysv;
pub mod terminals;
pub mod uffd;
pub mod unnamed;
pub mod urgent;
pub mod xstate;

pub use remote::RemoteMemory;

use nix::time::ClockId;

/// Bytes of a page on x86-64.
pub const PAGE: u64 = 4096;

/// An address or length of another process as this process's size: both are 64 bits wide on
/// x86-64, the one architecture this crate builds for.
#[allow(clippy::cast_possible_truncation)]
#[must_use]
pub const fn size(n: u64) -> usize {
    n as usize
}

/// CLOCK_MONOTONIC, ns.
#[must_use]
pub fn monotonic() -> u64 {
    now(ClockId::CLOCK_MONOTONIC)
}

/// A moment of [`monotonic`] in CLOCK_BOOTTIME, ns, rather a little later than too early, as long as
/// the machine has not slept since.
#[must_use]
pub fn boottime_of(monotonic_ns: u64) -> u64 {
    let monotonic = monotonic();
    let slept = now(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic);
    monotonic_ns + slept
}

fn now(clock: ClockId) -> u64 {
    nix::time::clock_gettime(clock).map_or(0, |t| {
        t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned()
    })
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("sls-sys knows the x86-64 Linux ABI only");
