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
    fn commit_begun(partition: u32) {}
    fn sync_begun(partition: u32) {}
    fn sync_done(partition: u32) {}
    fn committed(partition: u32, epoch: u64, pages: u64, bytes: u64) {}
    fn cleaned(segment: u64) {}
}

/// A checkpoint is about to be encoded and appended.
pub fn commit_begun(partition: u32) {
    sls::commit_begun!(|| partition);
}

/// It is written, and about to be made to last: on tmpfs there is nothing to do.
pub fn sync_begun(partition: u32) {
    sls::sync_begun!(|| partition);
}

/// It lasts.
pub fn sync_done(partition: u32) {
    sls::sync_done!(|| partition);
}

/// It is in the history.
pub fn committed(partition: u32, epoch: u64, pages: u64, bytes: u64) {
    sls::committed!(|| (partition, epoch, pages, bytes));
}

/// The cleaner has looked at a segment.
pub fn cleaned(segment: u64) {
    sls::cleaned!(|| segment);
}
