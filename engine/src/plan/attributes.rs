//! Credentials, limits and scheduling of a process made anew. Each thread has its own credentials as
//! far as the kernel is concerned; they are given up last, since what is done before needs them.

use sls_keeper::{Arg, Want};
use sls_record::{Attributes, Process, Thread};
use sls_sys::running;

use super::conduct::PR_SET_SECUREBITS;
use super::{Steps, conduct, int, path};

const PR_SET_KEEPCAPS: u64 = 8;
const CAP_SETPCAP: u64 = 1 << 8;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const PR_CAP_AMBIENT: u64 = 47;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
/// struct __user_cap_header_struct with _LINUX_CAPABILITY_VERSION_3, of the calling thread.
const CAPABILITY_HEADER: [u8; 8] = [0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0];

/// Once everything else is done that takes privileges.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process, has_parent: bool) {
    let (was, is) = (&from.attributes, &to.attributes);
    if was.personality != is.personality {
        let args = vec![Arg::Value(is.personality.into())];
        let what = "set the personality";
        steps.call(what, libc::SYS_personality, args, Want::Success);
    }
    if was.oom_score_adj != is.oom_score_adj {
        oom_score_adj(steps, is.oom_score_adj);
    }
    for thread in &to.threads {
        affinity(steps, to, thread);
        scheduling(steps, thread);
    }
    for (which, (limit, _)) in is
        .limits
        .iter()
        .zip(&was.limits)
        .enumerate()
        .filter(|(_, (a, b))| a != b)
    {
        let mut bytes = limit.0.to_le_bytes().to_vec();
        bytes.extend(limit.1.to_le_bytes());
        let args = vec![0.into(), (which as u64).into(), Arg::Bytes(bytes), 0.into()];
        let what = format!("set resource limit {which}");
        steps.call(what, libc::SYS_prlimit64, args, Want::Success);
    }
    let securebits = to.conduct.map_or(0, |conduct| conduct.securebits);
    if who(was) != who(is) || securebits != 0 {
        for thread in &to.threads {
            credentials(steps, thread.tid, was, (is, securebits));
        }
    }
    // Last: the kernel takes a change of user for a reason to forbid looks at the process.
    conduct::anew(steps, to, has_parent);
}

fn who(a: &Attributes) -> impl PartialEq {
    (
        a.uids,
        a.gids,
        a.groups.clone(),
        a.capabilities,
        a.no_new_privs,
    )
}

fn oom_score_adj(steps: &mut Steps, value: i32) {
    let what = "set the out-of-memory score";
    let file = path("/proc/self/oom_score_adj");
    let args = vec![
        int(libc::AT_FDCWD),
        file,
        int(libc::O_WRONLY | libc::O_CLOEXEC),
    ];
    steps.call(what, libc::SYS_openat, args, Want::Save(0));
    let text = value.to_string().into_bytes();
    let len = text.len() as u64;
    let args = vec![Arg::Saved(0), Arg::Bytes(text), len.into()];
    let want = Want::Report("out-of-memory score".to_owned());
    steps.call(what, libc::SYS_write, args, want);
    steps.call(what, libc::SYS_close, vec![Arg::Saved(0)], Want::Success);
}

/// In any case: while it is made it is kept on one CPU. Of a thread that could not be asked any more,
/// as of one that could.
fn affinity(steps: &mut Steps, to: &Process, thread: &Thread) {
    let tid = thread.tid;
    let known = |t: &&Thread| !t.scheduling.affinity.is_empty();
    let like = Some(thread)
        .filter(known)
        .or_else(|| to.threads.iter().find(known));
    let mask = like.map_or_else(|| vec![0xff; 1024], |t| t.scheduling.affinity.clone());
    let args = vec![0.into(), (mask.len() as u64).into(), Arg::Bytes(mask)];
    let nr = libc::SYS_sched_setaffinity;
    let want = Want::Report(format!("thread {tid}: its CPUs"));
    steps.call_in(tid, "choose its CPUs", nr, args, want);
}

fn scheduling(steps: &mut Steps, thread: &Thread) {
    let tid = thread.tid;
    let s = &thread.scheduling;
    let attr = running::sched_attr(&running::Scheduling {
        policy: s.policy,
        flags: s.flags,
        nice: s.nice,
        priority: s.priority,
        deadline: s.deadline,
        affinity: Vec::new(),
    });
    let args = vec![0.into(), Arg::Bytes(attr), 0.into()];
    let nr = libc::SYS_sched_setattr;
    let want = Want::Report(format!("thread {tid}: its scheduling"));
    steps.call_in(tid, "set its scheduling", nr, args, want);
}

fn credentials(
    steps: &mut Steps,
    tid: i32,
    was: &Attributes,
    (is, securebits): (&Attributes, u32),
) {
    let mut call = |what: &str, nr: i64, args: Vec<Arg>| {
        steps.call_in(tid, what, nr, args, Want::Success);
    };
    let prctl = |words: &[u64]| words.iter().copied().map(Arg::Value).collect::<Vec<_>>();
    if was.groups != is.groups {
        let args = vec![
            (is.groups.len() as u64).into(),
            Arg::Bytes(is.groups.iter().flat_map(|g| g.to_le_bytes()).collect()),
        ];
        call("set its groups", libc::SYS_setgroups, args);
    }
    let ids = |ids: [u32; 4]| ids[..3].iter().map(|&id| Arg::Value(id.into())).collect();
    call("set its group", libc::SYS_setresgid, ids(is.gids));
    call(
        "set its file system group",
        libc::SYS_setfsgid,
        vec![Arg::Value(is.gids[3].into())],
    );
    let dropped = was.capabilities.bounding & !is.capabilities.bounding;
    for cap in (0..64u64).filter(|cap| dropped >> cap & 1 == 1) {
        let args = prctl(&[PR_CAPBSET_DROP, cap, 0, 0, 0]);
        call("drop a capability", libc::SYS_prctl, args);
    }
    call(
        "keep capabilities",
        libc::SYS_prctl,
        prctl(&[PR_SET_KEEPCAPS, 1, 0, 0, 0]),
    );
    call("set its user", libc::SYS_setresuid, ids(is.uids));
    call(
        "set its file system user",
        libc::SYS_setfsuid,
        vec![Arg::Value(is.uids[3].into())],
    );
    let c = &is.capabilities;
    let set = |more: u64| {
        let mut data = Vec::new();
        for shift in [0, 32] {
            for set in [c.effective | more, c.permitted | more, c.inheritable] {
                let half = (set >> shift) & 0xffff_ffff;
                data.extend(&half.to_le_bytes()[..4]);
            }
        }
        vec![Arg::Bytes(CAPABILITY_HEADER.to_vec()), Arg::Bytes(data)]
    };
    let needed = if securebits == 0 { 0 } else { CAP_SETPCAP };
    call("set its capabilities", libc::SYS_capset, set(needed));
    for cap in (0..64u64).filter(|cap| c.ambient >> cap & 1 == 1) {
        let args = prctl(&[PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0]);
        call("raise an ambient capability", libc::SYS_prctl, args);
    }
    call(
        "no longer keep capabilities",
        libc::SYS_prctl,
        prctl(&[PR_SET_KEEPCAPS, 0, 0, 0, 0]),
    );
    if securebits != 0 {
        let args = prctl(&[PR_SET_SECUREBITS, securebits.into(), 0, 0, 0]);
        call("set its securebits", libc::SYS_prctl, args);
        call("set its capabilities", libc::SYS_capset, set(0));
    }
    if is.no_new_privs {
        let args = prctl(&[PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
        call("allow no new privileges", libc::SYS_prctl, args);
    }
}
