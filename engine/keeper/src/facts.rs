//! What only the target itself can be asked: signal actions, timers, alternate stacks.

use std::collections::BTreeMap;
use std::io;

use sls_keeper::{AltStack, Conduct, Facts, OwnFacts, RawTimer, SigActionWords};
use sls_sys::RemoteMemory;
use sls_sys::frame::Gadgets;
use sls_sys::procfs;
use sls_sys::ptrace::Why;

use crate::group::{Children, Group, Refused};
use crate::inject::Borrowed;
use crate::kicks::Kicks;

const PR_GET_PDEATHSIG: u64 = 2;
const PR_GET_DUMPABLE: u64 = 3;
const PR_GET_SECUREBITS: u64 = 27;
const PR_GET_TIMERSLACK: u64 = 30;
const PR_GET_CHILD_SUBREAPER: u64 = 37;
const PR_GET_TID_ADDRESS: u64 = 40;
const PR_GET_THP_DISABLE: u64 = 42;

/// What each thread told of its own.
pub type PerThread = BTreeMap<i32, OwnFacts>;

/// What injected calls need besides the threads.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    pub gadgets: Gadgets,
    pub memory: &'a RemoteMemory,
    pub children: &'a Children,
    pub kicks: &'a Kicks,
}

/// Asks the threads of `tids` for their own, and the first that can be borrowed for what is the
/// process's, when that is wanted.
pub fn ask(
    group: &mut Group,
    tids: &[i32],
    process: bool,
    means: Means<'_>,
) -> Result<(Option<Facts>, PerThread), Refused> {
    let mut facts = None;
    let mut per_thread = PerThread::new();
    for &tid in tids {
        let Some(stopped) = group.stopped.remove(&tid) else {
            continue;
        };
        if matches!(stopped.why(), Why::Event(_)) {
            // In the middle of a fork or of its own end: it can make no other call.
            group.stopped.insert(tid, stopped);
            continue;
        }
        let nr = means.kicks.number_of(tid);
        let Means {
            gadgets,
            memory,
            children,
            ..
        } = means;
        let mut borrowed = match Borrowed::new(stopped, nr, gadgets, memory, children) {
            Ok(borrowed) => borrowed,
            Err((stopped, _)) => {
                // No room on its stack: this thread's facts stay unknown, it is untouched.
                group.stopped.insert(tid, stopped);
                continue;
            }
        };
        let own = of_thread(&mut borrowed);
        if process && facts.is_none() {
            facts = of_process(&mut borrowed, group.pid).ok();
        }
        group.stopped.insert(tid, borrowed.finish()?);
        if let Ok(own) = own {
            per_thread.insert(tid, own);
        }
    }
    Ok((facts, per_thread))
}

fn of_thread(thread: &mut Borrowed<'_>) -> io::Result<OwnFacts> {
    let out = thread.arguments();
    thread.expect(libc::SYS_sigaltstack, &[0, out])?;
    let [sp, flags, size] = words::<3, 24>(thread.fetch(0)?);
    let flags = u32::try_from(flags & 0xffff_ffff).unwrap_or(0);
    // Needs CONFIG_CHECKPOINT_RESTORE; without it a thread that ended cannot be made again.
    let clear_tid = match thread.expect(libc::SYS_prctl, &[PR_GET_TID_ADDRESS, out]) {
        Ok(_) => u64::from_le_bytes(thread.fetch(0)?),
        Err(_) => 0,
    };
    thread.expect(libc::SYS_prctl, &[PR_GET_PDEATHSIG, out])?;
    let death_signal = i32::from_le_bytes(thread.fetch(0)?);
    let timer_slack_ns = thread.expect(libc::SYS_prctl, &[PR_GET_TIMERSLACK])?;
    Ok(OwnFacts {
        altstack: AltStack { sp, flags, size },
        clear_tid,
        death_signal,
        timer_slack_ns,
    })
}

fn conduct(thread: &mut Borrowed<'_>) -> io::Result<Conduct> {
    let out = thread.arguments();
    let mut plain = |what: u64| {
        let told = thread.expect(libc::SYS_prctl, &[what, 0, 0, 0, 0])?;
        u32::try_from(told).map_err(io::Error::other)
    };
    let (dumpable, securebits) = (plain(PR_GET_DUMPABLE)?, plain(PR_GET_SECUREBITS)?);
    let no_huge_pages = plain(PR_GET_THP_DISABLE)? != 0;
    thread.expect(libc::SYS_prctl, &[PR_GET_CHILD_SUBREAPER, out])?;
    Ok(Conduct {
        dumpable,
        subreaper: i32::from_le_bytes(thread.fetch(0)?) != 0,
        securebits,
        no_huge_pages,
    })
}

fn of_process(thread: &mut Borrowed<'_>, pid: i32) -> io::Result<Facts> {
    let caught = procfs::status(pid)?.sig_caught;
    let out = thread.arguments();
    let mut facts = Facts::default();
    for signo in (1..=64i32).filter(|n| (caught >> (n - 1)) & 1 == 1) {
        let number = u64::from(signo.cast_unsigned());
        thread.expect(libc::SYS_rt_sigaction, &[number, 0, out, 8])?;
        facts.actions.push(SigActionWords {
            signo,
            words: words::<4, 32>(thread.fetch(0)?),
        });
    }
    for which in 0..3i32 {
        thread.expect(
            libc::SYS_getitimer,
            &[u64::from(which.cast_unsigned()), out],
        )?;
        let [every_s, every_us, left_s, left_us] = words::<4, 32>(thread.fetch(0)?);
        let ns = |s: u64, us: u64| s * 1_000_000_000 + us * 1000;
        let (value_ns, interval_ns) = (ns(left_s, left_us), ns(every_s, every_us));
        // One that repeats and has nothing left has rung; it goes on once its signal is taken.
        if value_ns != 0 || interval_ns != 0 {
            facts.itimers.push(RawTimer {
                id: which,
                value_ns,
                interval_ns,
            });
        }
    }
    for id in timer_ids(pid) {
        thread.expect(
            libc::SYS_timer_gettime,
            &[u64::from(id.cast_unsigned()), out],
        )?;
        let [every_s, every_ns, left_s, left_ns] = words::<4, 32>(thread.fetch(0)?);
        facts.timers.push(RawTimer {
            id,
            value_ns: left_s * 1_000_000_000 + left_ns,
            interval_ns: every_s * 1_000_000_000 + every_ns,
        });
    }
    facts.conduct = conduct(thread)?;
    facts.brk = thread.expect(libc::SYS_brk, &[0])?;
    Ok(facts)
}

fn timer_ids(pid: i32) -> Vec<i32> {
    let text = procfs::read_text(format!("/proc/{pid}/timers")).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.strip_prefix("ID: ")?.trim().parse().ok())
        .collect()
}

fn words<const N: usize, const B: usize>(bytes: [u8; B]) -> [u64; N] {
    let mut out = [0; N];
    for (word, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
    }
    out
}
