//! A process with nothing in it, under a number of choice: what a restore begins with.
//!
//! It is made as a sibling of its maker (CLONE_PARENT), so that whoever started the maker is its
//! parent, and executes one page of code. The maker traces it from before that program begins, with
//! PTRACE_O_EXITKILL: until it is let go it does not outlive its maker.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;

use crate::frame::Gadgets;
use crate::{PAGE, namespace};

/// `syscall; ret`, then `mov $15,%eax; syscall`, then a loop that nobody ever comes to.
const CODE: [u8; 12] = [
    0x0f, 0x05, 0xc3, // syscall; ret
    0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, // mov $15,%eax; syscall
    0xeb, 0xfe, // jmp .
];
const SIGRETURN_AT: u64 = 3;
const LOOP_AT: u64 = 10;
const HEADERS: u64 = 64 + 2 * 56;

/// Code by which calls are injected where the process has no text of its own yet.
#[must_use]
pub fn code() -> &'static [u8] {
    &CODE
}

/// Where the parts of [`code`] are, laid at `address`.
#[must_use]
pub fn gadgets(address: u64) -> Gadgets {
    Gadgets {
        syscall: address,
        sigreturn: address + SIGRETURN_AT,
    }
}

/// An executable of one page that is mapped at `address`.
#[must_use]
pub fn program(address: u64) -> Vec<u8> {
    let mut elf = Vec::with_capacity(crate::size(PAGE));
    let len = HEADERS + CODE.len() as u64;
    // struct elf64_hdr: class, order, version; ET_EXEC, EM_X86_64.
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [address + HEADERS + LOOP_AT, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    // struct elf64_phdr: PT_LOAD, readable and executable; PT_GNU_STACK, not executable.
    for (kind, flags, words) in [
        (1u32, 5u32, [0, address, address, len, len, PAGE]),
        (0x6474_e551, 6, [0; 6]),
    ] {
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        for word in words {
            elf.extend(u64::to_le_bytes(word));
        }
    }
    elf.extend(CODE);
    elf
}

/// Of struct clone_args the part that has set_tid, 80 bytes.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

impl CloneArgs {
    pub(crate) fn new(flags: i32) -> Self {
        Self {
            flags: u64::from(flags.cast_unsigned()),
            ..Self::default()
        }
    }

    fn words(&self) -> [u64; 10] {
        [
            self.flags,
            self.pidfd,
            self.child_tid,
            self.parent_tid,
            self.exit_signal,
            self.stack,
            self.stack_size,
            self.tls,
            self.set_tid,
            self.set_tid_size,
        ]
    }
}

/// struct clone_args for a child of whoever makes the call, a copy of it, whose number lies at
/// `set_tid`. It has the tracer that its maker has, from its first moment on.
#[must_use]
pub fn fork_args(set_tid: u64, exit_signal: i32) -> Vec<u8> {
    let args = CloneArgs {
        flags: u64::from(libc::CLONE_PTRACE.cast_unsigned()),
        exit_signal: u64::from(exit_signal.cast_unsigned()),
        set_tid,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    args.words().iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// struct clone_args for a child of whoever makes the call, in its memory and with none of its signal
/// handlers: one that executes another program before it has come to anything. Its number lies at
/// `set_tid`; it has the tracer that its maker has.
#[must_use]
pub fn child_args(set_tid: u64) -> Vec<u8> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    let flags = libc::CLONE_VM | libc::CLONE_PTRACE;
    let args = CloneArgs {
        flags: u64::from(flags.cast_unsigned()) | CLONE_CLEAR_SIGHAND,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        set_tid,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    args.words().iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Where a process is made that has a PID namespace and mounts of its own, and what it is born with.
#[derive(Debug)]
pub struct Namespace<'a> {
    /// A pidfd of the namespace's init.
    pub init: BorrowedFd<'a>,
    /// A descriptor that it has from its maker, and the number it has that under.
    pub lent: (BorrowedFd<'a>, i32),
    /// It has users of its own.
    pub users: bool,
    /// It has a network of its own, and what else [`namespace::APART`] says.
    pub apart: bool,
}

/// A skeleton that waits to be begun.
#[derive(Debug)]
pub struct Skeleton {
    /// Its number as its maker has it.
    pub pid: i32,
    start: File,
}

impl Skeleton {
    /// Makes it under the number `pid`, which is that of the namespace, its program to be mapped at
    /// `address`.
    ///
    /// # Errors
    /// EEXIST: the number is taken. EPERM: only root (CAP_CHECKPOINT_RESTORE) may choose one.
    pub fn make(pid: i32, address: u64, namespace: Option<&Namespace<'_>>) -> io::Result<Self> {
        let Some(namespace) = namespace else {
            return Self::make_here(pid, address, None);
        };
        let own = File::open("/proc/self/ns/pid")?;
        if namespace.users {
            // For good: its maker may do there what a plain user may not do here.
            setns(namespace.init, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(namespace.init, CloneFlags::CLONE_NEWPID)?;
        let made = Self::make_here(pid, address, Some(namespace));
        if namespace.users {
            return made;
        }
        // Whatever else is made is made where its maker is.
        setns(own, CloneFlags::CLONE_NEWPID)?;
        made
    }

    fn make_here(pid: i32, address: u64, namespace: Option<&Namespace<'_>>) -> io::Result<Self> {
        let program = memfd(&program(address))?;
        let (wait, start) = pipe2(OFlag::O_CLOEXEC)?;
        let set_tid = [pid];
        let args = CloneArgs {
            set_tid: set_tid.as_ptr() as u64,
            set_tid_size: 1,
            ..CloneArgs::new(libc::CLONE_PARENT)
        };
        match clone(&args)? {
            0 => {
                drop(start); // Else its own end would keep it waiting when the maker dies.
                become_program(&program, wait, namespace)
            }
            made => Ok(Self {
                pid: made,
                start: start.into(),
            }),
        }
    }

    /// It executes its program. Dropped instead, it ends.
    ///
    /// # Errors
    /// It was killed.
    pub fn begin(mut self) -> io::Result<()> {
        self.start.write_all(&[1])
    }
}

/// clone3 without CLONE_VM, by a process that has one thread only.
pub(crate) fn clone(args: &CloneArgs) -> io::Result<i32> {
    // SAFETY: this is a fork, by a process whose callers have one thread only; `args` and what it
    // points to live for the call.
    let made = unsafe { libc::syscall(libc::SYS_clone3, args, size_of::<CloneArgs>()) };
    match i32::try_from(made) {
        Ok(made) if made >= 0 => Ok(made),
        _ => Err(io::Error::last_os_error()),
    }
}

fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("sls", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    // Not writable by anybody while it is executed.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(File::open(name)?.into())
}

fn become_program(program: &OwnedFd, wait: OwnedFd, namespace: Option<&Namespace<'_>>) -> ! {
    const EMPTY: &CStr = c"";
    let mut byte = [0];
    let begun = File::from(wait).read_exact(&mut byte).is_ok();
    if begun && namespace.is_none_or(|n| enter(n).is_ok()) {
        let argv = [c"sls".as_ptr(), std::ptr::null()];
        let envp: [*const libc::c_char; 1] = [std::ptr::null()];
        // SAFETY: plain integers; then strings and arrays that end in null, alive for the call.
        unsafe {
            libc::close_range(0, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            if let Some(Namespace {
                lent: (ours, its), ..
            }) = namespace
            {
                libc::dup2(ours.as_raw_fd(), *its);
            }
            libc::syscall(
                libc::SYS_execveat,
                program.as_raw_fd(),
                EMPTY.as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
    }
    // SAFETY: ends this process, running nothing of its maker's.
    unsafe { libc::_exit(127) }
}

/// Its /proc tells of its own namespace from then on.
fn enter(namespace: &Namespace<'_>) -> io::Result<()> {
    let mut kinds = CloneFlags::CLONE_NEWNS;
    if namespace.apart {
        kinds |= CloneFlags::from_bits_truncate(namespace::APART);
    }
    setns(namespace.init, kinds)?;
    if namespace.users {
        namespace::keep_capabilities()?;
    }
    Ok(())
}

/// The wait status of a child that has ended, None while it lives; it is gone for good after this.
///
/// # Errors
/// ECHILD: it is not a child of this process, or was reaped before.
pub fn reap(pid: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: `status` is an int that outlives the call.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => Ok(Some(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_one_page() {
        let at = 0x10_0000_0000;
        let bytes = program(at);
        assert!(bytes.len() as u64 <= PAGE);
        let word = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().unwrap());
        assert_eq!(word(24), at + HEADERS + LOOP_AT);
        assert_eq!(&bytes[crate::size(HEADERS)..], CODE);
    }
}
