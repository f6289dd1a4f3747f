//! What failed, told with what to do about it.

use slos::CommitError;
use sls_engine::{CaptureError, RewindError};

/// Why a checkpoint was not taken.
pub fn of_capture(error: &CaptureError) -> String {
    match error {
        CaptureError::Commit {
            source: CommitError::Write(source),
            ..
        } if source.is_full() => format!(
            "{error}; /dev/shm is full: make room there, or remove a history with `slsctl partdel`"
        ),
        _ => error.to_string(),
    }
}

/// Why a rewind was not done.
pub fn of_rewind(error: &RewindError) -> String {
    match error {
        RewindError::Capture(error) => of_capture(error),
        _ => error.to_string(),
    }
}
