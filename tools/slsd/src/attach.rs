//! Taking a process under control, also where an earlier keeper has not quite let go of it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use libsls::protocol::Failure;
use sls_engine::{AttachError, Options, Target, is_being_let_go};

use crate::registry::Refusal;

/// A keeper that is letting go has so long.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(5);

/// Attaches; with the process comes a descriptor that is readable once it has ended.
pub fn attach(pid: i32, options: &Options) -> Result<(Target, OwnedFd), Refusal> {
    let target = attach_in_time(pid, options).map_err(|e| attach_refusal(&e))?;
    match life_of(&target) {
        Ok(life) => Ok((target, life)),
        Err(refusal) => {
            target.detach();
            Err(refusal)
        }
    }
}

fn attach_in_time(pid: i32, options: &Options) -> Result<Target, AttachError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Target::attach(pid, options.clone()) {
            Err(AttachError::Traced(_)) if is_being_let_go(pid) && Instant::now() < deadline => {
                std::thread::sleep(STEP);
            }
            other => return other,
        }
    }
}

/// A descriptor that is readable once the process has ended.
fn life_of(target: &Target) -> Result<OwnedFd, Refusal> {
    let ended = || {
        Refusal::new(
            Failure::NotFound,
            format!("process {} has ended", target.pid()),
        )
    };
    let life = life(target.pid()).map_err(|_| ended())?;
    // The number may be another process's by now.
    if target.is_dead() {
        return Err(ended());
    }
    Ok(life)
}

/// A descriptor that is readable once whoever has the number has ended.
pub fn life(pid: i32) -> std::io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(std::io::ErrorKind::NotFound)?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

fn attach_refusal(error: &AttachError) -> Refusal {
    let kind = match error {
        AttachError::NoProcess(_) | AttachError::Zombie(_) => Failure::NotFound,
        AttachError::Permission { .. } => Failure::Permission,
        _ => Failure::Other,
    };
    Refusal::new(kind, error.to_string())
}
