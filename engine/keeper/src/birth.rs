//! A process made anew: a skeleton that a plan brings to its state. Until it is let go it ends with
//! this keeper, so that nothing half made is ever left running.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sls_keeper::Refusal;
use sls_sys::cpus::Wandering;
use sls_sys::ptrace::{self, Stopped, Waited, Why, event, option};
use sls_sys::skeleton::Skeleton;
use sls_sys::{fd, procfs};

use crate::group::{Children, Group, Refused, STOP_OPTIONS};
use crate::target::Target;

const BIRTH_DEADLINE: Duration = Duration::from_secs(5);

/// As long as a process is being made.
pub struct Unborn {
    /// It and this keeper take turns, which is ten times as quick on one CPU as on two.
    _cpu: Wandering,
}

impl Unborn {
    fn begin() -> io::Result<Self> {
        let cpu = Wandering::begin()?;
        cpu.stay()?;
        Ok(Self { _cpu: cpu })
    }
}

impl Target {
    /// Makes a process under this number, with a page of code at `address`; it stands still.
    pub fn create(
        pid: i32,
        address: u64,
        sched_debug: bool,
        children: &Children,
    ) -> Result<Self, Refused> {
        let unborn = Unborn::begin()?;
        let skeleton = Skeleton::make(pid, address).map_err(|error| not_made(pid, &error))?;
        ptrace::seize(pid, STOP_OPTIONS | option::EXEC | option::EXITKILL)?;
        skeleton.begin()?;
        // From here on it is ended by hand where something fails: it is nobody else's yet.
        let made = begun(pid, children).and_then(|stopped| {
            let options = STOP_OPTIONS | option::EXITKILL;
            stopped.set_options(options)?;
            let mut group = Group::new(pid, options)?;
            group.stopped.insert(pid, stopped);
            Self::of(group, false, sched_debug, false)
        });
        match made {
            Ok(mut target) => {
                target.unborn = Some(unborn);
                Ok(target)
            }
            Err(error) => {
                let _ = end(pid); // It may have ended by itself, which is the error then.
                Err(error.into())
            }
        }
    }

    /// Ends one that was never let go.
    pub fn end(&mut self) -> io::Result<()> {
        self.group.stopped.clear();
        match fd::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }
}

fn end(pid: i32) -> io::Result<()> {
    fd::pidfd_signal(fd::pidfd_open(pid)?.as_fd(), libc::SIGKILL)
}

/// It has executed its page and is about to run it.
fn begun(pid: i32, children: &Children) -> io::Result<Stopped> {
    let deadline = Instant::now() + BIRTH_DEADLINE;
    loop {
        match children.next(pid, deadline)? {
            Some(Waited::Stopped(stopped)) => match stopped.why() {
                // Back to user mode, where registers that are set stay.
                Why::Event(event::EXEC) => {
                    ptrace::interrupt(pid)?;
                    stopped.cont(0)?;
                }
                Why::Interrupt => return Ok(stopped),
                _ => stopped.cont(0)?,
            },
            Some(Waited::Ended(..)) => {
                return Err(io::Error::other("the new process has ended at once"));
            }
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn not_made(pid: i32, error: &io::Error) -> Refused {
    match error.raw_os_error() {
        Some(libc::EEXIST) => Refused::new(Refusal::Taken, taken(pid)),
        Some(libc::EPERM) => Refused::new(
            Refusal::Permission,
            format!("only root may make a process under a number of choice ({pid})"),
        ),
        _ => Refused::new(Refusal::Other, format!("make process {pid}: {error}")),
    }
}

/// Who has the number: a process, a thread of one, or only a group or session that is named so.
fn taken(pid: i32) -> String {
    let Ok(status) = procfs::status(pid) else {
        return format!("a process group or session still has the number {pid}");
    };
    let name = &status.name;
    match status.state {
        'Z' | 'X' => {
            let parent = status.ppid;
            let who = procfs::status(parent).map_or_else(|_| "?".to_owned(), |s| s.name);
            format!(
                "process {pid} ({name}) has ended, but its parent {parent} ({who}) has not taken note of it, and its number stays taken until then"
            )
        }
        _ if status.tgid == pid => format!("process {pid} is in use, by {name}"),
        _ => format!(
            "the number {pid} is in use, by thread {name} of process {}",
            status.tgid
        ),
    }
}
