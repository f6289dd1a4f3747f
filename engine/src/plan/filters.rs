//! Seccomp filters: set again in a process made anew, before it gives up what that takes. They are
//! suspended until it is let go.

use sls_keeper::{Arg, Step};
use sls_record::{Filters, Process};

use super::{SLOT, Steps};
use sls_keeper::Want;

const SET_MODE_FILTER: u64 = 1;
const FLAG_LOG: u64 = 2;
/// struct sock_filter.
const INSTRUCTION: usize = 8;
const MODE_STRICT: u32 = 1;

/// Bytes of the scratch area that it takes to set them.
pub fn room(to: &Process) -> u64 {
    let programs = to.filters.iter().flat_map(|filters| &filters.programs);
    let most = programs.map(|p| p.code.len()).max().unwrap_or(0);
    (most as u64).next_multiple_of(SLOT)
}

/// Sets them, each laid at `room` for that; `data` is what the plan's writes take.
pub fn anew(steps: &mut Steps, to: &Process, room: u64, data: &mut Vec<u8>) {
    if to.attributes.seccomp == MODE_STRICT {
        steps.object("it was in seccomp's strict mode, which cannot be put back".to_owned());
    }
    let has_any = to.attributes.seccomp > MODE_STRICT || !to.filters.is_empty();
    for thread in to.threads.iter().filter(|_| has_any) {
        if of(to, thread.tid).is_none() {
            let tid = thread.tid;
            steps.object(format!(
                "the seccomp filters of thread {tid}, if it had any, are not known: only root can read them"
            ));
        }
    }
    for Filters { tids, programs } in &to.filters {
        for program in programs {
            let len = program.code.len();
            steps.list.push(Step::Write {
                address: room,
                offset: data.len() as u64,
                len: len as u64,
            });
            data.extend(&program.code);
            // struct sock_fprog: instructions, and where they are.
            let mut head = vec![0; 16];
            let count = u16::try_from(len / INSTRUCTION).unwrap_or(0);
            head[..2].copy_from_slice(&count.to_le_bytes());
            head[8..].copy_from_slice(&room.to_le_bytes());
            let flags = if program.log { FLAG_LOG } else { 0 };
            for &tid in tids
                .iter()
                .filter(|tid| to.threads.iter().any(|t| t.tid == **tid))
            {
                let args = vec![
                    Arg::Value(SET_MODE_FILTER),
                    flags.into(),
                    Arg::Bytes(head.clone()),
                ];
                let what = "set a seccomp filter";
                steps.call_in(tid, what, libc::SYS_seccomp, args, Want::Success);
            }
        }
    }
}

/// Names those that a rewind cannot take away.
pub fn name(steps: &mut Steps, from: &Process, to: &Process) {
    let alive = |tid: i32| to.threads.iter().any(|t| t.tid == tid);
    for filters in &from.filters {
        for &tid in filters.tids.iter().filter(|&&tid| alive(tid)) {
            let then = of(to, tid).map_or(0, |then| then.programs.len());
            let more = filters.programs.len().saturating_sub(then);
            if more > 0 {
                let line = format!("thread {tid}: {more} seccomp filters were set since, and stay");
                steps.not_restored.push(line);
            }
        }
    }
}

fn of(process: &Process, tid: i32) -> Option<&Filters> {
    process
        .filters
        .iter()
        .find(|filters| filters.tids.contains(&tid))
}
