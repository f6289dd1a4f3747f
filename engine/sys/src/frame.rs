//! Injection that heals itself: a signal frame with a thread's true registers.
//!
//! A thread that makes an injected call has `rip` at a `syscall; ret` found in its own text and
//! `rsp` at the address of a sigreturn trampoline, with the frame behind it. If the tracer dies,
//! the call returns into the trampoline and the frame brings back registers, signal mask and
//! XSAVE image. No code is written, nothing is mapped.
#![allow(unsafe_code)]

use std::io;

use libc::user_regs_struct;

use crate::procfs::MapLine;
use crate::{RemoteMemory, xstate};

/// `syscall; ret`.
const SYSCALL_RET: [u8; 3] = [0x0f, 0x05, 0xc3];
/// `mov $15,%rax; syscall` (glibc) and `mov $15,%eax; syscall` (musl, Go).
const SIGRETURN: [&[u8]; 2] = [
    &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
];
/// `mov $59,%eax; syscall` and `mov $322,%eax; syscall`: where libc calls execve and execveat.
const EXEC: [&[u8]; 2] = [
    &[0xb8, 0x3b, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 0x42, 1, 0, 0, 0x0f, 0x05],
];

const RED_ZONE: u64 = 128;
const UCONTEXT_BYTES: usize = 304;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// Places in a target's text that injection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gadgets {
    /// `syscall; ret`.
    pub syscall: u64,
    /// The sigreturn trampoline.
    pub sigreturn: u64,
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|w| w == pattern)
}

fn text<'a>(
    memory: &'a RemoteMemory,
    maps: &'a [MapLine],
) -> impl Iterator<Item = (u64, Vec<u8>)> + 'a {
    maps.iter()
        .filter(|m| m.exec && m.path != "[vsyscall]")
        .filter_map(|m| {
            let mut bytes = vec![0; crate::size(m.end - m.start)];
            memory
                .read_at(m.start, &mut bytes)
                .ok()
                .map(|()| (m.start, bytes))
        })
}

impl Gadgets {
    /// The `ret` behind the call.
    #[must_use]
    pub fn ret(self) -> u64 {
        self.syscall + 2
    }

    /// Searches the executable mappings; None when the target has no such code.
    #[must_use]
    pub fn find(memory: &RemoteMemory, maps: &[MapLine]) -> Option<Self> {
        let (mut syscall, mut sigreturn) = (None, None);
        for (start, bytes) in text(memory, maps) {
            let at = |pattern| find(&bytes, pattern).map(|i| start + i as u64);
            syscall = syscall.or_else(|| at(&SYSCALL_RET));
            sigreturn = sigreturn.or_else(|| SIGRETURN.iter().find_map(|p| at(p)));
            if let (Some(syscall), Some(sigreturn)) = (syscall, sigreturn) {
                return Some(Self { syscall, sigreturn });
            }
        }
        None
    }
}

/// Addresses of the `syscall` instructions by which libc calls execve and execveat.
#[must_use]
pub fn exec_sites(memory: &RemoteMemory, maps: &[MapLine]) -> Vec<u64> {
    let mut sites = Vec::new();
    for (start, bytes) in text(memory, maps) {
        for pattern in EXEC {
            sites.extend(find(&bytes, pattern).map(|i| start + i as u64 + 5));
        }
    }
    sites
}

/// What a frame brings back.
#[derive(Debug, Clone)]
pub struct Home {
    /// Registers as at the stop.
    pub regs: user_regs_struct,
    /// XSAVE image as NT_X86_XSTATE gave it.
    pub xstate: Vec<u8>,
    /// Signal mask.
    pub sigmask: u64,
    /// Number of the call it was interrupted in, where `regs` do not tell.
    pub nr: Option<u64>,
}

/// A frame ready to be written: `bytes` at `address`, and the stack pointer that makes a `ret`
/// run into it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where the bytes go.
    pub address: u64,
    /// The image.
    pub bytes: Vec<u8>,
    /// rsp of the injected call.
    pub rsp: u64,
}

impl Home {
    /// Lays a frame below `top` (below the red zone of a stack, or the end of a scratch mapping).
    ///
    /// # Errors
    /// An XSAVE image shorter than its legacy part.
    pub fn frame(&self, gadgets: Gadgets, top: u64) -> io::Result<Frame> {
        let image = xstate::frame_bytes();
        if self.xstate.len() < 576 {
            return Err(io::Error::other(format!(
                "XSAVE image of {} bytes",
                self.xstate.len()
            )));
        }
        // From low to high: trampoline address, ucontext, XSAVE image (64-aligned), end magic.
        let fp = (top - RED_ZONE - (image as u64 + 4)) & !63;
        let uc = (fp - UCONTEXT_BYTES as u64 - 64) & !15;
        let rsp = uc - 8;
        let mut bytes = vec![0; crate::size(fp - rsp) + image + 4];
        bytes[..8].copy_from_slice(&gadgets.sigreturn.to_le_bytes());
        bytes[8..8 + UCONTEXT_BYTES].copy_from_slice(&self.ucontext(fp));
        self.floating_point(&mut bytes[crate::size(fp - rsp)..], image);
        Ok(Frame {
            address: rsp,
            bytes,
            rsp,
        })
    }

    /// Registers from which the thread goes on by itself: an interrupted call is made again.
    ///
    /// A call with a restart block starts over with its whole timeout: sigreturn makes the kernel
    /// forget restart blocks and restart_syscall would end in EINTR.
    #[must_use]
    pub fn restarted(&self) -> user_regs_struct {
        let mut r = self.regs;
        let nr = self.nr.unwrap_or(r.orig_rax);
        if r.orig_rax.cast_signed() >= 0 && crate::blocking::is_restart_code(r.rax) {
            r.rip -= 2;
            r.rax = nr;
        } else if self.nr.is_some() && r.rax == crate::blocking::RESTART_SYSCALL {
            r.rax = nr; // Stopped when about to restart.
        }
        r
    }

    fn ucontext(&self, fp: u64) -> [u8; UCONTEXT_BYTES] {
        let r = self.restarted();
        let segments = r.cs & 0xffff | (r.ss & 0xffff) << 48;
        // struct ucontext and struct sigcontext of <asm/ucontext.h>, as 64-bit words.
        let words: [u64; 38] = [
            1 | 2 | 4, // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
            0,         // uc_link
            0,         // ss_sp
            0x40, // ss_flags no kernel knows: sigreturn then leaves the alternate stack as it is
            0,    // ss_size
            r.r8,
            r.r9,
            r.r10,
            r.r11,
            r.r12,
            r.r13,
            r.r14,
            r.r15,
            r.rdi,
            r.rsi,
            r.rbp,
            r.rbx,
            r.rdx,
            r.rax,
            r.rcx,
            r.rsp,
            r.rip,
            r.eflags,
            segments,
            0,
            0,
            0,
            0, // cs..ss, err, trapno, oldmask, cr2
            fp,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // fpstate, reserved[8]
            self.sigmask,
        ];
        let mut out = [0; UCONTEXT_BYTES];
        for (slot, word) in out.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// The image with the software-reserved bytes a frame has, AMX tile data left out: a frame
    /// whose size is not the task's own keeps only the SSE part, in silence.
    fn floating_point(&self, out: &mut [u8], image: usize) {
        let have = self.xstate.len().min(image);
        out[..have].copy_from_slice(&self.xstate[..have]);
        let word = |at: usize| {
            let mut b = [0; 8];
            b.copy_from_slice(&self.xstate[at..at + 8]);
            u64::from_le_bytes(b)
        };
        // sw_reserved starts with the features the kernel enabled for user space (xcr0).
        let features = word(464) & !xstate::TILE_DATA;
        let present = word(512) & !xstate::TILE_DATA;
        let size = u32::try_from(image).unwrap_or(u32::MAX);
        out[464..512].fill(0);
        out[464..468].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
        out[468..472].copy_from_slice(&(size + 4).to_le_bytes());
        out[472..480].copy_from_slice(&features.to_le_bytes());
        out[480..484].copy_from_slice(&size.to_le_bytes());
        out[512..520].copy_from_slice(&present.to_le_bytes());
        out[image..image + 4].copy_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    }
}
