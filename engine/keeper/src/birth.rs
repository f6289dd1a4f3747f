//! A process made anew: a skeleton that a plan brings to its state. Until it is let go it ends with
//! this keeper, so that nothing half made is ever left running.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::unistd::getppid;
use sls_keeper::{Agreement, End, Refusal, Way, Within};
use sls_sys::cpus::{self, Wandering};
use sls_sys::frame::{Gadgets, Home};
use sls_sys::ptrace::{self, Stopped, Waited, Why, event, option};
use sls_sys::skeleton::{self, Namespace, Skeleton};
use sls_sys::{RemoteMemory, fault, fd, procfs};

use crate::group::{Children, Group, Refused, STOP_OPTIONS, signal_of};
use crate::inject::Borrowed;
use crate::numbers;
use crate::target::Target;

const BIRTH_DEADLINE: Duration = Duration::from_secs(5);
/// It ends with its keeper.
const OPTIONS: usize = STOP_OPTIONS | option::EXITKILL;
pub const ITIMER_REAL: u64 = 0;
const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_NAME: u64 = 15;

/// What this keeper may do: suspend seccomp, and see when a thread fell asleep.
type Means = (bool, bool);

/// As long as a process is being made.
pub struct Unborn {
    /// Its number as it knows it itself, and those who asked for it.
    known_as: i32,
    /// It and this keeper take turns, which is ten times as quick on one CPU as on two.
    _cpu: Wandering,
    /// One of several: whether all of them are let go, once it is made.
    pub agreement: Option<Agreement>,
    _fault: fault::Armed,
}

impl Unborn {
    fn begin(pid: i32) -> io::Result<Self> {
        let fault = fault::arm(pid);
        let cpu = fault::step(format_args!("stay on a CPU for process {pid}"), || {
            let cpu = Wandering::begin()?;
            cpu.stay()?;
            Ok(cpu)
        })?;
        Ok(Self {
            known_as: pid,
            _cpu: cpu,
            agreement: None,
            _fault: fault,
        })
    }

    /// Were all of them made, so that some may run by now?
    pub fn is_born(&self) -> bool {
        let agreement = self.agreement.as_ref();
        agreement.and_then(Agreement::reached) == Some(Way::Forward)
    }
}

impl Target {
    /// Makes a process under this number, with a page of code at `address`; it stands still.
    pub fn create(
        pid: i32,
        address: u64,
        means: Means,
        within: Option<Within>,
        children: &Children,
    ) -> Result<Self, Refused> {
        let unborn = Unborn::begin(pid)?;
        let skeleton = fault::point(format_args!("make process {pid}"))
            .and_then(|()| make(pid, address, within))
            .map_err(|error| not_made(pid, &error, within.is_some()))?;
        let here = skeleton.pid;
        // Until it begins it ends with `skeleton`.
        seize((pid, here), OPTIONS | option::EXEC)?;
        let made = fault::step(format_args!("have process {pid} begin"), || {
            skeleton.begin()?;
            let stopped = begun(here, children)?;
            stopped.set_options(OPTIONS)?;
            Ok(stopped)
        });
        let made = made.and_then(|stopped| Self::standing(stopped, unborn, means));
        made.map_err(|error| ended(here, error).into())
    }

    /// Takes charge of one that [`Target::fork`] of another keeper has made; it stands still.
    pub fn take_up(pid: i32, means: Means, children: &Children) -> Result<Self, Refused> {
        let known_as = procfs::status(pid).map_or(pid, |s| s.own.tgid);
        let unborn = Unborn::begin(known_as)?;
        fault::step(format_args!("bring process {known_as} to a CPU"), || {
            cpus::fetch(pid)
        })?;
        seize((known_as, pid), OPTIONS)?;
        let made = fault::step(format_args!("stop process {known_as}"), || {
            ptrace::interrupt(pid)?;
            await_interrupt(pid, children)
        });
        let made = made.and_then(|stopped| Self::standing(stopped, unborn, means));
        let mut target = made.map_err(|error| ended(pid, error))?;
        // It ends with this keeper from here on, and neither with its parent nor in a while.
        target.in_skeleton("take it from its parent", children, |thread| {
            let never = thread.lay(0, &[0; 32])?;
            thread.expect(libc::SYS_setitimer, &[ITIMER_REAL, never, 0])?;
            thread.expect(libc::SYS_prctl, &[PR_SET_PDEATHSIG, 0])
        })?;
        Ok(target)
    }

    fn standing(
        stopped: Stopped,
        unborn: Unborn,
        (suspend_seccomp, sched_debug): Means,
    ) -> io::Result<Self> {
        let (pid, known_as) = (stopped.tid(), unborn.known_as);
        fault::step(format_args!("look at process {known_as}"), || {
            let mut group = Group::new(pid, OPTIONS)?;
            group.stopped.insert(pid, stopped);
            let mut target = Self::of(group, suspend_seccomp, sched_debug, false)?;
            target.unborn = Some(unborn);
            Ok(target)
        })
    }

    /// Makes it the leader of a session.
    pub fn begin_session(
        &mut self,
        terminal: Option<&str>,
        children: &Children,
    ) -> Result<(), Refused> {
        self.in_skeleton("begin a session", children, |thread| {
            thread.expect(libc::SYS_setsid, &[])?;
            if let Some(path) = terminal {
                // A leader without one has what it opens. Where that is not to be it is told later.
                let path = thread.lay(0, &[path.as_bytes(), b"\0"].concat())?;
                let here = u64::from(libc::AT_FDCWD.cast_unsigned());
                let flags = u64::from((libc::O_RDWR | libc::O_NONBLOCK).cast_unsigned());
                let fd = thread.call(libc::SYS_openat, &[here, path, flags, 0])?;
                if let Ok(fd) = u64::try_from(fd) {
                    thread.expect(libc::SYS_close, &[fd])?;
                }
            }
            Ok(0)
        })?;
        Ok(())
    }

    /// Has it make a child under this number, as it is itself. The child is traced like its parent
    /// from its first moment; then it is let go, to end when its parent does, until another keeper
    /// takes it up. With `end` it ends at once. The number is that of its own namespace; the one that
    /// it has here comes back.
    pub fn fork(
        &mut self,
        pid: i32,
        exit_signal: i32,
        end: Option<&End>,
        children: &Children,
    ) -> Result<i32, Refused> {
        let parent = self.group.pid;
        let stopped = self.group.stopped.get(&parent);
        let stopped = stopped.ok_or_else(|| Refused::dead(parent))?;
        let home = Borrowed::home_of(stopped, None)?;
        let is_apart = numbers::are_others(parent);
        let mut refused = None;
        self.in_skeleton("make a child", children, |thread| {
            let set_tid = thread.lay(0, &pid.to_le_bytes())?;
            let args = skeleton::fork_args(set_tid, exit_signal);
            let at = thread.lay(64, &args)?;
            let made = thread.call(libc::SYS_clone3, &[at, args.len() as u64])?;
            if made != i64::from(pid) {
                let errno = i32::try_from(-made).unwrap_or(0);
                let error = io::Error::from_raw_os_error(errno);
                refused = Some(not_made(pid, &error, is_apart));
            }
            Ok(0)
        })?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let here = numbers::child(parent, pid)?;
        let gadgets = self.may_inject()?;
        let child = Child {
            pid: here,
            home: &home,
            gadgets,
            children,
        };
        let left = match end {
            None => fault::step(format_args!("leave process {pid} to its parent"), || {
                child.leave_to_its_parent()
            }),
            Some(end) => fault::step(format_args!("have process {pid} end as it did"), || {
                child.end(end)
            }),
        };
        left.map_err(|error| ended(here, error))?;
        if end.is_some() && exit_signal != 0 {
            // The program knows of its end, or the signal waits among those that are put back.
            let bit = 1u64.wrapping_shl(exit_signal.cast_unsigned().wrapping_sub(1));
            self.in_skeleton("take the signal of a child's end", children, |thread| {
                let set = thread.lay(0, &bit.to_le_bytes())?;
                let no_time = thread.lay(64, &[0; 16])?;
                thread.call(libc::SYS_rt_sigtimedwait, &[set, 0, no_time, 8])?;
                Ok(0)
            })?;
        }
        Ok(here)
    }

    /// The number by which those know it who asked for it.
    pub fn known_as(&self) -> i32 {
        let unborn = self.unborn.as_ref();
        unborn.map_or(self.group.pid, |unborn| unborn.known_as)
    }

    /// A call in its only thread.
    fn in_skeleton(
        &mut self,
        what: &str,
        children: &Children,
        act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<u64>,
    ) -> Result<u64, Refused> {
        if self.unborn.is_none() {
            return Err(Refused::new(Refusal::Other, "it is not made anew"));
        }
        self.in_any_thread(what, children, |thread| {
            fault::point(what)?;
            act(thread)
        })
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

/// Its parent is this keeper's, whom it may have descriptors from.
fn make(pid: i32, address: u64, within: Option<Within>) -> io::Result<Skeleton> {
    let Some(within) = within else {
        return Skeleton::make(pid, address, None);
    };
    let init = fd::pidfd_open(within.init)?;
    let parent = fd::pidfd_open(getppid().as_raw())?;
    let own = procfs::link(std::process::id().cast_signed(), "ns/user");
    let namespace = Namespace {
        init: init.as_fd(),
        lent: (parent.as_fd(), within.lent),
        users: procfs::link(within.init, "ns/user") != own,
        apart: within.apart,
    };
    Skeleton::make(pid, address, Some(&namespace))
}

fn seize((known_as, pid): (i32, i32), options: usize) -> io::Result<()> {
    fault::step(format_args!("trace process {known_as}"), || {
        ptrace::seize(pid, options)
    })
}

/// What failed with one that is nobody else's yet: it is ended by hand.
fn ended(pid: i32, error: io::Error) -> io::Error {
    // It may have ended by itself, which is the error then.
    let _ = fd::pidfd_open(pid).and_then(|life| fd::pidfd_signal(life.as_fd(), libc::SIGKILL));
    error
}

/// One that was just made by another that this keeper has made.
struct Child<'a> {
    pid: i32,
    /// Where its parent was.
    home: &'a Home,
    gadgets: Gadgets,
    children: &'a Children,
}

impl Child<'_> {
    /// Lets it go on where its parent was, to end when that does.
    fn leave_to_its_parent(&self) -> io::Result<()> {
        let stopped = self.calls(|child| {
            let signal = u64::from(libc::SIGKILL.cast_unsigned());
            child.expect(libc::SYS_prctl, &[PR_SET_PDEATHSIG, signal])?;
            Ok(())
        })?;
        stopped.detach(0)
    }

    /// Has it end as another one did, whose place it takes.
    fn end(&self, end: &End) -> io::Result<()> {
        let stopped = self.calls(|child| {
            if end.leads_session {
                child.expect(libc::SYS_setsid, &[])?;
            } else if end.leads_group {
                child.expect(libc::SYS_setpgid, &[0, 0])?;
            }
            let mut name = end.comm.clone().into_bytes();
            name.resize(16, 0);
            let name = child.lay(0, &name)?;
            child.expect(libc::SYS_prctl, &[PR_SET_NAME, name])?;
            // It leaves no core behind: the one that ended has.
            child.expect(libc::SYS_prctl, &[PR_SET_DUMPABLE, 0])?;
            Ok(())
        })?;
        let signal = end.status & 0x7f;
        if signal == 0 {
            let mut regs = stopped.regs()?;
            regs.orig_rax = !0;
            regs.rip = self.gadgets.syscall;
            regs.rax = libc::SYS_exit_group.cast_unsigned();
            regs.rdi = u64::from(end.status.cast_unsigned() >> 8 & 0xff);
            stopped.set_regs(&regs)?;
        } else {
            fd::pidfd_signal(fd::pidfd_open(self.pid)?.as_fd(), signal)?;
        }
        stopped.cont(0)?;
        let deadline = Instant::now() + BIRTH_DEADLINE;
        loop {
            match self.children.next(self.pid, deadline)? {
                Some(Waited::Ended(..)) => return Ok(()),
                Some(Waited::Stopped(stopped)) => {
                    let signal = signal_of(&stopped);
                    stopped.cont(signal)?;
                }
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Calls in it; it stands where its parent was after them.
    fn calls(&self, act: impl FnOnce(&mut Borrowed<'_>) -> io::Result<()>) -> io::Result<Stopped> {
        let stopped = await_interrupt(self.pid, self.children)?;
        let memory = RemoteMemory::open(self.pid)?;
        let (home, top) = (self.home.clone(), self.home.regs.rsp);
        let (gadgets, children) = (self.gadgets, self.children);
        let borrowed = Borrowed::at(stopped, home, top, true, gadgets, &memory, children);
        let mut child = borrowed.map_err(|(_, error)| error)?;
        act(&mut child)?;
        child.finish().map_err(io::Error::other)
    }
}

pub fn await_interrupt(pid: i32, children: &Children) -> io::Result<Stopped> {
    let deadline = Instant::now() + BIRTH_DEADLINE;
    loop {
        match children.next(pid, deadline)? {
            Some(Waited::Stopped(stopped)) if stopped.why() == Why::Interrupt => {
                return Ok(stopped);
            }
            Some(Waited::Stopped(stopped)) => stopped.cont(0)?,
            Some(Waited::Ended(..)) => return Err(io::Error::other("it has ended at once")),
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
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

/// `is_apart`: in a PID namespace of its own.
pub fn not_made(pid: i32, error: &io::Error, is_apart: bool) -> Refused {
    match error.raw_os_error() {
        Some(libc::EEXIST) if is_apart => Refused::new(
            Refusal::Other,
            format!("the number {pid} is taken in its PID namespace"),
        ),
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
