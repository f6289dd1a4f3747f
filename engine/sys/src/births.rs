//! Which process and thread ids were given since: the cheap way to know that nothing was born.
//!
//! Ids are given one after the other, and the kernel tells the last one. So whoever was made since a
//! look lies between then and now, whoever its parent is by now. Ids that were asked for by
//! clone3(set_tid) or by writing ns_last_pid are not in between; only restorers do that.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// First id that is given after the last possible one (RESERVED_PIDS).
const FIRST_AGAIN: i32 = 300;
/// Where ids end when the kernel does not say.
const USUAL_END: i32 = 1 << 15;

/// Tells the last id given in this process's pid namespace, in which everything has one that can be
/// seen from it at all.
#[derive(Debug)]
pub struct Births {
    file: File,
    /// The last word of the line, not the first.
    in_loadavg: bool,
    /// First id that is never given.
    end: i32,
}

impl Births {
    /// Opens what tells it.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn open() -> io::Result<Self> {
        // Needs CONFIG_CHECKPOINT_RESTORE. The other is there always, but containers may fake it.
        let (file, in_loadavg) = match File::open("/proc/sys/kernel/ns_last_pid") {
            Ok(file) => (file, false),
            Err(_) => (File::open("/proc/loadavg")?, true),
        };
        let end = std::fs::read_to_string("/proc/sys/kernel/pid_max");
        let end = end.ok().and_then(|text| text.trim().parse().ok());
        Ok(Self {
            file,
            in_loadavg,
            end: end.unwrap_or(USUAL_END),
        })
    }

    /// The last id given.
    ///
    /// # Errors
    /// It does not read as expected.
    pub fn last(&self) -> io::Result<i32> {
        let mut text = [0; 128];
        let len = self.file.read_at(&mut text, 0)?;
        let text = std::str::from_utf8(&text[..len]).unwrap_or_default();
        let word = if self.in_loadavg {
            text.split_whitespace().next_back()
        } else {
            text.split_whitespace().next()
        };
        word.and_then(|word| word.parse().ok())
            .ok_or_else(|| io::Error::other(format!("the last process id reads as {text:?}")))
    }

    /// Ids that may have been given after `then` up to `now`, the oldest first.
    pub fn between(&self, then: i32, now: i32) -> impl Iterator<Item = i32> + use<> {
        let (until, again) = if now >= then {
            (now, 0..0)
        } else {
            (self.end - 1, FIRST_AGAIN..now + 1)
        };
        (then + 1..=until).chain(again)
    }
}

/// Is `tid` a thread of process `pid`?
#[must_use]
pub fn is_thread_of(pid: i32, tid: i32) -> bool {
    // SAFETY: plain integers; signal 0 only asks.
    let ret = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
    ret == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_born_lies_between() {
        let births = Births::open().unwrap();
        let before = births.last().unwrap();
        let tid = std::thread::spawn(|| nix::unistd::gettid().as_raw());
        let tid = tid.join().unwrap();
        let after = births.last().unwrap();
        assert!(births.between(before, after).any(|id| id == tid));
        assert_eq!(births.between(after, after).count(), 0);
    }

    #[test]
    fn ids_begin_again_at_the_end() {
        let mut births = Births::open().unwrap();
        births.end = 1000;
        let ids: Vec<i32> = births.between(997, 302).collect();
        assert_eq!(ids, [998, 999, 300, 301, 302]);
    }

    #[test]
    fn a_thread_is_of_its_own_process_only() {
        let me = std::process::id().cast_signed();
        let tid = nix::unistd::gettid().as_raw();
        assert!(is_thread_of(me, tid));
        assert!(!is_thread_of(1, tid));
    }
}
