//! Points where a tracer may listen (USDT, provider `sls`): scripts over them are in dtrace/. Where
//! nobody does each is a look at a counter, and its arguments are not made.
//!
//! `pid` is the first process of a group. Times are not told: a tracer has a clock.

// What usdt makes of a probe: an instruction that does nothing, with its arguments in registers, and a
// read of the counter that tracers raise.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation
)]

#[usdt::provider]
mod sls {
    fn ahead(pid: i32, round: u64, pages: u64) {}
    fn stop_requested(pid: i32) {}
    fn stop_reached(pid: i32) {}
    fn scanned(pid: i32, pages: u64) {}
    fn copied(pid: i32, pages: u64) {}
    fn resumed(pid: i32) {}
    fn recorded(pid: i32, bytes: u64) {}
    fn checkpoint(pid: i32, stop_ns: u64, pages: u64, bytes: u64) {}
    fn rewind_begun(pid: i32, epoch: u64) {}
    fn rewind_saved(pid: i32) {}
    fn rewind_planned(pid: i32, pages: u64) {}
    fn rewind_carried(pid: i32) {}
    fn rewind_done(pid: i32, pages: u64) {}
    fn restore_begun(epoch: u64) {}
    fn restore_born(epoch: u64, processes: u64) {}
    fn restore_planned(epoch: u64) {}
    fn restore_filled(epoch: u64, pages: u64) {}
    fn restore_done(epoch: u64, pages: u64) {}
    fn page_brought(address: u64) {}
}

/// A round of copying while the target runs has found so many pages.
pub fn ahead(pid: i32, round: u64, pages: u64) {
    sls::ahead!(|| (pid, round, pages));
}

/// Everybody is about to be asked to stop.
pub fn stop_requested(pid: i32) {
    sls::stop_requested!(|| pid);
}

/// Everybody stands still.
pub fn stop_reached(pid: i32) {
    sls::stop_reached!(|| pid);
}

/// The final scan of one process has found so many pages, which are counted only for who listens: the
/// process stands still.
pub fn scanned(pid: i32, pages: impl Fn() -> u64) {
    sls::scanned!(|| (pid, pages()));
}

/// So many pages of one process were copied under the stop.
pub fn copied(pid: i32, pages: u64) {
    sls::copied!(|| (pid, pages));
}

/// Everybody runs, or is about to be told to by the keepers.
pub fn resumed(pid: i32) {
    sls::resumed!(|| pid);
}

/// The record is encoded.
pub fn recorded(pid: i32, bytes: u64) {
    sls::recorded!(|| (pid, bytes));
}

/// A checkpoint is in the log.
pub fn checkpoint(pid: i32, stop_ns: u64, pages: u64, bytes: u64) {
    sls::checkpoint!(|| (pid, stop_ns, pages, bytes));
}

/// A rewind begins.
pub fn rewind_begun(pid: i32, epoch: u64) {
    sls::rewind_begun!(|| (pid, epoch));
}

/// The present is kept, and everybody stands still.
pub fn rewind_saved(pid: i32) {
    sls::rewind_saved!(|| pid);
}

/// Both ways are planned and written down.
pub fn rewind_planned(pid: i32, pages: u64) {
    sls::rewind_planned!(|| (pid, pages));
}

/// The keepers have carried the plans through.
pub fn rewind_carried(pid: i32) {
    sls::rewind_carried!(|| pid);
}

/// Everybody runs in the past.
pub fn rewind_done(pid: i32, pages: u64) {
    sls::rewind_done!(|| (pid, pages));
}

/// A restore begins.
pub fn restore_begun(epoch: u64) {
    sls::restore_begun!(|| epoch);
}

/// The skeletons are there.
pub fn restore_born(epoch: u64, processes: u64) {
    sls::restore_born!(|| (epoch, processes));
}

/// The way of each is planned.
pub fn restore_planned(epoch: u64) {
    sls::restore_planned!(|| epoch);
}

/// The pages are in their places, but for those that are brought later.
pub fn restore_filled(epoch: u64, pages: u64) {
    sls::restore_filled!(|| (epoch, pages));
}

/// All run.
pub fn restore_done(epoch: u64, pages: u64) {
    sls::restore_done!(|| (epoch, pages));
}

/// sls-pager has brought the page of an address that somebody waited for.
pub fn page_brought(address: u64) {
    sls::page_brought!(|| address);
}
