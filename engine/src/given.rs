//! Descriptors from outside that take the place of what a record names.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use sls_record::{File, Process};
use sls_sys::fd;

/// Of a name so much is shown.
const SHOWN: usize = 80;
const ACCESS_MODE: u32 = libc::O_ACCMODE.cast_unsigned();

/// A descriptor of this process, for each description that was open on something of this name and in
/// a way that this one allows.
#[derive(Debug)]
pub struct Given {
    name: String,
    fd: OwnedFd,
    mode: u32,
}

impl Given {
    /// Takes it from whoever has connected to a Unix socket, under the number it has there.
    ///
    /// # Errors
    /// It has none of this number, or only root may take it. ENOPROTOOPT before Linux 6.5.
    pub fn of_peer(socket: BorrowedFd<'_>, number: i32, name: String) -> io::Result<Self> {
        let fd = fd::of_peer(socket, number)?;
        let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL)?;
        Ok(Self {
            name,
            fd,
            mode: flags.cast_unsigned() & ACCESS_MODE,
        })
    }

    /// Its number in this process.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// CRIU has paths without the first slash.
    fn is_named(&self, file: &File) -> bool {
        let target = &*file.target;
        target == self.name || target.strip_prefix('/') == Some(&*self.name)
    }

    /// Is it for this one?
    pub fn is_for(&self, file: &File) -> bool {
        let wanted = file.flags & ACCESS_MODE;
        let both = libc::O_RDWR.cast_unsigned();
        self.is_named(file) && (self.mode == both || self.mode == wanted)
    }
}

/// Each is for something; else why not.
pub fn check(given: &[Given], all: &[Process]) -> Result<(), String> {
    let files = || all.iter().flat_map(|p| &p.files);
    for given in given {
        // As much as an error needs: a client may say anything.
        let name: String = given.name.chars().take(SHOWN).collect();
        if !files().any(|file| given.is_named(file)) {
            return Err(format!(
                "no descriptor was open on {name}, for which one is given; `slsctl fds` lists them"
            ));
        }
        if !files().any(|file| given.is_for(file)) {
            return Err(format!(
                "what is given for {name} is not open for reading or writing as that was"
            ));
        }
    }
    Ok(())
}
