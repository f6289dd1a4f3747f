//! System calls a stop interrupts, and how each goes on.
//!
//! Most restart by themselves. The calls here come back with EINTR although no signal is there
//! (signal(7), "Interruption of system calls"; each seen on 6.18), so the keeper makes them again
//! and remembers when their timeout ends.

/// Missing in libc for x86-64.
const SYS_IO_PGETEVENTS: i64 = 333;

/// restart_syscall(2): what the kernel makes of an interrupted call with a restart block.
pub const RESTART_SYSCALL: u64 = 219;

/// The kernel's own codes for "make the call again": ERESTARTSYS, NOINTR, NOHAND, RESTARTBLOCK.
#[must_use]
pub fn is_restart_code(rax: u64) -> bool {
    matches!(rax.cast_signed(), -516 | -514..=-512)
}

/// ERESTART_RESTARTBLOCK: the kernel keeps the deadline in the thread's restart block.
#[must_use]
pub fn is_restart_block(rax: u64) -> bool {
    rax.cast_signed() == -516
}

/// ERESTARTNOHAND: the kernel makes the call of `orig_rax` again, or ends it with EINTR when a
/// handler runs first.
pub const RESTART_UNLESS_HANDLED: u64 = (-514i64).cast_unsigned();

/// -EINTR.
#[must_use]
pub fn is_interrupted(rax: u64) -> bool {
    rax.cast_signed() == -i64::from(libc::EINTR)
}

/// Where a call's timeout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// It has none.
    Never,
    /// Milliseconds by value in argument `n`; negative waits for ever.
    Millis(usize),
    /// struct timespec, relative, at the address in argument `n`; null waits for ever.
    Timespec(usize),
    /// struct timeval, likewise.
    Timeval(usize),
    /// The socket's SO_RCVTIMEO, a terminal's VTIME; the descriptor is argument 0.
    SocketReceive,
    /// The socket's SO_SNDTIMEO; the descriptor is argument 0.
    SocketSend,
    /// futex: argument 3, relative for FUTEX_WAIT, absolute otherwise.
    Futex,
    /// clock_nanosleep: argument 2, absolute when the flags in argument 1 say so.
    ClockSleep,
    /// io_uring_enter: in the structure at argument 4, when the flags in argument 3 say so.
    Ring,
}

/// How a call behaves under a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interruptible {
    /// Its timeout.
    pub timeout: Timeout,
    /// What it returns when the timeout ends.
    pub timed_out: i64,
}

/// The call's row, for every call that can sleep with a timeout or answers a stop with EINTR.
#[must_use]
pub fn interruptible(nr: u64) -> Option<Interruptible> {
    use Timeout::{
        ClockSleep, Futex, Millis, Never, Ring, SocketReceive, SocketSend, Timespec, Timeval,
    };
    let again = -i64::from(libc::EAGAIN);
    let (timeout, timed_out) = match nr.cast_signed() {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (Millis(3), 0),
        libc::SYS_epoll_pwait2 => (Timespec(3), 0),
        libc::SYS_rt_sigtimedwait => (Timespec(2), again),
        libc::SYS_semop => (Never, again),
        libc::SYS_semtimedop => (Timespec(3), again),
        libc::SYS_io_getevents | SYS_IO_PGETEVENTS => (Timespec(4), 0),
        libc::SYS_io_uring_enter => (Ring, -i64::from(libc::ETIME)),
        libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_accept
        | libc::SYS_accept4 => (SocketReceive, again),
        libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_write
        | libc::SYS_writev => (SocketSend, again),
        libc::SYS_connect => (SocketSend, -i64::from(libc::EINPROGRESS)),
        libc::SYS_nanosleep => (Timespec(0), 0),
        libc::SYS_clock_nanosleep => (ClockSleep, 0),
        libc::SYS_poll => (Millis(2), 0),
        libc::SYS_ppoll => (Timespec(2), 0),
        libc::SYS_select => (Timeval(4), 0),
        libc::SYS_pselect6 => (Timespec(4), 0),
        libc::SYS_futex => (Futex, -i64::from(libc::ETIMEDOUT)),
        _ => return None,
    };
    Some(Interruptible { timeout, timed_out })
}

/// Does the kernel write what is left of the timeout over it when the call is interrupted, to make
/// it again with that (poll_select_finish in fs/select.c)? Where it cannot write the call ends with EINTR.
#[must_use]
pub fn counts_down(nr: u64) -> bool {
    matches!(
        nr.cast_signed(),
        libc::SYS_ppoll | libc::SYS_select | libc::SYS_pselect6
    )
}

/// Does the kernel make the call again with its whole timeout, although it is relative?
#[must_use]
pub fn starts_over(nr: u64) -> bool {
    nr.cast_signed() == SYS_IO_PGETEVENTS
}

/// Where the address of the signal mask is that a call waits under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// In argument `n`.
    At(usize),
    /// In the first word of what argument `n` points at.
    Through(usize),
}

/// The mask a call waits under, for calls that answer a stop with EINTR or are ended by us.
#[must_use]
pub fn mask_argument(nr: u64, args: &[u64; 6]) -> Option<Mask> {
    const EXT_ARG: u64 = 1 << 3;
    Some(match nr.cast_signed() {
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => Mask::At(4),
        libc::SYS_ppoll => Mask::At(3),
        libc::SYS_pselect6 | SYS_IO_PGETEVENTS => Mask::Through(5),
        libc::SYS_io_uring_enter if args[3] & EXT_ARG != 0 => Mask::Through(4),
        libc::SYS_io_uring_enter => Mask::At(4),
        _ => return None,
    })
}

/// The call that a thread inside restart_syscall was first in, by the kernel function it sleeps in
/// (/proc/PID/wchan, as of 6.18) and its arguments; None when that tells nothing.
#[must_use]
pub fn restarted_in(place: &str, args: &[u64; 6]) -> Option<u64> {
    /// Clock numbers are small, pointers are not.
    const LARGEST_CLOCK: u64 = 16;
    let nr = if place.starts_with("poll_schedule") {
        libc::SYS_poll
    } else if place.contains("futex") {
        libc::SYS_futex
    } else if !place.contains("nanosleep") && !place.contains("nsleep") {
        return None;
    } else if args[0] <= LARGEST_CLOCK {
        libc::SYS_clock_nanosleep
    } else {
        libc::SYS_nanosleep
    };
    Some(nr.cast_unsigned())
}

/// Short name of a call a thread may be found blocked in, for people.
#[must_use]
pub fn name(nr: u64) -> &'static str {
    match nr.cast_signed() {
        libc::SYS_read => "read",
        libc::SYS_write => "write",
        libc::SYS_poll => "poll",
        libc::SYS_ppoll => "ppoll",
        libc::SYS_select => "select",
        libc::SYS_pselect6 => "pselect6",
        libc::SYS_epoll_wait => "epoll_wait",
        libc::SYS_epoll_pwait => "epoll_pwait",
        libc::SYS_epoll_pwait2 => "epoll_pwait2",
        libc::SYS_rt_sigtimedwait => "rt_sigtimedwait",
        libc::SYS_rt_sigsuspend => "rt_sigsuspend",
        libc::SYS_pause => "pause",
        libc::SYS_semop => "semop",
        libc::SYS_semtimedop => "semtimedop",
        libc::SYS_msgrcv => "msgrcv",
        libc::SYS_msgsnd => "msgsnd",
        libc::SYS_io_getevents => "io_getevents",
        libc::SYS_io_uring_enter => "io_uring_enter",
        libc::SYS_recvfrom => "recvfrom",
        libc::SYS_recvmsg => "recvmsg",
        libc::SYS_sendto => "sendto",
        libc::SYS_sendmsg => "sendmsg",
        libc::SYS_accept => "accept",
        libc::SYS_accept4 => "accept4",
        libc::SYS_connect => "connect",
        libc::SYS_nanosleep => "nanosleep",
        libc::SYS_clock_nanosleep => "clock_nanosleep",
        libc::SYS_futex => "futex",
        libc::SYS_wait4 => "wait4",
        libc::SYS_waitid => "waitid",
        libc::SYS_flock => "flock",
        libc::SYS_fcntl => "fcntl",
        _ => "system call",
    }
}
