//! What prctl(2) sets of a process and its threads.

use sls_keeper::{Arg, Want};
use sls_record::{Conduct, Process, Thread};

use super::Steps;
use super::files::name_once;

const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_DUMPABLE: u64 = 4;
pub const PR_SET_SECUREBITS: u64 = 28;
const PR_SET_TIMERSLACK: u64 = 29;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
const PR_SET_THP_DISABLE: u64 = 41;
/// As a process has it by default.
const USUAL: Conduct = Conduct {
    dumpable: 1,
    subreaper: false,
    securebits: 0,
    no_huge_pages: false,
};

/// Of one that is there: what differs.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) {
    if let (Some(was), Some(is)) = (&from.conduct, &to.conduct) {
        process(steps, was, is);
        if was.dumpable != is.dumpable {
            dumpable(steps, is);
        }
        for thread in to
            .threads
            .iter()
            .filter(|_| was.securebits != is.securebits)
        {
            let bits = u64::from(is.securebits);
            in_thread(steps, thread.tid, PR_SET_SECUREBITS, bits, "its securebits");
        }
    }
    for is in &to.threads {
        let was = from.threads.iter().find(|was| was.tid == is.tid);
        let differs = |of: fn(&Thread) -> Option<u64>| {
            let then = of(is)?;
            (was.and_then(of) != Some(then)).then_some(then)
        };
        if let Some(slack) = differs(|t| t.timer_slack_ns) {
            in_thread(steps, is.tid, PR_SET_TIMERSLACK, slack, "its timer slack");
        }
        let signal = differs(|t| t.death_signal.and_then(|s| u64::try_from(s).ok()));
        if let Some(signal) = signal {
            let what = "its parent-death signal";
            in_thread(steps, is.tid, PR_SET_PDEATHSIG, signal, what);
        }
    }
}

/// Of one that is made anew, which has what is usual. Where its parent is another one, that one's
/// death is none of its business.
pub fn anew(steps: &mut Steps, to: &Process, has_parent: bool) {
    let is = to.conduct.unwrap_or(USUAL);
    process(steps, &USUAL, &is);
    for thread in &to.threads {
        if let Some(slack) = thread.timer_slack_ns {
            let what = "its timer slack";
            in_thread(steps, thread.tid, PR_SET_TIMERSLACK, slack, what);
        }
        let signal = thread.death_signal.and_then(|s| u64::try_from(s).ok());
        let Some(signal) = signal.filter(|&signal| signal != 0) else {
            continue;
        };
        if has_parent {
            let what = "its parent-death signal";
            in_thread(steps, thread.tid, PR_SET_PDEATHSIG, signal, what);
        } else {
            name_once(
                steps,
                format!("thread {}: its parent-death signal", thread.tid),
            );
        }
    }
    dumpable(steps, &is);
}

fn process(steps: &mut Steps, was: &Conduct, is: &Conduct) {
    let mut set = |what: &str, option: u64, value: bool| {
        let args = [option, u64::from(value), 0, 0, 0].map(Arg::Value).to_vec();
        let want = Want::Report(what.to_owned());
        steps.call("set it", libc::SYS_prctl, args, want);
    };
    if was.subreaper != is.subreaper {
        set("child subreaper", PR_SET_CHILD_SUBREAPER, is.subreaper);
    }
    if was.no_huge_pages != is.no_huge_pages {
        let what = "disabled huge pages";
        set(what, PR_SET_THP_DISABLE, is.no_huge_pages);
    }
}

fn dumpable(steps: &mut Steps, is: &Conduct) {
    // 2 is what the kernel makes of a change of user; nobody may set it.
    let value = u64::from(is.dumpable == 1);
    let args = vec![PR_SET_DUMPABLE.into(), value.into()];
    let what = "say whether it may be looked at";
    steps.call(what, libc::SYS_prctl, args, Want::Success);
}

fn in_thread(steps: &mut Steps, tid: i32, option: u64, value: u64, what: &str) {
    let args = [option, value, 0, 0, 0].map(Arg::Value).to_vec();
    let want = Want::Report(format!("thread {tid}: {what}"));
    steps.call_in(tid, "set it", libc::SYS_prctl, args, want);
}
