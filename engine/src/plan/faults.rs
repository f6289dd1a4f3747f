//! A userfaultfd of the target's own: when a rewind can work around it, and what stays as it is.

use sls_record::{File, Process};
use sls_sys::uffd;

use super::Steps;

pub fn is_userfaultfd(file: &File) -> bool {
    file.target == uffd::Own::LINK
}

/// Refuses what the keeper would wait for in vain: nobody in a stopped target answers. `brought`: an
/// address, if any, at which a userfaultfd brings missing pages.
pub fn refuse(now: &Process, brought: Option<u64>) -> Result<(), String> {
    let pid = now.pid;
    let mut own = now.files.iter().filter(|f| is_userfaultfd(f)).peekable();
    if let (Some(at), None) = (brought, own.peek()) {
        return Err(format!(
            "the memory at {at:#x} waits for pages from a userfaultfd that another process has"
        ));
    }
    for file in own {
        if uffd::is_told(pid, file.fd).unwrap_or(true) {
            return Err(format!(
                "userfaultfd {} wants to be told when memory is unmapped (UFFD_FEATURE_EVENT_*), and a stopped process does not listen",
                file.fd
            ));
        }
    }
    Ok(())
}

/// What the kernel keeps of it cannot be read, nor be put back.
pub fn name(steps: &mut Steps, fd: i32) {
    steps.not_restored.push(format!(
        "userfaultfd {fd}: which ranges it watches, which pages it protects and what it was told since stay so"
    ));
}
