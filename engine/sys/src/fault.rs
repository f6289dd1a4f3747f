//! Steps that fail on purpose, so that a test sees what a failure leaves behind.
//!
//! The variable SLS_FAULT names a file that says `PID N`: step N of the restore of process PID, from
//! 1, fails as if the kernel had refused it with [`ERRNO`]; with 0 for PID a step of the daemon's own.
//! What failed is written into the file, and nothing fails after it.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// EHWPOISON: nothing that a restore asks for fails with it, so nobody makes allowances for it.
pub const ERRNO: i32 = 133;
const FILE: &str = "SLS_FAULT";

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static FAULT: Mutex<Option<Fault>> = Mutex::new(None);

struct Fault {
    file: PathBuf,
    /// Steps until then.
    left: u64,
}

/// As long as this lives, steps count.
#[derive(Debug)]
pub struct Armed(());

/// From here on the steps of this process count, if it is the one that is named.
#[must_use]
pub fn arm(pid: i32) -> Armed {
    set(asked_for(pid));
    Armed(())
}

impl Drop for Armed {
    fn drop(&mut self) {
        set(None);
    }
}

fn asked_for(pid: i32) -> Option<Fault> {
    let file = PathBuf::from(std::env::var_os(FILE)?);
    let text = fs::read_to_string(&file).ok()?;
    let (whose, left) = text.trim().split_once(' ')?;
    let left = left.parse().ok()?;
    (whose.parse() == Ok(pid)).then_some(Fault { file, left })
}

fn set(fault: Option<Fault>) {
    let mut now = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
    IS_ARMED.store(fault.is_some(), Ordering::Relaxed);
    *now = fault;
}

/// A step that may be the one: nothing was done of it then.
///
/// # Errors
/// It is the one.
pub fn point(what: impl Display) -> io::Result<()> {
    if !IS_ARMED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut fault = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(next) = fault.as_mut() else {
        return Ok(());
    };
    next.left = next.left.saturating_sub(1);
    if next.left > 0 {
        return Ok(());
    }
    fs::write(&next.file, what.to_string())?;
    *fault = None;
    Err(io::Error::from_raw_os_error(ERRNO))
}

/// Does a step, or fails instead. The error names it.
///
/// # Errors
/// It failed, on purpose or not.
pub fn step<T>(what: impl Display, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    point(&what)
        .and_then(|()| act())
        .map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}
