//! The init of a PID namespace in which processes are made anew. It takes note of the ends of those
//! that are left to it, and stays as long as anybody is there: with its end all of them end.
//!
//! Until it is told for whom it is there, it ends with slsd. From then on it needs nobody.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{
    Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getgid, getuid, pipe2, setsid,
};
use sls_keeper::{Ask, Channel, Refusal, Say};
use sls_sys::namespace::{self, Side};
use sls_sys::skeleton::reap;
use sls_sys::{fault, fd, layer};

use crate::group::{Children, Refused};

/// What init says once all is there; where those in the namespace cannot write follows.
const READY: &str = "ready";

/// Makes a namespace; the number of its init, which never comes back from here, and where those in it
/// cannot write.
pub fn begin(channel: &mut Channel, apart: bool) -> Result<(i32, Vec<String>), Refused> {
    let _armed = fault::arm(1);
    let what = "make a PID namespace";
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let mut users = None;
    let begun = fault::point(what).and_then(|()| match namespace::begin(false, apart) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && !apart => {
            users = Some((getuid(), getgid()));
            namespace::begin(true, false)
        }
        other => other,
    });
    match begun.map_err(|error| refused(what, &error))? {
        Side::Init => {
            drop(told);
            be(channel, tell, users, apart)
        }
        Side::Maker(pid) => {
            drop(tell);
            let mut why = String::new();
            File::from(told).read_to_string(&mut why)?;
            let mut lines = why.lines();
            match lines.next() {
                Some(READY) => Ok((pid, lines.map(str::to_owned).collect())),
                _ => Err(Refused::new(Refusal::Other, format!("{what}: {why}"))),
            }
        }
    }
}

fn refused(what: &str, error: &io::Error) -> Refused {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSPC | libc::EUSERS) => Refused::new(
            Refusal::Permission,
            format!(
                "only root may {what} here (user.max_user_namespaces allows plain users none); run slsd as root"
            ),
        ),
        _ => Refused::new(Refusal::Other, format!("{what}: {error}")),
    }
}

fn be(channel: &mut Channel, tell: OwnedFd, users: Option<(Uid, Gid)>, apart: bool) -> ! {
    let prepared = prepare(users, apart);
    let said = match &prepared {
        Ok(read_only) => [&[READY.to_owned()], &read_only[..]].concat().join("\n"),
        Err(error) => error.to_string(),
    };
    // Its maker is gone, or hears of it.
    let _ = File::from(tell).write_all(said.as_bytes());
    if prepared.is_ok()
        && let Ok(lives) = told_of(channel)
    {
        // What fails here takes all of them along: nothing is left that may.
        let _ = stay(lives);
    }
    std::process::exit(0)
}

/// `users`: who this is outside, and is to be in a namespace of users too. Gives where nobody in it can
/// write although it could outside.
fn prepare(users: Option<(Uid, Gid)>, apart: bool) -> io::Result<Vec<String>> {
    if let Some((uid, gid)) = users {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    setsid()?; // Its maker led one.
    chdir("/")?;
    let mut read_only = Vec::new();
    if apart {
        read_only = fault::step("lay a layer over all files", layer::cover)?;
    }
    fault::step(
        "have /proc tell of the PID namespace",
        namespace::mount_proc,
    )?;
    if apart {
        fault::step("begin a network", namespace::begin_network)?;
    }
    fs::write("/proc/self/comm", "sls-init")?;
    Ok(read_only)
}

/// Pidfds of those that it is there for.
fn told_of(channel: &mut Channel) -> io::Result<Vec<OwnedFd>> {
    let Some((Ask::Watch { pids }, _)) = channel.receive::<Ask>()? else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let lives = pids.iter().map(|&pid| fd::pidfd_open(pid));
    let lives = lives.collect::<io::Result<Vec<_>>>()?;
    channel.send(&Say::Done, None)?;
    Ok(lives)
}

/// Until they have ended, and what they left to it.
fn stay(lives: Vec<OwnedFd>) -> io::Result<()> {
    let lives = detached(lives)?;
    let children = Children::new()?;
    let mut left: Vec<&OwnedFd> = lives.iter().collect();
    loop {
        children.drain()?;
        let alone = take_note();
        left.retain(|life| !fd::is_readable_within(life.as_fd(), Duration::ZERO));
        if left.is_empty() && alone {
            return Ok(());
        }
        let mut fds = vec![PollFd::new(children.fd().as_fd(), PollFlags::POLLIN)];
        fds.extend(
            left.iter()
                .map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes note of all ends; is nobody left?
fn take_note() -> bool {
    loop {
        match reap(-1) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Nothing is kept of what its maker had but these.
fn detached(lives: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    namespace::close_all_but(&lives);
    Ok(lives)
}
