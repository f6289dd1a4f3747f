//! The record of a checkpoint from what was read under the stop. Off the clock.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use sls_keeper::{Collected, Facts, ThreadState};
use sls_record::{
    AltStack, Backing, Blocked, Conduct, Filter, Filters, IntervalTimer, Mapping, Perms,
    PosixTimer, Process, Registers, Rseq, Segment, SigAction, SigInfo, Signals, Thread, Unvouched,
};
use sls_sys::filters::Program;
use sls_sys::procfs;
use sls_sys::procfs::MapLine;
use sls_sys::sysv;

use crate::attributes::{self, Outside};
use crate::capture::Still;
use crate::flags::Flags;
use crate::numbers;
use crate::runs::is_kernel;
use crate::shared::{Spaces, is_captured, is_device};
use crate::target::{Told, ToldThread, Tracking};

/// What the record needs besides what was read.
pub struct Context<'a> {
    pub pid: i32,
    pub start_ticks: u64,
    pub time_ns: u64,
    /// Start times of those it was restored from.
    pub former: &'a [u64],
    /// Where its own pages are kept.
    pub space: u32,
    pub tracking: &'a Tracking,
    /// The checkpoint was asked for.
    pub explicit: bool,
}

/// mtimes of mapped files, looked up once a checkpoint each.
pub type FileTimes = HashMap<(u64, u64), i128>;

/// Registers from the kernel's words.
pub fn registers(w: &[u64; 27]) -> Registers {
    Registers {
        r15: w[0],
        r14: w[1],
        r13: w[2],
        r12: w[3],
        rbp: w[4],
        rbx: w[5],
        r11: w[6],
        r10: w[7],
        r9: w[8],
        r8: w[9],
        rax: w[10],
        rcx: w[11],
        rdx: w[12],
        rsi: w[13],
        rdi: w[14],
        orig_rax: w[15],
        rip: w[16],
        cs: w[17],
        eflags: w[18],
        rsp: w[19],
        ss: w[20],
        fs_base: w[21],
        gs_base: w[22],
        ds: w[23],
        es: w[24],
        fs: w[25],
        gs: w[26],
    }
}

/// The kernel's words from registers.
pub fn words(r: &Registers) -> [u64; 27] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds,
        r.es, r.fs, r.gs,
    ]
}

/// Everything but descriptors.
pub(crate) fn build(
    context: Context<'_>,
    still: &Still,
    collected: Collected,
    told: &mut Told,
    spaces: &mut Spaces,
    times: &mut FileTimes,
) -> Process {
    let pid = context.pid;
    let status = procfs::parse_status(&collected.status).unwrap_or_default();
    let Collected {
        facts,
        threads: states,
        pending,
        cwd,
        root,
        ..
    } = collected;
    if let Some(facts) = facts {
        remember(told, facts, status.sig_caught, &context);
        let at_once = context.explicit || status.vm_lck_kib != 0;
        told.flags.read(pid, at_once);
    }
    if status.vm_lck_kib == 0 {
        told.flags.nothing_is_locked();
    }
    remember_threads(told, &states);
    if let Some(now) = Outside::read(pid) {
        told.outside = now;
    }
    let outside = told.outside.clone();
    let threads = threads(pid, &status.name, &states, told);
    let own = states.iter().map(|s| (s.tid, s.own_tid));
    let own: BTreeMap<i32, i32> = own.collect();
    let mut process = Process {
        pid,
        ppid: status.ppid,
        pgid: status.pgid,
        sid: status.sid,
        start_ticks: context.start_ticks,
        former: context.former.to_vec(),
        comm: status.name.clone(),
        exe: outside.exe.clone(),
        cwd,
        root,
        umask: status.umask,
        brk: brk(&still.maps, told.brk),
        layout: outside.layout,
        attributes: attributes::of_process(&status, &outside),
        conduct: told.conduct,
        space: context.space,
        auxv: outside.auxv,
        threads,
        mappings: mappings(&still.maps, &told.flags, spaces, times),
        guards: told.flags.guards().to_vec(),
        files: Vec::new(),
        signals: Signals {
            actions: told.actions.clone(),
            ignored: status.sig_ignored,
            caught: status.sig_caught,
            pending: pending.iter().map(|p| SigInfo(p.to_vec())).collect(),
            as_of_ns: told.as_of_ns,
        },
        itimers: told.itimers.clone(),
        timers: told.timers.clone(),
        unvouched: unvouched(still, context.tracking),
        stopped: states.iter().any(|s| s.group_stop),
        exit_signal: outside.exit_signal,
        terminal: outside.terminal.clone(),
        segments: segments(pid, &still.maps),
        filters: told.filters.clone(),
        outside: 0,
    };
    numbers::inward(&mut process, &status, &own);
    process
}

fn remember(told: &mut Told, facts: Facts, caught: u64, context: &Context<'_>) {
    told.at = Some(Instant::now());
    told.as_of_ns = context.time_ns;
    told.caught = caught;
    told.brk = facts.brk;
    told.conduct = Some(Conduct {
        dumpable: facts.conduct.dumpable,
        subreaper: facts.conduct.subreaper,
        securebits: facts.conduct.securebits,
        no_huge_pages: facts.conduct.no_huge_pages,
    });
    told.filters = filters(&facts);
    told.actions = facts
        .actions
        .iter()
        .map(|a| SigAction {
            signo: a.signo,
            handler: a.words[0],
            flags: a.words[1],
            restorer: a.words[2],
            mask: a.words[3],
        })
        .collect();
    told.itimers = facts
        .itimers
        .iter()
        .map(|t| IntervalTimer {
            which: t.id.cast_unsigned(),
            value_ns: t.value_ns,
            interval_ns: t.interval_ns,
        })
        .collect();
    told.timers = posix_timers(context.pid, &facts);
}

/// Threads that have the same together.
fn filters(facts: &Facts) -> Vec<Filters> {
    let mut all: Vec<Filters> = Vec::new();
    for (tid, programs) in &facts.filters {
        let filter = |p: &Program| Filter {
            log: p.log,
            code: p.code.to_vec(),
        };
        let programs: Vec<Filter> = programs.iter().map(filter).collect();
        match all.iter_mut().find(|filters| filters.programs == programs) {
            Some(filters) => filters.tids.push(*tid),
            None => all.push(Filters {
                tids: vec![*tid],
                programs,
            }),
        }
    }
    all
}

/// System V shared memory that is mapped, as far as it is of our own namespace.
fn segments(pid: i32, maps: &[MapLine]) -> Vec<Segment> {
    let is_mapped = |id: i32| {
        let mut mapped = maps.iter().filter(|m| m.path.starts_with("/SYSV"));
        mapped.any(|m| i32::try_from(m.inode) == Ok(id))
    };
    if !maps.iter().any(|m| m.path.starts_with("/SYSV"))
        || procfs::link(pid, "ns/ipc") != procfs::link(std::process::id().cast_signed(), "ns/ipc")
    {
        return Vec::new();
    }
    let all = sysv::segments().unwrap_or_default();
    let mapped = all.into_iter().filter(|s| is_mapped(s.id));
    let segment = |s: sysv::Segment| Segment {
        id: s.id,
        key: s.key,
        size: s.size,
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        removed: s.removed,
    };
    mapped.map(segment).collect()
}

fn remember_threads(told: &mut Told, states: &[ThreadState]) {
    told.threads
        .retain(|tid, _| states.iter().any(|s| s.tid == *tid));
    for state in states {
        if let Some(own) = state.own {
            let stack = own.altstack;
            let thread = ToldThread {
                altstack: AltStack {
                    sp: stack.sp,
                    flags: stack.flags,
                    size: stack.size,
                },
                clear_tid: own.clear_tid,
                death_signal: own.death_signal,
                timer_slack_ns: own.timer_slack_ns,
            };
            told.threads.insert(state.tid, thread);
        }
    }
}

/// /proc/PID/timers has what timer_gettime does not tell.
fn posix_timers(pid: i32, facts: &Facts) -> Vec<PosixTimer> {
    let text = procfs::read_text(format!("/proc/{pid}/timers")).unwrap_or_default();
    let mut timers: Vec<PosixTimer> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(": ") else {
            continue;
        };
        let value = value.trim();
        if key == "ID" {
            let id = value.parse().unwrap_or(-1);
            let times = facts.timers.iter().find(|t| t.id == id);
            timers.push(PosixTimer {
                id,
                clock: 0,
                notify: 1,
                signo: 0,
                value: 0,
                tid: 0,
                value_ns: times.map_or(0, |t| t.value_ns),
                interval_ns: times.map_or(0, |t| t.interval_ns),
            });
        }
        let Some(timer) = timers.last_mut() else {
            continue;
        };
        match key {
            "signal" => {
                let (signo, value) = value.split_once('/').unwrap_or((value, "0"));
                timer.signo = signo.parse().unwrap_or(0);
                timer.value = u64::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or(0);
            }
            "notify" => notify(timer, value),
            "ClockID" => timer.clock = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    timers
}

/// "signal/pid.1234", "none/pid.1234", "signal/tid.1235".
fn notify(timer: &mut PosixTimer, text: &str) {
    let (kind, to) = text.split_once('/').unwrap_or((text, ""));
    timer.notify = match kind {
        "signal" => 0,
        "thread" => 2,
        _ => 1,
    };
    if let Some(tid) = to.strip_prefix("tid.") {
        timer.notify |= 4;
        timer.tid = tid.parse().unwrap_or(0);
    }
}

fn threads(pid: i32, comm: &str, states: &[ThreadState], told: &Told) -> Vec<Thread> {
    let mut threads: Vec<Thread> = states.iter().map(|s| thread(pid, comm, s, told)).collect();
    threads.sort_by_key(|t| (t.tid != pid, t.tid));
    threads
}

fn thread(pid: i32, comm: &str, state: &ThreadState, told: &Told) -> Thread {
    let tid = state.tid;
    // Read after the stop: a thread that has ended since most likely had the name it inherited.
    let name = procfs::read_text(format!("/proc/{pid}/task/{tid}/comm"))
        .map_or_else(|_| comm.to_owned(), |s| s.trim_end_matches('\n').to_owned());
    let own = told.threads.get(&tid);
    Thread {
        tid,
        name,
        regs: registers(&state.regs),
        xstate: state.xstate.clone(),
        sigmask: state.sigmask,
        pending: state.pending.iter().map(|p| SigInfo(p.to_vec())).collect(),
        altstack: own.map(|t| t.altstack),
        rseq: state.rseq.map(|(addr, size, signature)| Rseq {
            addr,
            size,
            signature,
        }),
        robust_list: state.robust,
        clear_tid: own.map(|t| t.clear_tid),
        death_signal: own.map(|t| t.death_signal),
        timer_slack_ns: own.map(|t| t.timer_slack_ns),
        blocked: state.blocked.map(|b| Blocked {
            nr: b.nr,
            remaining_ns: b.remaining_ns,
        }),
        scheduling: attributes::of_thread(tid),
    }
}

fn brk(maps: &[MapLine], exact: u64) -> u64 {
    let end = maps
        .iter()
        .filter(|m| m.path == "[heap]")
        .map(|m| m.end)
        .max()
        .unwrap_or(0);
    // The exact value is as old as the facts; the mapping's end is always right to the page.
    if exact.next_multiple_of(sls_sys::PAGE) == end {
        exact
    } else {
        end
    }
}

fn mappings(
    maps: &[MapLine],
    flags: &Flags,
    spaces: &mut Spaces,
    times: &mut FileTimes,
) -> Vec<Mapping> {
    times.clear();
    maps.iter()
        .map(|m| Mapping {
            start: m.start,
            end: m.end,
            perms: Perms {
                read: m.read,
                write: m.write,
                exec: m.exec,
                shared: m.shared,
            },
            offset: m.offset,
            dev: m.dev,
            inode: m.inode,
            path: m.path.clone(),
            backing: backing(m, spaces),
            file_mtime_ns: if m.inode == 0 { 0 } else { mtime(m, times) },
            grows_down: m.path == "[stack]" || flags.grows_down(m),
            locked: flags.is_locked(m),
            advice: flags.advice(m),
            key: flags.key(m),
        })
        .collect()
}

/// Mappings without what is known only where they are captured.
pub fn plain_mappings(maps: &[MapLine]) -> Vec<Mapping> {
    let (flags, mut spaces) = (Flags::default(), Spaces::default());
    mappings(maps, &flags, &mut spaces, &mut FileTimes::default())
}

fn backing(map: &MapLine, spaces: &mut Spaces) -> Backing {
    if is_captured(map) {
        return Backing::Shared {
            space: spaces.of_object(map),
        };
    }
    if map.path == "[vdso]" {
        return Backing::Anonymous;
    }
    if is_kernel(map) || map.shared && is_device(map) {
        return Backing::Kernel;
    }
    if map.inode == 0 {
        Backing::Anonymous
    } else {
        Backing::File
    }
}

fn mtime(map: &MapLine, times: &mut FileTimes) -> i128 {
    *times.entry((map.dev, map.inode)).or_insert_with(|| {
        std::fs::metadata(&map.path)
            .ok()
            .filter(|m| m.ino() == map.inode)
            .map_or(0, |m| {
                i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec())
            })
    })
}

fn unvouched(still: &Still, tracking: &Tracking) -> Vec<Unvouched> {
    let mut all = Vec::new();
    if let Tracking::Content(why) = tracking {
        all.push(Unvouched {
            start: 0,
            end: 1 << 47,
            reason: why.clone(),
        });
    }
    for map in still.maps.iter().filter(|m| is_captured(m)) {
        all.push(Unvouched {
            start: map.start,
            end: map.end,
            reason: format!("shared memory {}: compared by content", map.path),
        });
    }
    for &(start, end) in &still.buffers {
        let reason = "buffer registered with io_uring: compared by content".to_owned();
        all.push(Unvouched { start, end, reason });
    }
    for map in still.maps.iter().filter(|m| m.path.starts_with("/[aio]")) {
        all.push(Unvouched {
            start: map.start,
            end: map.end,
            reason: "asynchronous I/O ring: a transfer in flight may change pages unseen"
                .to_owned(),
        });
    }
    all
}
