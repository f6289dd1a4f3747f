//! What sweeps of SIGKILL share: what a target must still be, and the kill after a system call.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sls_sys::ptrace::{self, Stopped, Waited, Why, event, option};
use testkit::{Sls, Target, children, descriptors, field, kill, threads, wait_until};

/// Rewinds look for a scratch area from 64 GiB on; no program of ours lies below this.
const SCRATCH_BELOW: u64 = 1 << 40;

/// The keeper of the one process that is attached.
pub fn keeper(sls: &Sls) -> i32 {
    let is_keeper = |pid: &i32| field(*pid, "Name:") == "sls-keeper";
    let found = children(sls.daemon()).into_iter().filter(is_keeper).max();
    found.expect("an attached process has a keeper")
}

/// A client that runs the command, silently.
pub fn client(sls: &Sls, arguments: &[&str]) -> Child {
    let mut command: Command = sls.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What a target must still have and must not have.
pub struct Before {
    descriptors: usize,
    blocked: Vec<String>,
}

impl Before {
    pub fn of(target: &Target) -> Self {
        // A thread that has just been made blocks everything.
        wait_until(Duration::from_secs(10), "threads that are ready", || {
            blocked(target).windows(2).all(|two| two[0] == two[1])
        });
        Self {
            descriptors: descriptors(target.pid()),
            blocked: blocked(target),
        }
    }

    /// Alive, running, its own invariants whole, nothing of ours in it; `spare` descriptors may be.
    pub fn assert_still(&self, target: &mut Target, spare: usize, when: &str) {
        target.assert_unharmed();
        target.assert_goes_on();
        assert!(
            !target.output().contains("FAIL"),
            "{when}: {}",
            target.output()
        );
        assert_eq!(blocked(target), self.blocked, "{when}: signal masks");
        assert!(!has_scratch(target), "{when}: a stray mapping");
        let descriptors = descriptors(target.pid());
        assert!(
            descriptors <= self.descriptors + spare,
            "{when}: {descriptors} descriptors"
        );
    }
}

/// Is there a mapping of ours in it?
pub fn has_scratch(target: &Target) -> bool {
    mapped_low(target.pid())
}

/// Is there a mapping below where programs lie?
pub fn mapped_low(pid: i32) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let first = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
    first < SCRATCH_BELOW
}

fn blocked(target: &Target) -> Vec<String> {
    let tids = threads(target.pid()).into_iter();
    let mut masks: Vec<String> = tids.map(|tid| field(tid, "SigBlk:")).collect();
    masks.sort();
    masks
}

/// Does a program that always has something to do use no CPU?
pub fn is_halted(target: &Target) -> bool {
    let deadline = Instant::now() + Duration::from_secs(1);
    let before = target.ticks();
    while Instant::now() < deadline {
        if target.ticks() > before + 2 {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Whose system calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prey {
    /// Those of all threads of this process.
    Process(i32),
    /// Those of the program that this process starts next.
    ChildOf(i32),
}

/// Kills the prey with SIGKILL after its `n`-th system call from here, and `others` with it. False:
/// `act` was over before.
pub fn kill_after(prey: Prey, n: u64, others: &[i32], act: impl FnOnce() -> Child) -> bool {
    let (Prey::Process(root) | Prey::ChildOf(root)) = prey;
    let mut trace = Trace::begin(prey, root);
    let mut child = act();
    trace.start();
    loop {
        let mut idle = true;
        for tid in trace.tids() {
            let Some(waited) = ptrace::wait(tid, false).unwrap() else {
                continue;
            };
            idle = false;
            match waited {
                Waited::Ended(tid, _) if tid == root => panic!("{root} has ended by itself"),
                Waited::Ended(tid, _) => trace.ended(tid),
                Waited::Stopped(stopped) => {
                    if trace.counts(&stopped) && trace.stops == 2 * n {
                        others.iter().for_each(|&pid| kill(pid, 9));
                        trace.kill();
                        child.wait().unwrap();
                        return true;
                    }
                    trace.on(stopped);
                }
            }
        }
        if idle && child.try_wait().unwrap().is_some() {
            return false;
        }
        if idle {
            std::thread::yield_now();
        }
    }
}

/// Threads under our eyes while a victim is waited for.
struct Trace {
    prey: Prey,
    /// Each with the process it belongs to.
    threads: BTreeMap<i32, i32>,
    held: Vec<Stopped>,
    /// The one whose calls count, once it is known.
    victim: Option<i32>,
    /// Entries and exits of its calls.
    stops: u64,
}

impl Trace {
    /// Every thread of the root is stopped.
    fn begin(prey: Prey, root: i32) -> Self {
        let (options, victim) = match prey {
            Prey::Process(pid) => (option::SYSGOOD | option::CLONE, Some(pid)),
            Prey::ChildOf(_) => {
                let births = option::CLONE | option::FORK | option::VFORK;
                (option::SYSGOOD | option::EXEC | births, None)
            }
        };
        let mut trace = Self {
            prey,
            threads: BTreeMap::new(),
            held: Vec::new(),
            victim,
            stops: 0,
        };
        while trace.seize_new(root, options) {}
        trace
    }

    /// Stops the root's threads that are not yet. False: there were none; one may end meanwhile.
    fn seize_new(&mut self, root: i32, options: usize) -> bool {
        let mut new = false;
        for tid in threads(root) {
            if self.threads.contains_key(&tid) || ptrace::seize(tid, options).is_err() {
                continue;
            }
            new = true;
            let _ = ptrace::interrupt(tid);
            if let Ok(Some(Waited::Stopped(stopped))) = ptrace::wait(tid, true) {
                self.held.push(stopped);
                self.threads.insert(tid, root);
            }
        }
        new
    }

    fn start(&mut self) {
        for stopped in std::mem::take(&mut self.held) {
            stopped.syscall().unwrap();
        }
    }

    fn tids(&self) -> Vec<i32> {
        self.threads.keys().copied().collect()
    }

    fn ended(&mut self, tid: i32) {
        self.threads.remove(&tid);
    }

    /// Counts what is to be counted, and knows the new. True: one more.
    fn counts(&mut self, stopped: &Stopped) -> bool {
        let of = self.threads[&stopped.tid()];
        match stopped.why() {
            Why::Syscall if Some(of) == self.victim => {
                self.stops += 1;
                return true;
            }
            Why::Event(event::CLONE) => {
                let new = i32::try_from(stopped.event_message().unwrap()).unwrap();
                self.threads.insert(new, of);
            }
            Why::Event(event::FORK | event::VFORK) => {
                let new = i32::try_from(stopped.event_message().unwrap()).unwrap();
                self.threads.insert(new, new);
            }
            Why::Event(event::EXEC) if matches!(self.prey, Prey::ChildOf(_)) => {
                self.victim = Some(of);
                // What it makes in turn is its own to trace.
                stopped.set_options(option::SYSGOOD).unwrap();
            }
            _ => {}
        }
        false
    }

    fn on(&self, stopped: Stopped) {
        let signal = signal_of(&stopped);
        // It may have ended by exit_group of another one since.
        let _ = stopped.syscall_with(signal);
    }

    /// The victim dies; who else was looked at goes on.
    fn kill(mut self) {
        let victim = self.victim.expect("one that counts");
        kill(victim, 9);
        // Its parent hears of it once we have, and we of the leader once its threads are gone.
        while self.threads.values().any(|&of| of == victim) {
            for (tid, _) in self.threads.clone().into_iter().filter(|t| t.1 == victim) {
                if !matches!(
                    ptrace::wait(tid, false),
                    Ok(None | Some(Waited::Stopped(_)))
                ) {
                    self.ended(tid);
                }
            }
        }
    }
}

impl Drop for Trace {
    /// Lets go of everybody, also where a test gives up.
    fn drop(&mut self) {
        // Of a process that has ended the leader can be waited for last.
        for tid in self.tids().into_iter().rev() {
            let_go(tid);
        }
    }
}

fn let_go(tid: i32) {
    // One that stands in a stop already is taken from there.
    let _ = ptrace::interrupt(tid);
    if let Ok(Some(Waited::Stopped(stopped))) = ptrace::wait(tid, true) {
        let signal = signal_of(&stopped);
        let new = match stopped.why() {
            Why::Event(event::CLONE | event::FORK | event::VFORK) => stopped.event_message().ok(),
            _ => None,
        };
        let _ = stopped.detach(signal);
        // Nobody has heard of it yet, and it would stand for ever.
        if let Some(new) = new.and_then(|new| i32::try_from(new).ok()) {
            let_go(new);
        }
    }
}

/// The signal it was about to be given.
fn signal_of(stopped: &Stopped) -> i32 {
    match stopped.why() {
        Why::Signal(signal) => signal,
        _ => 0,
    }
}
