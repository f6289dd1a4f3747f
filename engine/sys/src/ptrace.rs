//! ptrace as types: calls that need a stopped thread exist only on [`Stopped`], which cannot be
//! copied and is used up by letting go. So ESRCH on it can only mean that the thread died.
//!
//! waitpid is libc's, not nix's: nix answers EINVAL for a stop by a real-time signal and the stop
//! is lost.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use libc::user_regs_struct;

const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;
const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;
const PTRACE_PEEKSIGINFO: libc::c_uint = 0x4209;
const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;
const PEEKSIGINFO_SHARED: u32 = 1;

/// Options of PTRACE_SEIZE.
pub mod option {
    #![allow(missing_docs)]
    pub const SYSGOOD: usize = 1;
    pub const FORK: usize = 1 << 1;
    pub const VFORK: usize = 1 << 2;
    pub const CLONE: usize = 1 << 3;
    pub const EXEC: usize = 1 << 4;
    pub const VFORK_DONE: usize = 1 << 5;
    pub const EXIT: usize = 1 << 6;
    pub const EXITKILL: usize = 1 << 20;
    pub const SUSPEND_SECCOMP: usize = 1 << 21;
}

/// PTRACE_EVENT_* numbers.
pub mod event {
    #![allow(missing_docs)]
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
    pub const VFORK_DONE: i32 = 5;
    pub const EXIT: i32 = 6;
    pub const STOP: i32 = 128;
}

fn call(request: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<libc::c_long> {
    // SAFETY: callers in this file pass `data` that is plain or points at memory of the size the
    // request wants, alive until the call returns.
    let ret = unsafe { libc::ptrace(request, tid, address, data) };
    if ret == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// PTRACE_SEIZE: nothing stops, and if the tracer dies the thread runs on.
///
/// # Errors
/// EPERM: another tracer, not ours to look at, or dead. ESRCH: no such thread.
pub fn seize(tid: i32, options: usize) -> io::Result<()> {
    call(libc::PTRACE_SEIZE, tid, 0, options).map(|_| ())
}

/// PTRACE_INTERRUPT of a seized thread.
///
/// # Errors
/// ESRCH: it died, or is already in a stop that was not waited for.
pub fn interrupt(tid: i32) -> io::Result<()> {
    call(libc::PTRACE_INTERRUPT, tid, 0, 0).map(|_| ())
}

/// Why a thread stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// PTRACE_INTERRUPT, or the first stop of an auto-attached thread.
    Interrupt,
    /// Group stop by this signal.
    Group(i32),
    /// A signal is about to be delivered.
    Signal(i32),
    /// At a system call's entry or exit.
    Syscall,
    /// PTRACE_EVENT_*.
    Event(i32),
}

/// What waitpid said of a thread.
#[derive(Debug)]
pub enum Waited {
    /// It is in a ptrace stop.
    Stopped(Stopped),
    /// It ended, with this wait status.
    Ended(i32, i32),
}

/// waitpid(`tid` or -1, __WALL), without waiting when `block` is false.
///
/// # Errors
/// ECHILD: nothing of the kind is traced by this thread.
pub fn wait(tid: i32, block: bool) -> io::Result<Option<Waited>> {
    let mut status = 0;
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` is an int that outlives the call.
        let got = unsafe { libc::waitpid(tid, &raw mut status, flags) };
        match got {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            tid => return Ok(Some(waited(tid, status))),
        }
    }
}

/// Ends waits that last too long: from its time on SIGALRM comes again and again, so none is missed
/// by coming just before a wait begins.
#[derive(Debug)]
pub struct Alarm(Timer);

impl Alarm {
    const AGAIN: Duration = Duration::from_millis(10);

    /// Takes SIGALRM for this process.
    ///
    /// # Errors
    /// Out of timers.
    pub fn new() -> io::Result<Self> {
        extern "C" fn nothing(_: libc::c_int) {}
        // Without SA_RESTART: that it interrupts is what it is for.
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing at all.
        unsafe { sigaction(Signal::SIGALRM, &action) }?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGALRM);
        set.thread_unblock()?;
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        });
        Ok(Self(Timer::new(ClockId::CLOCK_MONOTONIC, event)?))
    }

    /// Sets it.
    ///
    /// # Errors
    /// None that a caller could act on.
    pub fn arm(&mut self, after: Duration) -> io::Result<()> {
        let after = after.max(Self::AGAIN);
        let when = Expiration::IntervalDelayed(after.into(), Self::AGAIN.into());
        Ok(self.0.set(when, TimerSetTimeFlags::empty())?)
    }

    /// Calls it off.
    ///
    /// # Errors
    /// None that a caller could act on.
    pub fn disarm(&mut self) -> io::Result<()> {
        let never = Expiration::OneShot(Duration::ZERO.into());
        Ok(self.0.set(never, TimerSetTimeFlags::empty())?)
    }
}

/// waitpid(`tid`, __WALL), which an [`Alarm`] interrupts: None then. Who waits for one thread is
/// not woken by the others.
///
/// # Errors
/// ECHILD: it is not traced by this thread, or was replaced by exec.
pub fn wait_for(tid: i32) -> io::Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: `status` is an int that outlives the call.
    match unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
        tid => Ok(Some(waited(tid, status))),
    }
}

fn waited(tid: i32, status: i32) -> Waited {
    if !libc::WIFSTOPPED(status) {
        return Waited::Ended(tid, status);
    }
    let signal = libc::WSTOPSIG(status);
    let why = match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Why::Syscall,
        0 => Why::Signal(signal),
        event::STOP if signal == libc::SIGTRAP => Why::Interrupt,
        event::STOP => Why::Group(signal),
        other => Why::Event(other),
    };
    Waited::Stopped(Stopped { tid, why })
}

/// A thread in a ptrace stop.
#[derive(Debug)]
#[must_use = "a stopped thread stays stopped until it is let go"]
pub struct Stopped {
    tid: i32,
    why: Why,
}

impl Stopped {
    /// Thread id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Why it stopped.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why
    }

    /// General registers.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn regs(&self) -> io::Result<user_regs_struct> {
        // SAFETY: all-zero bytes are a valid user_regs_struct of integers.
        let mut regs: user_regs_struct = unsafe { std::mem::zeroed() };
        let mut iov = iovec((&raw mut regs).cast(), size_of::<user_regs_struct>());
        call(
            libc::PTRACE_GETREGSET,
            self.tid,
            NT_PRSTATUS,
            &raw mut iov as usize,
        )?;
        Ok(regs)
    }

    /// Sets the general registers.
    ///
    /// # Errors
    /// ESRCH: the thread died. EIO or EINVAL: segment registers the kernel refuses.
    pub fn set_regs(&self, regs: &user_regs_struct) -> io::Result<()> {
        let mut iov = iovec(
            (&raw const *regs).cast_mut().cast(),
            size_of::<user_regs_struct>(),
        );
        call(
            libc::PTRACE_SETREGSET,
            self.tid,
            NT_PRSTATUS,
            &raw mut iov as usize,
        )
        .map(|_| ())
    }

    /// XSAVE image into `buf`; its length is what the kernel returned.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn xstate(&self, buf: &mut Vec<u8>) -> io::Result<()> {
        buf.resize(crate::xstate::buffer_bytes(), 0);
        let mut iov = iovec(buf.as_mut_ptr().cast(), buf.len());
        call(
            libc::PTRACE_GETREGSET,
            self.tid,
            NT_X86_XSTATE,
            &raw mut iov as usize,
        )?;
        buf.truncate(iov.iov_len);
        Ok(())
    }

    /// Sets the XSAVE image, which must be as long as [`Stopped::xstate`] gave it.
    ///
    /// # Errors
    /// EFAULT: shorter than the kernel's own. EINVAL: a header it refuses.
    pub fn set_xstate(&self, image: &[u8]) -> io::Result<()> {
        let mut iov = iovec(image.as_ptr().cast_mut().cast(), image.len());
        call(
            libc::PTRACE_SETREGSET,
            self.tid,
            NT_X86_XSTATE,
            &raw mut iov as usize,
        )
        .map(|_| ())
    }

    /// Blocked signals.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn sigmask(&self) -> io::Result<u64> {
        let mut mask = 0u64;
        call(PTRACE_GETSIGMASK, self.tid, 8, &raw mut mask as usize)?;
        Ok(mask)
    }

    /// Sets the blocked signals; the kernel keeps KILL and STOP out.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn set_sigmask(&self, mask: u64) -> io::Result<()> {
        call(PTRACE_SETSIGMASK, self.tid, 8, &raw const mask as usize).map(|_| ())
    }

    /// Pending signals in delivery order, of the thread or `shared` by the process, 128 bytes each.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn pending(&self, shared: bool) -> io::Result<Vec<[u8; 128]>> {
        #[repr(C)]
        struct Args {
            offset: u64,
            flags: u32,
            count: i32,
        }
        const BATCH: usize = 32;
        let mut all = Vec::new();
        loop {
            let args = Args {
                offset: all.len() as u64,
                flags: if shared { PEEKSIGINFO_SHARED } else { 0 },
                count: 32,
            };
            let mut infos = [[0u8; 128]; BATCH];
            let n = call(
                PTRACE_PEEKSIGINFO,
                self.tid,
                &raw const args as usize,
                infos.as_mut_ptr() as usize,
            )?;
            let n = usize::try_from(n).unwrap_or(0).min(BATCH);
            all.extend_from_slice(&infos[..n]);
            if n < BATCH {
                return Ok(all);
            }
        }
    }

    /// siginfo of the signal that is about to be delivered.
    ///
    /// # Errors
    /// EINVAL: not a signal stop.
    pub fn siginfo(&self) -> io::Result<[u8; 128]> {
        let mut info = [0u8; 128];
        call(
            libc::PTRACE_GETSIGINFO,
            self.tid,
            0,
            info.as_mut_ptr() as usize,
        )?;
        Ok(info)
    }

    /// Address, size and signature of the thread's rseq area, None without one.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn rseq(&self) -> io::Result<Option<(u64, u32, u32)>> {
        #[repr(C)]
        #[derive(Default)]
        struct Configuration {
            pointer: u64,
            size: u32,
            signature: u32,
            flags: u32,
            pad: u32,
        }
        let mut c = Configuration::default();
        call(
            PTRACE_GET_RSEQ_CONFIGURATION,
            self.tid,
            size_of::<Configuration>(),
            &raw mut c as usize,
        )?;
        Ok((c.pointer != 0).then_some((c.pointer, c.size, c.signature)))
    }

    /// PTRACE_GETEVENTMSG: new tid, old tid or exit status.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn event_message(&self) -> io::Result<u64> {
        let mut message = 0u64;
        call(
            libc::PTRACE_GETEVENTMSG,
            self.tid,
            0,
            &raw mut message as usize,
        )?;
        Ok(message)
    }

    /// Changes the options it was seized with.
    ///
    /// # Errors
    /// ESRCH: the thread died. EPERM: SUSPEND_SECCOMP without CAP_SYS_ADMIN.
    pub fn set_options(&self, options: usize) -> io::Result<()> {
        call(libc::PTRACE_SETOPTIONS, self.tid, 0, options).map(|_| ())
    }

    /// Reads debug register `index`.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn debug_register(&self, index: usize) -> io::Result<u64> {
        let offset = std::mem::offset_of!(libc::user, u_debugreg) + index * 8;
        let mut value = 0u64;
        // The raw call stores the word at `data`; libc's wrapper returns it instead.
        // SAFETY: PEEKUSER writes one word to `value`.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_ptrace,
                libc::c_long::from(libc::PTRACE_PEEKUSER),
                libc::c_long::from(self.tid),
                offset,
                &raw mut value,
            )
        };
        if ret < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(value)
        }
    }

    /// Writes debug register `index` (0-3 address, 7 control).
    ///
    /// # Errors
    /// EINVAL: an address or control word the kernel refuses. ENOSPC: none left.
    pub fn set_debug_register(&self, index: usize, value: u64) -> io::Result<()> {
        let offset = std::mem::offset_of!(libc::user, u_debugreg) + index * 8;
        call(libc::PTRACE_POKEUSER, self.tid, offset, crate::size(value)).map(|_| ())
    }

    /// Runs on, still traced, with `signal` delivered (0 none).
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn cont(self, signal: i32) -> io::Result<()> {
        call(libc::PTRACE_CONT, self.tid, 0, signal_word(signal)).map(|_| ())
    }

    /// Executes one instruction, still traced. A signal that comes first is a stop of its own.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn step(self) -> io::Result<()> {
        call(libc::PTRACE_SINGLESTEP, self.tid, 0, 0).map(|_| ())
    }

    /// The same stop without its signal, which was the tracer's own doing: whoever lets the thread go
    /// finds none to deliver.
    pub fn without_signal(self) -> Self {
        Self {
            why: Why::Interrupt,
            ..self
        }
    }

    /// Group stop goes on while tracing goes on.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn listen(self) -> io::Result<()> {
        call(libc::PTRACE_LISTEN, self.tid, 0, 0).map(|_| ())
    }

    /// Runs to the next entry or exit of a system call.
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn syscall(self) -> io::Result<()> {
        self.syscall_with(0)
    }

    /// The same, with `signal` delivered (0 none).
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn syscall_with(self, signal: i32) -> io::Result<()> {
        call(libc::PTRACE_SYSCALL, self.tid, 0, signal_word(signal)).map(|_| ())
    }

    /// Lets go, with `signal` delivered (0 none).
    ///
    /// # Errors
    /// ESRCH: the thread died.
    pub fn detach(self, signal: i32) -> io::Result<()> {
        call(libc::PTRACE_DETACH, self.tid, 0, signal_word(signal)).map(|_| ())
    }
}

fn iovec(base: *mut libc::c_void, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: base,
        iov_len: len,
    }
}

fn signal_word(signal: i32) -> usize {
    usize::try_from(signal).unwrap_or(0)
}
