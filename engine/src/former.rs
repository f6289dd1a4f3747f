//! Keepers of an earlier slsd: they stay for calls whose timeouts they have to keep, and have a thread
//! for a moment when one is due.

use std::time::{Duration, Instant};

use sls_keeper::Refusal;
use sls_sys::procfs;

use crate::error::KeeperError;

/// An earlier slsd's keeper has a thread for some 100 us at a time.
const STEP: Duration = Duration::from_millis(2);
/// One that is letting go has so long.
pub const LONG: Duration = Duration::from_secs(2);

/// Has nobody the process but a keeper of ours, which nobody asks for it any more, or one whose
/// slsd was killed?
fn is_being_let_go(pid: i32) -> bool {
    let own = std::process::id().cast_signed();
    let lets_go = |tracer: i32| {
        // One that has just gone has let go of everything.
        procfs::status(tracer).map_or(true, |keeper| {
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

/// Tries again for so long as it is refused because an earlier keeper has the process for a moment.
pub fn patiently<T, E>(
    pid: i32,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
    is_traced: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(error)
                if is_traced(&error) && is_being_let_go(pid) && Instant::now() < deadline =>
            {
                std::thread::sleep(STEP);
            }
            other => return other,
        }
    }
}

/// Is that why a keeper refused?
pub fn is_traced(error: &KeeperError) -> bool {
    error.refusal() == Some(Refusal::Traced)
}
