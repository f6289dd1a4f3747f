//! Keepers of an earlier slsd: they stay for calls whose timeouts they have to keep, and have a thread
//! for a moment when one is due.

use sls_sys::procfs;

/// Has nobody the process but a keeper of ours, which nobody asks for it any more, or one whose
/// slsd was killed?
#[must_use]
pub fn is_being_let_go(pid: i32) -> bool {
    let own = std::process::id().cast_signed();
    let lets_go = |tracer: i32| {
        procfs::status(tracer).is_ok_and(|keeper| {
            let orphan = || procfs::status(keeper.ppid).is_ok_and(|parent| parent.name != "slsd");
            keeper.name == "sls-keeper" && (keeper.ppid == own || orphan())
        })
    };
    let threads = procfs::tasks(pid).unwrap_or_default();
    let mut tracers = threads
        .into_iter()
        .filter_map(|tid| procfs::status(tid).ok());
    tracers.all(|thread| thread.tracer == 0 || lets_go(thread.tracer))
}
