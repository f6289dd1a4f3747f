//! System calls made by a stopped thread of the target, healing themselves if this process dies.

use std::io;
use std::time::{Duration, Instant};

use libc::user_regs_struct;
use sls_keeper::Refusal;
use sls_sys::RemoteMemory;
use sls_sys::batch::{self, Batch};
use sls_sys::frame::{Gadgets, Home};
use sls_sys::ptrace::{self, Stopped, Waited, Why};

use crate::group::{Children, Refused};

const NO_RETURN: &str = "an injected system call did not return";
const ASTRAY: &str = "a batch of injected calls went astray";
/// Longest time one injected call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Room below the frame for arguments that are pointed at.
const ARGUMENT_BYTES: u64 = 8192;

/// A thread whose registers are ours for a while. Dropping it without [`Borrowed::finish`] leaves
/// the thread on a healing frame: it goes home by itself when let go.
pub struct Borrowed<'a> {
    stopped: Option<Stopped>,
    tid: i32,
    why: Why,
    gadgets: Gadgets,
    memory: &'a RemoteMemory,
    children: &'a Children,
    home: Home,
    rsp: u64,
    arguments: u64,
    /// What the stack held where the frame and the arguments lie.
    under: Option<(u64, Vec<u8>)>,
    /// A signal that was about to be delivered: given back by the thread to itself.
    held_back: Option<[u8; 128]>,
    /// It stands at the end of a batch.
    at_trap: bool,
}

/// What became of the calls of a batch.
pub struct Made {
    /// Results of those that were made, as the kernel returns them.
    pub results: Vec<u64>,
    /// Why the one behind them did not come to its end.
    pub error: Option<io::Error>,
}

impl<'a> Borrowed<'a> {
    /// Borrows `stopped`, its frame below its own stack pointer; `nr` is the call it is in, where
    /// the registers may not tell. On error the thread comes back.
    pub fn new(
        stopped: Stopped,
        nr: Option<u64>,
        gadgets: Gadgets,
        memory: &'a RemoteMemory,
        children: &'a Children,
    ) -> Result<Self, (Stopped, io::Error)> {
        match Self::home_of(&stopped, nr) {
            Ok(home) => {
                let top = home.regs.rsp;
                Self::at(stopped, home, top, true, gadgets, memory, children)
            }
            Err(error) => Err((stopped, error)),
        }
    }

    /// Borrows `stopped` with a chosen home and a frame that ends at `top`.
    pub fn at(
        stopped: Stopped,
        home: Home,
        top: u64,
        keep_under: bool,
        gadgets: Gadgets,
        memory: &'a RemoteMemory,
        children: &'a Children,
    ) -> Result<Self, (Stopped, io::Error)> {
        let mut it = Self {
            tid: stopped.tid(),
            why: stopped.why(),
            stopped: Some(stopped),
            gadgets,
            memory,
            children,
            home,
            rsp: 0,
            arguments: 0,
            under: None,
            held_back: None,
            at_trap: false,
        };
        match it.lay_frame(top, keep_under) {
            Ok(()) => Ok(it),
            Err(error) => match it.stopped.take() {
                Some(stopped) => Err((stopped, error)),
                None => unreachable!("the thread is borrowed until finish"),
            },
        }
    }

    /// Registers, vector state and mask of a stopped thread.
    pub fn home_of(stopped: &Stopped, nr: Option<u64>) -> io::Result<Home> {
        let mut xstate = Vec::new();
        stopped.xstate(&mut xstate)?;
        Ok(Home {
            regs: stopped.regs()?,
            xstate,
            sigmask: stopped.sigmask()?,
            nr,
        })
    }

    fn lay_frame(&mut self, top: u64, keep_under: bool) -> io::Result<()> {
        if let Why::Signal(_) = self.why {
            self.held_back = Some(self.stopped()?.siginfo()?);
        }
        let frame = self.home.frame(self.gadgets, top)?;
        self.rsp = frame.rsp;
        self.arguments = (frame.address - ARGUMENT_BYTES) & !63;
        if keep_under {
            let len = frame.address + frame.bytes.len() as u64 - self.arguments;
            let mut bytes = vec![0; sls_sys::size(len)];
            self.memory.read_at(self.arguments, &mut bytes)?;
            self.under = Some((self.arguments, bytes));
        }
        self.memory.write_at(frame.address, &frame.bytes)?;
        // First to the `ret` that runs into the frame, which brings the mask back too: with all
        // signals blocked and its own registers it would go home deaf if this process died.
        let mut regs = self.home.regs;
        regs.orig_rax = !0;
        regs.rip = self.gadgets.ret();
        regs.rsp = self.rsp;
        self.stopped()?.set_regs(&regs)?;
        // No signal may be delivered on borrowed registers.
        self.stopped()?.set_sigmask(!0)
    }

    fn stopped(&self) -> io::Result<&Stopped> {
        self.stopped
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    /// Address at which argument bytes of the next call lie, after putting them there.
    pub fn lay(&self, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        if offset + bytes.len() as u64 > ARGUMENT_BYTES {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        self.memory.write_at(self.arguments + offset, bytes)?;
        Ok(self.arguments + offset)
    }

    /// Reads back what lies at an address.
    pub fn fetch_at<const N: usize>(&self, address: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.memory.read_at(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads back from the argument area.
    pub fn fetch<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        self.fetch_at(self.arguments + offset)
    }

    /// Argument area's address.
    pub fn arguments(&self) -> u64 {
        self.arguments
    }

    /// Makes the call; the result is as the kernel returns it, errors as -errno.
    pub fn call(&mut self, nr: i64, args: &[u64]) -> io::Result<i64> {
        let mut regs: user_regs_struct = self.home.regs;
        let arg = |i: usize| args.get(i).copied().unwrap_or(0);
        regs.orig_rax = !0;
        regs.rip = self.gadgets.syscall;
        regs.rsp = self.rsp;
        regs.rax = nr.cast_unsigned();
        (regs.rdi, regs.rsi, regs.rdx) = (arg(0), arg(1), arg(2));
        (regs.r10, regs.r8, regs.r9) = (arg(3), arg(4), arg(5));
        self.stopped()?.set_regs(&regs)?;
        self.step_to_syscall_stop()?; // entry
        self.step_to_syscall_stop()?; // exit
        self.at_trap = false;
        let result = self.stopped()?.regs()?.rax;
        // Every signal is blocked: only we can have interrupted it.
        if sls_sys::blocking::is_restart_code(result) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, NO_RETURN));
        }
        Ok(result.cast_signed())
    }

    /// A call that must succeed.
    pub fn expect(&mut self, nr: i64, args: &[u64]) -> io::Result<u64> {
        let result = self.call(nr, args)?;
        if (-4095..0).contains(&result) {
            return Err(io::Error::from_raw_os_error(
                i32::try_from(-result).unwrap_or(libc::EIO),
            ));
        }
        Ok(result.cast_unsigned())
    }

    /// Makes the calls of a batch from the one at `first` on, by the instructions at `code`, until one
    /// fails that is not to.
    pub fn batch(&mut self, batch: &Batch, code: u64, first: usize) -> io::Result<Made> {
        if first == 0 {
            for (address, bytes) in batch.parts() {
                self.memory.write_at(address, &bytes)?;
            }
        }
        let regs = user_regs_struct {
            rsp: self.rsp,
            ..batch.begin(code, first, self.home.regs)
        };
        let stopped = self.stopped()?;
        stopped.set_regs(&regs)?;
        stopped.set_sigmask(!(1 << (libc::SIGTRAP - 1)))?;
        let error = self.run_to_trap(batch, code, first).err();
        if error.is_none() {
            self.at_trap = true;
            self.stopped()?.set_sigmask(!0)?;
        }
        let results = self.results(batch)?.into_iter().skip(first);
        let results: Vec<u64> = results.map_while(|result| result).collect();
        if results.is_empty() && error.is_none() {
            return Err(io::Error::other(ASTRAY));
        }
        Ok(Made { results, error })
    }

    fn results(&self, batch: &Batch) -> io::Result<Vec<Option<u64>>> {
        let [(address, mut table), _] = batch.parts();
        self.memory.read_at(address, &mut table)?;
        Ok(batch.results(&table).collect())
    }

    fn run_to_trap(&mut self, batch: &Batch, code: u64, first: usize) -> io::Result<()> {
        let died = || io::Error::from_raw_os_error(libc::ESRCH);
        let mut come = first;
        let mut interrupted = false;
        self.stopped.take().ok_or_else(died)?.cont(0)?;
        loop {
            match self
                .children
                .next(self.tid, Instant::now() + CALL_DEADLINE)?
            {
                None => {
                    // Each call has its time, as by itself.
                    let results = self.results(batch)?;
                    let now = first + results.iter().skip(first).flatten().count();
                    if now == come && interrupted {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, NO_RETURN));
                    }
                    if now == come {
                        interrupted = true;
                        ptrace::interrupt(self.tid)?;
                    }
                    come = now;
                }
                Some(Waited::Ended(..)) => return Err(died()),
                Some(Waited::Stopped(stopped)) => {
                    let regs = stopped.regs()?;
                    let why = stopped.why();
                    self.stopped = Some(stopped);
                    match why {
                        Why::Signal(libc::SIGTRAP) if regs.rip == batch::end(code) => {
                            return Ok(());
                        }
                        Why::Signal(_) => return Err(io::Error::other(ASTRAY)),
                        // Woken out of a call that sleeps.
                        _ if interrupted => {
                            return Err(io::Error::new(io::ErrorKind::TimedOut, NO_RETURN));
                        }
                        // A clone event, or a group stop that was on its way.
                        _ => self.stopped.take().ok_or_else(died)?.cont(0)?,
                    }
                }
            }
        }
    }

    fn step_to_syscall_stop(&mut self) -> io::Result<()> {
        let mut deadline = Instant::now() + CALL_DEADLINE;
        let mut interrupted = false;
        let died = || io::Error::from_raw_os_error(libc::ESRCH);
        self.stopped.take().ok_or_else(died)?.syscall()?;
        loop {
            match self.children.next(self.tid, deadline)? {
                // One that sleeps can be woken: then the thread is ours again, and goes home.
                None if !interrupted => {
                    interrupted = true;
                    deadline = Instant::now() + CALL_DEADLINE;
                    ptrace::interrupt(self.tid)?;
                }
                None => return Err(io::Error::new(io::ErrorKind::TimedOut, NO_RETURN)),
                Some(Waited::Ended(..)) => return Err(died()),
                Some(Waited::Stopped(stopped)) if stopped.why() == Why::Syscall => {
                    self.stopped = Some(stopped);
                    return Ok(());
                }
                // A clone event comes between entry and exit; anything else (a group stop that
                // was on its way) is passed on the same way.
                Some(Waited::Stopped(stopped)) => stopped.syscall()?,
            }
        }
    }

    /// Brings the thread back to its own registers, stopped where an interrupted call restarts.
    pub fn finish(mut self) -> Result<Stopped, Refused> {
        let home = self.home.clone();
        self.give_back_signal()?;
        self.park()?;
        let stopped = self.stopped.take().ok_or_else(|| Refused::dead(self.tid))?;
        stopped.set_sigmask(home.sigmask)?;
        stopped.set_regs(&home.regs)?;
        // Last: until here the frame is what brings it home if this process dies.
        if let Some((address, bytes)) = self.under.take() {
            self.memory.write_at(address, &bytes)?;
        }
        Ok(stopped)
    }

    /// Has it execute another program by this call. Nothing that was borrowed of it is there any more
    /// then; it stands before its first instruction, with no signal blocked.
    pub fn execute(mut self, nr: i64, args: &[u64]) -> io::Result<Stopped> {
        self.expect(nr, args)?;
        let died = || io::Error::from_raw_os_error(libc::ESRCH);
        let stopped = self.stopped.take().ok_or_else(died)?;
        stopped.set_sigmask(0)?;
        Ok(stopped)
    }

    /// Queues the held back signal again: leaving a signal stop by a system call swallows it. Only
    /// a thread itself may queue a siginfo of any origin.
    fn give_back_signal(&mut self) -> io::Result<()> {
        let Some(info) = self.held_back.take() else {
            return Ok(());
        };
        let [a, b, c, d, ..] = info;
        let signal = i32::from_le_bytes([a, b, c, d]);
        let address = self.lay(0, &info)?;
        let own = sls_sys::procfs::status(self.tid)?.own;
        let word = |n: i32| u64::from(n.cast_unsigned());
        self.expect(
            libc::SYS_rt_tgsigqueueinfo,
            &[word(own.tgid), word(own.tid), word(signal), address],
        )
        .map(|_| ())
    }

    /// Moves from a system call's exit stop into one that the kernel leaves through its restart
    /// code, so that registers set there are treated as at the first stop.
    fn park(&mut self) -> Result<(), Refused> {
        let stopped = self.stopped.take().ok_or_else(|| Refused::dead(self.tid))?;
        if stopped.why() != Why::Syscall && !self.at_trap {
            self.stopped = Some(stopped);
            return Ok(());
        }
        ptrace::interrupt(self.tid)?;
        stopped.cont(0)?;
        let deadline = Instant::now() + CALL_DEADLINE;
        loop {
            match self.children.next(self.tid, deadline)? {
                Some(Waited::Stopped(stopped))
                    if matches!(stopped.why(), Why::Interrupt | Why::Group(_)) =>
                {
                    self.stopped = Some(stopped);
                    return Ok(());
                }
                Some(Waited::Stopped(stopped)) => stopped.cont(0)?,
                Some(Waited::Ended(..)) => return Err(Refused::dead(self.tid)),
                None => {
                    return Err(Refused::new(
                        Refusal::Other,
                        format!(
                            "thread {} does not come back from an injected call",
                            self.tid
                        ),
                    ));
                }
            }
        }
    }

    /// Ends the loan at a chosen state instead of home.
    pub fn finish_as(mut self, home: &Home) -> Result<Stopped, Refused> {
        self.home = home.clone();
        if let Some(stopped) = &self.stopped {
            stopped.set_xstate(&home.xstate)?;
        }
        self.finish()
    }
}
