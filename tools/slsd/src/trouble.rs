//! What failed, told with what to do about it.

use libsls::protocol::Failure;
use slos::CommitError;
use sls_engine::{AttachError, CaptureError, RestoreError, RewindError};

use crate::registry::Refusal;

/// Why a process was not attached to.
pub fn attach_refusal(error: &AttachError) -> Refusal {
    let kind = match error {
        AttachError::NoProcess(_) | AttachError::Zombie(_) => Failure::NotFound,
        AttachError::Permission { .. } => Failure::Permission,
        _ => Failure::Other,
    };
    Refusal::new(kind, error.to_string())
}

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

/// Why a process was not made anew.
pub fn restore_refusal(error: &RestoreError) -> Refusal {
    match error {
        RestoreError::Taken { .. } => Refusal::new(
            Failure::Exists,
            format!(
                "{error}; end who has it, wait until it is free, or restore with `--pidns`, which gives it the number in a PID namespace of its own"
            ),
        ),
        RestoreError::Objections { .. } => {
            Refusal::other(format!("{error}; `--force` goes on all the same"))
        }
        RestoreError::Read { .. } => Refusal::new(Failure::NotFound, error.to_string()),
        _ => Refusal::other(error),
    }
}
