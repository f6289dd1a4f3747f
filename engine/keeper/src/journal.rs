//! The file of a rewind: how far it came, both plans, and the bytes they write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::Journal;

/// Length of the plans, and the progress.
const HEAD: u64 = 16;
const FORWARD_DONE: u64 = 1;
const BEGUN: u64 = 2;
/// Longest plans that are read.
const LONGEST: u64 = 1 << 30;

/// A journal as it was read.
#[derive(Debug)]
pub struct Read {
    /// The plans.
    pub plans: Journal,
    /// Where the bytes of writes begin.
    pub data_at: u64,
    /// All of the way forward was done, or is when the gate is open.
    pub forward_done: bool,
    /// Something may have been changed. Told of one of several processes only.
    pub begun: bool,
}

/// What comes before the bytes of writes.
///
/// # Errors
/// Plans that cannot be encoded.
pub fn head(plans: &Journal) -> io::Result<Vec<u8>> {
    let plans = postcard::to_stdvec(plans).map_err(io::Error::other)?;
    let mut head = Vec::with_capacity(plans.len() + 16);
    head.extend((plans.len() as u64).to_le_bytes());
    head.extend(0u64.to_le_bytes());
    head.extend(plans);
    Ok(head)
}

/// Reads it.
///
/// # Errors
/// Not a whole journal.
pub fn read(file: &File) -> io::Result<Read> {
    let word = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at)?;
        Ok::<_, io::Error>(u64::from_le_bytes(bytes))
    };
    let len = word(0)?;
    if len > LONGEST {
        return Err(io::Error::other("not a journal"));
    }
    let mut plans = vec![0; sls_sys::size(len)];
    file.read_exact_at(&mut plans, HEAD)?;
    let progress = word(8)?;
    Ok(Read {
        plans: postcard::from_bytes(&plans).map_err(io::Error::other)?,
        data_at: HEAD + len,
        forward_done: progress == FORWARD_DONE,
        begun: progress == FORWARD_DONE || progress == BEGUN,
    })
}

/// Notes that from here on things are changed.
///
/// # Errors
/// It cannot be written.
pub fn note_begun(file: &File) -> io::Result<()> {
    file.write_all_at(&BEGUN.to_le_bytes(), 8)
}

/// Notes that the way forward is done but for the opening of the gate.
///
/// # Errors
/// It cannot be written.
pub fn note_forward_done(file: &File) -> io::Result<()> {
    file.write_all_at(&FORWARD_DONE.to_le_bytes(), 8)
}
