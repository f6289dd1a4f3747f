//! All steps from a skeleton to a recorded state: a process made anew.

use sls_keeper::{Arg, Plan, SPARE_AT, Step, Want};
use sls_record::Process;
use sls_sys::batch;

use super::anew_files::Files;
use super::kin::Kin;
use super::{OTHER_SLOTS, SLOT, Steps, int, path};
use super::{
    advice, anew, attributes, family, filters, guards, keys, locked, mappings, signals, threads,
    unnamed,
};

const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;

/// A plan, what it will not put back, and what stands against it.
#[derive(Debug)]
pub struct Born {
    pub plan: Plan,
    /// Bytes its writes take.
    pub data: Vec<u8>,
    pub not_restored: Vec<String>,
    pub objections: Vec<String>,
}

/// Where the page of code of all their skeletons may lie.
pub fn page(all: &[Process]) -> Option<u64> {
    mappings::free_range(all, sls_sys::PAGE).map(|range| range.0)
}

/// What a plan awaits, in order, when something is shared; else only the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Await {
    /// The others have made what this one has by way of them.
    Made,
    /// They have what it shares with them.
    Shared,
    /// Its pages.
    Pages,
}

impl Await {
    /// All of a plan's.
    pub fn all(kin: &Kin<'_>) -> Vec<Self> {
        if kin.share() {
            vec![Self::Made, Self::Shared, Self::Pages]
        } else {
            vec![Self::Pages]
        }
    }

    fn step(self) -> Step {
        let what = match self {
            Self::Made => "the others have made what it has by way of them",
            Self::Shared => "the others have what it shares with them",
            Self::Pages => "write the pages",
        };
        Step::Await {
            what: what.to_owned(),
        }
    }
}

/// Plans the way of one of them from its skeleton.
pub fn build(kin: &Kin<'_>, skeleton: &Process, to: &Process) -> Result<Born, String> {
    let slots = (1 + to.threads.len()) as u64 + OTHER_SLOTS;
    let filters = filters::room(to);
    let scratch_len = slots * SLOT + batch::ROOM + filters;
    let room = scratch_len + anew::kernels_len(skeleton);
    let (start, _) = mappings::free_range([skeleton, to], room)
        .ok_or_else(|| "no free addresses for a scratch area".to_owned())?;
    let scratch = (start, start + scratch_len);
    let mut steps = Steps::default();
    anew::clear(&mut steps, skeleton, to, scratch.1 + sls_sys::PAGE)?;
    let files = Files::new(kin, skeleton, to);
    family::lead(&mut steps, skeleton, to);
    files.own(&mut steps);
    if kin.share() {
        steps.list.push(Await::Made.step());
    }
    family::follow(&mut steps, kin, skeleton, to);
    files.made_by_others(&mut steps);
    if kin.share() {
        steps.list.push(Await::Shared.step());
    }
    files.shared(&mut steps);
    family::foreground(&mut steps, kin, skeleton, to);
    let mut rights = anew::mappings(&mut steps, kin, to);
    let mut data = program(&mut steps, to, scratch.0);
    steps.list.push(Await::Pages.step());
    files.close_kept(&mut steps);
    steps.list.append(&mut rights.list);
    signals::steps(&mut steps, skeleton, to);
    if to.root != skeleton.root {
        let args = vec![path(&to.root)];
        let what = "change the root directory";
        steps.call(what, libc::SYS_chroot, args, Want::Success);
    }
    threads::births(&mut steps, skeleton, to);
    signals::pending(&mut steps, skeleton, to, to.pid);
    keys::allot(&mut steps, to);
    keys::steps(&mut steps, skeleton, to);
    guards::install(&mut steps, to);
    locked::steps(&mut steps, skeleton, to);
    advice::steps(&mut steps, skeleton, to);
    filters::anew(&mut steps, to, scratch.1 - filters, &mut data);
    attributes::steps(&mut steps, skeleton, to, kin.one(to.ppid).is_some());
    signals::timers(&mut steps, skeleton, to);
    unnamed::seals(&mut steps, skeleton, to, |file| {
        kin.path(to, file).is_none()
    });
    threads::finals(&mut steps, to);
    let Steps {
        list,
        not_restored,
        objections,
    } = steps;
    Ok(Born {
        plan: Plan {
            leader: to.pid,
            scratch,
            anew: true,
            batch: batches(to).then_some(start + slots * SLOT),
            steps: list,
        },
        data,
        not_restored,
        objections,
    })
}

/// May its calls be made in batches? What stops it at their ends may be nothing that it has a use for.
fn batches(to: &Process) -> bool {
    let pending = to.threads.iter().flat_map(|thread| &thread.pending);
    let mut pending = to.signals.pending.iter().chain(pending);
    let ignored = to.signals.ignored >> (libc::SIGTRAP - 1) & 1 == 1;
    !ignored && pending.all(|info| info.signo() != libc::SIGTRAP)
}

/// What the kernel tells others about the program: its file, its heap, its arguments; the bytes that
/// are written for it. One call sets it all: those for single parts take more privileges.
fn program(steps: &mut Steps, to: &Process, scratch: u64) -> Vec<u8> {
    let mut auxv: Vec<u8> = Vec::new();
    for (key, value) in to.auxv.iter().chain(&[(0, 0)]) {
        auxv.extend(key.to_le_bytes());
        auxv.extend(value.to_le_bytes());
    }
    let auxv_at = scratch + SPARE_AT;
    steps.list.push(Step::Write {
        address: auxv_at,
        offset: 0,
        len: auxv.len() as u64,
    });
    // A number of our own choice, since the structure has it.
    let exe = to.files.iter().map(|f| f.fd + 1).max().unwrap_or(0) + 1;
    open_as(steps, &to.exe, exe);
    let l = to.layout;
    // struct prctl_mm_map.
    let mut map = Vec::with_capacity(104);
    for word in [
        l.start_code,
        l.end_code,
        l.start_data,
        l.end_data,
        l.start_brk,
        to.brk.max(l.start_brk),
        l.start_stack,
        l.arg_start,
        l.arg_end,
        l.env_start,
        l.env_end,
        auxv_at,
    ] {
        map.extend(u64::to_le_bytes(word));
    }
    map.extend(u32::try_from(auxv.len()).unwrap_or(0).to_le_bytes());
    map.extend(exe.to_le_bytes());
    let len = map.len() as u64;
    let args = vec![
        PR_SET_MM.into(),
        PR_SET_MM_MAP.into(),
        Arg::Bytes(map),
        len.into(),
        0.into(),
    ];
    let what = "tell where the parts of the program lie";
    steps.call(what, libc::SYS_prctl, args, Want::Success);
    let close = vec![int(exe)];
    steps.call(
        "close the executable",
        libc::SYS_close,
        close,
        Want::Success,
    );
    auxv
}

/// Opens a file under a number that nobody has.
fn open_as(steps: &mut Steps, file: &str, fd: i32) {
    let args = vec![
        int(libc::AT_FDCWD),
        path(file),
        int(libc::O_RDONLY | libc::O_CLOEXEC),
    ];
    let what = format!("open {file}");
    steps.call(what, libc::SYS_openat, args, Want::Save(0));
    let args = vec![Arg::Saved(0), int(fd), int(libc::O_CLOEXEC)];
    steps.call("place the executable", libc::SYS_dup3, args, Want::Success);
    let args = vec![Arg::Saved(0)];
    steps.call("place the executable", libc::SYS_close, args, Want::Success);
}
