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
    fn asked() {}
    fn answered() {}
    fn flush_begun(first: u64, last: u64) {}
    fn flush_done(last: u64) {}
}

/// A client's request is about to be carried out, by the thread that answers it as well.
pub fn asked() {
    sls::asked!(|| ());
}

/// It was answered.
pub fn answered() {
    sls::answered!(|| ());
}

/// Checkpoints are about to be brought to a partition's store.
pub fn flush_begun(first: u64, last: u64) {
    sls::flush_begun!(|| (first, last));
}

/// They last there.
pub fn flush_done(last: u64) {
    sls::flush_done!(|| last);
}
