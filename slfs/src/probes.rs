//! Points where a tracer may listen (USDT, provider `sls`): scripts over them are in dtrace/.

// What usdt makes of a probe: an instruction that does nothing, with its arguments in registers, and a
// read of the counter that tracers raise.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation
)]

#[usdt::provider]
mod sls {
    fn operation_begun(operation: u32) {}
    fn operation_done(operation: u32) {}
}

/// What the kernel asks of a mount, by the opcodes of include/uapi/linux/fuse.h.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    Lookup = 1,
    Forget = 2,
    Getattr = 3,
    Readlink = 5,
    Open = 14,
    Read = 15,
    Readdir = 28,
}

/// It is about to be answered. Not inlined, so that there is one place to listen at.
#[inline(never)]
pub fn begun(operation: Operation) {
    sls::operation_begun!(|| operation as u32);
}

/// It was.
#[inline(never)]
pub fn done(operation: Operation) {
    sls::operation_done!(|| operation as u32);
}
