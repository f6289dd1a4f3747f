//! Seccomp filters of a stopped thread, as the kernel tells them to a tracer with CAP_SYS_ADMIN
//! (CONFIG_CHECKPOINT_RESTORE).
#![allow(unsafe_code)]

use std::io;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ptrace::Stopped;

const GET_FILTER: libc::c_uint = 0x420c;
const GET_METADATA: libc::c_uint = 0x420d;
const LOG: u64 = 2;
/// struct sock_filter.
const INSTRUCTION: usize = 8;

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// SECCOMP_FILTER_FLAG_LOG.
    pub log: bool,
    /// Its instructions, struct sock_filter each.
    pub code: ByteBuf,
}

/// Adds those to the filters of a thread that it has set since they were read; none ever goes. The
/// first set comes first.
///
/// # Errors
/// EACCES: this process runs under a filter itself, or lacks CAP_SYS_ADMIN. EMEDIUMTYPE: one that
/// has no instructions of its own.
pub fn read(stopped: &Stopped, known: &mut Vec<Program>) -> io::Result<()> {
    while let Some(program) = one(stopped.tid(), known.len())? {
        known.push(program);
    }
    Ok(())
}

fn one(tid: i32, index: usize) -> io::Result<Option<Program>> {
    let ask = |request, address: usize, data: usize| {
        // SAFETY: `data` is null, or points at as much memory as the request wants, which is alive
        // until the call returns.
        let ret = unsafe { libc::ptrace(request, tid, address, data) };
        usize::try_from(ret).map_err(|_| io::Error::last_os_error())
    };
    let instructions = match ask(GET_FILTER, index, 0) {
        Ok(count) => count,
        // No filter at all, or no more.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut code = vec![0u8; instructions * INSTRUCTION];
    ask(GET_FILTER, index, code.as_mut_ptr() as usize)?;
    // struct seccomp_metadata: index, flags.
    let mut metadata = [index as u64, 0];
    ask(
        GET_METADATA,
        size_of_val(&metadata),
        metadata.as_mut_ptr() as usize,
    )?;
    Ok(Some(Program {
        log: metadata[1] & LOG != 0,
        code: ByteBuf::from(code),
    }))
}
