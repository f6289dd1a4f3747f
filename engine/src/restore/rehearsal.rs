//! A restore on paper: its plans are made, and nothing else.

use sls_keeper::{Journal, journal};
use sls_record::{Mapping, Process, Thread};

use super::recorded;
use crate::plan::kin::{Kin, Segments};
use crate::plan::{anew, birth, family};

/// No kernel maps more of its own.
const LONGEST: u64 = 1 << 20;

/// The plans by which the processes of a record would be made, as their keepers get them. Files that
/// the record names are looked at and not touched.
///
/// # Errors
/// It is no record, or they cannot be made.
pub fn rehearse(record: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let record = sls_record::decode(record).map_err(|e| e.to_string())?;
    let all = &record.processes;
    recorded::check(all)?;
    family::acts(&record).ok_or("its processes are no tree")?;
    birth::page(all).ok_or("no free address")?;
    let segments = Segments::new();
    let kin = Kin::new(all, &segments, &[]);
    all.iter().map(|to| plan(&kin, to)).collect()
}

fn plan(kin: &Kin<'_>, to: &Process) -> Result<Vec<u8>, String> {
    let born = birth::build(kin, &skeleton_like(to), to)?;
    let journal = Journal {
        pid: to.pid,
        start_ticks: 0,
        forward: born.plan,
        back: None,
        agreement: None,
    };
    journal::head(&journal).map_err(|e| e.to_string())
}

/// One that the kernel of then would have made.
fn skeleton_like(to: &Process) -> Process {
    let is_real = |m: &&Mapping| anew::is_kernels(m) && m.len() < LONGEST;
    let kernels = to.mappings.iter().filter(is_real);
    Process {
        pid: to.pid,
        mappings: kernels.cloned().collect(),
        threads: vec![Thread {
            tid: to.pid,
            ..Thread::default()
        }],
        ..Process::default()
    }
}
