//! What limits a call that is made again: how long it waits, and what it gives when that is over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::user_regs_struct;
use sls_sys::blocking::{self, Interruptible, Timeout};
use sls_sys::{RemoteMemory, fd};

/// A call's limit.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// How long it waits: from its beginning, or from now where the kernel has written down what
    /// is left.
    pub ns: u64,
    /// Is it what is left?
    pub left: bool,
    /// What the call gives when it is over.
    pub result: i64,
    /// The kernel makes the call again by itself, each time with this whole limit or with one that
    /// does not count the stops: it would never end, or late.
    pub starts_over: bool,
}

/// Where calls are looked at: the process's memory, and its descriptors.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub memory: &'a RemoteMemory,
    pidfd: BorrowedFd<'a>,
}

/// Arguments of the call a thread is in.
pub fn args_of(regs: &user_regs_struct) -> [u64; 6] {
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]
}

impl<'a> Place<'a> {
    pub fn new(memory: &'a RemoteMemory, pidfd: &'a OwnedFd) -> Self {
        let pidfd = pidfd.as_fd();
        Self { memory, pidfd }
    }

    /// The relative limit the call in `regs` was made with, None for ever or for an absolute one.
    pub fn limit(&self, nr: u64, row: Interruptible, regs: &user_regs_struct) -> Option<Limit> {
        let args = args_of(regs);
        let restarts = !blocking::is_interrupted(regs.rax);
        let counted = restarts && blocking::counts_down(nr);
        let limit = |ns| Limit {
            ns,
            left: counted,
            result: row.timed_out,
            starts_over: counted || restarts && blocking::starts_over(nr),
        };
        match row.timeout {
            Timeout::SocketReceive => match self.socket(&args, false) {
                Some(ns) => Some(limit(ns)),
                None => self.terminal(nr, &args).map(|ns| Limit {
                    result: 0,
                    starts_over: true,
                    ..limit(ns)
                }),
            },
            Timeout::SocketSend => {
                let ns = self.socket(&args, true)?;
                let local = nr == libc::SYS_connect.cast_unsigned() && self.is_local(&args);
                let again = -i64::from(libc::EAGAIN);
                let result = if local { again } else { row.timed_out };
                Some(Limit {
                    result,
                    ..limit(ns)
                })
            }
            other => self.ns(other, &args).map(limit),
        }
    }

    fn ns(&self, timeout: Timeout, args: &[u64; 6]) -> Option<u64> {
        const TIMER_ABSTIME: u64 = 1;
        const FUTEX_WAIT: u64 = 0;
        match timeout {
            Timeout::Millis(n) => {
                // An int: the upper half of the register is not part of it.
                let bytes = args[n].to_le_bytes();
                let millis = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                u64::try_from(millis).ok().map(|ms| ms * 1_000_000)
            }
            Timeout::Timespec(n) => self.time(args[n], 1),
            Timeout::Timeval(n) => self.time(args[n], 1000),
            Timeout::Futex => (args[1] & 0x7f == FUTEX_WAIT).then(|| self.time(args[3], 1))?,
            Timeout::ClockSleep => (args[1] & TIMER_ABSTIME == 0).then(|| self.time(args[2], 1))?,
            Timeout::Ring => self.ring(args),
            Timeout::Never | Timeout::SocketReceive | Timeout::SocketSend => None,
        }
    }

    /// Seconds and parts of `unit` ns each at an address.
    fn time(&self, address: u64, unit: u64) -> Option<u64> {
        if address == 0 {
            return None;
        }
        let seconds = self.memory.read_u64(address).ok()?;
        let parts = self.memory.read_u64(address + 8).ok()?;
        let seconds = seconds.checked_mul(1_000_000_000)?;
        seconds.checked_add(parts.checked_mul(unit)?)
    }

    /// struct io_uring_getevents_arg, where the flags say that there is one.
    fn ring(&self, args: &[u64; 6]) -> Option<u64> {
        const EXT_ARG: u64 = 1 << 3;
        const ABS_TIMER: u64 = 1 << 5;
        const EXT_ARG_REG: u64 = 1 << 6;
        if args[3] & (EXT_ARG | ABS_TIMER | EXT_ARG_REG) != EXT_ARG {
            return None;
        }
        self.time(self.memory.read_u64(args[4] + 16).ok()?, 1)
    }

    fn duplicate(&self, args: &[u64; 6]) -> Option<OwnedFd> {
        let number = i32::try_from(args[0]).ok()?;
        fd::pidfd_getfd(self.pidfd, number).ok()
    }

    fn socket(&self, args: &[u64; 6], send: bool) -> Option<u64> {
        fd::socket_timeout(self.duplicate(args)?.as_fd(), send).ok()?
    }

    fn is_local(&self, args: &[u64; 6]) -> bool {
        let socket = self.duplicate(args);
        socket.is_some_and(|socket| fd::is_local_socket(socket.as_fd()))
    }

    /// VTIME of a terminal that is read without VMIN: nothing has come yet, or the read had ended.
    fn terminal(&self, nr: u64, args: &[u64; 6]) -> Option<u64> {
        const READS: [i64; 2] = [libc::SYS_read, libc::SYS_readv];
        if !READS.contains(&nr.cast_signed()) {
            return None;
        }
        fd::terminal_timeout(self.duplicate(args)?.as_fd())
    }

    /// Does for a call that is ended here what the kernel does when its limit is over: the sets of
    /// select are empty, and of its limit nothing is left.
    pub fn nothing_came(&self, nr: u64, args: &[u64; 6]) {
        const SELECTS: [i64; 2] = [libc::SYS_select, libc::SYS_pselect6];
        let nr = nr.cast_signed();
        if SELECTS.contains(&nr) {
            // As many whole words as the kernel writes, of no more descriptors than it takes.
            let empty = vec![0; sls_sys::size(args[0].min(1 << 20).div_ceil(64) * 8)];
            for &set in args[1..4].iter().filter(|&&set| set != 0) {
                // It was read when the call began; where it is gone since there is nobody to tell.
                let _ = self.memory.write_at(set, &empty);
            }
        }
    }

    /// recvmmsg that a stop interrupts with some messages there gives their number and notes the
    /// interruption as an error of the socket (do_recvmmsg in net/socket.c, as of 6.18), which the next
    /// call would give: errno 512. Taken away; no socket has an error like it of its own.
    pub fn take_interruption(&self, regs: &user_regs_struct) {
        const DO_NOT_WAIT: u64 = (libc::MSG_DONTWAIT | libc::MSG_WAITFORONE) as u64;
        let args = args_of(regs);
        let some = (1..args[2] & u64::from(u32::MAX)).contains(&regs.rax);
        if regs.orig_rax == libc::SYS_recvmmsg.cast_unsigned()
            && some
            && args[3] & DO_NOT_WAIT == 0
            && let Some(socket) = self.duplicate(&args)
        {
            fd::take_socket_error(socket.as_fd());
        }
    }
}
