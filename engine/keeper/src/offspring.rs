//! A child that a living process is made to have again, under the number of one that has ended, while
//! its threads are parked and a plan awaits that.
//!
//! It is born in the memory of its parent, which it gives up for a page of code before it has come to
//! anything; then another keeper takes it up, and until then it has so long to live. The plan back unmakes
//! it, so that its parent, which has never run meanwhile, never hears of it.

use std::io;
use std::os::fd::AsFd;

use sls_sys::frame::Home;
use sls_sys::ptrace::{Stopped, option};
use sls_sys::{fault, fd, procfs, skeleton};

use crate::birth::{ITIMER_REAL, await_interrupt, not_made};
use crate::group::{Refused, STOP_OPTIONS};
use crate::inject::Borrowed;
use crate::numbers;
use crate::parking::Caller;
use crate::steps::Run;

/// s that one which nobody takes up lives.
const LIFE: u64 = 10;
const CLOEXEC: u64 = 1;

impl Run<'_, '_> {
    /// Has the process make a child under this number, with nothing in it but a page of code at
    /// `address`. One of that number that has ended it takes note of first. The number that it has here
    /// comes back.
    pub fn bear_again(&mut self, pid: i32, address: u64) -> Result<i32, Refused> {
        let _armed = fault::arm(pid);
        let parent = self.executor.group.pid;
        fault::step(
            format_args!("take note of the end of process {pid}"),
            || self.note_end(pid),
        )?;
        let code = self.lay_code(pid, address)?;
        let born = self.conceive(pid).and_then(|()| {
            let here = numbers::child(parent, pid)?;
            let what = format_args!("have process {pid} begin");
            fault::step(what, || self.begin(here, code))?;
            Ok(here)
        });
        self.borrow(self.plan.leader, |thread| {
            thread.expect(libc::SYS_close, &[code])
        })?;
        born
    }

    /// Its program, open to be executed and no longer to be written.
    fn lay_code(&mut self, pid: i32, address: u64) -> io::Result<u64> {
        let what = format_args!("lay the code of process {pid}");
        fault::step(what, || {
            self.borrow(self.plan.leader, |thread| {
                let name = thread.lay(0, b"sls\0")?;
                let written = thread.expect(libc::SYS_memfd_create, &[name, CLOEXEC])?;
                let code = skeleton::program(address);
                let at = thread.lay(0, &code)?;
                thread.expect(libc::SYS_write, &[written, at, code.len() as u64])?;
                let path = format!("/proc/self/fd/{written}\0");
                let path = thread.lay(0, path.as_bytes())?;
                let here = u64::from(libc::AT_FDCWD.cast_unsigned());
                let flags = u64::from((libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned());
                let opened = thread.expect(libc::SYS_openat, &[here, path, flags, 0]);
                thread.expect(libc::SYS_close, &[written])?;
                opened
            })
        })
    }

    /// The child stands still, in the memory of its parent.
    fn conceive(&mut self, pid: i32) -> Result<(), Refused> {
        let is_apart = numbers::are_others(self.executor.group.pid);
        fault::point(format_args!("make process {pid}"))?;
        let made = self.borrow(self.plan.leader, |thread| {
            let set_tid = thread.lay(0, &pid.to_le_bytes())?;
            let args = skeleton::child_args(set_tid);
            let at = thread.lay(64, &args)?;
            thread.call(libc::SYS_clone3, &[at, args.len() as u64])
        })?;
        if made == i64::from(pid) {
            return Ok(());
        }
        let errno = i32::try_from(-made).unwrap_or(0);
        let error = io::Error::from_raw_os_error(errno);
        Err(not_made(pid, &error, is_apart))
    }

    /// Has it execute its code, and lets it go.
    fn begin(&mut self, pid: i32, code: u64) -> io::Result<()> {
        let stopped = await_interrupt(pid, self.executor.children)?;
        stopped.set_options(STOP_OPTIONS | option::EXITKILL)?;
        match self.execute(stopped, code) {
            Ok(stopped) => stopped.detach(0),
            Err(error) => {
                let life = fd::pidfd_open(pid)?;
                let _ = fd::pidfd_signal(life.as_fd(), libc::SIGKILL); // It has ended by itself.
                Err(error)
            }
        }
    }

    fn execute(&mut self, stopped: Stopped, code: u64) -> io::Result<Stopped> {
        // Where the thread that made it is lent, which waits.
        let leader = self.executor.numbers.here(self.plan.leader);
        let (wait, top) = self.parking.loan(leader, Caller::Leader)?;
        let regs = stopped.regs()?;
        let home = Home { regs, ..wait };
        let ignored = procfs::status(stopped.tid())?.sig_ignored;
        let executor = &self.executor;
        let borrowed = Borrowed::at(
            stopped,
            home,
            top,
            false,
            executor.gadgets,
            executor.memory,
            executor.children,
        );
        let mut thread = borrowed.map_err(|(_, error)| error)?;
        // struct kernel_sigaction: what is ignored stays so in another program, and SIGALRM may not be.
        let default = thread.lay(0, &[0; 32])?;
        for signal in (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
            thread.expect(libc::SYS_rt_sigaction, &[signal, default, 0, 8])?;
        }
        // struct itimerval: no interval, and when.
        let once = [0, 0, LIFE, 0].map(u64::to_le_bytes).concat();
        let timer = thread.lay(0, &once)?;
        thread.expect(libc::SYS_setitimer, &[ITIMER_REAL, timer, 0])?;
        let on_exec = u64::from(libc::CLOSE_RANGE_CLOEXEC);
        thread.expect(libc::SYS_close_range, &[0, u64::from(u32::MAX), on_exec])?;
        let name = thread.lay(0, b"sls\0\0\0\0\0")?;
        let argv = thread.lay(8, &[name.to_le_bytes(), [0; 8]].concat())?;
        let empty = thread.lay(24, &[0; 16])?;
        let by_descriptor = u64::from(libc::AT_EMPTY_PATH.cast_unsigned());
        let args = [code, empty, argv, empty, by_descriptor];
        thread.execute(libc::SYS_execveat, &args)
    }
}
