//! Sizes of the XSAVE area, by CPUID leaf 0xD: a constant breaks with AMX (11,008 bytes here).
//!
//! Asked once: on a virtual machine each CPUID leaves it, which takes as long as all else that is
//! read of a thread.
#![allow(unsafe_code)]

use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

static BUFFER_BYTES: LazyLock<usize> = LazyLock::new(ask_buffer_bytes);
static FRAME_BYTES: LazyLock<usize> = LazyLock::new(ask_frame_bytes);

/// Bit of AMX tile data in XCR0: a signal frame without the permission must not carry it.
pub const TILE_DATA: u64 = 1 << 18;

/// Upper bound of NT_X86_XSTATE's length, for buffers.
#[must_use]
pub fn buffer_bytes() -> usize {
    *BUFFER_BYTES
}

fn ask_buffer_bytes() -> usize {
    // SAFETY: CPUID exists on every x86-64 machine; reading it has no side effect.
    #[allow(unused_unsafe)]
    let leaf = unsafe { __cpuid_count(0xD, 0) };
    crate::size(u64::from(leaf.ecx.max(leaf.ebx))).max(4096) + 4096
}

/// Bytes of the standard-format area that holds the enabled components except AMX tile data: the
/// size of the floating point part of a signal frame of a task without the AMX permission.
#[must_use]
pub fn frame_bytes() -> usize {
    *FRAME_BYTES
}

fn ask_frame_bytes() -> usize {
    let mut end = 576; // legacy area and XSAVE header
    // SAFETY: as above.
    #[allow(unused_unsafe)]
    let leaf = unsafe { __cpuid_count(0xD, 0) };
    let enabled = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
    for component in 2..63u32 {
        if enabled & (1 << component) == 0 || 1u64 << component == TILE_DATA {
            continue;
        }
        // SAFETY: as above.
        #[allow(unused_unsafe)]
        let part = unsafe { __cpuid_count(0xD, component) };
        end = end.max(crate::size(u64::from(part.ebx) + u64::from(part.eax)));
    }
    end
}

#[cfg(test)]
mod tests {
    #[test]
    fn frame_fits_in_buffer() {
        assert!(super::frame_bytes() >= 576);
        assert!(super::frame_bytes() <= super::buffer_bytes());
    }
}
