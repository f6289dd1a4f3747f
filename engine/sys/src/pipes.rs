//! Pipes: what one holds and may hold, looked at without taking anything out.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::fd::queued;

/// What a new pipe may hold.
const USUAL: i32 = 65536;

/// A pipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe {
    /// Bytes it may hold (F_GETPIPE_SZ).
    pub capacity: u32,
    /// What waits in it.
    pub bytes: ByteBuf,
    /// Lengths of the packets that wait (O_DIRECT), when it is more than one.
    pub packets: Vec<u32>,
}

/// Copies what a pipe holds without taking it out: tee(2) into a pipe of our own, which has as many
/// slots, so that each packet finds one.
///
/// # Errors
/// EBADF when `read_end` is not a pipe's.
pub fn look(read_end: BorrowedFd<'_>) -> io::Result<Pipe> {
    let capacity = fcntl(read_end, FcntlArg::F_GETPIPE_SZ)?;
    let want = queued(read_end)?;
    let mut pipe = Pipe {
        capacity: capacity.cast_unsigned(),
        ..Pipe::default()
    };
    if want == 0 {
        return Ok(pipe);
    }
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    if capacity != USUAL {
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity))?;
    }
    // SAFETY: tee moves no memory of ours.
    let n = unsafe {
        libc::tee(
            read_end.as_raw_fd(),
            writer.as_fd().as_raw_fd(),
            usize::MAX >> 1,
            libc::SPLICE_F_NONBLOCK,
        )
    };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    drop(writer);
    let mut bytes = vec![0; want];
    let mut reader = File::from(reader);
    let mut at = 0;
    // A read ends with the packet it meets, and only there.
    loop {
        let n = reader.read(&mut bytes[at..])?;
        if n == 0 {
            break;
        }
        at += n;
        pipe.packets.push(u32::try_from(n).unwrap_or(u32::MAX));
    }
    if at < want {
        let short = format!("{want} bytes queued, {at} could be read");
        return Err(io::Error::other(short));
    }
    if pipe.packets.len() == 1 {
        pipe.packets.clear();
    }
    pipe.bytes = ByteBuf::from(bytes);
    Ok(pipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe2, read, write};

    #[test]
    fn packets_stay_apart_and_stay_there() {
        let (r, w) = pipe2(OFlag::O_DIRECT | OFlag::O_CLOEXEC).unwrap();
        for packet in [&b"one"[..], b"and", b"another"] {
            write(&w, packet).unwrap();
        }
        let seen = look(r.as_fd()).unwrap();
        assert_eq!(seen.bytes[..], b"oneandanother"[..]);
        assert_eq!(seen.packets, [3, 3, 7]);
        let mut first = [0; 100];
        assert_eq!(read(&r, &mut first).unwrap(), 3);
    }

    #[test]
    fn bytes_are_no_packets_however_they_were_written() {
        let (r, w) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&w, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
        for _ in 0..40 {
            write(&w, &[7; 5000]).unwrap();
        }
        let seen = look(r.as_fd()).unwrap();
        assert_eq!((seen.capacity, seen.bytes.len()), (1 << 20, 200_000));
        assert_eq!(seen.packets, [0; 0]);
    }
}
