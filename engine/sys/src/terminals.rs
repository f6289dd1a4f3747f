//! Terminals: their modes, their size, and pseudo terminals under a number of choice.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::fd;

/// struct termios2, whole.
const MODES: usize = 44;
/// Terminals that are opened on the way to a number, at most.
const MOST: usize = 1024;

nix::ioctl_read!(get_modes, b'T', 0x2a, [u8; MODES]);
nix::ioctl_write_ptr!(set_modes, b'T', 0x2b, [u8; MODES]);
nix::ioctl_read_bad!(get_window, libc::TIOCGWINSZ, [u16; 4]);
nix::ioctl_write_ptr_bad!(set_window, libc::TIOCSWINSZ, [u16; 4]);
nix::ioctl_read!(get_number, b'T', 0x30, libc::c_uint);
nix::ioctl_write_ptr!(set_lock, b'T', 0x31, libc::c_int);
nix::ioctl_read!(get_packets, b'T', 0x38, libc::c_int);
nix::ioctl_write_ptr_bad!(set_packets, libc::TIOCPKT, libc::c_int);

/// What a terminal's descriptor tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// It is the master of the pseudo terminal of this number.
    pub master: Option<u32>,
    /// struct termios2.
    pub modes: ByteBuf,
    /// struct winsize: rows, columns, and both in pixels.
    pub window: [u16; 4],
    /// A master that is read in packets (TIOCPKT).
    pub packets: bool,
    /// Bytes that wait to be read by way of this descriptor; of a line that is not finished none.
    pub waiting: u32,
}

/// None: it is no terminal.
#[must_use]
pub fn read(fd: BorrowedFd<'_>) -> Option<Terminal> {
    let raw = fd.as_raw_fd();
    let mut modes = [0; MODES];
    let (mut window, mut number, mut packets) = ([0; 4], 0, 0);
    // SAFETY: the kernel writes as many bytes as the type has.
    unsafe { get_modes(raw, &raw mut modes) }.ok()?;
    // SAFETY: as above.
    unsafe { get_window(raw, &raw mut window) }.ok()?;
    // SAFETY: as above; only a master has a number.
    let master = unsafe { get_number(raw, &raw mut number) }.is_ok();
    // SAFETY: as above.
    let packets = unsafe { get_packets(raw, &raw mut packets) }.is_ok() && packets != 0;
    let waiting = fd::queued(fd).ok().and_then(|n| u32::try_from(n).ok());
    Some(Terminal {
        waiting: waiting.unwrap_or(0),
        master: master.then_some(number),
        modes: ByteBuf::from(modes),
        window,
        packets,
    })
}

/// Sets the modes of a terminal, and what a master has besides.
///
/// # Errors
/// It is no terminal.
pub fn set(fd: BorrowedFd<'_>, terminal: &Terminal) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    if let Ok(modes) = <[u8; MODES]>::try_from(&terminal.modes[..]) {
        // SAFETY: the kernel reads as many bytes as the type has.
        unsafe { set_modes(raw, &raw const modes) }?;
    }
    if terminal.master.is_some() {
        let packets = libc::c_int::from(terminal.packets);
        // SAFETY: as above.
        unsafe { set_packets(raw, &raw const packets) }?;
        // SAFETY: as above.
        unsafe { set_window(raw, &raw const terminal.window) }?;
    }
    Ok(())
}

/// The master of a new pseudo terminal of this number. The kernel gives the lowest that is free.
///
/// # Errors
/// Somebody has the number.
pub fn master(number: u32) -> io::Result<OwnedFd> {
    let mut others = Vec::new();
    loop {
        let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
        let mut open = OpenOptions::new();
        let file: File = open
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open("/dev/ptmx")?;
        let (mut got, unlocked) = (0, 0);
        // SAFETY: the kernel writes as many bytes as the type has.
        unsafe { get_number(file.as_raw_fd(), &raw mut got) }?;
        if got == number {
            // SAFETY: the kernel reads as many bytes as the type has.
            unsafe { set_lock(file.as_raw_fd(), &raw const unlocked) }?;
            return Ok(file.into());
        }
        if got > number || others.len() == MOST {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        others.push(file);
    }
}

/// The path of a terminal by its number as /proc/PID/stat has it; None where there is no telling.
#[must_use]
pub fn path(device: u64) -> Option<String> {
    const PSEUDO: u64 = 136;
    const CONSOLE: u64 = 4;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match (major, minor) {
        (PSEUDO, _) => Some(format!("/dev/pts/{minor}")),
        (CONSOLE, 0..64) => Some(format!("/dev/tty{minor}")),
        (CONSOLE, _) => Some(format!("/dev/ttyS{}", minor - 64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_terminal_of_a_number() {
        let first = master_of_any();
        let number = read(first.as_fd()).unwrap().master.unwrap();
        assert!(master(number).is_err(), "it is taken");
        drop(first);
        let again = master(number).unwrap();
        let mut terminal = read(again.as_fd()).unwrap();
        assert_eq!(terminal.master, Some(number));
        let slave = File::open(format!("/dev/pts/{number}")).unwrap();
        assert_eq!(read(slave.as_fd()).unwrap().master, None);
        terminal.modes[12] ^= u8::try_from(libc::ECHO).unwrap();
        (terminal.window, terminal.packets) = ([50, 132, 0, 0], true);
        set(again.as_fd(), &terminal).unwrap();
        assert_eq!(read(again.as_fd()), Some(terminal.clone()));
        assert_eq!(read(slave.as_fd()).unwrap().modes, terminal.modes);
        assert_eq!(read(File::open("/dev/null").unwrap().as_fd()), None);
    }

    fn master_of_any() -> File {
        let mut open = OpenOptions::new();
        open.read(true).write(true).custom_flags(libc::O_NOCTTY);
        open.open("/dev/ptmx").unwrap()
    }

    #[test]
    fn paths() {
        assert_eq!(path(0x8803).as_deref(), Some("/dev/pts/3"));
        assert_eq!(path(0x0440).as_deref(), Some("/dev/ttyS0"));
        assert_eq!(path(0), None);
    }
}
